//! Signals: actions, masks, sending, waiting for them.
//!
//! All of it is logical state, see [`crate::signal_delivery`]. The kernel keeps only the actions of those
//! signals that the program's own instructions raise ([`KERNEL`]), which come at the same instruction
//! everywhere, and a copy of the mask, because `sigsetjmp` asks it. A real signal from outside the tree
//! meets the default action and so ends the replica, which is then started anew: operators' signals go
//! through the log (`brolga signal`).

use super::crash;
use crate::hooks::process::fork;
use crate::hooks::thread::pthread;
use crate::hooks::time::clock;
use crate::hooks::{error, op, own};
use crate::libc_symbols::libc_own;
use crate::signal_delivery::{Delivered, describe};
use crate::sys::{self, finish, sys};
use crate::tls::really;
use crate::turn::{self, Turn, space};
use brolga_dmt::{Key, ThreadIx, Wakeup};
use brolga_vsignal::{self as vsignal, Action, Info, SIGNAL_MAX, Set};
use core::ffi::c_int;
use libc::{sigset_t, timespec};

/// Raised by the program's own instructions, or by `abort`.
pub(crate) const KERNEL: [c_int; 6] = [
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
];

/// A signal number, if it is one.
fn number(signal: c_int) -> Option<u8> {
    u8::try_from(signal)
        .ok()
        .filter(|signal| (1..=SIGNAL_MAX).contains(signal))
}

/// # Safety
/// `set` is null or points to a set.
pub(crate) unsafe fn set_at(set: *const sigset_t) -> Option<Set> {
    // SAFETY: the caller's promise; the first word of a set holds all 64 signals.
    (!set.is_null()).then(|| Set(unsafe { *set.cast::<u64>() }))
}

/// # Safety
/// `to` is null or has room for a set.
unsafe fn put_set(to: *mut sigset_t, set: Set) {
    if !to.is_null() {
        // SAFETY: the caller's promise; all zeros but the first word are a valid set.
        unsafe {
            to.write_bytes(0, 1);
            to.cast::<u64>().write(set.0);
        }
    }
}

// ---- actions ----

/// As `struct sigaction` lies in memory.
#[repr(C)]
pub struct Sigaction {
    handler: usize,
    mask: [u64; 16],
    flags: c_int,
    restorer: usize,
}

impl Sigaction {
    pub(crate) const DEFAULT: Self = Self::with_handler(vsignal::DEFAULT);

    pub(crate) const fn with_handler(handler: usize) -> Self {
        Self {
            handler,
            mask: [0; 16],
            flags: 0,
            restorer: 0,
        }
    }

    pub(crate) fn new(handler: usize, mask: u64, flags: c_int) -> Self {
        let mut action = Self::with_handler(handler);
        action.mask[0] = mask;
        action.flags = flags;
        action
    }

    pub(crate) fn handler(&self) -> usize {
        self.handler
    }

    /// Handler, mask, flags.
    pub(crate) fn parts(&self) -> (usize, u64, c_int) {
        (self.handler, self.mask[0], self.flags)
    }
}

const _: () = assert!(size_of::<Sigaction>() == size_of::<libc::sigaction>());

/// libc's own, for what the kernel is to know.
fn real_sigaction(signal: c_int, new: *const Sigaction, old: *mut Sigaction) -> c_int {
    really(
        || libc_own!(sigaction(signal: c_int, new: *const Sigaction, old: *mut Sigaction) -> c_int),
    )
}

