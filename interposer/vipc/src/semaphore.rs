//! Semaphore sets.
//!
//! An array of operations is done as a whole or not at all. What a process did with `SEM_UNDO` is
//! taken back when it ends.

use crate::names::{Got, Names, READ, WRITE};
use crate::{Caller, errno, flag};

/// Sets at a time.
pub const SETS_MAX: usize = if cfg!(test) { 4 } else { 1024 };
/// Semaphores in all sets together (`SEMMNS`) and in one of them (`SEMMSL`).
pub const SEMAPHORES_MAX: usize = if cfg!(test) { 8 } else { 32_000 };
/// Adjustments that are not zero, of all processes.
const UNDO_MAX: usize = if cfg!(test) { 4 } else { 16_384 };
/// Operations in one call (`SEMOPM`).
pub const OPERATIONS_MAX: usize = 500;
/// `SEMVMX`, which is `SEMAEM` as well.
pub const VALUE_MAX: i32 = 32_767;
/// `SEM_UNDO`.
const UNDO: i16 = 0x1000;

/// `struct sembuf`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Operation {
    /// Which semaphore of the set.
    pub number: u16,
    /// The amount to add; 0 waits for zero.
    pub add: i16,
    /// `IPC_NOWAIT`, `SEM_UNDO`.
    pub flags: i16,
}

/// A semaphore.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Semaphore {
    /// The value, from 0 to [`VALUE_MAX`].
    pub value: i32,
    /// The process that changed it last.
    pub pid: i32,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Set {
    start: usize,
    len: usize,
    operated: i64,
    changed: i64,
}

/// The adjustments that a process takes back when it ends (`SEM_UNDO`).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Undo {
    /// Slot of the process plus 1; 0: free.
    process: u32,
    set: u16,
    number: u16,
    add: i32,
}

/// Result of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// Not yet possible, and nothing was done: this semaphore is too low, or, with `zero`, not
    /// zero.
    MustWait {
        /// Which semaphore of the set.
        number: u16,
        /// It waits for zero.
        zero: bool,
    },
}

/// All sets.
#[repr(C)]
pub struct Semaphores {
    names: Names<SETS_MAX>,
    sets: [Set; SETS_MAX],
    semaphores: [Semaphore; SEMAPHORES_MAX],
    /// Places of `undo` that were ever used: all others are free.
    undo_used: usize,
    undo: [Undo; UNDO_MAX],
}

impl Semaphores {
    /// `semget`: the id.
    ///
    /// # Errors
    /// As the call.
    pub fn get(&mut self, key: i32, len: i32, flags: i32, caller: &Caller) -> Result<i32, i32> {
        let len = usize::try_from(len).map_err(|_| errno::EINVAL)?;
        if len > SEMAPHORES_MAX {
            return Err(errno::EINVAL);
        }
        match self.names.get(key, flags)? {
            Got::Known(at) if len > self.sets[at].len => Err(errno::EINVAL),
            Got::Known(at) => {
                self.names.check(at, caller, flags.cast_unsigned())?;
                Ok(self.names.id(at))
            }
            Got::Free(_) if len == 0 => Err(errno::EINVAL),
            Got::Free(at) => {
                let start = self.room(len).ok_or(errno::ENOSPC)?;
                self.sets[at] = Set {
                    start,
                    len,
                    operated: 0,
                    changed: caller.now,
                };
                self.semaphores[start..start + len].fill(Semaphore::default());
                Ok(self.names.add(at, key, flags, caller))
            }
        }
    }

    /// The first gap that is long enough.
    fn room(&self, len: usize) -> Option<usize> {
        let mut start = 0;
        while start + len <= SEMAPHORES_MAX {
            let taken = |set: &&Set| set.start < start + len && start < set.start + set.len;
            let Some(obstacle) = self.sets.iter().find(taken) else {
                return Some(start);
            };
            start = obstacle.start + obstacle.len;
        }
        None
    }

    /// The slot of a set.
    ///
    /// # Errors
    /// `EINVAL` if there is no such set, or not any more.
    pub fn find(&self, id: i32) -> Result<usize, i32> {
        self.names.find(id)
    }

    /// Names and permissions.
    #[must_use]
    pub fn names(&self) -> &Names<SETS_MAX> {
        &self.names
    }

    /// The semaphores of a set.
    #[must_use]
    pub fn semaphores(&self, at: usize) -> &[Semaphore] {
        let set = &self.sets[at];
        &self.semaphores[set.start..set.start + set.len]
    }

    /// When it was last operated on, and last changed.
    #[must_use]
    pub fn times(&self, at: usize) -> (i64, i64) {
        (self.sets[at].operated, self.sets[at].changed)
    }

