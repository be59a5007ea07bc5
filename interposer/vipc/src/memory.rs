//! Shared memory segments: their state, and which process has attached which one where. A segment
//! that was removed stays until no process has it attached.

use crate::names::{Got, Names, READ, WRITE};
use crate::{Caller, errno};

/// Segments at a time.
pub const SEGMENTS_MAX: usize = if cfg!(test) { 2 } else { 1024 };
/// Attached segments of all processes.
const ATTACHED_MAX: usize = if cfg!(test) { 4 } else { 16_384 };
/// No segment is longer.
const BYTES_MAX: usize = 1 << 46;

/// The fields of `shmid_ds`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Facts {
    /// The size, as asked for.
    pub bytes: usize,
    /// When it was attached last, detached last, and when it was changed.
    pub attached: i64,
    /// See `attached`.
    pub detached: i64,
    /// See `attached`.
    pub changed: i64,
    /// Process ids of its maker and of the last that attached or detached it.
    pub maker: i32,
    /// See `maker`.
    pub last: i32,
    /// Number of attachments.
    pub count: usize,
    /// Removed; the segment is freed with its last attachment.
    pub doomed: bool,
    /// `SHM_LOCK` was asked for.
    pub locked: bool,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Attached {
    /// Slot of the process plus 1; 0: free.
    process: u32,
    segment: u32,
    address: usize,
}

/// Result of `shmget`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// A segment that exists.
    Known(i32),
    /// A new one, whose memory is to be made.
    Fresh(i32),
}

/// A segment that was detached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// The segment's id.
    pub id: i32,
    /// The segment's size.
    pub bytes: usize,
    /// The memory is to be removed: this was the last attachment.
    pub gone: bool,
}

/// All segments.
#[repr(C)]
pub struct Segments {
    names: Names<SEGMENTS_MAX>,
    facts: [Facts; SEGMENTS_MAX],
    /// Places of `attached` that were ever used: all others are free.
    attached_used: usize,
    attached: [Attached; ATTACHED_MAX],
}

impl Segments {
    /// `shmget`.
    ///
    /// # Errors
    /// As the call.
    pub fn get(
        &mut self,
        key: i32,
        bytes: usize,
        flags: i32,
        caller: &Caller,
    ) -> Result<Made, i32> {
        match self.names.get(key, flags)? {
            Got::Known(at) if bytes > self.facts[at].bytes => Err(errno::EINVAL),
            Got::Known(at) => {
                self.names.check(at, caller, flags.cast_unsigned())?;
                Ok(Made::Known(self.names.id(at)))
            }
            Got::Free(_) if bytes == 0 || bytes > BYTES_MAX => Err(errno::EINVAL),
            Got::Free(at) => {
                self.facts[at] = Facts {
                    bytes,
                    changed: caller.now,
                    maker: caller.pid,
                    ..Facts::default()
                };
                Ok(Made::Fresh(self.names.add(at, key, flags, caller)))
            }
        }
    }

    /// The slot of a segment.
    ///
    /// # Errors
    /// `EINVAL` if there is no such segment, or not any more.
    pub fn find(&self, id: i32) -> Result<usize, i32> {
        self.names.find(id)
    }

    /// Names and permissions.
    #[must_use]
    pub fn names(&self) -> &Names<SEGMENTS_MAX> {
        &self.names
    }

    /// The fields of a segment's `shmid_ds`.
    #[must_use]
    pub fn facts(&self, at: usize) -> &Facts {
        &self.facts[at]
    }

    /// Checks that a segment may be attached.
    ///
    /// # Errors
    /// `EACCES`; `ENOSPC` if too many are attached.
    pub fn check_attach(&self, at: usize, read_only: bool, caller: &Caller) -> Result<(), i32> {
        let wanted = if read_only { READ } else { READ | WRITE };
        self.names.check(at, caller, wanted)?;
        self.free().map(|_| ()).ok_or(errno::ENOSPC)
    }

    fn free(&self) -> Option<usize> {
        self.attached.iter().position(|it| it.process == 0)
    }

    /// Records that the caller has attached a segment.
    pub fn attach(&mut self, at: usize, address: usize, caller: &Caller) {
        let Some(free) = self.free() else { return };
        self.attached_used = self.attached_used.max(free + 1);
        self.attached[free] = Attached {
            process: u32::from(caller.process) + 1,
            segment: at as u32,
            address,
        };
        self.count_one_more(at, caller);
    }

    fn count_one_more(&mut self, at: usize, caller: &Caller) {
        let facts = &mut self.facts[at];
        facts.count += 1;
        facts.attached = caller.now;
        facts.last = caller.pid;
    }

    /// Detaches the segment that the caller has at an address.
    ///
    /// # Errors
    /// `EINVAL` if it has nothing there.
    pub fn detach(&mut self, address: usize, caller: &Caller) -> Result<Released, i32> {
        let process = u32::from(caller.process) + 1;
        let is_it = |it: &Attached| it.process == process && it.address == address;
        let used = &self.attached[..self.attached_used];
        let index = used.iter().position(is_it);
        let index = index.ok_or(errno::EINVAL)?;
        Ok(self.release(index, caller))
    }

