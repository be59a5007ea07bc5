//! Message queues.

use super::{REMOVE, SET, STAT, after, kernel, objects, permissions, settable, take};
use crate::hooks::result::finish;
use crate::hooks::thread::sync::wrapped;
use crate::turn::{Turn, space};
use brolga_dmt::{Key, Wakeup};
use brolga_vipc::Caller;
use brolga_vipc::message::{MESSAGE_BYTES, Outcome};
use brolga_vipc::names::READ;
use core::ffi::{c_int, c_long, c_ulong};

/// `MSG_COPY`, which no program but one that saves another needs.
const COPY: c_int = 0o40_000;

/// `struct msqid_ds`.
#[repr(C)]
pub struct Status {
    permissions: libc::ipc_perm,
    sent: i64,
    received: i64,
    changed: i64,
    bytes: c_ulong,
    messages: c_ulong,
    bytes_max: c_ulong,
    sender: c_int,
    receiver: c_int,
    unused: [c_ulong; 2],
}

/// `struct msgbuf`: the type, then the bytes.
#[repr(C)]
pub struct Buffer {
    kind: c_long,
    bytes: [u8; 0],
}

fn key(id: c_int) -> Key {
    Key {
        space: space::MESSAGES,
        id: u64::from(id.cast_unsigned()),
    }
}

/// Runs a call until it is done, waiting whenever it must.
fn until_done<T>(
    turn: &mut Turn,
    id: c_int,
    caller: &Caller,
    mut call: impl FnMut(&mut Turn, usize, &Caller) -> Result<Outcome<T>, c_int>,
) -> Result<T, c_int> {
    let mut at = objects(turn).queues.find(id)?;
    let mut woken = Wakeup::None;
    loop {
        let caller = Caller {
            now: (turn.now_ns() / super::NS) as i64,
            ..*caller
        };
        if let Outcome::Done(done) = call(turn, at, &caller)? {
            turn.wake(key(id), usize::MAX);
            return Ok(done);
        }
        after(woken)?;
        woken = turn.block(key(id), None);
        at = objects(turn).queues.find(id).map_err(|_| libc::EIDRM)?;
    }
}

/// # Safety
/// `from` points to a type and `len` bytes.
unsafe fn send(id: c_int, from: *const Buffer, len: usize, flags: c_int) -> Result<isize, c_int> {
    let (mut turn, caller) = take().ok_or(libc::EINVAL)?;
    if len > MESSAGE_BYTES {
        return Err(libc::EINVAL);
    }
    // SAFETY: the caller promises that `from` points to a type and `len` bytes.
    let (kind, bytes) = unsafe {
        let bytes = (&raw const (*from).bytes).cast::<u8>();
        ((*from).kind, core::slice::from_raw_parts(bytes, len))
    };
    until_done(&mut turn, id, &caller, |turn, at, caller| {
        objects(turn).queues.send(at, kind, bytes, flags, caller)
    })?;
    Ok(0)
}

/// # Safety
/// `to` has room for a type and `len` bytes.
unsafe fn receive(
    id: c_int,
    to: *mut Buffer,
    len: usize,
    kind: c_long,
    flags: c_int,
) -> Result<isize, c_int> {
    let (mut turn, caller) = take().ok_or(libc::EINVAL)?;
    if isize::try_from(len).is_err() {
        return Err(libc::EINVAL);
    }
    if flags & COPY != 0 {
        return Err(libc::ENOSYS);
    }
    let got = until_done(&mut turn, id, &caller, |turn, at, caller| {
        let take = |kind: i64, bytes: &[u8]| {
            // SAFETY: the caller's promise: not more than there is room for.
            unsafe {
                (*to).kind = kind;
                let room = (&raw mut (*to).bytes).cast::<u8>();
                room.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            }
        };
        let queues = &mut objects(turn).queues;
        queues.receive(at, (kind, len), flags, caller, take)
    })?;
    Ok(got as isize)
}

/// # Safety
/// `status` is valid for what the command reads or writes.
unsafe fn control(id: c_int, command: c_int, status: *mut Status) -> Result<isize, c_int> {
    let (mut turn, caller) = take().ok_or(libc::EINVAL)?;
    let queues = &mut objects(&mut turn).queues;
    let at = queues.find(id)?;
    match command {
        STAT => {
            queues.names().check(at, &caller, READ)?;
            let facts = queues.facts(at);
            let filled = Status {
                permissions: permissions(queues.names().name(at), 0),
                sent: facts.sent,
                received: facts.received,
                changed: facts.changed,
                bytes: facts.bytes as c_ulong,
                messages: facts.messages as c_ulong,
                bytes_max: facts.bytes_max as c_ulong,
                sender: facts.sender,
                receiver: facts.receiver,
                unused: [0; 2],
            };
            // SAFETY: the caller promises that `status` is valid for what the command reads or
            // writes.
            unsafe { status.write(filled) };
        }
        SET => {
            // SAFETY: the caller promises that `status` is valid for what the command reads or
            // writes.
            let wanted = unsafe { &*status };
            let bytes_max = wanted.bytes_max as usize;
            queues.set(at, settable(&wanted.permissions), bytes_max, &caller)?;
            turn.wake(key(id), usize::MAX);
        }
        REMOVE => {
            queues.remove(at, &caller)?;
            turn.wake(key(id), usize::MAX);
        }
        _ => return Err(libc::EINVAL),
    }
    Ok(0)
}

wrapped! {
    fn msgget(key: libc::key_t, flags: c_int) -> c_int {
        let made = take().ok_or(libc::EINVAL).and_then(|(mut turn, caller)| {
            objects(&mut turn).queues.get(key, flags, &caller)
        });
        finish(kernel(made.map(|id| id as isize))) as c_int
    }

    fn msgsnd(id: c_int, from: *const Buffer, len: usize, flags: c_int) -> c_int {
        // SAFETY: the caller's promise.
        finish(kernel(unsafe { send(id, from, len, flags) })) as c_int
    }

    fn msgrcv(
        id: c_int,
        to: *mut Buffer,
        len: usize,
        kind: c_long,
        flags: c_int,
    ) -> isize {
        // SAFETY: the caller's promise.
        finish(kernel(unsafe { receive(id, to, len, kind, flags) }))
    }

    fn msgctl(id: c_int, command: c_int, status: *mut Status) -> c_int {
        // SAFETY: the caller's promise.
        finish(kernel(unsafe { control(id, command, status) })) as c_int
    }
}
