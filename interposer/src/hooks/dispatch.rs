//! System calls by number: those that the seccomp filter has caught, and those made through
//! `syscall`. Each is treated like libc's function of that name; differences between the kernel's
//! call and libc's function are handled here.
//!
//! Calls that are allowed or refused by number are decided in [`brolga_filter`].

use crate::hooks::fd::{
    close, dup, eventfd, fcntl, ioctl, pipe, read_write, signalfd, splice, timerfd,
};
use crate::hooks::fs::{getdents, open, path, stat, statfs, sync};
use crate::hooks::ipc::sysv;
use crate::hooks::net::{accept, connect, mmsg, recv_send, socket, sockopt};
use crate::hooks::poll::{self, epoll, select};
use crate::hooks::process::{capability, exec, exit, fork, pgrp, pid, wait};
use crate::hooks::result::{error, finish};
use crate::hooks::signal::{action, kernel, mask, send, sigwait};
use crate::hooks::thread::{affinity, futex, pthread, sched};
use crate::hooks::time::{clock, itimer, sleep, timer};
use crate::hooks::{random, resource, sysinfo};
use crate::sys;
use crate::turn::{Turn, fault};
use brolga_filter::{Rule, rule};
use brolga_tape::operation as op;
use core::ffi::{CStr, c_char, c_int};
use core::ptr::{null, with_exposed_provenance as at, with_exposed_provenance_mut as at_mut};

/// Arguments as words.
type Words = [usize; 6];

/// Bytes of the kernel's signal sets; libc's are larger.
const SET_BYTES: usize = 8;
/// A whole set of libc's.
type WholeSet = [u64; 16];

/// A result of libc's, as the kernel gives it.
fn kernel(result: impl Into<i64>) -> isize {
    match result.into() {
        -1 => error(sys::errno()),
        other => other as isize,
    }
}

/// A size of libc's, as the kernel gives it.
fn size(result: isize) -> isize {
    kernel(result as i64)
}

/// Executes the call as a wrapped server's. `None`: an unknown call.
///
/// # Safety
/// The arguments are what the kernel expects for that call.
pub unsafe fn call(number: i64, a: Words) -> Option<isize> {
    // SAFETY: the caller's promise, for all of them.
    unsafe {
        data(number, a)
            .or_else(|| descriptors(number, a))
            .or_else(|| sockets(number, a))
            .or_else(|| clocks(number, a))
            .or_else(|| processes(number, a))
            .or_else(|| signals(number, a))
            .or_else(|| names(number, a))
            .or_else(|| machine(number, a))
            .or_else(|| sysv::dispatch(number, a))
    }
}

/// Reading, writing and waiting to.
///
/// # Safety
/// The arguments are what the kernel expects for that call.
unsafe fn data(number: i64, a: Words) -> Option<isize> {
    let fd = a[0] as c_int;
    // SAFETY: the caller promises that the arguments are what the kernel expects for that call.
    Some(unsafe {
        match number {
            sys::SYS_read => read_write::read_(fd, at_mut(a[1]), a[2]),
            sys::SYS_write => read_write::write_(fd, at(a[1]), a[2]),
            sys::SYS_readv => size(read_write::readv(fd, at(a[1]), a[2] as _)),
            sys::SYS_writev => size(read_write::writev(fd, at(a[1]), a[2] as _)),
            libc::SYS_splice => {
                let (from, to) = (at_mut(a[1]), at_mut(a[3]));
                size(splice::splice(fd, from, a[2] as _, to, a[4], a[5] as _))
            }
            libc::SYS_tee => size(splice::tee(fd, a[1] as _, a[2], a[3] as _)),
            libc::SYS_vmsplice => size(splice::vmsplice(fd, at(a[1]), a[2], a[3] as _)),
            libc::SYS_sendfile => size(splice::sendfile(fd, a[1] as _, at_mut(a[2]), a[3])),
            sys::SYS_futex => match Turn::take(op::FUTEX) {
                Some(turn) => futex::futex(turn, a),
                None => sys::syscall6(number, a),
            },
            sys::SYS_poll => kernel(poll::poll(at_mut(a[0]), a[1] as _, a[2] as _)),
            sys::SYS_ppoll => {
                let (times, mask) = (at(a[2]), at(a[3]));
                kernel(poll::ppoll(at_mut(a[0]), a[1] as _, times, mask))
            }
            libc::SYS_select => {
                let (reads, writes, excepts) = (at_mut(a[1]), at_mut(a[2]), at_mut(a[3]));
                kernel(select::select(fd, reads, writes, excepts, at_mut(a[4])))
            }
            sys::SYS_pselect6 => {
                let (reads, writes, excepts) = (at_mut(a[1]), at_mut(a[2]), at_mut(a[3]));
                let mask = at::<usize>(a[5]).as_ref().map_or(null(), |mask| at(*mask));
                kernel(select::pselect(fd, reads, writes, excepts, at(a[4]), mask))
            }
            libc::SYS_epoll_create => kernel(epoll::epoll_create(fd)),
            sys::SYS_epoll_create1 => kernel(epoll::epoll_create1(fd)),
            sys::SYS_epoll_ctl => kernel(epoll::epoll_ctl(fd, a[1] as _, a[2] as _, at_mut(a[3]))),
            sys::SYS_epoll_wait => {
                kernel(epoll::epoll_wait(fd, at_mut(a[1]), a[2] as _, a[3] as _))
            }
            libc::SYS_epoll_pwait => {
                let (events, mask) = (at_mut(a[1]), at(a[4]));
                kernel(epoll::epoll_pwait(fd, events, a[2] as _, a[3] as _, mask))
            }
            libc::SYS_epoll_pwait2 => {
                let (events, times, mask) = (at_mut(a[1]), at(a[3]), at(a[4]));
                kernel(epoll::epoll_pwait2(fd, events, a[2] as _, times, mask))
            }
            _ => return None,
        }
    })
}

