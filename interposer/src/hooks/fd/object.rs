//! The descriptor table: the object that each descriptor of a process names.

use crate::hooks::result::error;
use crate::sys::{self, sys};
use crate::turn::Turn;
use brolga_tape::handover::{FIRST_FD, LAST_FD};
use brolga_vnet::Object;
use core::ffi::c_int;

/// The object that a descriptor of this process names.
pub(crate) fn object(turn: &mut Turn, fd: c_int) -> Option<Object> {
    let process = turn.process();
    turn.shared().net.object(process, fd)
}

/// Names an object by a fresh descriptor. Out of range: closes it again.
pub(crate) fn name(turn: &mut Turn, fd: isize, object: Object) -> isize {
    let process = turn.process();
    if turn.shared().net.set_object(process, fd as c_int, object) {
        return fd;
    }
    // SAFETY: our own fresh descriptor.
    unsafe { sys!(sys::SYS_close, fd) };
    error(libc::EMFILE)
}

/// Runs one ordered operation on a descriptor: `virtually` if it names an object of the tree. The
/// kernel does the rest (`raw`): descriptors that name nothing, and threads outside the schedule.
#[inline]
pub(crate) fn on_object(
    fd: c_int,
    operation: u16,
    raw: impl FnOnce() -> isize,
    virtually: impl FnOnce(Turn, Object) -> isize,
) -> isize {
    let Some(mut turn) = Turn::take(operation) else {
        return raw();
    };
    match object(&mut turn, fd) {
        Some(object) => virtually(turn, object),
        None => raw(),
    }
}

/// Returns whether a descriptor is one of the interposer's own, which the server must not touch.
pub(crate) fn is_ours(fd: c_int) -> bool {
    (FIRST_FD..=LAST_FD).contains(&fd)
}

/// Takes the name off a descriptor.
pub(crate) fn forget(turn: &mut Turn, fd: c_int) {
    let process = turn.process();
    let (net, mut outside) = turn.net();
    net.clear_object(process, fd, &mut outside);
}
