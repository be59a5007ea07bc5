//! epoll, poll, select: readiness from logical state for virtual sockets, from the kernel with a zero
//! timeout for real objects of the tree.

use crate::hooks::fd::descriptor::{name, object};
use crate::hooks::signal::action::with_mask;
use crate::hooks::time::clock;
use crate::hooks::{error, op};
use crate::sys::{self, finish, sys};
use crate::turn::{Turn, key_of};
use brolga_dmt::{Key, Wakeup};
use brolga_vnet::{EpollError, EpollIx, Object, SocketIx, WaitOn, ready};
use core::ffi::{c_int, c_short, c_void};
use libc::{epoll_event, fd_set, nfds_t, pollfd, sigset_t, timespec, timeval};

const MS: u64 = 1_000_000;

/// How long a call may wait: `None` for ever, otherwise until a moment of virtual time.
#[derive(Clone, Copy)]
enum Patience {
    None,
    Until(u64),
    Forever,
}

impl Patience {
    fn of_ms(turn: &mut Turn, timeout: c_int) -> Self {
        match timeout {
            0 => Self::None,
            ms if ms < 0 => Self::Forever,
            ms => Self::Until(turn.now_ns() + ms as u64 * MS),
        }
    }

    fn of_ns(turn: &mut Turn, timeout: Option<u64>) -> Self {
        match timeout {
            None => Self::Forever,
            Some(0) => Self::None,
            Some(ns) => Self::Until(turn.now_ns().saturating_add(ns)),
        }
    }