/// Making, copying and closing descriptors.
///
/// # Safety
/// As [`data`].
unsafe fn descriptors(number: i64, a: Words) -> Option<isize> {
    let fd = a[0] as c_int;
    let here = libc::AT_FDCWD;
    // SAFETY: the caller's promise.
    Some(unsafe {
        match number {
            libc::SYS_open => open::open_(here, at(a[0]), a[1] as _, a[2] as _),
            sys::SYS_openat => open::open_(fd, at(a[1]), a[2] as _, a[3] as _),
            libc::SYS_creat => {
                let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
                open::open_(here, at(a[0]), flags, a[1] as _)
            }
            sys::SYS_close => close::close_(fd),
            sys::SYS_close_range => kernel(close::close_range(a[0] as _, a[1] as _, a[2] as _)),
            sys::SYS_dup => kernel(dup::dup(fd)),
            sys::SYS_dup2 => dup::dup2_(fd, a[1] as _),
            sys::SYS_dup3 => kernel(dup::dup3(fd, a[1] as _, a[2] as _)),
            sys::SYS_fcntl => kernel(fcntl::fcntl(fd, a[1] as _, a[2])),
            sys::SYS_ioctl => kernel(ioctl::ioctl(fd, a[1] as _, at_mut(a[2]))),
            libc::SYS_pipe => pipe::pipe2_(at_mut(a[0]), 0),
            sys::SYS_pipe2 => pipe::pipe2_(at_mut(a[0]), a[1] as _),
            sys::SYS_fsync | sys::SYS_fdatasync | libc::SYS_syncfs => sync::sync(number, fd),
            libc::SYS_sync => 0,
            libc::SYS_eventfd => kernel(eventfd::eventfd(a[0] as _, 0)),
            sys::SYS_eventfd2 => kernel(eventfd::eventfd(a[0] as _, a[1] as _)),
            libc::SYS_signalfd => kernel(signalfd::signalfd(fd, at(a[1]), 0)),
            libc::SYS_signalfd4 => kernel(signalfd::signalfd(fd, at(a[1]), a[3] as _)),
            libc::SYS_timerfd_create => kernel(timerfd::timerfd_create(fd, a[1] as _)),
            libc::SYS_timerfd_settime => kernel(timerfd::timerfd_settime(
                fd,
                a[1] as _,
                at(a[2]),
                at_mut(a[3]),
            )),
            libc::SYS_timerfd_gettime => kernel(timerfd::timerfd_gettime(fd, at_mut(a[1]))),
            // A descriptor of a process becomes readable when the kernel likes.
            sys::SYS_pidfd_open => error(libc::ENOSYS),
            _ => return None,
        }
    })
}

