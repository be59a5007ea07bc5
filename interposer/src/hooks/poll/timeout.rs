//! Timeouts of calls that wait for readiness, in virtual time.

use crate::turn::Turn;
use brolga_dmt::{Key, Wakeup};
use core::ffi::c_int;

const MS: u64 = 1_000_000;

/// How long a call may wait: `None` for ever, otherwise until a moment of virtual time.
#[derive(Clone, Copy)]
pub(crate) enum Patience {
    None,
    Until(u64),
    Forever,
}

impl Patience {
    pub(crate) fn of_ms(turn: &mut Turn, timeout: c_int) -> Self {
        match timeout {
            0 => Self::None,
            ms if ms < 0 => Self::Forever,
            ms => Self::Until(turn.now_ns() + ms as u64 * MS),
        }
    }

    pub(crate) fn of_ns(turn: &mut Turn, timeout: Option<u64>) -> Self {
        match timeout {
            None => Self::Forever,
            Some(0) => Self::None,
            Some(ns) => Self::Until(turn.now_ns().saturating_add(ns)),
        }
    }

    /// Waits for `key`.
    pub(crate) fn wait(self, turn: &mut Turn, key: Key) -> Waited {
        let deadline = match self {
            // Whoever polls without waiting in a loop must let the others go on.
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

/// What came of waiting.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    LookAgain,
    /// Look once more, then give up.
    Enough,
    Interrupted,
}
