//! Alarms that have gone off: the effects of timers.

use super::proof::Turn;
use crate::shared::Purpose;
use brolga_dmt::ThreadIx;
use brolga_vsignal::Info;
use core::ffi::c_int;

impl Turn {
    /// Looks at the alarms that an admission has set off.
    pub(super) fn fire_alarms(&mut self) {
        while let Some(ix) = self.scheduler().take_fired() {
            let expirations = self.rearm(ix);
            let process = self.scheduler().thread(ix).process;
            let alarm = *self.shared().alarm(ix);
            match alarm.purpose {
                Purpose::None => {}
                Purpose::Descriptor(socket) => {
                    let (net, mut outside) = self.net();
                    net.counter_add(socket, expirations, &mut outside);
                }
                Purpose::Interval(which) => {
                    let info = Info {
                        signal: interval_signal(which),
                        code: libc::SI_KERNEL,
                        ..Info::default()
                    };
                    self.post_to_process(process, info);
                }
                Purpose::Signal {
                    signal,
                    value,
                    thread,
                } => {
                    let overrun = expirations.min(i32::MAX as u64) as i32 - 1;
                    self.shared().alarm(ix).overrun = overrun;
                    let info = Info {
                        signal,
                        code: libc::SI_TIMER,
                        pid: i32::from(ix),
                        status: overrun,
                        value,
                    };
                    match thread {
                        0 => self.post_to_process(process, info),
                        thread => self.post_to_thread(thread, info),
                    }
                }
            }
        }
    }

    /// Sets a periodic alarm that has gone off for its next time; says how many times have passed.
    fn rearm(&mut self, ix: ThreadIx) -> u64 {
        let interval = self.shared().alarm(ix).interval_ns;
        if interval == 0 {
            return 1;
        }
        let was = self.scheduler().last_deadline_ns(ix);
        let passed = 1 + self.now_ns().saturating_sub(was) / interval;
        let next = was.saturating_add(passed.saturating_mul(interval));
        self.scheduler().set_alarm(ix, Some(next));
        passed
    }
}

/// The signal of an interval timer.
fn interval_signal(which: c_int) -> u8 {
    let signal = match which {
        libc::ITIMER_VIRTUAL => libc::SIGVTALRM,
        libc::ITIMER_PROF => libc::SIGPROF,
        _ => libc::SIGALRM,
    };
    signal as u8
}
