//! Semaphore sets.

use super::{REMOVE, SET, STAT, after, caller_of, kernel, objects, permissions, settable, take};
use crate::hooks::result::finish;
use crate::hooks::thread::sync::wrapped;
use crate::nanoseconds::ns_of;
use crate::shared::Sleeper;
use crate::turn::{Turn, space};
use brolga_dmt::{Key, ThreadIx};
use brolga_vipc::Caller;
use brolga_vipc::names::READ;
use brolga_vipc::semaphore::{OPERATIONS_MAX, Operation, Outcome, SEMAPHORES_MAX, VALUE_MAX};
use core::ffi::{c_int, c_ulong};
use libc::timespec;

const GET_PID: c_int = 11;
const GET_VALUE: c_int = 12;
const GET_ALL: c_int = 13;
const SLEEPERS: c_int = 14;
const SLEEPERS_FOR_ZERO: c_int = 15;
const SET_VALUE: c_int = 16;
const SET_ALL: c_int = 17;

/// `struct semid_ds`.
#[repr(C)]
pub struct Status {
    permissions: libc::ipc_perm,
    operated: i64,
    reserved: c_ulong,
    changed: i64,
    reserved_too: c_ulong,
    len: c_ulong,
    unused: [c_ulong; 2],
}

fn key(id: c_int) -> Key {
    Key {
        space: space::SEMAPHORE_SET,
        id: u64::from(id.cast_unsigned()),
    }
}

fn wake(turn: &mut Turn, id: c_int) {
    turn.wake(key(id), usize::MAX);
}

/// Undoes the operations of a process that has ended.
pub(super) fn process_gone(turn: &mut Turn, process: u16) {
    let caller = caller_of(turn, process);
    let shared = turn.shared();
    let scheduler = &mut shared.scheduler;
    shared.objects.semaphores.process_gone(&caller, |id| {
        scheduler.wake(key(id), usize::MAX);
    });
}

fn operate(
    turn: &mut Turn,
    caller: &Caller,
    id: c_int,
    operations: &[Operation],
    deadline: Option<u64>,
) -> Result<isize, c_int> {
    let mut at = objects(turn).semaphores.find(id)?;
    loop {
        let caller = Caller {
            now: (turn.now_ns() / super::NS) as i64,
            ..*caller
        };
        let (number, zero) = match objects(turn).semaphores.operate(at, operations, &caller)? {
            Outcome::Done => break,
            Outcome::MustWait { number, zero } => (number, zero),
        };
        if deadline.is_some_and(|deadline| deadline <= turn.now_ns()) {
            return Err(libc::EAGAIN);
        }
        let me = usize::from(turn.me());
        turn.shared().sleepers[me - 1] = Sleeper { number, zero };
        let woken = turn.block_regardless(key(id), deadline);
        at = objects(turn).semaphores.find(id).map_err(|_| libc::EIDRM)?;
        after(woken)?;
    }
    if operations.iter().any(|it| it.add != 0) {
        wake(turn, id);
    }
    Ok(0)
}

/// # Safety
/// `operations` points to `count` operations, `timeout` is null or points to a timespec.
unsafe fn operate_(
    id: c_int,
    operations: *const Operation,
    count: usize,
    timeout: *const timespec,
) -> Result<isize, c_int> {
    let (mut turn, caller) = take().ok_or(libc::EINVAL)?;
    if count == 0 {
        return Err(libc::EINVAL);
    }
    if count > OPERATIONS_MAX {
        return Err(libc::E2BIG);
    }
    // SAFETY: the caller promises that `operations` points to `count` operations, `timeout` is null
    // or points to a timespec.
    let (operations, timeout) = unsafe {
        let operations = core::slice::from_raw_parts(operations, count);
        (operations, timeout.as_ref())
    };
    let deadline = match timeout {
        Some(it) if it.tv_sec < 0 || !(0..super::NS as i64).contains(&it.tv_nsec) => {
            return Err(libc::EINVAL);
        }
        Some(it) => Some(turn.now_ns().saturating_add(ns_of(it))),
        None => None,
    };
    operate(&mut turn, &caller, id, operations, deadline)
}

/// The number of threads that wait for a semaphore.
fn sleepers(turn: &mut Turn, id: c_int, number: usize, zero: bool) -> usize {
    let shared = turn.shared();
    let (scheduler, sleepers) = (&shared.scheduler, &shared.sleepers);
    let waits = |ix: &ThreadIx| {
        let sleeper = sleepers[usize::from(*ix) - 1];
        scheduler.waits_on(*ix, key(id))
            && (usize::from(sleeper.number), sleeper.zero) == (number, zero)
    };
    scheduler.living().filter(waits).count()
}

/// The commands that ask about one semaphore.
fn of_one(turn: &mut Turn, id: c_int, number: c_int, command: c_int) -> Result<isize, c_int> {
    let caller = super::caller(turn);
    let semaphores = &objects(turn).semaphores;
    let at = semaphores.find(id)?;
    semaphores.names().check(at, &caller, READ)?;
    let number = usize::try_from(number).map_err(|_| libc::EINVAL)?;
    let semaphore = *semaphores.semaphores(at).get(number).ok_or(libc::EINVAL)?;
    Ok(match command {
        GET_VALUE => semaphore.value as isize,
        GET_PID => semaphore.pid as isize,
        SLEEPERS => sleepers(turn, id, number, false) as isize,
        _ => sleepers(turn, id, number, true) as isize,
    })
}

