//! Mutexes, condition variables, read-write locks, semaphores, barriers, spin locks, once.
//!
//! The objects' own memory holds their state, in a layout of ours that is compatible with glibc's
//! static initialisers. Since only the thread that has the turn runs, plain loads and stores do, but in
//! cells: others change an object while its holder waits. Who must wait waits in the scheduler, first
//! come first served. Before there is a schedule, and in
//! threads outside it, the same code runs without waiting.

use super::op;
use super::time::{deadline_of, ns_of};
use crate::turn::{Turn, space};
use brolga_dmt::{Key, Wakeup};
use core::cell::Cell;
use core::ffi::{c_int, c_uint, c_void};
use libc::{clockid_t, timespec};

/// The first words of glibc's `pthread_mutex_t`.
#[repr(C)]
pub struct Mutex {
    locked: Cell<u32>,
    /// Depth of a recursive mutex.
    count: Cell<u32>,
    owner: Cell<i32>,
    waiters: Cell<u32>,
    kind: i32,
}

const KIND_MASK: i32 = 3;
const RECURSIVE: i32 = 1;
const ERROR_CHECK: i32 = 2;
const ROBUST: i32 = 16;
const SHARED: i32 = 128;

/// Thread ids for owners where there is no schedule.
const OUTSIDE: i32 = -1;

fn id(turn: Option<&mut Turn>) -> i32 {
    match turn {
        Some(turn) => {
            let me = turn.me();
            turn.shared().thread(me).tid
        }
        None => OUTSIDE,
    }
}

impl Mutex {
    fn key(&self, turn: &Turn) -> Key {
        let address = core::ptr::from_ref(self).addr();
        if self.kind & SHARED != 0 {
            return Turn::shared_key(space::MUTEX, address);
        }
        turn.private_key(space::MUTEX, address)
    }

    fn try_lock(&self, me: i32) -> c_int {
        if self.locked.get() == 0 {
            self.locked.set(1);
            self.owner.set(me);
            return 0;
        }
        if self.owner.get() != me {
            return libc::EBUSY;
        }
        match self.kind & KIND_MASK {
            RECURSIVE if self.count.get() == u32::MAX => libc::EAGAIN,
            RECURSIVE => {
                self.count.set(self.count.get() + 1);
                0
            }
            ERROR_CHECK => libc::EDEADLK,
            _ => libc::EBUSY,
        }
    }

    /// Locks, waiting if need be.
    fn lock(&self, turn: &mut Turn, deadline_ns: Option<u64>) -> c_int {
        let me = id(Some(turn));
        loop {
            let result = self.try_lock(me);
            if result != libc::EBUSY {
                return result;
            }
            self.waiters.set(self.waiters.get() + 1);
            let woken = turn.block(self.key(turn), deadline_ns);
            self.waiters.set(self.waiters.get() - 1);
            if woken == Wakeup::TimedOut {
                return match self.try_lock(me) {
                    libc::EBUSY => libc::ETIMEDOUT,
                    other => other,
                };
            }
        }
    }