    /// Waits for `key`.
    fn wait(self, turn: &mut Turn, key: Key) -> Waited {
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
enum Waited {
    LookAgain,
    /// Look once more, then give up.
    Enough,
    Interrupted,
}

// ---- epoll ----

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
            // The kernel knows of what is real in the inner one, and has seen that there is no loop.
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
    // SAFETY: the caller's promise.
    unsafe {
        with_mask(&mut turn, mask, |turn| {
            wait_virtual(turn, epfd, epoll, events, max, patience)
        })
    }
}

unsafe fn wait_virtual(
    turn: &mut Turn,
    epfd: c_int,
    epoll: EpollIx,
    events: *mut epoll_event,
    max: usize,
    patience: Patience,
) -> isize {
    turn.shared().net.retain_epoll(epoll);
    let mut waited = Waited::LookAgain;
    let count = loop {
        // SAFETY: the caller's promise.
        let count = unsafe { collect(turn, epfd, epoll, events, max) } as isize;
        match waited {
            _ if count > 0 => break count,
            Waited::Enough => break 0,
            Waited::Interrupted => break error(libc::EINTR),
            Waited::LookAgain => waited = patience.wait(turn, key_of(WaitOn::Epoll(epoll))),
        }
    };
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
    // SAFETY: the caller's promise.
    finish(unsafe {
        wait(
            epfd,
            events,
            max,
            core::ptr::null(),
            |turn| Patience::of_ms(turn, timeout),
            || sys!(sys::SYS_epoll_wait, epfd, events, max, timeout),
        )
    }) as c_int
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
        let ns = timeout.as_ref().map(clock::ns_of);
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

// ---- poll ----

/// What one descriptor is ready for.
fn ready_now(turn: &mut Turn, fd: c_int, events: c_short) -> c_short {
    if fd < 0 {
        return 0;
    }
    match object(turn, fd) {
        Some(Object::Socket(ix)) => {
            let wanted = events as u32 & 0xFFFF | ready::ERR | ready::HUP;
            (turn.shared().net.readiness(ix) & wanted) as c_short
        }
        Some(Object::Epoll(ix)) if turn.shared().net.epoll_ready(ix) => events & libc::POLLIN,
        _ => {
            let mut one = pollfd {
                fd,
                events,
                revents: 0,
            };
            // SAFETY: one valid pollfd, zero timeout.
            unsafe { sys!(sys::SYS_poll, &raw mut one, 1, 0) };
            one.revents
        }
    }
}

/// What to wait on: one socket's input if that is all, otherwise any change of one of them.
fn key_for(turn: &mut Turn, fds: &[pollfd]) -> Key {
    if let [one] = fds
        && one.events & libc::POLLOUT == 0
        && let Some(Object::Socket(ix)) = object(turn, one.fd)
    {
        return key_of(WaitOn::Readable(ix));
    }
    for one in fds {
        watch(turn, one.fd);
    }
    key_of(WaitOn::AnySocket)
}

/// A descriptor of a call that is about to wait. Changes of real objects wake all such calls anyway.
fn watch(turn: &mut Turn, fd: c_int) {
    match object(turn, fd) {
        Some(Object::Socket(ix)) => turn.shared().net.watch_socket(ix),
        Some(Object::Epoll(_)) => turn.shared().net.watch_all(),
        _ => {}
    }
}

fn poll_(turn: &mut Turn, fds: &mut [pollfd], patience: Patience) -> isize {
    let mut waited = Waited::LookAgain;
    loop {
        let mut count = 0;
        for one in fds.iter_mut() {
            one.revents = ready_now(turn, one.fd, one.events);
            count += isize::from(one.revents != 0);
        }
        if count > 0 || waited == Waited::Enough {
            turn.scheduler().note(count as u64);
            return count;
        }
        if waited == Waited::Interrupted {
            return error(libc::EINTR);
        }
        let key = key_for(turn, fds);
        waited = patience.wait(turn, key);
    }
}

/// # Safety
/// `fds` points to `count` descriptions.
unsafe fn poll_slice<'a>(fds: *mut pollfd, count: nfds_t) -> &'a mut [pollfd] {
    if count == 0 {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts_mut(fds, count as usize) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    let Some(mut turn) = Turn::take(op::POLL) else {
        // SAFETY: the caller's pointer, passed on.
        return finish(unsafe { sys!(sys::SYS_poll, fds, count, timeout) }) as c_int;
    };
    let patience = Patience::of_ms(&mut turn, timeout);
    // SAFETY: the caller's promise.
    finish(poll_(
        &mut turn,
        unsafe { poll_slice(fds, count) },
        patience,
    )) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { poll(fds, count, timeout) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __poll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: c_int,
    _room: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { poll(fds, count, timeout) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ppoll(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    let Some(mut turn) = Turn::take(op::POLL) else {
        // SAFETY: the caller's pointers, passed on.
        return finish(unsafe { sys!(sys::SYS_ppoll, fds, count, timeout, mask, 8) }) as c_int;
    };
    // SAFETY: the caller's promise.
    unsafe {
        let patience = Patience::of_ns(&mut turn, timeout.as_ref().map(clock::ns_of));
        finish(with_mask(&mut turn, mask, |turn| {
            poll_(turn, poll_slice(fds, count), patience)
        })) as c_int
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __ppoll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
    _room: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { ppoll(fds, count, timeout, mask) }
}

// ---- select ----

const SELECT_MAX: usize = 1024;

/// One of the three sets of a select.
#[derive(Clone, Copy)]
struct Set(*mut u64);

impl Set {
    unsafe fn has(self, fd: usize) -> bool {
        // SAFETY: null, or a set of SELECT_MAX bits.
        !self.0.is_null() && unsafe { *self.0.add(fd / 64) } & (1 << (fd % 64)) != 0
    }

    unsafe fn store(self, bits: &[u64; SELECT_MAX / 64], count: usize) {
        if self.0.is_null() {
            return;
        }
        for (at, word) in bits.iter().enumerate().take(count.div_ceil(64)) {
            // SAFETY: a set of SELECT_MAX bits.
            unsafe { *self.0.add(at) = *word };
        }
    }
}

unsafe fn select_(turn: &mut Turn, count: c_int, sets: [Set; 3], patience: Patience) -> isize {
    const EVENTS: [c_short; 3] = [libc::POLLIN, libc::POLLOUT, libc::POLLPRI];
    const FIRES: [c_short; 3] = [
        libc::POLLIN | libc::POLLHUP | libc::POLLERR,
        libc::POLLOUT | libc::POLLERR,
        libc::POLLPRI,
    ];
    let Some(count) = usize::try_from(count)
        .ok()
        .filter(|count| *count <= SELECT_MAX)
    else {
        return error(libc::EINVAL);
    };
    let mut waited = Waited::LookAgain;
    loop {
        let mut results = [[0u64; SELECT_MAX / 64]; 3];
        let mut total = 0;
        for fd in 0..count {
            for at in 0..3 {
                // SAFETY: the caller's promise.
                if !unsafe { sets[at].has(fd) } {
                    continue;
                }
                let got = ready_now(turn, fd as c_int, EVENTS[at]);
                if got & libc::POLLNVAL != 0 {
                    return error(libc::EBADF);
                }
                if got & FIRES[at] != 0 {
                    results[at][fd / 64] |= 1 << (fd % 64);
                    total += 1;
                }
            }
        }
        if total == 0 && waited == Waited::Interrupted {
            return error(libc::EINTR);
        }
        if total > 0 || waited == Waited::Enough {
            for at in 0..3 {
                // SAFETY: the caller's promise.
                unsafe { sets[at].store(&results[at], count) };
            }
            turn.scheduler().note(total as u64);
            return total;
        }
        for fd in 0..count {
            // SAFETY: the caller's promise.
            if sets.iter().any(|set| unsafe { set.has(fd) }) {
                watch(turn, fd as c_int);
            }
        }
        waited = patience.wait(turn, key_of(WaitOn::AnySocket));
    }
}

fn sets(reads: *mut fd_set, writes: *mut fd_set, excepts: *mut fd_set) -> [Set; 3] {
    [Set(reads.cast()), Set(writes.cast()), Set(excepts.cast())]
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn select(
    count: c_int,
    reads: *mut fd_set,
    writes: *mut fd_set,
    excepts: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    let Some(mut turn) = Turn::take(op::POLL) else {
        // SAFETY: the caller's pointers, passed on.
        return finish(unsafe { sys!(libc::SYS_select, count, reads, writes, excepts, timeout) })
            as c_int;
    };
    // SAFETY: the caller's promise.
    unsafe {
        let ns = timeout.as_ref().map(|time| {
            time.tv_sec.max(0) as u64 * 1_000_000_000 + time.tv_usec.max(0) as u64 * 1000
        });
        let patience = Patience::of_ns(&mut turn, ns);
        finish(select_(
            &mut turn,
            count,
            sets(reads, writes, excepts),
            patience,
        )) as c_int
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pselect(
    count: c_int,
    reads: *mut fd_set,
    writes: *mut fd_set,
    excepts: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    let Some(mut turn) = Turn::take(op::POLL) else {
        let mask: [*const c_void; 2] = [mask.cast(), core::ptr::without_provenance(8)];
        // SAFETY: the caller's pointers, passed on.
        let result = unsafe {
            sys!(
                sys::SYS_pselect6,
                count,
                reads,
                writes,
                excepts,
                timeout,
                mask.as_ptr()
            )
        };
        return finish(result) as c_int;
    };
    // SAFETY: the caller's promise.
    unsafe {
        let patience = Patience::of_ns(&mut turn, timeout.as_ref().map(clock::ns_of));
        finish(with_mask(&mut turn, mask, |turn| {
            select_(turn, count, sets(reads, writes, excepts), patience)
        })) as c_int
    }
}