/// # Safety
/// `to` has room for as many values as the set has.
unsafe fn get_all(turn: &mut Turn, id: c_int, to: *mut u16) -> Result<isize, c_int> {
    let caller = super::caller(turn);
    let semaphores = &objects(turn).semaphores;
    let at = semaphores.find(id)?;
    semaphores.names().check(at, &caller, READ)?;
    for (index, semaphore) in semaphores.semaphores(at).iter().enumerate() {
        // SAFETY: the caller promises that `to` has room for as many values as the set has.
        unsafe { to.add(index).write(semaphore.value as u16) };
    }
    Ok(0)
}

/// # Safety
/// `from` points to as many values as the set has.
unsafe fn set_all(turn: &mut Turn, id: c_int, from: *const u16) -> Result<isize, c_int> {
    let caller = super::caller(turn);
    let semaphores = &mut objects(turn).semaphores;
    let at = semaphores.find(id)?;
    let len = semaphores.semaphores(at).len();
    debug_assert!(len <= SEMAPHORES_MAX);
    // SAFETY: the caller promises that `from` points to as many values as the set has.
    let values = unsafe { core::slice::from_raw_parts(from, len) };
    semaphores.set_values(at, 0, values, &caller)?;
    wake(turn, id);
    Ok(0)
}

fn set_one(turn: &mut Turn, id: c_int, number: c_int, value: c_int) -> Result<isize, c_int> {
    let caller = super::caller(turn);
    if !(0..=VALUE_MAX).contains(&value) {
        return Err(libc::ERANGE);
    }
    let semaphores = &mut objects(turn).semaphores;
    let at = semaphores.find(id)?;
    let number = usize::try_from(number).map_err(|_| libc::EINVAL)?;
    semaphores.set_values(at, number, &[value as u16], &caller)?;
    wake(turn, id);
    Ok(0)
}

/// # Safety
/// `status` is valid for what the command reads or writes.
unsafe fn of_set(
    turn: &mut Turn,
    id: c_int,
    command: c_int,
    status: *mut Status,
) -> Result<isize, c_int> {
    let caller = super::caller(turn);
    let semaphores = &mut objects(turn).semaphores;
    let at = semaphores.find(id)?;
    match command {
        STAT => {
            semaphores.names().check(at, &caller, READ)?;
            let (operated, changed) = semaphores.times(at);
            let filled = Status {
                permissions: permissions(semaphores.names().name(at), 0),
                operated,
                reserved: 0,
                changed,
                reserved_too: 0,
                len: semaphores.semaphores(at).len() as c_ulong,
                unused: [0; 2],
            };
            // SAFETY: the caller promises that `status` is valid for what the command reads or
            // writes.
            unsafe { status.write(filled) };
        }
        SET => {
            // SAFETY: the caller promises that `status` is valid for what the command reads or
            // writes.
            let to = settable(unsafe { &(*status).permissions });
            semaphores.set(at, to, &caller)?;
        }
        REMOVE => {
            semaphores.remove(at, &caller)?;
            wake(turn, id);
        }
        _ => return Err(libc::EINVAL),
    }
    Ok(0)
}

/// # Safety
/// The argument is what the command wants.
unsafe fn control(
    id: c_int,
    number: c_int,
    command: c_int,
    argument: usize,
) -> Result<isize, c_int> {
    let (mut turn, _) = take().ok_or(libc::EINVAL)?;
    let turn = &mut turn;
    let pointer = core::ptr::with_exposed_provenance_mut::<u16>(argument);
    // SAFETY: the caller promises that the argument is what the command wants.
    unsafe {
        match command {
            GET_VALUE | GET_PID | SLEEPERS | SLEEPERS_FOR_ZERO => of_one(turn, id, number, command),
            SET_VALUE => set_one(turn, id, number, argument as c_int),
            GET_ALL => get_all(turn, id, pointer),
            SET_ALL => set_all(turn, id, pointer),
            _ => of_set(turn, id, command, pointer.cast()),
        }
    }
}

wrapped! {
    fn semget(key: libc::key_t, len: c_int, flags: c_int) -> c_int {
        let made = take().ok_or(libc::EINVAL).and_then(|(mut turn, caller)| {
            objects(&mut turn).semaphores.get(key, len, flags, &caller)
        });
        finish(kernel(made.map(|id| id as isize))) as c_int
    }

    fn semop(id: c_int, operations: *const Operation, count: usize) -> c_int {
        // SAFETY: the caller's promise.
        let result = unsafe { operate_(id, operations, count, core::ptr::null()) };
        finish(kernel(result)) as c_int
    }

    fn semtimedop(
        id: c_int,
        operations: *const Operation,
        count: usize,
        timeout: *const timespec,
    ) -> c_int {
        // SAFETY: the caller's promise.
        let result = unsafe { operate_(id, operations, count, timeout) };
        finish(kernel(result)) as c_int
    }

    /// Variadic in C; a union is a word.
    fn semctl(id: c_int, number: c_int, command: c_int, argument: usize) -> c_int {
        // SAFETY: the caller's promise.
        finish(kernel(unsafe { control(id, number, command, argument) })) as c_int
    }
}
