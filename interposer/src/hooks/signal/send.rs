//! Sending signals to processes and threads.

use super::set::{KERNEL, number};
use crate::hooks::process::{exit, pid};
use crate::hooks::result::{error, finish};
use crate::hooks::thread::handle;
use crate::libc_symbols::libc_own;
use crate::sys::{self, sys};
use crate::turn::Turn;
use crate::turn::signals::SI_TKILL;
use brolga_dmt::ThreadIx;
use brolga_tape::operation as op;
use brolga_vsignal::{self as vsignal, Info};
use core::ffi::c_int;

/// A signal sent by this process.
fn sent_by(turn: &mut Turn, signal: u8, code: i32, value: u64) -> Info {
    let process = usize::from(turn.process());
    Info {
        signal,
        code,
        pid: turn.shared().processes[process].pid,
        status: 0,
        value,
    }
}

/// Posts to a process; SIGKILL acts at once, since no handler can run.
fn send(turn: &mut Turn, process: u16, info: Info) {
    let target = turn.shared().processes[usize::from(process)];
    if target.ended {
        return;
    }
    // The root has to end by its own hand, see `exit::outlive`.
    let root = process == crate::shared::FIRST;
    if info.signal == vsignal::KILL && process != turn.process() && !root {
        exit::kill_outright(turn, process, libc::SIGKILL);
        return;
    }
    turn.post_to_process(process, info);
}

fn kill_(pid: c_int, signal: c_int, code: i32, value: u64) -> isize {
    let Some(mut turn) = Turn::take(op::KILL) else {
        // SAFETY: plain integers.
        return unsafe { sys!(sys::SYS_kill, pid, signal) };
    };
    let asks = signal == 0;
    let number = match number(signal) {
        Some(number) => number,
        None if asks => 1,
        None => return error(libc::EINVAL),
    };
    let info = sent_by(&mut turn, number, code, value);
    let mut any = false;
    let mut to_me = false;
    for process in 0..brolga_vnet::PROCESSES_MAX as u16 {
        if !pid::is_meant(&mut turn, process, pid) {
            continue;
        }
        any = true;
        if !asks {
            to_me |= process == turn.process();
            send(&mut turn, process, info);
        }
    }
    if !any {
        return error(libc::ESRCH);
    }
    if to_me && turn.signal_due() {
        turn.deliver();
    }
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn kill(pid: c_int, signal: c_int) -> c_int {
    finish(kill_(pid, signal, libc::SI_USER, 0)) as c_int
}

#[unsafe(no_mangle)]
pub extern "C" fn killpg(group: c_int, signal: c_int) -> c_int {
    if group < 0 {
        return finish(error(libc::EINVAL)) as c_int;
    }
    kill(-group, signal)
}

#[unsafe(no_mangle)]
pub extern "C" fn sigqueue(pid: c_int, signal: c_int, value: u64) -> c_int {
    if pid <= 0 {
        return finish(error(libc::EINVAL)) as c_int;
    }
    finish(kill_(pid, signal, libc::SI_QUEUE, value)) as c_int
}

/// Sends to one thread of this process; `Err` is an errno.
fn send_to_thread(turn: &mut Turn, ix: ThreadIx, signal: c_int, value: Option<u64>) -> isize {
    let number = match number(signal) {
        Some(number) => number,
        None if signal == 0 => return 0,
        None => return error(libc::EINVAL),
    };
    if ix == turn.me() && KERNEL.contains(&signal) {
        return raise_for_real(signal);
    }
    let code = if value.is_some() {
        libc::SI_QUEUE
    } else {
        SI_TKILL
    };
    let info = sent_by(turn, number, code, value.unwrap_or(0));
    turn.post_to_thread(ix, info);
    if ix == turn.me() && turn.signal_due() {
        turn.deliver();
    }
    0
}

/// Has the kernel send a signal to this thread.
pub(crate) fn raise_for_real(signal: c_int) -> isize {
    // SAFETY: plain integers.
    unsafe {
        let (pid, tid) = (sys!(sys::SYS_getpid), sys!(sys::SYS_gettid));
        sys!(sys::SYS_tgkill, pid, tid, signal)
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn raise(signal: c_int) -> c_int {
    finish(match Turn::take(op::KILL) {
        Some(mut turn) => {
            let me = turn.me();
            send_to_thread(&mut turn, me, signal, None)
        }
        None => raise_for_real(signal),
    }) as c_int
}

#[unsafe(no_mangle)]
pub extern "C" fn gsignal(signal: c_int) -> c_int {
    raise(signal)
}

/// Unlike the others this one returns the error itself.
#[unsafe(no_mangle)]
pub extern "C" fn pthread_kill(handle: u64, signal: c_int) -> c_int {
    let Some(mut turn) = Turn::take(op::KILL) else {
        return libc_own!(pthread_kill(handle: u64, signal: c_int) -> c_int);
    };
    match handle::by_handle(&mut turn, handle) {
        Some(ix) if turn.scheduler().has_exited(ix) => 0,
        Some(ix) => -send_to_thread(&mut turn, ix, signal, None) as c_int,
        None => libc::ESRCH,
    }
}

/// Unlike the others this one returns the error itself.
#[unsafe(no_mangle)]
pub extern "C" fn pthread_sigqueue(handle: u64, signal: c_int, value: u64) -> c_int {
    let Some(mut turn) = Turn::take(op::KILL) else {
        return libc_own!(pthread_sigqueue(handle: u64, signal: c_int, value: u64) -> c_int);
    };
    match handle::by_handle(&mut turn, handle) {
        Some(ix) => -send_to_thread(&mut turn, ix, signal, Some(value)) as c_int,
        None => libc::ESRCH,
    }
}

fn tgkill_(pid: Option<c_int>, tid: c_int, signal: c_int) -> isize {
    let Some(mut turn) = Turn::take(op::KILL) else {
        // SAFETY: plain integers.
        return unsafe {
            match pid {
                Some(pid) => sys!(sys::SYS_tgkill, pid, tid, signal),
                None => sys!(libc::SYS_tkill, tid, signal),
            }
        };
    };
    let shared = turn.shared();
    let (scheduler, threads) = (&shared.scheduler, &shared.threads);
    let fits = |ix: &ThreadIx| {
        let process = usize::from(scheduler.thread(*ix).process);
        threads[usize::from(*ix) - 1].tid == tid
            && pid.is_none_or(|pid| shared.processes[process].pid == pid)
    };
    let found = scheduler.living().find(fits);
    match found {
        Some(ix) => send_to_thread(&mut turn, ix, signal, None),
        None => error(libc::ESRCH),
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn tgkill(pid: c_int, tid: c_int, signal: c_int) -> c_int {
    finish(tgkill_(Some(pid), tid, signal)) as c_int
}

/// As the system calls tgkill and tkill.
pub(crate) fn send_by_id(pid: Option<c_int>, tid: c_int, signal: c_int) -> isize {
    tgkill_(pid, tid, signal)
}
