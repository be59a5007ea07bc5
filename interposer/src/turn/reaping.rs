//! Waiting until threads and processes that have ended logically are really gone.

use super::proof::Turn;
use crate::shared::DyingThread;
use crate::sys::{self, sys};

impl Turn {
    /// Waits until the thread or process that ended before us is really gone.
    pub(super) fn reap(&mut self) {
        let shared = self.shared();
        let thread = core::mem::take(&mut shared.dying_thread);
        let pid = core::mem::take(&mut shared.dying_pid);
        if thread.tid != 0 {
            wait_for_end_of_thread(thread);
        }
        if pid != 0 {
            wait_for_end(pid);
        }
    }
}

/// Waits, for the few instructions it takes, until a thread has ended that was about to.
fn wait_for_end_of_thread(thread: DyingThread) {
    let is_there = || {
        if thread.pid == thread.tid {
            return !is_remains(thread.pid);
        }
        // SAFETY: signal 0 only asks whether the thread exists; no pointers.
        unsafe { sys!(sys::SYS_tgkill, thread.pid, thread.tid, 0) == 0 }
    };
    while is_there() {
        // SAFETY: no arguments.
        unsafe { sys!(sys::SYS_sched_yield) };
    }
}

/// Returns whether the first thread of a process has ended: the kernel keeps its remains until all
/// have.
fn is_remains(pid: i32) -> bool {
    let digits = sys::Decimal::new(u64::from(pid.cast_unsigned()));
    let mut path = [0u8; 40];
    let mut len = 0;
    for part in [
        b"/proc/",
        digits.bytes(),
        b"/task/",
        digits.bytes(),
        b"/stat",
    ] {
        path[len..len + part.len()].copy_from_slice(part);
        len += part.len();
    }
    let mut stat = [0u8; 64];
    // SAFETY: a path with a NUL at its end, and room for what is read.
    let read = unsafe {
        let fd = sys!(sys::SYS_openat, libc::AT_FDCWD, path.as_ptr(), 0, 0);
        if fd < 0 {
            return true;
        }
        let read = sys!(sys::SYS_read, fd, stat.as_mut_ptr(), stat.len());
        sys!(sys::SYS_close, fd);
        read
    };
    // The state comes after the name, which is in parentheses and may have some in it.
    let stat = &stat[..usize::try_from(read).unwrap_or(0)];
    let name_end = stat.iter().rposition(|byte| *byte == b')');
    let state = name_end.and_then(|at| stat.get(at + 2));
    matches!(state, None | Some(b'Z' | b'X'))
}

/// Sleeps until a process has ended, which need not be a child.
pub fn wait_for_end(pid: i32) {
    // SAFETY: plain integers, then one valid pollfd.
    unsafe {
        let fd = sys!(sys::SYS_pidfd_open, pid, 0);
        if fd < 0 {
            return; // Reaped already.
        }
        let mut poll = libc::pollfd {
            fd: fd as i32,
            events: libc::POLLIN,
            revents: 0,
        };
        while sys!(sys::SYS_ppoll, &raw mut poll, 1, 0, 0, 8) == -(libc::EINTR as isize) {}
        sys!(sys::SYS_close, fd);
    }
}
