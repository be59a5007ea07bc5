//! Message queues. The messages of a queue lie one after another in its memory: type, length,
//! bytes, and what rounds them up to a multiple of eight.

use crate::names::{Got, Names, READ, WRITE};
use crate::{Caller, errno, flag};

/// Queues at a time.
pub const QUEUES_MAX: usize = if cfg!(test) { 2 } else { 128 };
/// Bytes that a queue holds (`MSGMNB`), and messages, which may be empty.
pub const QUEUE_BYTES: usize = if cfg!(test) { 64 } else { 16_384 };
/// Bytes of a message (`MSGMAX`).
pub const MESSAGE_BYTES: usize = if cfg!(test) { 48 } else { 8192 };
const HEAD_BYTES: usize = 16;
/// As many messages as there may be, of one byte each.
const MEMORY_BYTES: usize = QUEUE_BYTES * (HEAD_BYTES + 8);
/// `MSG_NOERROR`, `MSG_EXCEPT`.
const NO_ERROR: i32 = 0o10_000;
const EXCEPT: i32 = 0o20_000;

/// The fields of `msqid_ds`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Facts {
    /// When something was sent last, received last, and when the queue was changed.
    pub sent: i64,
    /// See `sent`.
    pub received: i64,
    /// See `sent`.
    pub changed: i64,
    /// Process ids of the last sender and the last receiver.
    pub sender: i32,
    /// See `sender`.
    pub receiver: i32,
    /// Bytes and messages in it, and how many bytes it may hold.
    pub bytes: usize,
    /// See `bytes`.
    pub messages: usize,
    /// See `bytes`.
    pub bytes_max: usize,
}

#[derive(Debug)]
#[repr(C)]
struct Queue {
    facts: Facts,
    /// Bytes of `memory` in use.
    used: usize,
    memory: [u8; MEMORY_BYTES],
}

/// All queues.
#[repr(C)]
pub struct Queues {
    names: Names<QUEUES_MAX>,
    queues: [Queue; QUEUES_MAX],
}

/// Result of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// Done.
    Done(T),
    /// Not yet possible.
    MustWait,
}

/// A message in a queue's memory.
#[derive(Clone, Copy)]
struct Message {
    kind: i64,
    start: usize,
    len: usize,
    next: usize,
}

impl Queue {
    fn message(&self, at: usize) -> Message {
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&self.memory[at..at + 8]);
            i64::from_ne_bytes(bytes)
        };
        let (start, len) = (at + HEAD_BYTES, word(at + 8).cast_unsigned() as usize);
        Message {
            kind: word(at),
            start,
            len,
            next: start + len.next_multiple_of(8),
        }
    }

    fn push(&mut self, kind: i64, bytes: &[u8]) {
        let at = self.used;
        self.memory[at..at + 8].copy_from_slice(&kind.to_ne_bytes());
        self.memory[at + 8..at + HEAD_BYTES].copy_from_slice(&bytes.len().to_ne_bytes());
        self.memory[at + HEAD_BYTES..][..bytes.len()].copy_from_slice(bytes);
        self.used = at + HEAD_BYTES + bytes.len().next_multiple_of(8);
        self.facts.bytes += bytes.len();
        self.facts.messages += 1;
    }

    fn take_out(&mut self, at: usize) {
        let message = self.message(at);
        self.memory.copy_within(message.next..self.used, at);
        self.used -= message.next - at;
        self.facts.bytes -= message.len;
        self.facts.messages -= 1;
    }

    /// The message that `msgrcv` means: where it lies.
    fn choose(&self, kind: i64, except: bool) -> Option<usize> {
        let mut best: Option<(usize, i64)> = None;
        let mut at = 0;
        while at < self.used {
            let message = self.message(at);
            let fits = match kind {
                0 => return Some(at),
                1.. => (message.kind == kind) != except,
                _ => message.kind <= kind.saturating_neg(),
            };
            if fits && kind > 0 {
                return Some(at);
            }
            if fits && best.is_none_or(|(_, lowest)| message.kind < lowest) {
                best = Some((at, message.kind));
            }
            at = message.next;
        }
        best.map(|(at, _)| at)
    }
}