    /// `semop`, but for the waiting.
    ///
    /// # Errors
    /// As the call; `EAGAIN` for what must not wait.
    pub fn operate(
        &mut self,
        at: usize,
        operations: &[Operation],
        caller: &Caller,
    ) -> Result<Outcome, i32> {
        let set = self.sets[at];
        if operations
            .iter()
            .any(|it| usize::from(it.number) >= set.len)
        {
            return Err(errno::EFBIG);
        }
        let alters = operations.iter().any(|it| it.add != 0);
        self.names
            .check(at, caller, if alters { WRITE } else { READ })?;
        for (done, operation) in operations.iter().enumerate() {
            let stopped = match self.step(at, operation, caller.process) {
                Ok(Outcome::Done) => continue,
                stopped => stopped,
            };
            for earlier in operations[..done].iter().rev() {
                self.step_back(at, earlier, caller.process);
            }
            return match stopped {
                Ok(_) if i32::from(operation.flags) & flag::NOWAIT != 0 => Err(errno::EAGAIN),
                other => other,
            };
        }
        for operation in operations {
            self.semaphores[set.start + usize::from(operation.number)].pid = caller.pid;
        }
        self.sets[at].operated = caller.now;
        Ok(Outcome::Done)
    }

    fn step(&mut self, at: usize, operation: &Operation, process: u16) -> Result<Outcome, i32> {
        let index = self.sets[at].start + usize::from(operation.number);
        let value = self.semaphores[index].value;
        let wanted = value + i32::from(operation.add);
        let zero = operation.add == 0;
        if wanted < 0 || (zero && value != 0) {
            return Ok(Outcome::MustWait {
                number: operation.number,
                zero,
            });
        }
        if wanted > VALUE_MAX {
            return Err(errno::ERANGE);
        }
        if operation.flags & UNDO != 0 {
            self.adjust(at, operation.number, process, -i32::from(operation.add))?;
        }
        self.semaphores[index].value = wanted;
        Ok(Outcome::Done)
    }

    fn step_back(&mut self, at: usize, operation: &Operation, process: u16) {
        let index = self.sets[at].start + usize::from(operation.number);
        self.semaphores[index].value -= i32::from(operation.add);
        if operation.flags & UNDO != 0 {
            // What was there before fits, and so does what was there before that.
            let _ = self.adjust(at, operation.number, process, i32::from(operation.add));
        }
    }

    /// Adds to what a process is to take back.
    fn adjust(&mut self, at: usize, number: u16, process: u16, add: i32) -> Result<(), i32> {
        if add == 0 {
            return Ok(());
        }
        let (process, set) = (u32::from(process) + 1, at as u16);
        let mine = |it: &Undo| (it.process, it.set, it.number) == (process, set, number);
        let used = &self.undo[..self.undo_used];
        let known = used.iter().position(mine);
        let free = || self.undo.iter().position(|it| it.process == 0);
        let index = known.or_else(free).ok_or(errno::ENOSPC)?;
        self.undo_used = self.undo_used.max(index + 1);
        let before = if known.is_some() {
            self.undo[index].add
        } else {
            0
        };
        let after = before + add;
        if !(-VALUE_MAX - 1..=VALUE_MAX).contains(&after) {
            return Err(errno::ERANGE);
        }
        self.undo[index] = if after == 0 {
            Undo::default()
        } else {
            Undo {
                process,
                set,
                number,
                add: after,
            }
        };
        Ok(())
    }

    /// A process has ended: takes back what it did, and names the ids of the sets concerned.
    pub fn process_gone(&mut self, caller: &Caller, mut changed: impl FnMut(i32)) {
        let process = u32::from(caller.process) + 1;
        for index in 0..self.undo_used {
            let undo = self.undo[index];
            if undo.process != process {
                continue;
            }
            let set = &mut self.sets[usize::from(undo.set)];
            set.operated = caller.now;
            let semaphore = &mut self.semaphores[set.start + usize::from(undo.number)];
            semaphore.value = (semaphore.value + undo.add).clamp(0, VALUE_MAX);
            semaphore.pid = caller.pid;
            self.undo[index] = Undo::default();
            changed(self.names.id(usize::from(undo.set)));
        }
    }

    /// `SETVAL` (one number) and `SETALL` (all of them), after which nobody has anything to take
    /// back.
    ///
    /// # Errors
    /// `EINVAL` for a semaphore that is not there, `ERANGE`, `EACCES`.
    pub fn set_values(
        &mut self,
        at: usize,
        first: usize,
        values: &[u16],
        caller: &Caller,
    ) -> Result<(), i32> {
        self.names.check(at, caller, WRITE)?;
        let set = self.sets[at];
        if first + values.len() > set.len {
            return Err(errno::EINVAL);
        }
        if values.iter().any(|value| i32::from(*value) > VALUE_MAX) {
            return Err(errno::ERANGE);
        }
        for (value, index) in values.iter().zip(set.start + first..) {
            self.semaphores[index] = Semaphore {
                value: i32::from(*value),
                pid: caller.pid,
            };
        }
        let numbers = first..first + values.len();
        self.forget_undo(at, |number| numbers.contains(&number));
        self.sets[at].changed = caller.now;
        Ok(())
    }