/// Sockets.
///
/// # Safety
/// As [`data`].
unsafe fn sockets(number: i64, a: Words) -> Option<isize> {
    let fd = a[0] as c_int;
    // SAFETY: the caller's promise.
    Some(unsafe {
        match number {
            sys::SYS_socket => kernel(socket::socket(fd, a[1] as _, a[2] as _)),
            sys::SYS_socketpair => {
                kernel(socket::socketpair(fd, a[1] as _, a[2] as _, at_mut(a[3])))
            }
            sys::SYS_bind => kernel(socket::bind(fd, at(a[1]), a[2] as _)),
            sys::SYS_listen => kernel(socket::listen(fd, a[1] as _)),
            libc::SYS_accept => kernel(accept::accept(fd, at_mut(a[1]), at_mut(a[2]))),
            sys::SYS_accept4 => kernel(accept::accept4(fd, at_mut(a[1]), at_mut(a[2]), a[3] as _)),
            sys::SYS_connect => kernel(connect::connect(fd, at(a[1]), a[2] as _)),
            sys::SYS_shutdown => kernel(socket::shutdown(fd, a[1] as _)),
            sys::SYS_sendto => {
                let (from, to) = (at(a[1]), at(a[4]));
                size(recv_send::sendto(fd, from, a[2], a[3] as _, to, a[5] as _))
            }
            sys::SYS_recvfrom => {
                let (to, from, len) = (at_mut(a[1]), at_mut(a[4]), at_mut(a[5]));
                size(recv_send::recvfrom(fd, to, a[2], a[3] as _, from, len))
            }
            sys::SYS_sendmsg => recv_send::sendmsg_(fd, at(a[1]), a[2] as _),
            sys::SYS_recvmsg => recv_send::recvmsg_(fd, at_mut(a[1]), a[2] as _),
            libc::SYS_sendmmsg => kernel(mmsg::sendmmsg(fd, at_mut(a[1]), a[2] as _, a[3] as _)),
            libc::SYS_recvmmsg => {
                let (messages, timeout) = (at_mut(a[1]), at_mut(a[4]));
                kernel(mmsg::recvmmsg(fd, messages, a[2] as _, a[3] as _, timeout))
            }
            sys::SYS_setsockopt => kernel(sockopt::setsockopt(
                fd,
                a[1] as _,
                a[2] as _,
                at(a[3]),
                a[4] as _,
            )),
            libc::SYS_getsockopt => {
                let (to, len) = (at_mut(a[3]), at_mut(a[4]));
                kernel(sockopt::getsockopt(fd, a[1] as _, a[2] as _, to, len))
            }
            libc::SYS_getsockname => kernel(sockopt::getsockname(fd, at_mut(a[1]), at_mut(a[2]))),
            libc::SYS_getpeername => kernel(sockopt::getpeername(fd, at_mut(a[1]), at_mut(a[2]))),
            _ => return None,
        }
    })
}

/// Clocks, sleeps and timers.
///
/// # Safety
/// As [`data`].
unsafe fn clocks(number: i64, a: Words) -> Option<isize> {
    let first = a[0] as c_int;
    // SAFETY: the caller's promise.
    Some(unsafe {
        match number {
            libc::SYS_clock_gettime => kernel(clock::clock_gettime(first, at_mut(a[1]))),
            libc::SYS_clock_getres => kernel(clock::clock_getres(first, at_mut(a[1]))),
            libc::SYS_clock_settime => error(libc::EPERM),
            libc::SYS_gettimeofday => kernel(clock::gettimeofday(at_mut(a[0]), at_mut(a[1]))),
            libc::SYS_time => clock::time(at_mut(a[0])) as isize,
            libc::SYS_times => resource::times(at_mut(a[0])) as isize,
            libc::SYS_getrusage => kernel(resource::getrusage(first, at_mut(a[1]))),
            sys::SYS_nanosleep => kernel(sleep::nanosleep(at(a[0]), at_mut(a[1]))),
            sys::SYS_clock_nanosleep => {
                -(sleep::clock_nanosleep(first, a[1] as _, at(a[2]), at_mut(a[3])) as isize)
            }
            sys::SYS_sched_yield => kernel(sched::sched_yield()),
            libc::SYS_alarm => itimer::alarm(a[0] as _) as isize,
            libc::SYS_getitimer => kernel(itimer::getitimer(first, at_mut(a[1]))),
            libc::SYS_setitimer => kernel(itimer::setitimer(first, at(a[1]), at_mut(a[2]))),
            libc::SYS_timer_create => {
                // The kernel's timers are ints.
                let mut made = 0usize;
                let result = kernel(timer::timer_create(first, at(a[1]), &raw mut made));
                if result == 0 {
                    at_mut::<c_int>(a[2]).write(made as c_int);
                }
                result
            }
            libc::SYS_timer_settime => kernel(timer::timer_settime(
                a[0],
                a[1] as _,
                at(a[2]),
                at_mut(a[3]),
            )),
            libc::SYS_timer_gettime => kernel(timer::timer_gettime(a[0], at_mut(a[1]))),
            libc::SYS_timer_getoverrun => kernel(timer::timer_getoverrun(a[0])),
            libc::SYS_timer_delete => kernel(timer::timer_delete(a[0])),
            _ => return None,
        }
    })
}

