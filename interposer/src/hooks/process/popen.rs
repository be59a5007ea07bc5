//! `popen`: a shell at the other end of a pipe, as a child of our own, see [`spawn`](super::spawn).

use super::pipe_children::{PIPES, PIPES_MAX, close_pipe, note_pipe};
use super::spawn::{Action, check, spawn, tag};
use super::system::{shell, shell_words};
use crate::hooks::fd::close::close_;
use crate::hooks::fd::pipe::pipe2_;
use crate::hooks::stdio::stream;
use crate::libc_symbols::libc_own;
use crate::sys::{self, sys};
use crate::turn::Turn;
use brolga_tape::operation as op;
use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::Ordering;

/// Parses a mode of `popen`: reading or writing, and closing our end at exec.
///
/// # Safety
/// `mode` ends with a NUL.
unsafe fn popen_mode(mut mode: *const c_char) -> Option<(bool, bool)> {
    let (mut reads, mut writes, mut close) = (false, false, false);
    loop {
        // SAFETY: the caller promises a NUL-terminated mode.
        let letter = unsafe { *mode }.cast_unsigned();
        match letter {
            0 => return (reads != writes).then_some((reads, close)),
            b'r' => reads = true,
            b'w' => writes = true,
            b'e' => close = true,
            _ => return None,
        }
        mode = mode.wrapping_add(1);
    }
}

/// Starts a shell with a pipe; `Err` is an errno.
///
/// # Safety
/// As `popen`: both strings end with a NUL.
unsafe fn popen_(
    turn: &mut Turn,
    command: *const c_char,
    mode: *const c_char,
) -> Result<*mut c_void, c_int> {
    // SAFETY: the caller promises a NUL-terminated mode.
    let (reads, close) = unsafe { popen_mode(mode) }.ok_or(libc::EINVAL)?;
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    check(unsafe { pipe2_(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    let [ours, theirs] = if reads { ends } else { [ends[1], ends[0]] };
    let standard = c_int::from(reads);
    let mut actions = [Action::on(tag::DUP, theirs, standard); PIPES_MAX + 1];
    let mut used = 1;
    for pipe in &PIPES {
        let fd = pipe.load(Ordering::Relaxed);
        if fd >= 0 && fd != standard {
            actions[used] = Action::on(tag::CLOSE, fd, 0);
            used += 1;
        }
    }
    let words = shell_words(command);
    // SAFETY: the caller's command.
    let made = unsafe { spawn(turn, &shell(&words, &actions[..used])) };
    close_(theirs);
    let pid = made.inspect_err(|_| _ = close_(ours))?;
    if !close {
        // SAFETY: plain integers.
        unsafe { sys!(sys::SYS_fcntl, ours, libc::F_SETFD, 0) };
    }
    note_pipe(-1, ours);
    let mode = if reads { c"r" } else { c"w" };
    let stream = stream::open_command(ours, pid, mode);
    if stream.is_null() {
        close_pipe(ours, pid);
        return Err(libc::ENOMEM);
    }
    Ok(stream)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn popen(command: *const c_char, mode: *const c_char) -> *mut c_void {
    let Some(mut turn) = Turn::take(op::FORK) else {
        return libc_own!(popen(command: *const c_char, mode: *const c_char) -> *mut c_void);
    };
    // SAFETY: the caller's promise.
    unsafe { popen_(&mut turn, command, mode) }.unwrap_or_else(|errno| {
        sys::set_errno(errno);
        core::ptr::null_mut()
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn _IO_popen(command: *const c_char, mode: *const c_char) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { popen(command, mode) }
}