impl Queues {
    /// `msgget`: the id.
    ///
    /// # Errors
    /// As the call.
    pub fn get(&mut self, key: i32, flags: i32, caller: &Caller) -> Result<i32, i32> {
        match self.names.get(key, flags)? {
            Got::Known(at) => {
                self.names.check(at, caller, flags.cast_unsigned())?;
                Ok(self.names.id(at))
            }
            Got::Free(at) => {
                self.queues[at].used = 0;
                self.queues[at].facts = Facts {
                    changed: caller.now,
                    bytes_max: QUEUE_BYTES,
                    ..Facts::default()
                };
                Ok(self.names.add(at, key, flags, caller))
            }
        }
    }

    /// The slot of a queue.
    ///
    /// # Errors
    /// `EINVAL` if there is no such queue, or not any more.
    pub fn find(&self, id: i32) -> Result<usize, i32> {
        self.names.find(id)
    }

    /// Names and permissions.
    #[must_use]
    pub fn names(&self) -> &Names<QUEUES_MAX> {
        &self.names
    }

    /// The fields of a queue's `msqid_ds`.
    #[must_use]
    pub fn facts(&self, at: usize) -> &Facts {
        &self.queues[at].facts
    }

    /// `msgsnd`, but for the waiting.
    ///
    /// # Errors
    /// As the call; `EAGAIN` for what must not wait.
    pub fn send(
        &mut self,
        at: usize,
        kind: i64,
        bytes: &[u8],
        flags: i32,
        caller: &Caller,
    ) -> Result<Outcome<()>, i32> {
        if kind < 1 || bytes.len() > MESSAGE_BYTES {
            return Err(errno::EINVAL);
        }
        self.names.check(at, caller, WRITE)?;
        let queue = &mut self.queues[at];
        let facts = &queue.facts;
        let fits = facts.bytes + bytes.len() <= facts.bytes_max && facts.messages < facts.bytes_max;
        if !fits {
            return if flags & flag::NOWAIT != 0 {
                Err(errno::EAGAIN)
            } else {
                Ok(Outcome::MustWait)
            };
        }
        queue.push(kind, bytes);
        queue.facts.sent = caller.now;
        queue.facts.sender = caller.pid;
        Ok(Outcome::Done(()))
    }

    /// `msgrcv`, but for the waiting. Gives type and bytes to `take` and says how many it was
    /// given.
    ///
    /// # Errors
    /// As the call; `ENOMSG` for what must not wait.
    pub fn receive(
        &mut self,
        at: usize,
        (kind, room): (i64, usize),
        flags: i32,
        caller: &Caller,
        take: impl FnOnce(i64, &[u8]),
    ) -> Result<Outcome<usize>, i32> {
        self.names.check(at, caller, READ)?;
        let queue = &mut self.queues[at];
        let Some(chosen) = queue.choose(kind, flags & EXCEPT != 0) else {
            return if flags & flag::NOWAIT != 0 {
                Err(errno::ENOMSG)
            } else {
                Ok(Outcome::MustWait)
            };
        };
        let message = queue.message(chosen);
        if message.len > room && flags & NO_ERROR == 0 {
            return Err(errno::E2BIG);
        }
        let len = message.len.min(room);
        take(message.kind, &queue.memory[message.start..][..len]);
        queue.take_out(chosen);
        queue.facts.received = caller.now;
        queue.facts.receiver = caller.pid;
        Ok(Outcome::Done(len))
    }

    /// `IPC_SET`: owner, group, permissions; how many bytes it may hold.
    ///
    /// # Errors
    /// `EPERM`, also for more bytes than there is room for.
    pub fn set(
        &mut self,
        at: usize,
        to: (u32, u32, u32),
        bytes_max: usize,
        caller: &Caller,
    ) -> Result<(), i32> {
        self.names.check_owner(at, caller)?;
        if bytes_max > QUEUE_BYTES {
            return Err(errno::EPERM);
        }
        self.names.set(at, to.0, to.1, to.2);
        self.queues[at].facts.bytes_max = bytes_max;
        self.queues[at].facts.changed = caller.now;
        Ok(())
    }