/// Making, executing and awaiting processes.
///
/// # Safety
/// As [`data`].
unsafe fn processes(number: i64, a: Words) -> Option<isize> {
    let first = a[0] as c_int;
    // SAFETY: the caller's promise.
    Some(unsafe {
        match number {
            sys::SYS_getpid => kernel(pid::getpid()),
            sys::SYS_getppid => kernel(pid::getppid()),
            sys::SYS_gettid => kernel(pthread::gettid()),
            libc::SYS_getpgid => kernel(pgrp::getpgid(first)),
            libc::SYS_getpgrp => kernel(pgrp::getpgrp()),
            libc::SYS_getsid => kernel(pgrp::getsid(first)),
            libc::SYS_setpgid => kernel(pgrp::setpgid(first, a[1] as _)),
            libc::SYS_setsid => kernel(pgrp::setsid()),
            libc::SYS_fork | libc::SYS_vfork => kernel(fork::fork()),
            libc::SYS_clone if is_fork(a) => kernel(fork::fork()),
            libc::SYS_clone => error(libc::ENOSYS),
            libc::SYS_execve => exec::execute_path(at(a[0]), at(a[1]), at(a[2])),
            libc::SYS_execveat => exec::execute(first, at(a[1]), at(a[2]), at(a[3]), a[4] as _),
            libc::SYS_exit => pthread::exit(first),
            sys::SYS_exit_group => exit::_exit(first),
            sys::SYS_wait4 => kernel(wait::wait4(first, at_mut(a[1]), a[2] as _, at_mut(a[3]))),
            libc::SYS_waitid => kernel(wait::waitid(a[0] as _, a[1] as _, at_mut(a[2]), a[3] as _)),
            libc::SYS_capget => kernel(capability::capget(at_mut(a[0]), at_mut(a[1]))),
            libc::SYS_capset => kernel(capability::capset(at_mut(a[0]), at_mut(a[1]))),
            libc::SYS_getpriority => {
                sys::set_errno(0);
                match resource::getpriority(first, a[1] as _) {
                    -1 if sys::errno() != 0 => error(sys::errno()),
                    // The kernel keeps it positive.
                    priority => (20 - priority) as isize,
                }
            }
            libc::SYS_setpriority => kernel(resource::setpriority(first, a[1] as _, a[2] as _)),
            libc::SYS_sched_setparam => kernel(sched::sched_setparam(first, at(a[1]))),
            libc::SYS_sched_getparam => kernel(sched::sched_getparam(first, at_mut(a[1]))),
            libc::SYS_sched_getscheduler => kernel(sched::sched_getscheduler(first)),
            libc::SYS_sched_setscheduler => {
                kernel(sched::sched_setscheduler(first, a[1] as _, at(a[2])))
            }
            libc::SYS_sched_rr_get_interval => {
                kernel(sched::sched_rr_get_interval(first, at_mut(a[1])))
            }
            // What there is of them does not differ.
            libc::SYS_sched_get_priority_max | libc::SYS_sched_get_priority_min => {
                sys::syscall6(number, a)
            }
            sys::SYS_prctl => control(a),
            _ => return None,
        }
    })
}

/// A `clone` that does what `fork` does: nothing shared, the same stack.
fn is_fork(a: Words) -> bool {
    const NOTES: c_int =
        libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID | libc::CLONE_PARENT_SETTID;
    let signal = a[0] as c_int & 0xFF;
    let flags = a[0] as c_int & !0xFF & !NOTES;
    signal == libc::SIGCHLD && flags == 0 && a[1] == 0
}

