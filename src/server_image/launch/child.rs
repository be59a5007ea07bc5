//! The new process between fork and exec.
//!
//! Rules of this file: it runs in a copy of a process with threads, so no allocation, no locks, no
//! formatting; system calls only. Errors are an errno plus the step that was announced through the
//! progress pipe before it was tried.

use super::{LaunchSpec, lifeline};
use brolga_tape::handover;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::sys::personality::{self, Persona};
use nix::sys::prctl;
use nix::sys::ptrace;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, getpid, getppid, pipe2, setsid};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

/// Fixed, because the address layout below the stack depends on it.
const STACK_BYTES: u64 = 8 * 1024 * 1024;
/// First descriptor that nothing of the hand-over uses: sources are parked from here on.
const PARKING_FD: RawFd = 1010;
/// First descriptor after standard error.
const FIRST_INHERITED_FD: u32 = 3;
/// A descriptor that only names a directory.
const DIRECTORY: OFlag = OFlag::O_PATH
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);
/// The highest signal number plus one.
const SIGNALS_END: i32 = 65;

/// Something that can be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    Limits = 1,
    Namespace,
    Descriptors,
    Session,
    Affinity,
    Personality,
    Trace,
    Exec,
}

impl Step {
    const ALL: [Self; 8] = [
        Self::Limits,
        Self::Namespace,
        Self::Descriptors,
        Self::Session,
        Self::Affinity,
        Self::Personality,
        Self::Trace,
        Self::Exec,
    ];

    /// For the error line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Limits => "setting resource limits",
            Self::Namespace => "making a namespace",
            Self::Descriptors => "handing over descriptors",
            Self::Session => "making a session",
            Self::Affinity => "pinning to a processor",
            Self::Personality => "switching off address randomisation",
            Self::Trace => "being traced",
            Self::Exec => "exec",
        }
    }
}

/// The parent's end of the progress pipe.
#[derive(Debug)]
pub struct Progress(OwnedFd);

impl Progress {
    /// The last step that the child announced.
    pub fn last(self) -> Option<Step> {
        let mut announced = Vec::new();
        // A pipe that cannot be read only costs the error line a detail.
        let _ = File::from(self.0).read_to_end(&mut announced);
        let last = announced.last().copied()?;
        Step::ALL.into_iter().find(|step| *step as u8 == last)
    }
}

/// All that the child needs, prepared before the fork.
#[derive(Debug)]
pub struct Setup {
    progress: File,
    image: RawFd,
    tape: RawFd,
    doorbell: RawFd,
    temporary: OwnedFd,
    /// `None` in a container.
    lifeline: Option<OwnedFd>,
    descriptors: u64,
    affinity: Option<CpuSet>,
    traceable: bool,
    parent: Pid,
}