    /// `IPC_RMID`.
    ///
    /// # Errors
    /// `EPERM`.
    pub fn remove(&mut self, at: usize, caller: &Caller) -> Result<(), i32> {
        self.names.check_owner(at, caller)?;
        self.names.remove(at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const ME: Caller = Caller {
        user: 10,
        group: 20,
        process: 0,
        pid: 1000,
        now: 5,
    };

    fn fresh() -> (Queues, usize) {
        let queue = || Queue {
            facts: Facts::default(),
            used: 0,
            memory: [0; MEMORY_BYTES],
        };
        let mut queues = Queues {
            names: Names::none(),
            queues: [queue(), queue()],
        };
        let id = queues.get(0, 0o600, &ME).unwrap();
        let at = queues.find(id).unwrap();
        (queues, at)
    }

    fn send(queues: &mut Queues, at: usize, kind: i64, bytes: &[u8]) -> Result<Outcome<()>, i32> {
        queues.send(at, kind, bytes, 0, &ME)
    }

    fn receive(queues: &mut Queues, at: usize, kind: i64, flags: i32) -> Option<(i64, Vec<u8>)> {
        let mut got = None;
        let take = |kind, bytes: &[u8]| got = Some((kind, bytes.to_vec()));
        queues.receive(at, (kind, 5), flags, &ME, take).ok()?;
        got
    }

    #[test]
    fn messages_are_chosen_by_type() {
        let (mut queues, at) = fresh();
        for (kind, text) in [(3, "three"), (2, "two"), (5, "five"), (2, "too"), (1, "")] {
            assert_eq!(
                send(&mut queues, at, kind, text.as_bytes()),
                Ok(Outcome::Done(()))
            );
        }
        let mut next = |kind, flags| {
            let (kind, bytes) = receive(&mut queues, at, kind, flags)?;
            Some((kind, std::string::String::from_utf8(bytes).unwrap()))
        };
        assert_eq!(next(2, 0), Some((2, "two".into())));
        assert_eq!(next(3, EXCEPT), Some((5, "five".into())));
        assert_eq!(next(-2, 0), Some((1, String::new())));
        assert_eq!(next(-1, 0), None);
        assert_eq!(next(0, 0), Some((3, "three".into())));
        assert_eq!(next(0, 0), Some((2, "too".into())));
        assert_eq!(next(0, flag::NOWAIT), None);
        assert_eq!(queues.facts(at).bytes, 0);
        assert_eq!(queues.queues[at].used, 0);
    }

    use std::string::String;

    #[test]
    fn a_full_queue_makes_wait() {
        let (mut queues, at) = fresh();
        let half = [7; QUEUE_BYTES / 2];
        assert_eq!(send(&mut queues, at, 1, &half), Ok(Outcome::Done(())));
        assert_eq!(send(&mut queues, at, 1, &half), Ok(Outcome::Done(())));
        assert_eq!(send(&mut queues, at, 1, &[1]), Ok(Outcome::MustWait));
        let impatient = queues.send(at, 1, &[1], flag::NOWAIT, &ME);
        assert_eq!(impatient, Err(errno::EAGAIN));
        // Too long for the receiver, unless it wants the start only.
        assert_eq!(receive(&mut queues, at, 0, 0), None);
        assert_eq!(
            receive(&mut queues, at, 0, NO_ERROR),
            Some((1, std::vec![7; 5]))
        );
        assert_eq!(send(&mut queues, at, 1, &[1]), Ok(Outcome::Done(())));
    }

    #[test]
    fn as_many_messages_as_bytes_find_room() {
        let (mut queues, at) = fresh();
        for _ in 0..QUEUE_BYTES {
            assert_eq!(send(&mut queues, at, 1, &[1]), Ok(Outcome::Done(())));
        }
        assert_eq!(send(&mut queues, at, 1, &[]), Ok(Outcome::MustWait));
        queues.queues[at].facts.bytes_max = 0;
        for _ in 0..QUEUE_BYTES {
            assert_eq!(receive(&mut queues, at, 1, 0), Some((1, std::vec![1])));
        }
        assert_eq!(queues.facts(at).messages, 0);
    }
}