    fn release(&mut self, index: usize, caller: &Caller) -> Released {
        let at = self.attached[index].segment as usize;
        self.attached[index] = Attached::default();
        let facts = &mut self.facts[at];
        facts.count -= 1;
        facts.detached = caller.now;
        facts.last = caller.pid;
        let (doomed, bytes) = (facts.doomed, facts.bytes);
        let id = self.names.id(at);
        let gone = doomed && self.facts[at].count == 0;
        if gone {
            self.names.remove(at);
        }
        Released { id, bytes, gone }
    }

    /// Gives a child the attachments of its parent, the caller. False when there are too many.
    #[must_use]
    pub fn fork(&mut self, child: u16, caller: &Caller) -> bool {
        let parent = u32::from(caller.process) + 1;
        for index in 0..self.attached_used {
            let attached = self.attached[index];
            if attached.process != parent {
                continue;
            }
            let Some(free) = self.free() else {
                return false;
            };
            self.attached_used = self.attached_used.max(free + 1);
            self.attached[free] = Attached {
                process: u32::from(child) + 1,
                ..attached
            };
            self.count_one_more(attached.segment as usize, caller);
        }
        true
    }

    /// Detaches everything of the caller, which has ended or executes another program. Names the
    /// segments that are freed.
    pub fn process_gone(&mut self, caller: &Caller, mut gone: impl FnMut(i32)) {
        let process = u32::from(caller.process) + 1;
        for index in 0..self.attached_used {
            if self.attached[index].process == process {
                let released = self.release(index, caller);
                if released.gone {
                    gone(released.id);
                }
            }
        }
    }

    /// `IPC_SET`.
    ///
    /// # Errors
    /// `EPERM`.
    pub fn set(&mut self, at: usize, to: (u32, u32, u32), caller: &Caller) -> Result<(), i32> {
        self.names.check_owner(at, caller)?;
        self.names.set(at, to.0, to.1, to.2);
        self.facts[at].changed = caller.now;
        Ok(())
    }

    /// `SHM_LOCK` and `SHM_UNLOCK`, of which only the mark is there.
    ///
    /// # Errors
    /// `EPERM`.
    pub fn set_locked(&mut self, at: usize, locked: bool, caller: &Caller) -> Result<(), i32> {
        self.names.check_owner(at, caller)?;
        self.facts[at].locked = locked;
        Ok(())
    }

    /// `IPC_RMID`. True: nobody has it attached, and its memory is to be removed.
    ///
    /// # Errors
    /// `EPERM`.
    pub fn remove(&mut self, at: usize, caller: &Caller) -> Result<bool, i32> {
        self.names.check_owner(at, caller)?;
        if self.facts[at].count > 0 {
            self.facts[at].doomed = true;
            self.names.name_mut(at).key = crate::names::PRIVATE;
            return Ok(false);
        }
        self.names.remove(at);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag;
    use crate::testing::by;
    use std::vec::Vec;

    fn fresh() -> Segments {
        Segments {
            names: Names::none(),
            facts: [Facts::default(); SEGMENTS_MAX],
            attached_used: 0,
            attached: [Attached::default(); ATTACHED_MAX],
        }
    }

    #[test]
    fn a_removed_segment_stays_for_those_who_have_it() {
        let mut it = fresh();
        let Ok(Made::Fresh(id)) = it.get(7, 100, flag::CREAT | 0o600, &by(0)) else {
            panic!("not made");
        };
        let at = it.find(id).unwrap();
        it.attach(at, 0x1000, &by(0));
        assert!(it.fork(3, &by(0)));
        assert_eq!((it.facts(at).count, it.facts(at).last), (2, 1000));
        assert_eq!(it.remove(at, &by(0)), Ok(false));
        assert_eq!(it.find(id), Ok(at));
        assert_eq!(it.get(7, 100, 0, &by(0)), Err(errno::ENOENT));
        let kept = it.detach(0x1000, &by(0)).unwrap();
        assert_eq!((kept.id, kept.bytes, kept.gone), (id, 100, false));
        assert_eq!(it.detach(0x1000, &by(0)), Err(errno::EINVAL));
        let mut gone = Vec::new();
        it.process_gone(&by(3), |id| gone.push(id));
        assert_eq!(gone, [id]);
        assert_eq!(it.find(id), Err(errno::EINVAL));
    }

    #[test]
    fn sizes_and_room_are_checked() {
        let mut it = fresh();
        assert_eq!(it.get(0, 0, 0o600, &by(0)), Err(errno::EINVAL));
        let Ok(Made::Fresh(id)) = it.get(7, 100, flag::CREAT | 0o400, &by(0)) else {
            panic!("not made");
        };
        assert_eq!(it.get(7, 101, 0, &by(0)), Err(errno::EINVAL));
        assert_eq!(it.get(7, 0, 0, &by(0)), Ok(Made::Known(id)));
        let at = it.find(id).unwrap();
        assert_eq!(it.check_attach(at, false, &by(0)), Err(errno::EACCES));
        assert_eq!(it.check_attach(at, true, &by(0)), Ok(()));
        for address in 1..=ATTACHED_MAX {
            it.attach(at, address, &by(0));
        }
        assert_eq!(it.check_attach(at, true, &by(0)), Err(errno::ENOSPC));
        assert!(!it.fork(1, &by(0)));
        assert_eq!(it.remove(at, &by(1)), Ok(false));
        it.process_gone(&by(0), |gone| assert_eq!(gone, id));
        assert_eq!(it.find(id), Err(errno::EINVAL));
    }
}
