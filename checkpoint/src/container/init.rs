//! Process 1 of a container. It keeps the process namespace alive, mounts `/proc` (which shows the
//! namespace of the process that mounts it), and sleeps.
//!
//! Rules of this file: a child is a copy of a process with several threads, so it makes system calls
//! only. It must not allocate, lock or format.

use nix::fcntl::OFlag;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe2};
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};

/// Starts process 1. The calling thread has created the namespace. Other processes get numbers from
/// `first_pid` on.
pub(super) fn start(first_pid: i32) -> io::Result<Pid> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    let mut digits = [0u8; 10];
    let last_pid = decimal(first_pid.cast_unsigned() - 1, &mut digits);
    // SAFETY: the child makes only system calls and never returns.
    match unsafe { fork() }? {
        ForkResult::Child => run(reader.as_raw_fd(), writer.as_raw_fd(), last_pid),
        ForkResult::Parent { child } => {
            drop(writer);
            let mut error = [0u8; 4];
            match File::from(reader).read_exact(&mut error) {
                Ok(()) if error == [0; 4] => Ok(child),
                told => {
                    let code = i32::from_ne_bytes(error);
                    // The child has ended, or is about to.
                    let _ = waitpid(child, None);
                    Err(told
                        .err()
                        .unwrap_or_else(|| io::Error::from_raw_os_error(code)))
                }
            }
        }
    }
}

/// Formats a number, in the last bytes of the buffer.
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

/// The child: reports an errno to the parent, then sleeps.
fn run(reader: RawFd, writer: RawFd, last_pid: &[u8]) -> ! {
    // SAFETY: this copy of the parent uses the descriptor no more.
    unsafe { libc::close(reader) };
    let error = prepare(last_pid).to_ne_bytes();
    // SAFETY: system calls on plain integers and live buffers; the descriptors that are closed belong to
    // this copy of the parent, which uses none of them any more.
    unsafe {
        // The write fails if the parent died before this process asked to die with it. The SIGPIPE that
        // comes with the failure has no effect on process 1.
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

/// Sets up signals, `/proc` and the next process number. Returns an errno, or 0.
fn prepare(last_pid: &[u8]) -> i32 {
    // SAFETY: plain integers, NUL-terminated strings and a live buffer.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"brolga-init".as_ptr());
        // The handlers are the parent's. Orphans that end are not waited for.
        for signal in 1..32 {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 || mount_proc() < 0 {
            return *libc::__errno_location();
        }
    }
    write_last_pid(last_pid)
}

/// Sets the number of the last process of the namespace. Returns an errno, or 0.
fn write_last_pid(last_pid: &[u8]) -> i32 {
    // SAFETY: a NUL-terminated string and a live buffer.
    unsafe {
        let fd = libc::open(LAST_PID.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd < 0 || libc::write(fd, last_pid.as_ptr().cast(), last_pid.len()) < 0 {
            return *libc::__errno_location();
        }
    }
    0
}

/// Sets the number of the last process, so that the next one gets the number after it. It is called on
/// the container's thread, which is outside of the process namespace itself: a child makes the call.
pub(crate) fn set_last_pid(number: u32) -> io::Result<()> {
    let mut digits = [0u8; 10];
    let digits = decimal(number, &mut digits);
    // SAFETY: the child makes only system calls and never returns.
    let child = match unsafe { fork() }? {
        ForkResult::Child => {
            let errno = write_last_pid(digits);
            // SAFETY: ends the child at once. An errno fits into the status.
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

/// File for the number of the last process.
const LAST_PID: &CStr = c"/proc/sys/kernel/ns_last_pid";

fn mount_proc() -> i32 {
    let proc = c"proc".as_ptr();
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: NUL-terminated strings; proc takes no data.
    unsafe { libc::mount(proc, c"/proc".as_ptr(), proc, flags, std::ptr::null()) }
}
