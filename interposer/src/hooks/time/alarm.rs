//! Alarms of the scheduler, which all kinds of timers are made of. They go off at moments of virtual
//! time, when an entry is admitted.

use super::itimer::signal_of;
use crate::shared::{Alarm, Purpose};
use crate::turn::Turn;
use brolga_dmt::ThreadIx;
use brolga_vsignal::Info;

/// Looks at the alarms that an admission has set off.
pub fn fire(turn: &mut Turn) {
    while let Some(ix) = turn.scheduler().take_fired() {
        let expirations = rearm(turn, ix);
        let process = turn.scheduler().thread(ix).process;
        let alarm = *turn.shared().alarm(ix);
        match alarm.purpose {
            Purpose::None => {}
            Purpose::Descriptor(socket) => {
                let (net, mut outside) = turn.net();
                net.counter_add(socket, expirations, &mut outside);
            }
            Purpose::Interval(which) => {
                let info = Info {
                    signal: signal_of(which),
                    code: libc::SI_KERNEL,
                    ..Info::default()
                };
                turn.post_to_process(process, info);
            }
            Purpose::Signal {
                signal,
                value,
                thread,
            } => {
                let overrun = expirations.min(i32::MAX as u64) as i32 - 1;
                turn.shared().alarm(ix).overrun = overrun;
                let info = Info {
                    signal,
                    code: libc::SI_TIMER,
                    pid: i32::from(ix),
                    status: overrun,
                    value,
                };
                match thread {
                    0 => turn.post_to_process(process, info),
                    thread => turn.post_to_thread(thread, info),
                }
            }
        }
    }
}

/// Sets a periodic alarm that has gone off for its next time; says how many times have passed.
fn rearm(turn: &mut Turn, ix: ThreadIx) -> u64 {
    let interval = turn.shared().alarm(ix).interval_ns;
    if interval == 0 {
        return 1;
    }
    let was = turn.scheduler().last_deadline_ns(ix);
    let passed = 1 + turn.now_ns().saturating_sub(was) / interval;
    let next = was.saturating_add(passed.saturating_mul(interval));
    turn.scheduler().set_alarm(ix, Some(next));
    passed
}

/// How long until an alarm goes off, and its interval, in nanoseconds.
pub(crate) fn remaining(turn: &mut Turn, ix: ThreadIx) -> (u64, u64) {
    let now = turn.now_ns();
    let left = match turn.scheduler().alarm_deadline_ns(ix) {
        // A timer that is due but was not looked at yet is not "not set".
        Some(deadline) => deadline.saturating_sub(now).max(1),
        None => 0,
    };
    (left, turn.shared().alarm(ix).interval_ns)
}

pub(crate) fn set(turn: &mut Turn, ix: ThreadIx, deadline_ns: Option<u64>, interval_ns: u64) {
    turn.shared().alarm(ix).interval_ns = interval_ns;
    turn.scheduler().set_alarm(ix, deadline_ns);
}

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