    fn forget_undo(&mut self, at: usize, which: impl Fn(usize) -> bool) {
        for undo in &mut self.undo[..self.undo_used] {
            let concerned = undo.process != 0 && usize::from(undo.set) == at;
            if concerned && which(usize::from(undo.number)) {
                *undo = Undo::default();
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
        self.sets[at].changed = caller.now;
        Ok(())
    }

    /// `IPC_RMID`.
    ///
    /// # Errors
    /// `EPERM`.
    pub fn remove(&mut self, at: usize, caller: &Caller) -> Result<(), i32> {
        self.names.check_owner(at, caller)?;
        self.forget_undo(at, |_| true);
        self.sets[at] = Set::default();
        self.names.remove(at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::by;
    use std::vec::Vec;

    fn fresh() -> Semaphores {
        Semaphores {
            names: Names::none(),
            sets: [Set::default(); SETS_MAX],
            semaphores: [Semaphore::default(); SEMAPHORES_MAX],
            undo_used: 0,
            undo: [Undo::default(); UNDO_MAX],
        }
    }

    fn operation(number: u16, add: i16, flags: i16) -> Operation {
        Operation { number, add, flags }
    }

    fn values(it: &Semaphores, at: usize) -> Vec<i32> {
        it.semaphores(at).iter().map(|it| it.value).collect()
    }

    #[test]
    fn operations_are_done_as_a_whole() {
        let mut it = fresh();
        let id = it.get(0, 2, 0o600, &by(0)).unwrap();
        let at = it.find(id).unwrap();
        let both = [operation(0, 2, UNDO), operation(1, -1, 0)];
        let waits = Outcome::MustWait {
            number: 1,
            zero: false,
        };
        assert_eq!(it.operate(at, &both, &by(0)), Ok(waits));
        assert_eq!(values(&it, at), [0, 0]);
        let impatient = [operation(0, 1, 0), operation(1, -1, flag::NOWAIT as i16)];
        assert_eq!(it.operate(at, &impatient, &by(0)), Err(errno::EAGAIN));
        assert_eq!(values(&it, at), [0, 0]);
        it.operate(at, &[operation(1, 1, 0)], &by(1)).unwrap();
        assert_eq!(it.operate(at, &both, &by(0)), Ok(Outcome::Done));
        assert_eq!(values(&it, at), [2, 0]);
        let zero = Outcome::MustWait {
            number: 0,
            zero: true,
        };
        assert_eq!(it.operate(at, &[operation(0, 0, 0)], &by(0)), Ok(zero));
        assert_eq!(it.semaphores(at)[1].pid, 1000);
        assert_eq!(
            it.operate(at, &[operation(2, 1, 0)], &by(0)),
            Err(errno::EFBIG)
        );
        assert_eq!(
            it.operate(at, &[operation(0, i16::MAX, 0)], &by(0)),
            Err(errno::ERANGE)
        );
    }

    #[test]
    fn the_end_of_a_process_takes_back_what_it_did() {
        let mut it = fresh();
        let id = it.get(0, 1, 0o600, &by(0)).unwrap();
        let at = it.find(id).unwrap();
        it.set_values(at, 0, &[3], &by(0)).unwrap();
        it.operate(at, &[operation(0, -2, UNDO)], &by(1)).unwrap();
        it.operate(at, &[operation(0, -1, UNDO)], &by(2)).unwrap();
        let mut changed = Vec::new();
        it.process_gone(&by(1), |id| changed.push(id));
        assert_eq!((values(&it, at), changed), (std::vec![2], std::vec![id]));
        // Setting a value forgets what others would take back.
        it.set_values(at, 0, &[7], &by(0)).unwrap();
        it.process_gone(&by(2), |_| panic!("nothing to take back"));
        assert_eq!(values(&it, at), [7]);
        // Operations that cancel out leave nothing behind, and need no room.
        for _ in 0..2 * UNDO_MAX {
            it.operate(at, &[operation(0, -1, UNDO)], &by(1)).unwrap();
            it.operate(at, &[operation(0, 1, UNDO)], &by(1)).unwrap();
        }
        assert!(it.undo.iter().all(|undo| undo.process == 0));
    }

    #[test]
    fn sets_are_found_room_for_and_removed() {
        let mut it = fresh();
        let first = it.get(5, 3, flag::CREAT | 0o600, &by(0)).unwrap();
        let second = it.get(6, 3, flag::CREAT | 0o600, &by(0)).unwrap();
        assert_eq!(it.get(5, 4, 0, &by(0)), Err(errno::EINVAL));
        assert_eq!(it.get(5, 2, 0, &by(0)), Ok(first));
        assert_eq!(it.get(0, 3, 0o600, &by(0)), Err(errno::ENOSPC));
        assert_eq!(it.get(0, 0, 0o600, &by(0)), Err(errno::EINVAL));
        it.remove(it.find(first).unwrap(), &by(0)).unwrap();
        assert_eq!(it.find(first), Err(errno::EINVAL));
        let third = it.get(0, 3, 0o600, &by(0)).unwrap();
        assert_ne!(third, first);
        assert!(it.find(second).is_ok());
    }
}
