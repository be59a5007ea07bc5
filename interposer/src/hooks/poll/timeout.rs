//! Timeouts of calls that wait for readiness, in virtual time.

use crate::hooks::result::error;
use crate::turn::Turn;
use brolga_dmt::{Key, Wakeup};
use core::ffi::c_int;

const MS: u64 = 1_000_000;

/// The time that a call may wait, in virtual time.
#[derive(Clone, Copy)]
pub(crate) enum Patience {
    None,
    Until(u64),
    Forever,
}

impl Patience {
    /// As `poll` has it: a negative time is for ever.
    pub(crate) fn of_ms(turn: &mut Turn, timeout: c_int) -> Self {
        match timeout {
            0 => Self::None,
            ms if ms < 0 => Self::Forever,
            ms => Self::Until(turn.now_ns() + ms as u64 * MS),
        }
    }

    /// As `ppoll` has it: no time is for ever.
    pub(crate) fn of_ns(turn: &mut Turn, timeout: Option<u64>) -> Self {
        match timeout {
            None => Self::Forever,
            Some(0) => Self::None,
            Some(ns) => Self::Until(turn.now_ns().saturating_add(ns)),
        }
    }

    /// Looks, and waits between looks, until there is a result other than 0 or the time is over.
    /// `look` and `key` share `state`.
    pub(crate) fn until<S: ?Sized>(
        self,
        turn: &mut Turn,
        state: &mut S,
        mut look: impl FnMut(&mut Turn, &mut S) -> isize,
        mut key: impl FnMut(&mut Turn, &S) -> Key,
    ) -> isize {
        let mut waited = Waited::LookAgain;
        loop {
            let result = look(turn, state);
            match waited {
                _ if result != 0 => return result,
                Waited::Enough => return 0,
                Waited::Interrupted => return error(libc::EINTR),
                Waited::LookAgain => {
                    let key = key(turn, state);
                    waited = self.wait(turn, key);
                }
            }
        }
    }

    /// Waits for `key`.
    fn wait(self, turn: &mut Turn, key: Key) -> Waited {
        let deadline = match self {
            // A thread that polls in a loop without waiting must let the others run.
            Self::None => {
                turn.yield_now();
                return Waited::Enough;
            }
            Self::Until(deadline) => Some(deadline),
            Self::Forever => None,
        };
        match turn.block(key, deadline) {
            Wakeup::TimedOut => Waited::Enough,
            // These calls are never restarted (signal(7)).
            Wakeup::Interrupted | Wakeup::Restart => Waited::Interrupted,
            _ => Waited::LookAgain,
        }
    }
}

/// The outcome of waiting.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waited {
    LookAgain,
    /// Look once more, then give up.
    Enough,
    Interrupted,
}
