//! Processes: handles that tell of their end, signals, reaping, priority, processors.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpgid, kill_process, kill_process_group, pidfd_open,
    setpriority_process, waitpid,
};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Lowers the calling thread's priority: sets its nice value.
///
/// # Errors
/// The kernel refuses.
pub fn set_nice(value: i32) -> io::Result<()> {
    // In Linux this is a priority of threads, and no id means the calling one.
    Ok(setpriority_process(None, value)?)
}

/// Opens a descriptor that becomes readable when process `pid` ends.
///
/// # Errors
/// There is no such process, or no descriptor is left.
pub fn process_handle(pid: i32) -> io::Result<OwnedFd> {
    Ok(pidfd_open(id(pid)?, PidfdFlags::empty())?)
}

/// Reaps an ended child; `None` while it still runs.
///
/// # Errors
/// There is no such child.
pub fn reap(pid: i32) -> io::Result<Option<i32>> {
    let reaped = waitpid(Some(id(pid)?), WaitOptions::NOHANG)?;
    Ok(reaped.map(|(_, status)| status.as_raw()))
}

/// Kills a child that was not reaped yet, and its process group where it leads one, and reaps it.
///
/// # Panics
/// When `pid` cannot be that of a child.
pub fn kill_and_reap(pid: i32) {
    let child = child(pid);
    if getpgid(Some(child)) == Ok(child) {
        // A group that is gone is what is wanted; the same below.
        let _ = kill_process_group(child, Signal::KILL);
    }
    let _ = kill_process(child, Signal::KILL);
    let _ = waitpid(Some(child), WaitOptions::empty());
}

/// Kills a child that was not reaped yet.
///
/// # Panics
/// When `pid` cannot be that of a child.
pub fn kill(pid: i32) {
    // It may have ended by itself.
    let _ = kill_process(child(pid), Signal::KILL);
}

/// Describes a wait status: the signal or the exit status.
#[must_use]
pub fn describe_status(status: i32) -> String {
    let status = ExitStatus::from_raw(status);
    match status.signal() {
        Some(signal) => format!("killed by signal {signal}"),
        None => format!("exit status {}", status.code().unwrap_or_default()),
    }
}

/// The processors that this process may use.
#[must_use]
pub fn allowed_processors() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(unistd::Pid::from_raw(0)) else {
        return Vec::new();
    };
    (0..CpuSet::count())
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .collect()
}

fn id(pid: i32) -> io::Result<Pid> {
    // `Pid` must not be negative: the kernel takes such a number for a group.
    let positive = Some(pid).filter(|pid| *pid > 0).and_then(Pid::from_raw);
    positive.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn child(pid: i32) -> Pid {
    let pid = Some(pid).filter(|pid| *pid > 1).and_then(Pid::from_raw);
    pid.expect("the pid of a child is greater than 1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    #[test]
    #[expect(clippy::zombie_processes, reason = "it is reaped by number")]
    fn the_end_of_a_child_is_told_and_reaped() {
        let child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let handle = process_handle(pid).unwrap();
        let mut wait = [PollFd::new(&handle, PollFlags::IN)];
        let five_seconds = Timespec {
            tv_sec: 5,
            tv_nsec: 0,
        };
        assert_eq!(poll(&mut wait, Some(&five_seconds)).unwrap(), 1);
        assert_eq!(reap(pid).unwrap(), Some(0));
        assert_eq!(describe_status(0), "exit status 0");
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "it is reaped by number")]
    fn a_killed_child_is_described_by_its_signal() {
        let child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert_eq!(reap(pid).unwrap(), None);
        kill(pid);
        let status = waitpid(Some(id(pid).unwrap()), WaitOptions::empty()).unwrap();
        let (_, status) = status.unwrap();
        assert_eq!(describe_status(status.as_raw()), "killed by signal 9");
        assert!(process_handle(0).is_err() && process_handle(-1).is_err());
    }
}
