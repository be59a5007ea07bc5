//! Starts the wrapped server so that every replica's process begins in the same state.
//!
//! What a process is given by the kernel before its first instruction differs from run to run and
//! from machine to machine: address layout, the vDSO (clock reads that no hook and no seccomp
//! filter sees), sixteen random bytes, limits, environment, signal dispositions, descriptors. The
//! launcher fixes all of it:
//!
//! * between fork and exec (`child`): limits, umask, descriptors, session, affinity, no address
//!   randomisation, and a request to be traced;
//! * at the stop after exec (`stack`): the vDSO is struck from the auxiliary vector and the random
//!   bytes are replaced; then the tracer lets go.
//!
//! The interposer comes from a memory file (`image`) that the server preloads by descriptor number,
//! so nothing is written to disk and the path is the same everywhere.
//!
//! In a container ([`contained`]) all of this is done as well; the kernel's paths are alike there too.

mod child;
pub mod contained;
mod image;
mod lifeline;
mod stack;
mod workdir;

pub use lifeline::Lifeline;
pub use workdir::{WorkdirError, prepare_temporary, prepare_workdir, sync_directory};

use crate::elf::{self, BinaryError};
use brolga_config::{DESCRIPTORS_MIN, PRELOAD_VARIABLE};
use brolga_tape::handover;
use child::{Setup, Step};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The server's `PATH`, and where its program is looked for.
pub const SERVER_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The canonical environment of every server, before the pairs of the user.
const CANONICAL_ENVIRONMENT: [(&str, &str); 7] = [
    ("PATH", SERVER_PATH),
    ("HOME", "/"),
    ("LANG", "C.UTF-8"),
    ("TZ", "UTC"),
    ("TMPDIR", handover::TEMPORARY_DIRECTORY_PATH),
    // libc would show programs which processor they run on.
    ("GLIBC_TUNABLES", "glibc.pthread.rseq=0"),
    // OpenSSL is not to use RDRAND and RDSEED.
    ("OPENSSL_ia32cap", "~0x4000000000000000:~0x40000"),
];

/// The specification of a server to start.
#[derive(Clone, Debug)]
pub struct LaunchSpec<'a> {
    /// Program and arguments; the program is looked for in [`SERVER_PATH`].
    pub argv: Vec<OsString>,
    /// Variables beyond the canonical ones; these win.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: PathBuf,
    /// Directory for temporary files. Replicas make the same names up, so each needs its own.
    pub temporary: PathBuf,
    /// The tape's memory file.
    pub tape: BorrowedFd<'a>,
    /// The eventfd by which the interposer wakes the node.
    pub doorbell: BorrowedFd<'a>,
    /// File that standard output is appended to.
    pub stdout: PathBuf,
    /// File that standard error is appended to.
    pub stderr: PathBuf,
    /// The sixteen bytes behind `AT_RANDOM`; the same on every replica.
    pub random_seed: [u8; 16],
    /// Processor to stay on.
    pub cpu: Option<usize>,
    /// Limit of open descriptors; the same on every replica.
    pub descriptors: u64,
    /// The calling thread lives in a container, whose end is the server's.
    pub contained: bool,
    /// Let any process of the same user trace it.
    pub traceable: bool,
}

/// A server that was started.
#[derive(Debug)]
pub struct Launched {
    /// The process, to be reaped by the caller.
    pub pid: Pid,
    /// The lifeline of its process tree, unless that is a container.
    pub lifeline: Option<Lifeline>,
}