impl Setup {
    /// Prepares the child's work.
    pub fn new(
        spec: &LaunchSpec<'_>,
        image: BorrowedFd<'_>,
        lifeline: Option<OwnedFd>,
    ) -> io::Result<(Progress, Self)> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        let affinity = match spec.cpu {
            None => None,
            Some(cpu) => {
                let mut set = CpuSet::new();
                set.set(cpu)?;
                Some(set)
            }
        };
        let setup = Self {
            progress: File::from(writer),
            image: image.as_raw_fd(),
            tape: spec.tape.as_raw_fd(),
            doorbell: spec.doorbell.as_raw_fd(),
            temporary: nix::fcntl::open(&spec.temporary, DIRECTORY, Mode::empty())?,
            lifeline,
            descriptors: spec.descriptors,
            affinity,
            traceable: spec.traceable,
            parent: getpid(),
        };
        Ok((Progress(reader), setup))
    }

    /// Runs in the child.
    pub fn run(&self) -> io::Result<()> {
        self.announce(Step::Limits)?;
        setrlimit(Resource::RLIMIT_NOFILE, self.descriptors, self.descriptors)?;
        setrlimit(Resource::RLIMIT_STACK, STACK_BYTES, STACK_BYTES)?;
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
        umask(Mode::S_IWGRP | Mode::S_IWOTH);
        default_signals();
        if self.lifeline.is_none() {
            // Not the container's, so that CRIU, which runs in that, takes it for the server's.
            self.announce(Step::Namespace)?;
            unshare(CloneFlags::CLONE_NEWIPC)?;
        }
        self.announce(Step::Session)?;
        setsid()?;
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if let Some(lifeline) = &self.lifeline {
            if getppid() != self.parent {
                // The node died before the kernel knew that we are to die with it.
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            lifeline::tie_group(lifeline.as_fd())?;
        }
        if let Some(set) = &self.affinity {
            self.announce(Step::Affinity)?;
            sched_setaffinity(Pid::from_raw(0), set)?;
        }
        self.announce(Step::Personality)?;
        personality::set(Persona::ADDR_NO_RANDOMIZE)?;
        self.announce(Step::Trace)?;
        if self.traceable {
            // Where Yama is in force, only an ancestor could attach otherwise. Where it is not, this is
            // refused, and not needed.
            // SAFETY: no pointers.
            unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
        }
        ptrace::traceme()?;
        self.announce(Step::Descriptors)?;
        self.hand_over()?;
        self.announce(Step::Exec)
    }

    fn announce(&self, step: Step) -> io::Result<()> {
        (&self.progress).write_all(&[step as u8])
    }

    /// Puts the descriptors at their agreed numbers and marks all others to be closed.
    fn hand_over(&self) -> io::Result<()> {
        // Sources may sit on each other's targets, so all are moved out of the way first.
        let image = park(self.image)?;
        let tape = park(self.tape)?;
        let doorbell = park(self.doorbell)?;
        let temporary = park(self.temporary.as_raw_fd())?;
        let lifeline = self.lifeline.as_ref().map(AsRawFd::as_raw_fd);
        let lifeline = lifeline.map(park).transpose()?;
        place(image, handover::INTERPOSER_FD)?;
        place(tape, handover::TAPE_FD)?;
        place(doorbell, handover::DOORBELL_FD)?;
        // The working directory was changed to before this runs.
        let here = nix::fcntl::open(c".", DIRECTORY, Mode::empty())?;
        place(here.into_raw_fd(), handover::WORK_DIRECTORY_FD)?;
        place(temporary, handover::TEMPORARY_DIRECTORY_FD)?;
        let [first, later, last] = [
            handover::FIRST_FD,
            handover::SCHEDULER_FD, // made by the interposer
            handover::LIFELINE_FD,
        ]
        .map(i32::cast_unsigned);
        close_on_exec(FIRST_INHERITED_FD, first - 1)?;
        close_on_exec(later, later)?;
        close_on_exec(last, u32::MAX)?;
        lifeline.map_or(Ok(()), |lifeline| place(lifeline, handover::LIFELINE_FD))
    }
}

fn park(fd: RawFd) -> io::Result<RawFd> {
    // SAFETY: the descriptor is the parent's and open in this copy of it until exec.
    let source = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(fcntl(
        source.as_fd(),
        FcntlArg::F_DUPFD_CLOEXEC(PARKING_FD),
    )?)
}

fn place(source: RawFd, target: RawFd) -> io::Result<()> {
    // SAFETY: dup2 takes plain numbers; what it may close at `target` belongs to this short-lived
    // copy of the parent and is not used any more before exec.
    if unsafe { libc::dup2(source, target) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn close_on_exec(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: only sets a flag on descriptors; std's own error pipe stays usable until exec.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            last,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Ignored signals would survive exec. Numbers that cannot be set (`SIGKILL`, libc's own) are
/// skipped by the kernel or libc with an error that means nothing.
fn default_signals() {
    for number in 1..SIGNALS_END {
        // SAFETY: SIG_DFL installs no code of ours.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}