unsafe fn sigaction_(signal: c_int, new: *const Sigaction, old: *mut Sigaction) -> isize {
    let Some(mut turn) = Turn::take(op::SIGACTION) else {
        return own(real_sigaction(signal, new, old));
    };
    let Some(number) = number(signal) else {
        return error(libc::EINVAL);
    };
    let fixed = number == vsignal::KILL || number == vsignal::STOP;
    if fixed && !new.is_null() {
        return error(libc::EINVAL);
    }
    let process = turn.process();
    let before = turn.shared().signals.action(process, number);
    // SAFETY: the caller promises null or valid; read before `old` is written, which may be the same.
    let wanted = unsafe { new.as_ref() }.map(|new| Action {
        handler: new.handler,
        flags: u64::from(new.flags.cast_unsigned()),
        mask: Set(new.mask[0]).blockable(),
    });
    if let Some(action) = wanted
        && KERNEL.contains(&signal)
    {
        let result = match action.handler {
            _ if signal == libc::SIGSEGV => 0, // `crash` calls the program's own
            vsignal::DEFAULT => crash::install(signal),
            _ => real_sigaction(signal, new, core::ptr::null_mut()),
        };
        if result != 0 {
            return own(result);
        }
    }
    if !old.is_null() {
        let mut mask = [0; 16];
        mask[0] = before.mask.0;
        // SAFETY: the caller promises room.
        unsafe {
            old.write(Sigaction {
                handler: before.handler,
                mask,
                flags: before.flags as c_int,
                restorer: 0,
            });
        }
    }
    if let Some(action) = wanted {
        let shared = turn.shared();
        let (scheduler, signals) = (&shared.scheduler, &mut shared.signals);
        let ours = |ix: &ThreadIx| scheduler.thread(*ix).process == process;
        signals.set_action(process, number, action, scheduler.living().filter(ours));
        turn.refresh_signal_files(process);
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigaction(
    signal: c_int,
    new: *const Sigaction,
    old: *mut Sigaction,
) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { sigaction_(signal, new, old) }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sigaction(
    signal: c_int,
    new: *const Sigaction,
    old: *mut Sigaction,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { sigaction(signal, new, old) }
}

/// Sets a handler with flags; gives the one before, or `SIG_ERR`.
fn set_handler(signal: c_int, handler: usize, flags: c_int) -> usize {
    let new = Sigaction {
        handler,
        mask: [0; 16],
        flags,
        restorer: 0,
    };
    let mut old = Sigaction {
        handler: 0,
        mask: [0; 16],
        flags: 0,
        restorer: 0,
    };
    // SAFETY: both are valid.
    match unsafe { sigaction(signal, &raw const new, &raw mut old) } {
        0 => old.handler,
        _ => libc::SIG_ERR,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn signal(signal: c_int, handler: usize) -> usize {
    set_handler(signal, handler, libc::SA_RESTART)
}

#[unsafe(no_mangle)]
pub extern "C" fn bsd_signal(signal: c_int, handler: usize) -> usize {
    set_handler(signal, handler, libc::SA_RESTART)
}

#[unsafe(no_mangle)]
pub extern "C" fn __sysv_signal(signal: c_int, handler: usize) -> usize {
    set_handler(signal, handler, libc::SA_RESETHAND | libc::SA_NODEFER)
}

#[unsafe(no_mangle)]
pub extern "C" fn sysv_signal(signal: c_int, handler: usize) -> usize {
    __sysv_signal(signal, handler)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn siginterrupt(signal: c_int, interrupt: c_int) -> c_int {
    let mut action = core::mem::MaybeUninit::<Sigaction>::uninit();
    // SAFETY: room for an action, which a success fills.
    unsafe {
        if sigaction(signal, core::ptr::null(), action.as_mut_ptr()) != 0 {
            return -1;
        }
        let action = action.assume_init_mut();
        if interrupt != 0 {
            action.flags &= !libc::SA_RESTART;
        } else {
            action.flags |= libc::SA_RESTART;
        }
        sigaction(signal, action, core::ptr::null_mut())
    }
}

// ---- masks ----

/// The kernel's copy of this thread's mask, without the signals that libc and we need for ourselves.
fn copy_to_kernel(mask: Set) {
    const LIBC: Set = Set::of(32).with(Set::of(33));
    const OURS: Set = Set::of(libc::SIGSYS as u8).with(Set::of(libc::SIGSEGV as u8));
    let mask = mask.without(LIBC).without(OURS).0;
    // SAFETY: a set of eight bytes, nothing wanted back.
    unsafe {
        sys!(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            0,
            8
        )
    };
}

/// Changes the calling thread's mask and acts on what that lets through.
fn set_mask(turn: &mut Turn, mask: Set) {
    let (me, process) = (turn.me(), turn.process());
    turn.shared().signals.set_mask(me, mask);
    let mask = turn.shared().signals.mask(me);
    copy_to_kernel(mask);
    if turn.shared().signals.pending(process, me) != Set(0) {
        turn.deliver();
        turn.retarget();
    }
}

unsafe fn sigprocmask_(how: c_int, new: *const sigset_t, old: *mut sigset_t) -> isize {
    let Some(mut turn) = Turn::take(op::SIGMASK) else {
        // SAFETY: the caller's pointers, passed on.
        return unsafe { sys!(libc::SYS_rt_sigprocmask, how, new, old, 8) };
    };
    let me = turn.me();
    let before = turn.shared().signals.mask(me);
    // SAFETY: the caller promises null or a valid set; read before `old` is written.
    let wanted = unsafe { set_at(new) };
    let mask = match (wanted, how) {
        (None, _) => None,
        (Some(set), libc::SIG_BLOCK) => Some(before.with(set)),
        (Some(set), libc::SIG_UNBLOCK) => Some(before.without(set)),
        (Some(set), libc::SIG_SETMASK) => Some(set),
        _ => return error(libc::EINVAL),
    };
    // SAFETY: the caller promises null or room for a set.
    unsafe { put_set(old, before) };
    if let Some(mask) = mask {
        set_mask(&mut turn, mask);
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigprocmask(
    how: c_int,
    new: *const sigset_t,
    old: *mut sigset_t,
) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { sigprocmask_(how, new, old) }) as c_int
}

/// Unlike the others this one returns the error itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_sigmask(
    how: c_int,
    new: *const sigset_t,
    old: *mut sigset_t,
) -> c_int {
    // SAFETY: the caller's promise.
    -unsafe { sigprocmask_(how, new, old) } as c_int
}

fn change_one(signal: c_int, how: c_int) -> c_int {
    let Some(number) = number(signal) else {
        return finish(error(libc::EINVAL)) as c_int;
    };
    let mut set = [0u64; 16];
    set[0] = Set::of(number).0;
    // SAFETY: a set of the right size, nothing wanted back.
    unsafe { sigprocmask(how, set.as_ptr().cast(), core::ptr::null_mut()) }
}

#[unsafe(no_mangle)]
pub extern "C" fn sighold(signal: c_int) -> c_int {
    change_one(signal, libc::SIG_BLOCK)
}

#[unsafe(no_mangle)]
pub extern "C" fn sigrelse(signal: c_int) -> c_int {
    change_one(signal, libc::SIG_UNBLOCK)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigpending(to: *mut sigset_t) -> c_int {
    let Some(mut turn) = Turn::take(op::SIGMASK) else {
        // SAFETY: the caller's pointer, passed on.
        return finish(unsafe { sys!(libc::SYS_rt_sigpending, to, 8) }) as c_int;
    };
    let (process, me) = (turn.process(), turn.me());
    let pending = turn.shared().signals.pending(process, me);
    // SAFETY: the caller promises room for a set.
    unsafe { put_set(to, pending) };
    0
}

/// Waits under another mask, as `ppoll` and its kin do: a signal that it lets through ends the wait.
///
/// # Safety
/// `mask` is null or points to a set.
pub(crate) unsafe fn with_mask(
    turn: &mut Turn,
    mask: *const sigset_t,
    wait: impl FnOnce(&mut Turn) -> isize,
) -> isize {
    // SAFETY: the caller's promise.
    let Some(mask) = (unsafe { set_at(mask) }) else {
        return wait(turn);
    };
    let me = turn.me();
    let before = turn.shared().signals.mask(me);
    turn.shared().signals.set_mask(me, mask);
    let result = if turn.signal_due() && turn.deliver() != Delivered::Nothing {
        error(libc::EINTR)
    } else {
        wait(turn)
    };
    let me = turn.me();
    turn.shared().signals.set_mask(me, before);
    if turn.signal_due() {
        turn.deliver();
    }
    result
}

// ---- jumps ----

/// What `sigsetjmp` has saved (`struct __jmp_buf_tag`).
#[repr(C)]
pub struct JumpBuffer {
    registers: [u64; 8],
    mask_was_saved: c_int,
    mask: [u64; 16],
}

/// Our copy of the mask follows the kernel's, which libc's function is about to set.
unsafe fn restore_mask(buffer: *const JumpBuffer) {
    let Some(mut turn) = Turn::have() else { return };
    // Out of the handler of a signal, perhaps, and so out of the call that it interrupted.
    turn.set_caught(false);
    // SAFETY: the caller promises a buffer that sigsetjmp has filled.
    let (saved, mask) = unsafe { ((*buffer).mask_was_saved, (*buffer).mask[0]) };
    if saved != 0 {
        let me = turn.me();
        turn.shared().signals.set_mask(me, Set(mask));
        if turn.signal_due() {
            turn.scheduler().demand_attention();
        }
    }
}

macro_rules! jumps {
    ($($name:ident)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(buffer: *const JumpBuffer, value: c_int) -> ! {
            // SAFETY: the caller's promise.
            unsafe { restore_mask(buffer) };
            turn::let_go();
            libc_own!($name(buffer: *const JumpBuffer, value: c_int) -> !)
        }
    )* };
}

jumps! { siglongjmp longjmp _longjmp __longjmp_chk }

// ---- sending ----

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

/// Posts to a process; SIGKILL acts at once, since nobody can be asked.
fn send(turn: &mut Turn, process: u16, info: Info) {
    let target = turn.shared().processes[usize::from(process)];
    if target.ended {
        return;
    }
    // The root has to end by its own hand, see `fork::outlive`.
    let root = process == crate::shared::FIRST;
    if info.signal == vsignal::KILL && process != turn.process() && !root {
        fork::kill_outright(turn, process, libc::SIGKILL);
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
        if !fork::is_meant(&mut turn, process, pid) {
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
    const SI_TKILL: i32 = -6;
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
    match pthread::by_handle(&mut turn, handle) {
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
    match pthread::by_handle(&mut turn, handle) {
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

/// To this very thread, for a write on a broken connection or pipe.
pub(crate) fn raise_sigpipe(turn: &mut Turn) {
    let me = turn.me();
    send_to_thread(turn, me, libc::SIGPIPE, None);
}

// ---- waiting ----

fn wait_key(turn: &Turn) -> Key {
    Key {
        space: space::SIGNAL,
        id: u64::from(turn.me()),
    }
}

/// Waits for a handler to run under a mask.
fn suspend(turn: &mut Turn, mask: Set) -> isize {
    let me = turn.me();
    let before = turn.shared().signals.mask(me);
    turn.shared().signals.set_mask(me, mask);
    if !turn.signal_due() || turn.deliver() == Delivered::Nothing {
        loop {
            let key = wait_key(turn);
            if matches!(turn.block(key, None), Wakeup::Interrupted | Wakeup::Restart) {
                break;
            }
        }
    }
    let me = turn.me();
    turn.shared().signals.set_mask(me, before);
    if turn.signal_due() {
        turn.deliver();
    }
    error(libc::EINTR)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigsuspend(mask: *const sigset_t) -> c_int {
    let Some(mut turn) = Turn::take(op::SIGWAIT) else {
        // SAFETY: the caller's pointer, passed on.
        return finish(unsafe { sys!(libc::SYS_rt_sigsuspend, mask, 8) }) as c_int;
    };
    // SAFETY: the caller's promise.
    match unsafe { set_at(mask) } {
        Some(mask) => finish(suspend(&mut turn, mask)) as c_int,
        None => finish(error(libc::EFAULT)) as c_int,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn pause() -> c_int {
    let Some(mut turn) = Turn::take(op::SIGWAIT) else {
        // SAFETY: no arguments.
        return finish(unsafe { sys!(libc::SYS_pause) }) as c_int;
    };
    let me = turn.me();
    let mask = turn.shared().signals.mask(me);
    finish(suspend(&mut turn, mask)) as c_int
}

/// Waits for a signal of the set; `Err` is an errno.
fn await_signal(turn: &mut Turn, set: Set, deadline_ns: Option<u64>) -> Result<Info, c_int> {
    loop {
        let (process, me) = (turn.process(), turn.me());
        if let Some(info) = turn.shared().signals.take_from(process, me, set) {
            turn.refresh_signal_files(process);
            turn.scheduler().note(u64::from(info.signal));
            return Ok(info);
        }
        if deadline_ns.is_some_and(|deadline| deadline <= turn.now_ns()) {
            return Err(libc::EAGAIN);
        }
        turn.shared().signals.set_awaited(me, set);
        let key = wait_key(turn);
        let woken = turn.block(key, deadline_ns);
        let me = turn.me();
        turn.shared().signals.set_awaited(me, Set(0));
        if matches!(woken, Wakeup::Interrupted | Wakeup::Restart) {
            return Err(libc::EINTR);
        }
    }
}

/// Unlike the others this one returns the error itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigwait(set: *const sigset_t, signal: *mut c_int) -> c_int {
    let Some(mut turn) = Turn::take(op::SIGWAIT) else {
        return libc_own!(sigwait(set: *const sigset_t, signal: *mut c_int) -> c_int);
    };
    // SAFETY: the caller's promise.
    let Some(set) = (unsafe { set_at(set) }) else {
        return libc::EINVAL;
    };
    loop {
        match await_signal(&mut turn, set, None) {
            Ok(info) => {
                // SAFETY: the caller promises room for an int.
                unsafe { signal.write(c_int::from(info.signal)) };
                return 0;
            }
            Err(libc::EINTR) => turn.cancel_if_due(),
            Err(errno) => return errno,
        }
    }
}

unsafe fn sigtimedwait_(
    set: *const sigset_t,
    info: *mut libc::siginfo_t,
    timeout: *const timespec,
) -> isize {
    let Some(mut turn) = Turn::take(op::SIGWAIT) else {
        // SAFETY: the caller's pointers, passed on.
        return unsafe { sys!(libc::SYS_rt_sigtimedwait, set, info, timeout, 8) };
    };
    // SAFETY: the caller's promise.
    let (set, timeout) = unsafe { (set_at(set), timeout.as_ref()) };
    let Some(set) = set else {
        return error(libc::EINVAL);
    };
    let now = turn.now_ns();
    let deadline = timeout.map(|timeout| now.saturating_add(clock::ns_of(timeout)));
    match await_signal(&mut turn, set, deadline) {
        Ok(taken) => {
            if !info.is_null() {
                // SAFETY: the caller promises room for a siginfo.
                unsafe { info.write(describe(&taken)) };
            }
            isize::from(taken.signal)
        }
        Err(errno) => error(errno),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigtimedwait(
    set: *const sigset_t,
    info: *mut libc::siginfo_t,
    timeout: *const timespec,
) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { sigtimedwait_(set, info, timeout) }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigwaitinfo(set: *const sigset_t, info: *mut libc::siginfo_t) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { sigtimedwait_(set, info, core::ptr::null()) }) as c_int
}

/// Sets what the kernel is to do.
pub(crate) fn set_for_real(signal: c_int, handler: usize, flags: c_int) -> c_int {
    let new = Sigaction {
        handler,
        mask: [0; 16],
        flags,
        restorer: 0,
    };
    real_sigaction(signal, &raw const new, core::ptr::null_mut())
}

/// After an `exec` in the tree: handlers are gone.
pub fn after_exec(turn: &mut Turn) {
    let process = turn.process();
    turn.shared().signals.program_changed(process);
}

/// An operator's signal, ordered by the log: for the tree's first process.
pub fn from_operator(turn: &mut Turn, signal: u32) {
    if let Some(number) = u8::try_from(signal)
        .ok()
        .and_then(|signal| number(signal.into()))
    {
        let info = Info {
            signal: number,
            code: libc::SI_USER,
            ..Info::default()
        };
        let root = turn.shared().root_process();
        if number == vsignal::KILL {
            turn::fault(&[b"the operator sent SIGKILL"]);
        }
        turn.post_to_process(root, info);
    }
}