/// Why a server was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The program cannot be wrapped.
    #[error(transparent)]
    Binary(#[from] BinaryError),
    /// A file for the server's output cannot be opened.
    #[error("cannot open {path} for the server's output: {source}")]
    Output {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The working directory is not there.
    #[error("the server's working directory {0} does not exist")]
    WorkingDirectory(PathBuf),
    /// A file in the container cannot be opened.
    #[error("cannot open {path} in the container: {source}")]
    Container {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The interposer's memory file cannot be made.
    #[error("cannot create the memory file of the interposer: {0}")]
    Image(#[source] io::Error),
    /// The descriptor limit is too low for the server or for the interposer.
    #[error(
        "the server is to have {wanted} descriptors but the hard limit is {allowed}: raise it \
         (ulimit -Hn {wanted}) or set `descriptors` lower, alike on all nodes (at least {least})",
        least = DESCRIPTORS_MIN
    )]
    Descriptors {
        /// Configured.
        wanted: u64,
        /// The kernel's limit for this process.
        allowed: u64,
    },
    /// Turning off address randomisation was refused.
    #[error(
        "the kernel refuses to switch off address randomisation ({0}): in a container, allow \
         personality(2), for example with --security-opt seccomp=unconfined"
    )]
    Personality(#[source] io::Error),
    /// Tracing the server at its start was refused or went wrong.
    #[error(
        "the kernel refuses to trace the server at its start ({0}): allow ptrace(2) \
         (kernel.yama.ptrace_scope below 3; in a container --cap-add SYS_PTRACE)"
    )]
    Trace(#[source] io::Error),
    /// Another step between fork and exec failed.
    #[error("cannot start {program}: {step} failed: {source}")]
    Step {
        /// The program.
        program: PathBuf,
        /// The operation.
        step: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// The process ended before its first instruction.
    #[error("{program} ended before it started: {how}")]
    Vanished {
        /// The program.
        program: PathBuf,
        /// The wait status.
        how: String,
    },
}

/// Starts the server and returns when it is about to run its first instruction.
///
/// The caller's thread must live as long as the server is wanted: when it ends, the kernel kills
/// the server (`PR_SET_PDEATHSIG` follows the thread). Nobody else in this process may wait for
/// children in general while this runs, or the stop after exec is lost.
///
/// # Errors
/// See [`LaunchError`]; nothing is left running then.
pub fn spawn(spec: &LaunchSpec<'_>) -> Result<Launched, LaunchError> {
    spawn_preloading(image::descriptor().map_err(LaunchError::Image)?, spec)
}

fn spawn_preloading(image: BorrowedFd<'_>, spec: &LaunchSpec<'_>) -> Result<Launched, LaunchError> {
    let program = elf::check_program(&spec.argv, SERVER_PATH)?;
    check_limits(spec.descriptors)?;
    if !spec.cwd.is_dir() {
        return Err(LaunchError::WorkingDirectory(spec.cwd.clone()));
    }
    let mut command = command(spec, &program)?;
    let unprepared = |source| step_error(&program, None, source);
    let (lifeline, theirs) = if spec.contained {
        (None, None)
    } else {
        let (ours, theirs) = Lifeline::pair().map_err(unprepared)?;
        (Some(ours), Some(theirs))
    };
    let (progress, setup) = Setup::new(spec, image, theirs).map_err(unprepared)?;
    // SAFETY: Setup::run only makes async-signal-safe system calls and does not allocate, which is
    // what code between fork and exec in a process with threads may do.
    unsafe { command.pre_exec(move || setup.run()) };
    let spawned = command.spawn();
    drop(command); // closes our copy of the progress pipe, so that reading it ends
    match spawned {
        Ok(child) => {
            let pid = Pid::from_raw(child.id().cast_signed());
            prepare_stopped(pid, &program, spec.random_seed).inspect_err(|_| abandon(pid))?;
            Ok(Launched { pid, lifeline })
        }
        Err(source) => Err(step_error(&program, progress.last(), source)),
    }
}

/// The canonical environment of every server, before the pairs of the user.
pub fn canonical_environment() -> impl Iterator<Item = (&'static str, &'static str)> {
    CANONICAL_ENVIRONMENT.into_iter()
}

/// Everything std can set by itself.
fn command(spec: &LaunchSpec<'_>, program: &Path) -> Result<Command, LaunchError> {
    let mut command = Command::new(program);
    if let Some((name, arguments)) = spec.argv.split_first() {
        command.arg0(name).args(arguments);
    }
    command
        .env_clear()
        .envs(CANONICAL_ENVIRONMENT)
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .env(PRELOAD_VARIABLE, handover::PRELOAD_PATH)
        .current_dir(&spec.cwd)
        .stdin(Stdio::null())
        .stdout(append(&spec.stdout)?)
        .stderr(append(&spec.stderr)?);
    Ok(command)
}

fn append(path: &Path) -> Result<File, LaunchError> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|source| LaunchError::Output {
            path: path.to_owned(),
            source,
        })
}

fn check_limits(wanted: u64) -> Result<(), LaunchError> {
    let allowed = descriptor_limit().unwrap_or(u64::MAX);
    if wanted > allowed || wanted < DESCRIPTORS_MIN {
        return Err(LaunchError::Descriptors { wanted, allowed });
    }
    Ok(())
}

/// The most descriptors that a server can be given here.
///
/// # Errors
/// When the kernel does not say.
pub fn descriptor_limit() -> io::Result<u64> {
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    Ok(hard)
}

/// The embedded interposer, for telling one build of it from another.
#[must_use]
pub fn interposer_image() -> &'static [u8] {
    image::IMAGE
}

fn step_error(program: &Path, step: Option<Step>, source: io::Error) -> LaunchError {
    match step {
        Some(Step::Personality) => LaunchError::Personality(source),
        Some(Step::Trace) => LaunchError::Trace(source),
        other => LaunchError::Step {
            program: program.to_owned(),
            step: other.map_or("preparing", Step::name),
            source,
        },
    }
}

/// Waits for the stop after exec, edits the new stack and lets the server go.
fn prepare_stopped(pid: Pid, program: &Path, seed: [u8; 16]) -> Result<(), LaunchError> {
    let trace = |errno: nix::Error| LaunchError::Trace(errno.into());
    match waitpid(pid, Some(WaitPidFlag::__WALL)).map_err(trace)? {
        WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
        other => {
            return Err(LaunchError::Vanished {
                program: program.to_owned(),
                how: format!("{other:?}"),
            });
        }
    }
    ptrace::setoptions(pid, ptrace::Options::PTRACE_O_EXITKILL).map_err(trace)?;
    stack::make_alike(pid, seed).map_err(LaunchError::Trace)?;
    ptrace::detach(pid, None).map_err(trace)
}

/// Leaves nothing of a server that could not be prepared. It may be gone already, so errors mean
/// nothing here.
fn abandon(pid: Pid) {
    let _ = kill(pid, Signal::SIGKILL);
    let _ = waitpid(pid, Some(WaitPidFlag::__WALL));
}

#[cfg(test)]
mod tests;
