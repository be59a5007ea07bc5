//! File times. The kernel stamps files with its own clock, at moments of its own granularity. So
//! when the server looks at a file that has changed, the file is stamped anew with virtual time,
//! for real (in the file system); the stamp has a mark in its last six digits, by which it is known
//! again. A file without the mark has changed since somebody last looked.
//!
//! The time that the server sees is therefore that of the first look after the change, in
//! milliseconds: not the kernel's, but later than the change, and the same on every replica.

/// A moment as file systems keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct Time {
    /// Since the Unix epoch.
    pub seconds: i64,
    /// Below a second.
    pub nanoseconds: u32,
}

/// 2000-01-01T00:00:00Z, the time of the files of a genesis.
pub const GENESIS: Time = Time {
    seconds: 946_684_800,
    nanoseconds: 0,
};

const NS: u64 = 1_000_000_000;
const MS: u32 = 1_000_000;
/// The last six digits of a stamp.
const MARK: u32 = 424_243;

/// Meaning of a file's modification time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A stamp of ours; what the server sees of it.
    Stamped(Time),
    /// Changed by the server since it was stamped last, if ever.
    Changed,
    /// Older than the server: part of the machine or of the genesis. Programs compare such times
    /// with what they have recorded elsewhere (Python its compiled files), so they are shown as
    /// they are.
    Before,
}

/// The stamp for a moment of virtual time, or for a time that the server wants a file to have.
#[must_use]
pub fn stamp(time: Time) -> Time {
    Time {
        seconds: time.seconds,
        nanoseconds: time.nanoseconds / MS * MS + MARK,
    }
}

/// A moment given in nanoseconds since the epoch.
#[must_use]
pub fn moment(ns: u64) -> Time {
    Time {
        seconds: (ns / NS) as i64,
        nanoseconds: (ns % NS) as u32,
    }
}

/// The time that the server sees for a stamp.
#[must_use]
pub fn shown(stamp: Time) -> Time {
    Time {
        seconds: stamp.seconds,
        nanoseconds: stamp.nanoseconds / MS * MS,
    }
}

/// Classifies a file's modification time; the server was started at `launched`, of the kernel's
/// clock.
#[must_use]
pub fn judge(modified: Time, launched: Time) -> Seen {
    if modified.nanoseconds % MS == MARK {
        return Seen::Stamped(shown(modified));
    }
    if modified < launched {
        return Seen::Before;
    }
    Seen::Changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_known_again_and_shown_in_milliseconds() {
        let now = moment(1_700_000_000_123_456_789);
        let stamped = stamp(now);
        let wanted = Time {
            seconds: 1_700_000_000,
            nanoseconds: 123_000_000,
        };
        assert_eq!(judge(stamped, now), Seen::Stamped(wanted));
        assert_eq!(shown(stamped), wanted);
        assert_eq!(stamp(shown(stamped)), stamped);
    }

    #[test]
    fn what_the_kernel_has_stamped_is_changed_or_older_than_the_server() {
        let launched = moment(1_700_000_000_000_000_001);
        assert_eq!(judge(GENESIS, launched), Seen::Before);
        assert_eq!(judge(launched, launched), Seen::Changed);
        let later = moment(1_700_000_009_500_000_000);
        assert_eq!(judge(later, launched), Seen::Changed);
    }
}
