//! `epoll`: readiness from logical state for virtual sockets, from the kernel with a zero timeout
//! for real objects of the tree.

use super::timeout::Patience;
use crate::hooks::fd::object::{name, object};
use crate::hooks::result::{error, finish};
use crate::hooks::signal::mask::with_mask;
use crate::nanoseconds;
use crate::sys::{self, sys};
use crate::turn::{Turn, key_of};
use brolga_tape::operation as op;
use brolga_vnet::{EpollError, EpollIx, Object, SocketIx, WaitOn};
use core::ffi::c_int;
use libc::{epoll_event, sigset_t, timespec};

fn create(flags: c_int) -> isize {
    let turn = Turn::take(op::EPOLL);
    // SAFETY: a plain integer.
    let fd = unsafe { sys!(sys::SYS_epoll_create1, flags) };
    let Some(mut turn) = turn else { return fd };
    if fd < 0 {
        return fd;
    }
    match turn.shared().net.make_epoll() {
        Some(ix) => name(&mut turn, fd, Object::Epoll(ix)),
        None => {
            // SAFETY: our own fresh descriptor.
            unsafe { sys!(sys::SYS_close, fd) };
            error(libc::EMFILE)
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_create1(flags: c_int) -> c_int {
    finish(create(flags)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_create(size: c_int) -> c_int {
    finish(if size <= 0 {
        error(libc::EINVAL)
    } else {
        create(0)
    }) as c_int
}

fn control_virtual(
    turn: &mut Turn,
    epoll: EpollIx,
    operation: c_int,
    socket: SocketIx,
    fd: c_int,
    event: Option<epoll_event>,
) -> isize {
    let (net, mut outside) = turn.net();
    let changed = match (operation, event) {
        (libc::EPOLL_CTL_ADD, Some(event)) => {
            net.epoll_add(epoll, socket, fd, event.events, event.u64, &mut outside)
        }
        (libc::EPOLL_CTL_MOD, Some(event)) => {
            net.epoll_modify(epoll, socket, fd, event.events, event.u64, &mut outside)
        }
        (libc::EPOLL_CTL_DEL, _) => net.epoll_delete(epoll, socket, fd),
        (libc::EPOLL_CTL_ADD | libc::EPOLL_CTL_MOD, None) => return error(libc::EFAULT),
        _ => return error(libc::EINVAL),
    };
    match changed {
        Ok(()) => 0,
        Err(EpollError::Exists) => error(libc::EEXIST),
        Err(EpollError::Missing) => error(libc::ENOENT),
        Err(EpollError::Full) => error(libc::ENOSPC),
        Err(EpollError::Exclusive) => error(libc::EINVAL),
    }
}

/// Adds, changes or removes a descriptor.
///
/// # Safety
/// As `epoll_ctl`: `event` is null or points to an event.
unsafe fn control(epfd: c_int, operation: c_int, fd: c_int, event: *mut epoll_event) -> isize {
    let raw = || {
        // SAFETY: the caller's pointer, passed on.
        unsafe { sys!(sys::SYS_epoll_ctl, epfd, operation, fd, event) }
    };
    let Some(mut turn) = Turn::take(op::EPOLL) else {
        return raw();
    };
    let Some(Object::Epoll(epoll)) = object(&mut turn, epfd) else {
        return raw();
    };
    match object(&mut turn, fd) {
        Some(Object::Socket(socket)) => {
            // SAFETY: the caller promises null or a valid event (packed, so by value).
            let event = unsafe { (!event.is_null()).then(|| event.read_unaligned()) };
            control_virtual(&mut turn, epoll, operation, socket, fd, event)
        }
        other => {
            let result = raw();
            if result != 0 {
                return result;
            }
            let change = match operation {
                libc::EPOLL_CTL_ADD => 1,
                libc::EPOLL_CTL_DEL => -1,
                _ => 0,
            };
            turn.shared().net.epoll_real_items(epoll, change);
            // The kernel knows of what is real in the inner one, and has seen that there is no
            // loop.
            match other {
                Some(Object::Epoll(inner)) => match turn.shared().net.stand_in(inner) {
                    // SAFETY: the kernel has read it just now.
                    Some(stand_in) => unsafe {
                        let event = (!event.is_null()).then(|| event.read_unaligned());
                        control_virtual(&mut turn, epoll, operation, stand_in, fd, event)
                    },
                    None => error(libc::ENOMEM),
                },
                _ => 0,
            }
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_ctl(
    epfd: c_int,
    operation: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { control(epfd, operation, fd, event) }) as c_int
}

/// Fills `events` with what is ready now.
///
/// # Safety
/// `events` has room for `max` events.
unsafe fn collect(
    turn: &mut Turn,
    epfd: c_int,
    epoll: EpollIx,
    events: *mut epoll_event,
    max: usize,
) -> usize {
    let shared = turn.shared();
    let mut at = 0;
    let mut count = shared.net.epoll_collect(epoll, max, |mask, data| {
        // SAFETY: the caller promises room for `max` events; packed, so unaligned.
        unsafe {
            events.add(at).write_unaligned(epoll_event {
                events: mask,
                u64: data,
            });
        };
        at += 1;
    });
    let changes = shared.real_changes;
    if count < max && shared.net.epoll_must_ask(epoll, changes) {
        // SAFETY: room for the rest of the events.
        let real = unsafe { sys!(sys::SYS_epoll_wait, epfd, events.add(count), max - count, 0) };
        if real > 0 {
            count += real as usize;
        } else {
            shared.net.epoll_quiet(epoll, changes);
        }
    }
    count
}

/// Waits for events, under a mask if there is one.
///
/// # Safety
/// `events` has room for `max` events, `mask` is null or points to a set.
unsafe fn wait(
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    mask: *const sigset_t,
    patience: impl FnOnce(&mut Turn) -> Patience,
    raw: impl FnOnce() -> isize,
) -> isize {
    let Some(mut turn) = Turn::take(op::EPOLL_WAIT) else {
        return raw();
    };
    let Some(Object::Epoll(epoll)) = object(&mut turn, epfd) else {
        return error(libc::EBADF);
    };
    let Some(max) = usize::try_from(max).ok().filter(|max| *max > 0) else {
        return error(libc::EINVAL);
    };
    let patience = patience(&mut turn);
    // SAFETY: the caller promises that `events` has room for `max` events, `mask` is null or points
    // to a set.
    unsafe {
        with_mask(&mut turn, mask, |turn| {
            wait_virtual(turn, epfd, epoll, events, max, patience)
        })
    }
}

/// Waits for events with the turn.
///
/// # Safety
/// `events` has room for `max` events.
unsafe fn wait_virtual(
    turn: &mut Turn,
    epfd: c_int,
    epoll: EpollIx,
    events: *mut epoll_event,
    max: usize,
    patience: Patience,
) -> isize {
    turn.shared().net.retain_epoll(epoll);
    let look = |turn: &mut Turn, (): &mut ()| {
        // SAFETY: the caller promises room for `max` events.
        unsafe { collect(turn, epfd, epoll, events, max) as isize }
    };
    let key = |_: &mut Turn, (): &()| key_of(WaitOn::Epoll(epoll));
    let count = patience.until(turn, &mut (), look, key);
    turn.shared().net.release_epoll(epoll);
    turn.scheduler().note(count.cast_unsigned() as u64);
    count
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_wait(
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: c_int,
) -> c_int {
    // SAFETY: the caller's promise, and no mask.
    unsafe { epoll_pwait(epfd, events, max, timeout, core::ptr::null()) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_pwait(
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe {
        wait(
            epfd,
            events,
            max,
            mask,
            |turn| Patience::of_ms(turn, timeout),
            || sys!(libc::SYS_epoll_pwait, epfd, events, max, timeout, mask, 8),
        )
    }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_pwait2(
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe {
        let ns = timeout.as_ref().map(nanoseconds::ns_of);
        wait(
            epfd,
            events,
            max,
            mask,
            |turn| Patience::of_ns(turn, ns),
            || sys!(libc::SYS_epoll_pwait2, epfd, events, max, timeout, mask, 8),
        )
    }) as c_int
}