    fn unlock(&self, mut turn: Option<&mut Turn>) -> c_int {
        let checked = self.kind & (KIND_MASK | ROBUST);
        if (checked == RECURSIVE || checked == ERROR_CHECK)
            && (self.locked.get() == 0 || self.owner.get() != id(turn.as_deref_mut()))
        {
            return libc::EPERM;
        }
        if self.count.get() > 0 {
            self.count.set(self.count.get() - 1);
            return 0;
        }
        self.locked.set(0);
        self.owner.set(0);
        if self.waiters.get() > 0
            && let Some(turn) = turn
        {
            turn.wake(self.key(turn), 1);
        }
        0
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_mutex_lock(mutex: *mut Mutex) -> c_int {
    // SAFETY: the caller promises an initialised mutex; whoever has the turn has it alone.
    let mutex = unsafe { &*mutex };
    match Turn::take(op::LOCK) {
        Some(mut turn) => mutex.lock(&mut turn, None),
        None => {
            mutex.try_lock(OUTSIDE);
            0
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_mutex_trylock(mutex: *mut Mutex) -> c_int {
    // SAFETY: as for lock.
    let mutex = unsafe { &*mutex };
    let mut turn = Turn::take(op::LOCK);
    match mutex.try_lock(id(turn.as_mut())) {
        libc::EDEADLK => libc::EBUSY,
        libc::EBUSY => {
            if let Some(mut turn) = turn {
                // Programs spin on trylock: the owner must get to run.
                turn.yield_now();
            }
            libc::EBUSY
        }
        other => other,
    }
}

unsafe fn timed_lock(mutex: *mut Mutex, clock: clockid_t, until: *const timespec) -> c_int {
    // SAFETY: as for lock; the caller promises a timespec.
    let (mutex, until) = unsafe { (&*mutex, ns_of(&*until)) };
    match Turn::take(op::LOCK) {
        Some(mut turn) => {
            let deadline = deadline_of(&mut turn, clock, until);
            mutex.lock(&mut turn, Some(deadline))
        }
        None => mutex.try_lock(OUTSIDE),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_mutex_timedlock(
    mutex: *mut Mutex,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { timed_lock(mutex, libc::CLOCK_REALTIME, until) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_mutex_clocklock(
    mutex: *mut Mutex,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { timed_lock(mutex, clock, until) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_mutex_unlock(mutex: *mut Mutex) -> c_int {
    // SAFETY: as for lock.
    let mutex = unsafe { &*mutex };
    mutex.unlock(Turn::take(op::UNLOCK).as_mut())
}

/// Our `pthread_cond_t`; all zeros is the static initialiser.
#[repr(C)]
pub struct Condition {
    waiters: Cell<u32>,
    flags: u32,
    unused: [u64; 5],
}

const _: () = assert!(size_of::<Condition>() == size_of::<libc::pthread_cond_t>());
const CONDITION_MONOTONIC: u32 = 1;
const CONDITION_SHARED: u32 = 2;

impl Condition {
    fn key(&self, turn: &Turn) -> Key {
        let address = core::ptr::from_ref(self).addr();
        if self.flags & CONDITION_SHARED != 0 {
            return Turn::shared_key(space::CONDITION, address);
        }
        turn.private_key(space::CONDITION, address)
    }

    fn clock(&self) -> clockid_t {
        if self.flags & CONDITION_MONOTONIC != 0 {
            return libc::CLOCK_MONOTONIC;
        }
        libc::CLOCK_REALTIME
    }
}

unsafe extern "C" {
    fn pthread_condattr_getclock(attributes: *const c_void, clock: *mut clockid_t) -> c_int;
    fn pthread_condattr_getpshared(attributes: *const c_void, shared: *mut c_int) -> c_int;
    fn pthread_rwlockattr_getpshared(attributes: *const c_void, shared: *mut c_int) -> c_int;
    fn pthread_barrierattr_getpshared(attributes: *const c_void, shared: *mut c_int) -> c_int;
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cond_init(
    condition: *mut Condition,
    attributes: *const c_void,
) -> c_int {
    let (mut clock, mut shared) = (libc::CLOCK_REALTIME, 0);
    if !attributes.is_null() {
        // SAFETY: the caller's attributes.
        unsafe {
            pthread_condattr_getclock(attributes, &raw mut clock);
            pthread_condattr_getpshared(attributes, &raw mut shared);
        }
    }
    let monotonic = if clock == libc::CLOCK_MONOTONIC {
        CONDITION_MONOTONIC
    } else {
        0
    };
    let shared = if shared != 0 { CONDITION_SHARED } else { 0 };
    // SAFETY: the caller promises room for a condition variable.
    unsafe {
        condition.write(Condition {
            waiters: Cell::new(0),
            flags: monotonic | shared,
            unused: [0; 5],
        });
    };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cond_destroy(_condition: *mut Condition) -> c_int {
    0
}

unsafe fn cond_wait(
    condition: *mut Condition,
    mutex: *mut Mutex,
    until: Option<(Option<clockid_t>, u64)>,
) -> c_int {
    let Some(mut turn) = Turn::take(op::WAIT) else {
        crate::turn::fault(&[b"a thread outside the schedule waits on a condition variable"]);
    };
    // SAFETY: the caller promises both objects; whoever has the turn has them alone.
    let (condition, mutex) = unsafe { (&*condition, &*mutex) };
    let deadline = until
        .map(|(clock, ns)| deadline_of(&mut turn, clock.unwrap_or_else(|| condition.clock()), ns));
    let depth = mutex.count.take();
    let unlocked = mutex.unlock(Some(&mut turn));
    if unlocked != 0 {
        mutex.count.set(depth);
        return unlocked;
    }
    condition.waiters.set(condition.waiters.get() + 1);
    let woken = turn.block(condition.key(&turn), deadline);
    condition.waiters.set(condition.waiters.get() - 1);
    mutex.lock(&mut turn, None);
    mutex.count.set(depth);
    if woken == Wakeup::TimedOut {
        libc::ETIMEDOUT
    } else {
        0
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cond_wait(condition: *mut Condition, mutex: *mut Mutex) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { cond_wait(condition, mutex, None) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cond_timedwait(
    condition: *mut Condition,
    mutex: *mut Mutex,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { cond_wait(condition, mutex, Some((None, ns_of(&*until)))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cond_clockwait(
    condition: *mut Condition,
    mutex: *mut Mutex,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { cond_wait(condition, mutex, Some((Some(clock), ns_of(&*until)))) }
}

unsafe fn cond_wake(condition: *mut Condition, count: usize) -> c_int {
    let turn = Turn::take(op::SIGNAL);
    // SAFETY: as for waiting.
    let condition = unsafe { &*condition };
    if condition.waiters.get() > 0
        && let Some(mut turn) = turn
    {
        turn.wake(condition.key(&turn), count);
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cond_signal(condition: *mut Condition) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { cond_wake(condition, 1) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cond_broadcast(condition: *mut Condition) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { cond_wake(condition, usize::MAX) }
}

/// Our `pthread_rwlock_t`; all zeros is the static initialiser (the kinds are ignored: whoever came
/// first goes first).
#[repr(C)]
pub struct Rwlock {
    readers: Cell<u32>,
    writer: Cell<i32>,
    waiters: Cell<u32>,
    shared: u32,
    unused: [u64; 5],
}

const _: () = assert!(size_of::<Rwlock>() == size_of::<libc::pthread_rwlock_t>());

impl Rwlock {
    fn key(&self, turn: &Turn) -> Key {
        let address = core::ptr::from_ref(self).addr();
        if self.shared != 0 {
            return Turn::shared_key(space::RWLOCK, address);
        }
        turn.private_key(space::RWLOCK, address)
    }

    fn try_acquire(&self, write: bool, me: i32) -> c_int {
        if self.writer.get() == me && me != OUTSIDE {
            return libc::EDEADLK;
        }
        if self.writer.get() != 0 || (write && self.readers.get() > 0) {
            return libc::EBUSY;
        }
        if write {
            self.writer.set(me);
        } else {
            self.readers.set(self.readers.get() + 1);
        }
        0
    }

    fn acquire(&self, turn: &mut Turn, write: bool, deadline_ns: Option<u64>) -> c_int {
        let me = id(Some(turn));
        loop {
            let result = self.try_acquire(write, me);
            if result != libc::EBUSY {
                return result;
            }
            self.waiters.set(self.waiters.get() + 1);
            let woken = turn.block(self.key(turn), deadline_ns);
            self.waiters.set(self.waiters.get() - 1);
            if woken == Wakeup::TimedOut && self.try_acquire(write, me) != 0 {
                return libc::ETIMEDOUT;
            } else if woken == Wakeup::TimedOut {
                return 0;
            }
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_init(
    lock: *mut Rwlock,
    attributes: *const c_void,
) -> c_int {
    let mut shared = 0;
    if !attributes.is_null() {
        // SAFETY: the caller's attributes.
        unsafe { pthread_rwlockattr_getpshared(attributes, &raw mut shared) };
    }
    let shared = u32::from(shared != 0);
    // SAFETY: the caller promises room for a lock.
    unsafe {
        lock.write(Rwlock {
            readers: Cell::new(0),
            writer: Cell::new(0),
            waiters: Cell::new(0),
            shared,
            unused: [0; 5],
        });
    };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_destroy(_lock: *mut Rwlock) -> c_int {
    0
}

unsafe fn rwlock(
    lock: *mut Rwlock,
    write: bool,
    until: Option<(clockid_t, *const timespec)>,
) -> c_int {
    // SAFETY: the caller promises an initialised lock and, if any, a timespec.
    let lock = unsafe { &*lock };
    let Some(mut turn) = Turn::take(op::LOCK) else {
        lock.try_acquire(write, OUTSIDE);
        return 0;
    };
    let deadline = until.map(|(clock, until)| {
        // SAFETY: the caller promises a timespec.
        deadline_of(&mut turn, clock, unsafe { ns_of(&*until) })
    });
    lock.acquire(&mut turn, write, deadline)
}

unsafe fn try_rwlock(lock: *mut Rwlock, write: bool) -> c_int {
    let mut turn = Turn::take(op::LOCK);
    // SAFETY: the caller promises an initialised lock.
    let result = unsafe { (*lock).try_acquire(write, id(turn.as_mut())) };
    if result == 0 {
        return 0;
    }
    if let Some(mut turn) = turn {
        turn.yield_now();
    }
    libc::EBUSY
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_rdlock(lock: *mut Rwlock) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { rwlock(lock, false, None) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_wrlock(lock: *mut Rwlock) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { rwlock(lock, true, None) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_tryrdlock(lock: *mut Rwlock) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { try_rwlock(lock, false) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_trywrlock(lock: *mut Rwlock) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { try_rwlock(lock, true) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_timedrdlock(
    lock: *mut Rwlock,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { rwlock(lock, false, Some((libc::CLOCK_REALTIME, until))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_timedwrlock(
    lock: *mut Rwlock,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { rwlock(lock, true, Some((libc::CLOCK_REALTIME, until))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_clockrdlock(
    lock: *mut Rwlock,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { rwlock(lock, false, Some((clock, until))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_clockwrlock(
    lock: *mut Rwlock,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { rwlock(lock, true, Some((clock, until))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_unlock(lock: *mut Rwlock) -> c_int {
    let turn = Turn::take(op::UNLOCK);
    // SAFETY: the caller promises an initialised lock.
    let lock = unsafe { &*lock };
    if lock.writer.get() != 0 {
        lock.writer.set(0);
    } else {
        lock.readers.set(lock.readers.get().saturating_sub(1));
    }
    if lock.waiters.get() > 0
        && lock.readers.get() == 0
        && let Some(mut turn) = turn
    {
        turn.wake(lock.key(&turn), usize::MAX);
    }
    0
}

/// The first words of glibc's `sem_t`.
#[repr(C)]
pub struct Semaphore {
    value: Cell<u32>,
    waiters: Cell<u32>,
    private: u32,
}

/// glibc's mark of a semaphore that processes share.
const SEMAPHORE_SHARED: u32 = 128;

impl Semaphore {
    fn key(&self, turn: &Turn) -> Key {
        let address = core::ptr::from_ref(self).addr();
        if self.private == SEMAPHORE_SHARED {
            return Turn::shared_key(space::SEMAPHORE, address);
        }
        turn.private_key(space::SEMAPHORE, address)
    }

    fn try_take(&self) -> bool {
        let there = self.value.get() > 0;
        if there {
            self.value.set(self.value.get() - 1);
        }
        there
    }

    fn take(&self, turn: &mut Turn, deadline_ns: Option<u64>) -> isize {
        loop {
            if self.try_take() {
                return 0;
            }
            self.waiters.set(self.waiters.get() + 1);
            let woken = turn.block(self.key(turn), deadline_ns);
            self.waiters.set(self.waiters.get() - 1);
            if woken == Wakeup::TimedOut {
                return if self.try_take() {
                    0
                } else {
                    super::error(libc::ETIMEDOUT)
                };
            }
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sem_init(
    semaphore: *mut Semaphore,
    shared: c_int,
    value: c_uint,
) -> c_int {
    let private = if shared != 0 { SEMAPHORE_SHARED } else { 0 };
    // SAFETY: the caller promises room for a semaphore.
    unsafe {
        semaphore.write(Semaphore {
            value: Cell::new(value),
            waiters: Cell::new(0),
            private,
        });
    };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sem_destroy(_semaphore: *mut Semaphore) -> c_int {
    0
}

unsafe fn sem_take(
    semaphore: *mut Semaphore,
    until: Option<(clockid_t, *const timespec)>,
) -> c_int {
    let Some(mut turn) = Turn::take(op::WAIT) else {
        crate::turn::fault(&[b"a thread outside the schedule waits on a semaphore"]);
    };
    // SAFETY: the caller promises an initialised semaphore and, if any, a timespec.
    let semaphore = unsafe { &*semaphore };
    let deadline = until.map(|(clock, until)| {
        // SAFETY: the caller promises a timespec.
        deadline_of(&mut turn, clock, unsafe { ns_of(&*until) })
    });
    crate::sys::finish(semaphore.take(&mut turn, deadline)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sem_wait(semaphore: *mut Semaphore) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { sem_take(semaphore, None) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sem_timedwait(semaphore: *mut Semaphore, until: *const timespec) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { sem_take(semaphore, Some((libc::CLOCK_REALTIME, until))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sem_clockwait(
    semaphore: *mut Semaphore,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { sem_take(semaphore, Some((clock, until))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sem_trywait(semaphore: *mut Semaphore) -> c_int {
    let turn = Turn::take(op::WAIT);
    // SAFETY: the caller promises an initialised semaphore.
    if unsafe { (*semaphore).try_take() } {
        return 0;
    }
    if let Some(mut turn) = turn {
        turn.yield_now();
    }
    crate::sys::finish(super::error(libc::EAGAIN)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sem_post(semaphore: *mut Semaphore) -> c_int {
    let turn = Turn::take(op::SIGNAL);
    // SAFETY: the caller promises an initialised semaphore.
    let semaphore = unsafe { &*semaphore };
    if semaphore.value.get() == i32::MAX as u32 {
        return crate::sys::finish(super::error(libc::EOVERFLOW)) as c_int;
    }
    semaphore.value.set(semaphore.value.get() + 1);
    if semaphore.waiters.get() > 0
        && let Some(mut turn) = turn
    {
        turn.wake(semaphore.key(&turn), 1);
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sem_getvalue(semaphore: *mut Semaphore, to: *mut c_int) -> c_int {
    // SAFETY: the caller promises both.
    unsafe { to.write((*semaphore).value.get() as c_int) };
    0
}

/// Our `pthread_barrier_t`.
#[repr(C)]
pub struct Barrier {
    needed: u32,
    arrived: Cell<u32>,
    round: Cell<u32>,
    shared: u32,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_barrier_init(
    barrier: *mut Barrier,
    attributes: *const c_void,
    needed: c_uint,
) -> c_int {
    if needed == 0 {
        return libc::EINVAL;
    }
    let mut shared = 0;
    if !attributes.is_null() {
        // SAFETY: the caller's attributes.
        unsafe { pthread_barrierattr_getpshared(attributes, &raw mut shared) };
    }
    let shared = u32::from(shared != 0);
    // SAFETY: the caller promises room for a barrier.
    unsafe {
        barrier.write(Barrier {
            needed,
            arrived: Cell::new(0),
            round: Cell::new(0),
            shared,
        });
    };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_barrier_destroy(_barrier: *mut Barrier) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_barrier_wait(barrier: *mut Barrier) -> c_int {
    let Some(mut turn) = Turn::take(op::WAIT) else {
        crate::turn::fault(&[b"a thread outside the schedule waits on a barrier"]);
    };
    // SAFETY: the caller promises an initialised barrier; whoever has the turn has it alone.
    let barrier = unsafe { &*barrier };
    let address = core::ptr::from_ref(barrier).addr();
    let key = if barrier.shared != 0 {
        Turn::shared_key(space::BARRIER, address)
    } else {
        turn.private_key(space::BARRIER, address)
    };
    barrier.arrived.set(barrier.arrived.get() + 1);
    if barrier.arrived.get() == barrier.needed {
        barrier.arrived.set(0);
        barrier.round.set(barrier.round.get().wrapping_add(1));
        turn.wake(key, usize::MAX);
        return libc::PTHREAD_BARRIER_SERIAL_THREAD;
    }
    let round = barrier.round.get();
    while barrier.round.get() == round {
        turn.block(key, None);
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_spin_lock(lock: *mut c_int) -> c_int {
    let turn = Turn::take(op::LOCK);
    // SAFETY: the caller promises an initialised lock; volatile since others change it.
    unsafe {
        if let Some(mut turn) = turn {
            while lock.read_volatile() != 0 {
                turn.yield_now();
            }
        }
        lock.write_volatile(1);
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_spin_trylock(lock: *mut c_int) -> c_int {
    let turn = Turn::take(op::LOCK);
    // SAFETY: as for lock.
    unsafe {
        if lock.read_volatile() != 0 {
            if let Some(mut turn) = turn {
                turn.yield_now();
            }
            return libc::EBUSY;
        }
        lock.write_volatile(1);
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_spin_unlock(lock: *mut c_int) -> c_int {
    let _turn = Turn::take(op::UNLOCK);
    // SAFETY: as for lock.
    unsafe { lock.write_volatile(0) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_spin_init(lock: *mut c_int, _shared: c_int) -> c_int {
    // SAFETY: the caller promises room for a lock.
    unsafe { lock.write_volatile(0) };
    0
}

const ONCE_RUNNING: c_int = 1;
const ONCE_DONE: c_int = 2;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_once(once: *mut c_int, routine: extern "C" fn()) -> c_int {
    // SAFETY: the caller promises an initialised once; volatile since others change it.
    unsafe {
        if once.read_volatile() == ONCE_DONE {
            return 0;
        }
        if let Some(mut turn) = Turn::take(op::LOCK) {
            let key = turn.private_key(space::ONCE, once.addr());
            while once.read_volatile() == ONCE_RUNNING {
                turn.block(key, None);
            }
        }
        if once.read_volatile() == ONCE_DONE {
            return 0;
        }
        once.write_volatile(ONCE_RUNNING);
        routine();
        once.write_volatile(ONCE_DONE);
        if let Some(mut turn) = Turn::take(op::SIGNAL) {
            let key = turn.private_key(space::ONCE, once.addr());
            turn.wake(key, usize::MAX);
        }
    }
    0
}
