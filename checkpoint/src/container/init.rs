//! Process 1 of a container. It keeps the process namespace alive, mounts `/proc` (which shows the
//! namespace of the process that mounts it), and sleeps.
//!
//! Rules of this file: a child is a copy of a process with several threads, so it makes system
//! calls only. It must not allocate, lock or format. The wrappers of `nix` that are used here do
//! not.

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, close, fork, pause, pipe2, write};
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};

/// File for the number of the last process.
const LAST_PID: &CStr = c"/proc/sys/kernel/ns_last_pid";

/// Starts process 1. The calling thread has created the namespace. Other processes get numbers from
/// `first_pid` on.
pub(super) fn start(first_pid: i32) -> io::Result<Pid> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    let mut digits = [0u8; 10];
    let last_pid = decimal(first_pid.cast_unsigned() - 1, &mut digits);
    let child = fork_child(|| run(&reader, &writer, last_pid))?;
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

/// Starts a child that does `work` and exits with the status that it returns. The rules of this
/// file hold for `work`.
fn fork_child(work: impl FnOnce() -> i32) -> io::Result<Pid> {
    // SAFETY: the child makes system calls only, see the rules of this file, and never returns.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let status = work();
            // SAFETY: ends the child at once; nothing of the copied process runs in it any more.
            unsafe { libc::_exit(status) }
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

/// The child: reports an errno to the parent, then sleeps. Returns its exit status if it cannot.
fn run(reader: &OwnedFd, writer: &OwnedFd, last_pid: &[u8]) -> i32 {
    // The parent's copy stays open. Closing it cannot fail.
    let _ = close(reader.as_raw_fd());
    let error = prepare(last_pid).err().map_or(0, |errno| errno as i32);
    // The write fails if the parent died before this process asked to die with it. The SIGPIPE that
    // comes with the failure has no effect on process 1.
    let told = write(writer, &error.to_ne_bytes());
    if error != 0 || told != Ok(size_of_val(&error)) {
        return 1;
    }
    // SAFETY: the descriptors belong to this copy of the parent, which uses none of them any more.
    unsafe { libc::close_range(0, libc::c_uint::MAX, 0) };
    loop {
        pause();
    }
}

/// Sets up signals, `/proc` and the next process number.
fn prepare(last_pid: &[u8]) -> Result<(), Errno> {
    prctl::set_name(c"brolga-init")?;
    reset_signals();
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let none: Option<&CStr> = None;
    mount(Some(c"proc"), c"/proc", Some(c"proc"), flags, none)?;
    write_last_pid(last_pid)
}

/// Removes the parent's signal handlers. Orphans that end are not waited for.
fn reset_signals() {
    // SAFETY: no handler is installed, only the default actions and one that ignores.
    unsafe {
        for signal in 1..32 {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
    }
}

/// Sets the number of the last process of the namespace.
fn write_last_pid(last_pid: &[u8]) -> Result<(), Errno> {
    let file = open(LAST_PID, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    write(&file, last_pid).map(drop)
}

/// Sets the number of the last process, so that the next one gets the number after it. It is called
/// on the container's thread, which is outside of the process namespace itself: a child makes the
/// call.
pub(crate) fn set_last_pid(number: u32) -> io::Result<()> {
    let mut digits = [0u8; 10];
    let digits = decimal(number, &mut digits);
    // An errno fits into the status.
    let child = fork_child(|| write_last_pid(digits).err().map_or(0, |errno| errno as i32))?;
    match waitpid(child, None)? {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, errno) => Err(io::Error::from_raw_os_error(errno)),
        _ => Err(io::Error::other("cannot set the next process number")),
    }
}
