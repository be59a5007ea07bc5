//! System V IPC, private to the process tree: see [`brolga_vipc`].
//!
//! A thread that must wait does so in the scheduler, on a key of the object, and tries again when
//! the object has changed; those that have waited longest go first. If the object has been removed
//! meanwhile, the call fails with `EIDRM`.

mod dispatch;
mod memory;
mod queue;
mod semaphore;

use crate::hooks::fs::stat;
use crate::hooks::result::{error, finish};
use crate::hooks::thread::sync::wrapped;
use crate::sys::sys;
use crate::turn::Turn;
use brolga_dmt::Wakeup;
use brolga_tape::operation as op;
use brolga_vipc::names::Name;
use brolga_vipc::{Caller, Objects};
use core::ffi::{c_char, c_int};
pub use dispatch::call as dispatch;

const NS: u64 = 1_000_000_000;

/// `IPC_RMID`, `IPC_SET` and `IPC_STAT`; the `_STAT` calls of each kind, which take a slot, are for
/// programs that list what the machine has, and are refused.
const REMOVE: c_int = 0;
const SET: c_int = 1;
const STAT: c_int = 2;

/// The tree's objects.
fn objects(turn: &mut Turn) -> &mut Objects {
    &mut turn.shared().objects
}

/// The caller, as an operation in the name of a process sees it.
fn caller_of(turn: &mut Turn, process: u16) -> Caller {
    // SAFETY: no arguments.
    let [user, group] = unsafe { [sys!(libc::SYS_geteuid), sys!(libc::SYS_getegid)] };
    Caller {
        user: user as u32,
        group: group as u32,
        process,
        pid: turn.shared().processes[usize::from(process)].pid,
        now: (turn.now_ns() / NS) as i64,
    }
}

fn caller(turn: &mut Turn) -> Caller {
    let process = turn.process();
    caller_of(turn, process)
}

/// An ordered operation, and who makes it.
fn take() -> Option<(Turn, Caller)> {
    let mut turn = Turn::take(op::SYSTEM_V)?;
    let caller = caller(&mut turn);
    Some((turn, caller))
}

/// As the kernel returns it.
fn kernel(result: Result<isize, c_int>) -> isize {
    result.unwrap_or_else(error)
}

/// These calls go on after no signal, whatever its handler asks for.
fn after(woken: Wakeup) -> Result<(), c_int> {
    match woken {
        Wakeup::Interrupted | Wakeup::Restart => Err(libc::EINTR),
        Wakeup::TimedOut => Err(libc::EAGAIN),
        _ => Ok(()),
    }
}

fn permissions(name: &Name, more: u32) -> libc::ipc_perm {
    // SAFETY: integers only.
    let mut perm: libc::ipc_perm = unsafe { core::mem::zeroed() };
    perm.__key = name.key;
    (perm.uid, perm.gid) = (name.user, name.group);
    (perm.cuid, perm.cgid) = (name.maker, name.maker_group);
    perm.mode = (name.mode | more) as u16;
    perm
}

/// The fields that `IPC_SET` takes from a structure: owner, group, permissions.
fn settable(perm: &libc::ipc_perm) -> (u32, u32, u32) {
    (perm.uid, perm.gid, u32::from(perm.mode))
}

/// A process has ended: what it was to take back, and what it had attached.
pub(crate) fn process_gone(turn: &mut Turn, process: u16) {
    semaphore::process_gone(turn, process);
    memory::process_gone(turn, process);
}

/// A child has what its parent has attached. `false`: there is no room.
pub(crate) fn process_made(turn: &mut Turn, child: u16) -> bool {
    let parent = caller(turn);
    objects(turn).segments.fork(child, &parent)
}

/// The child could not be made after all.
pub(crate) fn process_not_made(turn: &mut Turn, child: u16) {
    memory::process_gone(turn, child);
}

/// Another program has no memory of the last one.
pub fn after_exec(turn: &mut Turn) {
    let process = turn.process();
    memory::process_gone(turn, process);
}

wrapped! {
    /// libc's looks at the file where no hook sees it.
    fn ftok(path: *const c_char, project: c_int) -> libc::key_t {
        // SAFETY: all zeros are a valid stat.
        let mut file: libc::stat = unsafe { core::mem::zeroed() };
        // SAFETY: the caller's path, and room for the answer.
        let result = unsafe { stat::stat_(libc::AT_FDCWD, path, &raw mut file, 0) };
        if result < 0 {
            return finish(result) as c_int;
        }
        let (inode, device) = (file.st_ino as c_int & 0xFFFF, file.st_dev as c_int & 0xFF);
        inode | device << 16 | (project & 0xFF) << 24
    }
}
