//! Signal delivery: posting signals, and running handlers at logical moments.
//!
//! A signal posted by the thread that has the turn is acted on by its target at the next point
//! where that thread has the turn: at its next ordered operation, or where it waits. Handlers run
//! as plain calls on the thread's stack, inside the hook, so they are part of the schedule like the
//! rest of the program.

use super::proof::Turn;
use crate::local::local;
use crate::output::fault;
use crate::sys;
use brolga_vsignal::{self as vsignal, Action, Effect, Info, Posted, Set};
use core::ffi::{c_int, c_void};

/// The outcome of delivering signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// No handler has run.
    Nothing,
    /// Handlers have run, and all of them want interrupted calls to go on.
    Restart,
    /// A handler has run, and the call it interrupted ends with `EINTR`.
    Interrupt,
}

/// Code of a signal that a thread has sent to a thread.
pub const SI_TKILL: i32 = -6;
const SA_SIGINFO: u64 = libc::SA_SIGINFO as u64;
const SA_RESTART: u64 = libc::SA_RESTART as u64;

type Plain = extern "C" fn(c_int);
type Informed = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

impl Turn {
    /// Returns whether a signal waits for this thread to act on it.
    #[inline]
    pub fn signal_due(&mut self) -> bool {
        let (process, me) = (self.process(), self.me());
        self.shared().signals.due(process, me)
    }

    /// Posts a signal to a process.
    pub fn post_to_process(&mut self, process: u16, info: Info) {
        let posted = {
            let shared = self.shared();
            let (scheduler, signals) = (&shared.scheduler, &mut shared.signals);
            let living = scheduler.living().filter(|ix| {
                scheduler.thread(*ix).process == process && !scheduler.has_exited(*ix)
            });
            signals.post_to_process(process, info, &living)
        };
        self.posted(process, posted);
    }

    /// Posts a signal to a thread.
    pub fn post_to_thread(&mut self, thread: u16, info: Info) {
        let process = self.scheduler().thread(thread).process;
        let posted = self.shared().signals.post_to_thread(process, thread, info);
        self.posted(process, posted);
    }

    /// Posts operators' signals, which the log has ordered, to the tree's first process: bit `n -
    /// 1` stands for signal `n`.
    pub(super) fn post_operator_signals(&mut self, operators: u64) {
        for signal in 1..=vsignal::SIGNAL_MAX {
            if operators & 1 << (signal - 1) == 0 {
                continue;
            }
            let info = Info {
                signal,
                code: libc::SI_USER,
                ..Info::default()
            };
            let root = self.shared().root_process();
            if signal == vsignal::KILL {
                fault(&[b"the operator sent SIGKILL"]);
            }
            self.post_to_process(root, info);
        }
    }

    fn posted(&mut self, process: u16, posted: Posted) {
        self.scheduler().note(process.into());
        match posted {
            Posted::Dropped => return,
            Posted::Pending => {}
            Posted::For(ix) if ix == self.scheduler().current() => {
                self.scheduler().demand_attention();
            }
            Posted::For(ix) => _ = self.scheduler().interrupt(ix),
        }
        self.refresh_signal_files(process);
    }

    /// Sends SIGPIPE to this very thread, for a write on a broken connection or pipe.
    pub fn raise_sigpipe(&mut self) {
        let (me, process) = (self.me(), usize::from(self.process()));
        let info = Info {
            signal: libc::SIGPIPE as u8,
            code: SI_TKILL,
            pid: self.shared().processes[process].pid,
            ..Info::default()
        };
        self.post_to_thread(me, info);
        if self.signal_due() {
            self.deliver();
        }
    }

    /// Signal descriptors of a process show what is pending now.
    pub fn refresh_signal_files(&mut self, process: u16) {
        let pending = self.pending_for_files(process);
        let (net, mut outside) = self.net();
        net.refresh_signal_files(process, pending.0, &mut outside);
    }

    fn pending_for_files(&mut self, process: u16) -> Set {
        let shared = self.shared();
        let (scheduler, signals) = (&shared.scheduler, &shared.signals);
        scheduler
            .living()
            .filter(|ix| scheduler.thread(*ix).process == process)
            .fold(Set(0), |all, ix| all.with(signals.pending(process, ix)))
    }