/// `prctl` without what would take us away.
///
/// # Safety
/// The arguments are those of `prctl`.
unsafe fn control(a: Words) -> isize {
    const SET_SYSCALL_USER_DISPATCH: c_int = 59;
    const OURS: [c_int; 5] = [
        libc::PR_SET_SECCOMP,
        libc::PR_SET_TSC,
        libc::PR_SET_PDEATHSIG,
        libc::PR_SET_CHILD_SUBREAPER,
        SET_SYSCALL_USER_DISPATCH,
    ];
    match a[0] as c_int {
        libc::PR_SET_PDEATHSIG => 0,
        ours if OURS.contains(&ours) => error(libc::EINVAL),
        // SAFETY: the caller promises that the arguments are those of `prctl`.
        _ => unsafe { sys::syscall6(sys::SYS_prctl, a) },
    }
}

/// The kernel's `struct sigaction`.
#[repr(C)]
struct Action {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// `rt_sigaction`, whose structure differs from libc's.
///
/// # Safety
/// `new` is null or points to an action, `old` is null or has room for one.
unsafe fn set_action(number: c_int, new: *const Action, old: *mut Action) -> isize {
    // SAFETY: the caller promises null or valid.
    let wanted = unsafe { new.as_ref() }
        .map(|new| kernel::Sigaction::new(new.handler, new.mask, new.flags as c_int));
    let mut before = kernel::Sigaction::DEFAULT;
    let pointer = wanted.as_ref().map_or(null(), core::ptr::from_ref);
    // SAFETY: both are ours.
    let result = kernel(unsafe { action::sigaction(number, pointer, &raw mut before) });
    if result == 0 && !old.is_null() {
        let (handler, mask, flags) = before.parts();
        // SAFETY: the caller promises room.
        unsafe {
            old.write(Action {
                handler,
                flags: u64::from(flags.cast_unsigned()),
                restorer: 0,
                mask,
            });
        }
    }
    result
}

/// Gives a function room for a whole set where the caller has eight bytes, or none.
///
/// # Safety
/// `to` is null or the address of eight writable bytes.
unsafe fn with_room(to: usize, get: impl FnOnce(*mut libc::sigset_t) -> c_int) -> isize {
    let mut set: WholeSet = [0; 16];
    let result = kernel(get(set.as_mut_ptr().cast()));
    if result == 0 && to != 0 {
        // SAFETY: the caller promises room for eight bytes.
        unsafe { at_mut::<u64>(to).write(set[0]) };
    }
    result
}

/// Signals.
///
/// # Safety
/// As [`data`].
unsafe fn signals(number: i64, a: Words) -> Option<isize> {
    /// Offset of the value that comes with a signal in `siginfo_t`.
    const VALUE_AT: usize = 24;
    let first = a[0] as c_int;
    // SAFETY: the caller's promise.
    Some(unsafe {
        match number {
            libc::SYS_rt_sigaction if a[3] != SET_BYTES => error(libc::EINVAL),
            libc::SYS_rt_sigaction => set_action(first, at(a[1]), at_mut(a[2])),
            libc::SYS_rt_sigprocmask if a[3] != SET_BYTES => error(libc::EINVAL),
            libc::SYS_rt_sigprocmask => {
                with_room(a[2], |old| mask::sigprocmask(first, at(a[1]), old))
            }
            libc::SYS_rt_sigpending => with_room(a[0], |to| mask::sigpending(to)),
            libc::SYS_rt_sigsuspend => kernel(sigwait::sigsuspend(at(a[0]))),
            libc::SYS_pause => kernel(sigwait::pause()),
            libc::SYS_rt_sigtimedwait => {
                kernel(sigwait::sigtimedwait(at(a[0]), at_mut(a[1]), at(a[2])))
            }
            sys::SYS_kill => kernel(send::kill(first, a[1] as _)),
            sys::SYS_tgkill => send::send_by_id(Some(first), a[1] as _, a[2] as _),
            libc::SYS_tkill => send::send_by_id(None, first, a[1] as _),
            libc::SYS_rt_sigqueueinfo => {
                let value = at::<u64>(a[2] + VALUE_AT).read();
                kernel(send::sigqueue(first, a[1] as _, value))
            }
            libc::SYS_rt_tgsigqueueinfo => send::send_by_id(Some(first), a[1] as _, a[2] as _),
            _ => return None,
        }
    })
}

/// The working directory as the kernel gives it: with the length of what it has written.
///
/// # Safety
/// `to` has room for `room` bytes.
unsafe fn working_directory(to: *mut c_char, room: usize) -> isize {
    // SAFETY: the caller promises room.
    unsafe {
        if to.is_null() || path::getcwd(to, room).is_null() {
            return error(if to.is_null() {
                libc::EFAULT
            } else {
                sys::errno()
            });
        }
        CStr::from_ptr(to).count_bytes() as isize + 1
    }
}

/// Files by name.
///
/// # Safety
/// As [`data`].
unsafe fn names(number: i64, a: Words) -> Option<isize> {
    let first = a[0] as c_int;
    // SAFETY: the caller's promise.
    Some(unsafe {
        match number {
            libc::SYS_stat => kernel(stat::stat(at(a[0]), at_mut(a[1]))),
            libc::SYS_lstat => kernel(stat::lstat(at(a[0]), at_mut(a[1]))),
            libc::SYS_fstat => kernel(stat::fstat(first, at_mut(a[1]))),
            libc::SYS_newfstatat => kernel(stat::fstatat(first, at(a[1]), at_mut(a[2]), a[3] as _)),
            libc::SYS_statx => stat::statx_(first, at(a[1]), a[2] as _, a[3] as _, at_mut(a[4])),
            libc::SYS_statfs => kernel(statfs::statfs(at(a[0]), at_mut(a[1]))),
            libc::SYS_fstatfs => kernel(statfs::fstatfs(first, at_mut(a[1]))),
            libc::SYS_utime => kernel(stat::utime(at(a[0]), at(a[1]))),
            libc::SYS_utimes => kernel(stat::utimes(at(a[0]), at(a[1]))),
            libc::SYS_futimesat => kernel(stat::futimesat(first, at(a[1]), at(a[2]))),
            libc::SYS_utimensat => kernel(stat::utimensat(first, at(a[1]), at(a[2]), a[3] as _)),
            libc::SYS_getcwd => working_directory(at_mut(a[0]), a[1]),
            libc::SYS_readlink => size(path::readlink(at(a[0]), at_mut(a[1]), a[2])),
            libc::SYS_readlinkat => size(path::readlinkat(first, at(a[1]), at_mut(a[2]), a[3])),
            libc::SYS_getdents64 => getdents::entries(first, at_mut(a[1]), a[2]),
            // Libraries that are old enough to make this call are too old for us.
            libc::SYS_getdents => error(libc::ENOSYS),
            _ => return None,
        }
    })
}

/// The machine, randomness, affinity.
///
/// # Safety
/// As [`data`].
unsafe fn machine(number: i64, a: Words) -> Option<isize> {
    /// As much as the kernel writes for up to 64 processors.
    const PROCESSORS_BYTES: usize = 8;
    // SAFETY: the caller's promise.
    Some(unsafe {
        match number {
            sys::SYS_uname => kernel(sysinfo::uname(at_mut(a[0]))),
            libc::SYS_sysinfo => kernel(sysinfo::sysinfo(at_mut(a[0]))),
            libc::SYS_getrandom => random::getrandom_(at_mut(a[0]), a[1], a[2] as _),
            libc::SYS_sched_setaffinity => 0,
            libc::SYS_sched_getaffinity if a[1] < PROCESSORS_BYTES => error(libc::EINVAL),
            libc::SYS_sched_getaffinity => {
                affinity::sched_getaffinity(0, PROCESSORS_BYTES, at_mut(a[2]));
                PROCESSORS_BYTES as isize
            }
            libc::SYS_getcpu => {
                for word in [a[0], a[1]] {
                    if let Some(word) = at_mut::<u32>(word).as_mut() {
                        *word = 0;
                    }
                }
                0
            }
            _ => return None,
        }
    })
}

// ---- the `syscall` function ----

/// Treats a call as the filter would.
///
/// # Safety
/// The arguments are what the kernel expects for that call.
unsafe fn filtered(number: i64, a: [usize; 6]) -> isize {
    // SAFETY: the caller of `syscall` promises arguments that fit the call.
    let real = || unsafe { sys::syscall6(number, a) };
    if !Turn::is_scheduled() {
        return real();
    }
    match u32::try_from(number).map_or(Rule::Unknown, rule) {
        Rule::Free => real(),
        Rule::Refused => error(libc::ENOSYS),
        // SAFETY: as above.
        Rule::Caught | Rule::Unknown => match unsafe { call(number, a) } {
            Some(result) => result,
            None => fault(&[
                b"system call ",
                sys::Decimal::new(number.cast_unsigned()).bytes(),
                b" through syscall() is not supported",
            ]),
        },
    }
}

/// Variadic in C; words are the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: i64,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> isize {
    // SAFETY: the caller's promise.
    finish(unsafe { filtered(number, [a, b, c, d, e, f]) })
}
