//! The seccomp filter of the server's system calls, as the node knows it: whether it is in
//! place, and which call sites it has caught.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;

/// Sites that are kept and shown.
const SITES_MAX: usize = 64;

/// The state of the filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum FilterState {
    /// The server has not said yet.
    #[default]
    Unknown,
    /// System calls that go round the interposer are caught.
    On,
    /// Switched off in the configuration, or the policy is `parallel`.
    Off,
    /// The kernel does not have it, or refuses it: such calls go unseen.
    Unavailable {
        /// Why.
        reason: String,
    },
}

/// A place in the server's code whose system calls were caught.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaughtSite {
    /// Name of the file that the code is from; empty: none, or not known.
    pub object: String,
    /// Place of the instruction after the call in that file.
    pub offset: u64,
    /// Number of the system call.
    pub number: u32,
    /// The number of calls caught, at least.
    pub count: u64,
}

/// The state of the filter, and what it has caught.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyscallFilterStatus {
    /// The state of the filter.
    pub filter: FilterState,
    /// Call sites, those caught most first.
    pub caught: Vec<CaughtSite>,
}

impl SyscallFilterStatus {
    /// For a server that is about to start.
    pub(crate) fn new(wanted: bool) -> Self {
        Self {
            filter: if wanted {
                FilterState::Unknown
            } else {
                FilterState::Off
            },
            caught: Vec::new(),
        }
    }

    /// The filter is in place, or the kernel has refused it with an error.
    pub(crate) fn answered(&mut self, errno: i32) {
        self.filter = match errno {
            0 => FilterState::On,
            errno => FilterState::Unavailable {
                reason: io::Error::from_raw_os_error(errno).to_string(),
            },
        };
        if let FilterState::Unavailable { reason } = &self.filter {
            tracing::warn!(
                %reason,
                "no seccomp filter: system calls that go round the interposer are not seen"
            );
        }
    }

    /// A site was caught again.
    pub(crate) fn caught(&mut self, site: CaughtSite) {
        let same = |it: &&mut CaughtSite| {
            (it.number, it.offset) == (site.number, site.offset) && it.object == site.object
        };
        match self.caught.iter_mut().find(same) {
            Some(known) => known.count = known.count.max(site.count),
            None => self.caught.push(site),
        }
        self.caught
            .sort_by_key(|site| std::cmp::Reverse(site.count));
        self.caught.truncate(SITES_MAX);
    }
}

impl fmt::Display for CaughtSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = match self.object.as_str() {
            "" => "no file",
            object => object,
        };
        let Self {
            offset,
            number,
            count,
            ..
        } = self;
        write!(f, "{count}+ of call {number} at {object}+{offset:#x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(object: &str, number: u32, count: u64) -> CaughtSite {
        CaughtSite {
            object: object.into(),
            offset: 0x1234,
            number,
            count,
        }
    }

    #[test]
    fn sites_are_counted_apart_and_the_hottest_come_first() {
        let mut backstop = SyscallFilterStatus::new(true);
        for (object, number, count) in [("a", 1, 1), ("b", 1, 1), ("a", 2, 4), ("b", 1, 16)] {
            backstop.caught(site(object, number, count));
        }
        let expected = [site("b", 1, 16), site("a", 2, 4), site("a", 1, 1)];
        assert_eq!(backstop.caught, expected);
        assert_eq!(expected[0].to_string(), "16+ of call 1 at b+0x1234");
    }

    #[test]
    fn the_filter_is_on_off_or_refused_for_a_reason() {
        assert_eq!(SyscallFilterStatus::new(false).filter, FilterState::Off);
        let mut backstop = SyscallFilterStatus::new(true);
        assert_eq!(backstop.filter, FilterState::Unknown);
        backstop.answered(libc::ENOSYS);
        assert!(matches!(backstop.filter, FilterState::Unavailable { .. }));
        backstop.answered(0);
        assert_eq!(backstop.filter, FilterState::On);
    }
}