    /// Offers signals of the process that this thread no longer takes to its other threads.
    pub fn retarget(&mut self) {
        let (me, process) = (self.me(), self.process());
        let mut after = 0;
        loop {
            let shared = self.shared();
            let (scheduler, signals) = (&shared.scheduler, &shared.signals);
            let due = scheduler.living().find(|ix| {
                *ix > after
                    && *ix != me
                    && scheduler.thread(*ix).process == process
                    && signals.due(process, *ix)
            });
            let Some(ix) = due else { return };
            after = ix;
            self.scheduler().interrupt(ix);
        }
    }

    /// Acts on the signals that are due for this thread.
    pub fn deliver(&mut self) -> Delivered {
        let mut delivered = Delivered::Nothing;
        loop {
            let (process, me) = (self.process(), self.me());
            let Some(info) = self.shared().signals.next(process, me) else {
                break;
            };
            self.refresh_signal_files(process);
            self.scheduler().note(u64::from(info.signal));
            let action = self.shared().signals.action(process, info.signal);
            match (action.handler, vsignal::default_effect(info.signal)) {
                (vsignal::IGNORE, _) if info.signal != vsignal::KILL => {}
                (vsignal::DEFAULT, Effect::Ignore) => {}
                (vsignal::DEFAULT, Effect::Stop) => {
                    fault(&[b"the server is to be stopped by a signal: that is not supported"])
                }
                (vsignal::DEFAULT | vsignal::IGNORE, _) => {
                    (local().die_of)(c_int::from(info.signal))
                }
                _ => {
                    let flags = self.run_handler(&info);
                    if flags & SA_RESTART == 0 {
                        delivered = Delivered::Interrupt;
                    } else if delivered == Delivered::Nothing {
                        delivered = Delivered::Restart;
                    }
                }
            }
        }
        delivered
    }

    /// Runs a handler with its mask; says with which flags.
    fn run_handler(&mut self, info: &Info) -> u64 {
        let (process, me) = (self.process(), self.me());
        let (action, before) = self
            .shared()
            .signals
            .enter_handler(process, me, info.signal);
        let errno = sys::errno();
        self.lend();
        call(&action, info);
        sys::set_errno(errno);
        // The handler may have forked, and this may be the child.
        self.take_back();
        let me = self.me();
        self.shared().signals.set_mask(me, before);
        action.flags
    }
}

fn call(action: &Action, info: &Info) {
    let signal = c_int::from(info.signal);
    if action.flags & SA_SIGINFO == 0 {
        // SAFETY: the program gave this address as a handler without SA_SIGINFO.
        let handler: Plain = unsafe { core::mem::transmute(action.handler) };
        handler(signal);
        return;
    }
    // SAFETY: the program gave this address as a handler with SA_SIGINFO.
    let handler: Informed = unsafe { core::mem::transmute(action.handler) };
    let mut described = describe(info);
    // SAFETY: all zeros are a valid ucontext_t: integers and pointers. It tells nothing, since the
    // handler interrupts a call and not an instruction.
    let mut context: libc::ucontext_t = unsafe { core::mem::zeroed() };
    handler(signal, &raw mut described, (&raw mut context).cast());
}

/// `siginfo_t` as the kernel lays it out.
#[repr(C)]
struct Described {
    signal: c_int,
    errno: c_int,
    code: c_int,
    padding: c_int,
    pid: c_int,
    uid: u32,
    /// `si_status` of SIGCHLD; the value of the others.
    value: u64,
    rest: [u64; 12],
}

const _: () = assert!(size_of::<Described>() == size_of::<libc::siginfo_t>());

/// The `siginfo_t` of a signal, for a handler or `sigwaitinfo`.
pub fn describe(info: &Info) -> libc::siginfo_t {
    let described = Described {
        signal: c_int::from(info.signal),
        errno: 0,
        code: info.code,
        padding: 0,
        pid: info.pid,
        uid: if info.code == libc::SI_TIMER {
            info.status.cast_unsigned()
        } else {
            0
        },
        value: if info.signal == vsignal::CHILD {
            u64::from(info.status.cast_unsigned())
        } else {
            info.value
        },
        rest: [0; 12],
    };
    // SAFETY: same size, and any bytes are a valid siginfo_t.
    unsafe { core::mem::transmute(described) }
}
