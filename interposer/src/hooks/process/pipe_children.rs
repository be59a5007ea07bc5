//! Pipes to the children of `popen`.

use super::wait::wait_for;
use crate::hooks::fd::close::close_;
use crate::hooks::result::finish_status;
use core::ffi::c_int;
use core::sync::atomic::{AtomicI32, Ordering};

/// Our ends of the pipes to commands that were not closed yet: later commands must not have them.
/// Beyond so many they do.
pub(crate) const PIPES_MAX: usize = 64;
pub(crate) static PIPES: [AtomicI32; PIPES_MAX] = [const { AtomicI32::new(-1) }; PIPES_MAX];

/// Replaces a descriptor in the list; -1 is a free place.
pub(crate) fn note_pipe(from: c_int, to: c_int) {
    if let Some(place) = PIPES.iter().find(|fd| fd.load(Ordering::Relaxed) == from) {
        place.store(to, Ordering::Relaxed);
    }
}

/// Closes the stream of a command and waits for the command's end.
pub(crate) fn close_pipe(fd: c_int, pid: c_int) -> c_int {
    note_pipe(fd, -1);
    close_(fd);
    finish_status(wait_for(pid))
}
