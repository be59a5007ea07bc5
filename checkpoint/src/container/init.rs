//! Process 1 of a container. It holds the process namespace, mounts `/proc` (which shows the namespace of
//! whoever mounts it), and sleeps.
//!
//! Rules of this file: the child is a copy of a process with threads, so no allocation, no locks, no
//! formatting; system calls only.

use nix::fcntl::OFlag;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe2};
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};

/// Starts it from the thread that has made the namespace. Processes are numbered from `first_pid` on.
pub(super) fn start(first_pid: i32) -> io::Result<Pid> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    let mut digits = [0u8; 10];
    let last_pid = decimal(first_pid.cast_unsigned() - 1, &mut digits);
    // SAFETY: the child makes only system calls and never returns.
    match unsafe { fork() }? {
        ForkResult::Child => live(reader.as_raw_fd(), writer.as_raw_fd(), last_pid),
        ForkResult::Parent { child } => {
            drop(writer);
            let mut error = [0u8; 4];
            match File::from(reader).read_exact(&mut error) {
                Ok(()) if error == [0; 4] => Ok(child),
                told => {
                    let code = i32::from_ne_bytes(error);
                    // It has ended, or is about to.
                    let _ = waitpid(child, None);
                    Err(told
                        .err()
                        .unwrap_or_else(|| io::Error::from_raw_os_error(code)))
                }
            }
        }
    }
}

/// Prints a number into the end of the buffer.
fn decimal(mut number: u32, buffer: &mut [u8; 10]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[at..];
        }
    }
}

fn live(reader: RawFd, writer: RawFd, last_pid: &[u8]) -> ! {
    // SAFETY: this copy of the parent uses the descriptor no more.
    unsafe { libc::close(reader) };
    let error = prepare(last_pid).to_ne_bytes();
    // SAFETY: system calls on plain integers and live buffers; the descriptors that are closed belong to
    // this copy of the parent, which uses none of them any more.
    unsafe {
        // Nobody reads it if the parent died before this process could ask to die with it. The signal that
        // comes with that does nothing to process 1.
        let told = libc::write(writer, error.as_ptr().cast(), error.len());
        if error != [0; 4] || told.cast_unsigned() != error.len() {
            libc::_exit(1);
        }
        libc::close_range(0, libc::c_uint::MAX, 0);
        loop {
            libc::pause();
        }
    }
}

/// An errno, or 0.
fn prepare(last_pid: &[u8]) -> i32 {
    // SAFETY: plain integers, NUL-terminated strings and a live buffer.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"brolga-init".as_ptr());
        // The parent's handlers are not for this process; children that end are not waited for.
        for signal in 1..32 {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 || mount_proc() < 0 {
            return *libc::__errno_location();
        }
    }
    // Where that can't be set, CRIU may later find its number taken, and says so.
    set_last_pid(last_pid)
}

/// An errno, or 0.
fn set_last_pid(last_pid: &[u8]) -> i32 {
    // SAFETY: a NUL-terminated string and a live buffer.
    unsafe {
        let fd = libc::open(LAST_PID.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd < 0 || libc::write(fd, last_pid.as_ptr().cast(), last_pid.len()) < 0 {
            return *libc::__errno_location();
        }
    }
    0
}

/// Has the next process of the container get the number after this one. To be called on its thread,
/// which is not in the namespace of its processes itself, so that a child does it.
pub(crate) fn last_number(number: u32) -> io::Result<()> {
    let mut digits = [0u8; 10];
    let digits = decimal(number, &mut digits);
    // SAFETY: the child makes only system calls and never returns.
    let child = match unsafe { fork() }? {
        ForkResult::Child => {
            let errno = set_last_pid(digits);
            // SAFETY: it ends the child. Errors have small numbers.
            unsafe { libc::_exit(errno) }
        }
        ForkResult::Parent { child } => child,
    };
    match waitpid(child, None)? {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, errno) => Err(io::Error::from_raw_os_error(errno)),
        _ => Err(io::Error::other("cannot set the next process number")),
    }
}

const LAST_PID: &CStr = c"/proc/sys/kernel/ns_last_pid";

fn mount_proc() -> i32 {
    let proc = c"proc".as_ptr();
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: NUL-terminated strings; proc takes no data.
    unsafe { libc::mount(proc, c"/proc".as_ptr(), proc, flags, std::ptr::null()) }
}
