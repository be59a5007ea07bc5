//! Alarms of the scheduler, which all kinds of timers are made of. They go off at moments of
//! virtual time, when an entry is admitted.

use crate::shared::{Alarm, Purpose};
use crate::turn::Turn;
use brolga_dmt::ThreadIx;

/// The time until an alarm goes off, and its interval, in nanoseconds.
pub(crate) fn remaining(turn: &mut Turn, ix: ThreadIx) -> (u64, u64) {
    let now = turn.now_ns();
    let left = match turn.scheduler().alarm_deadline_ns(ix) {
        // A timer that is due but was not looked at yet is not "not set".
        Some(deadline) => deadline.saturating_sub(now).max(1),
        None => 0,
    };
    (left, turn.shared().alarm(ix).interval_ns)
}

/// Sets an alarm, or with no deadline stops it.
pub(crate) fn set(turn: &mut Turn, ix: ThreadIx, deadline_ns: Option<u64>, interval_ns: u64) {
    turn.shared().alarm(ix).interval_ns = interval_ns;
    turn.scheduler().set_alarm(ix, deadline_ns);
}

/// Makes an alarm. `None`: there are too many.
pub(crate) fn make(turn: &mut Turn, process: u16, purpose: Purpose) -> Option<ThreadIx> {
    let ix = turn.scheduler().make_alarm(process)?;
    *turn.shared().alarm(ix) = Alarm {
        purpose,
        ..Alarm::NONE
    };
    Some(ix)
}

/// A process has ended or executed another program: its timers are gone, but for interval timers,
/// which an `exec` keeps.
pub fn forget(turn: &mut Turn, process: u16, but_intervals: bool) {
    loop {
        let shared = turn.shared();
        let doomed = |ix: &ThreadIx| {
            let purpose = shared.alarms[usize::from(*ix) - 1].purpose;
            !(but_intervals && matches!(purpose, Purpose::Interval(_)))
        };
        let Some(ix) = shared.scheduler.alarms(process).find(doomed) else {
            return;
        };
        turn.scheduler().remove(ix);
    }
}
