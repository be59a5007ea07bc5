//! A server in a container: what is put into it, and starting the server there.
//!
//! What the node shares with the server are files of the container instead of anonymous objects,
//! since those are what a checkpoint can be attached to again: a restored server finds a new tape
//! and a new doorbell at the old names.

use super::{LaunchError, LaunchSpec, Launched, image, spawn_preloading};
use brolga_checkpoint::container::{
    Container, Content, GeneratedFile, OWN_DIRECTORY, Plan, RootDirectory,
};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Names in the container's own directory.
const INTERPOSER: &str = "interposer.so";
const TAPE: &str = "tape";
const DOORBELL: &str = "doorbell";
const WORK: &str = "work";
const TEMPORARY: &str = "tmp";
const STDOUT: &str = "stdout";
const STDERR: &str = "stderr";

/// The files of a replica that its container has.
#[derive(Clone, Debug)]
pub struct Places {
    /// Directory for what the server changes of the machine's files.
    pub state: PathBuf,
    /// The root file system, instead of the machine's.
    pub root: Option<RootDirectory>,
    /// The server's working directory.
    pub work: PathBuf,
    /// The directory for temporary files.
    pub temporary: PathBuf,
    /// The file that its standard output is appended to.
    pub stdout: PathBuf,
    /// The file that its standard error is appended to.
    pub stderr: PathBuf,
}

impl Places {
    /// The container of a server with a tape of so many bytes.
    #[must_use]
    pub fn plan(&self, tape_bytes: u64) -> Plan {
        let generated = [
            (INTERPOSER, Content::Executable(image::IMAGE)),
            (TAPE, Content::Zeroed(tape_bytes)),
            (DOORBELL, Content::Fifo),
        ];
        let bound = [
            (&self.work, WORK),
            (&self.temporary, TEMPORARY),
            (&self.stdout, STDOUT),
            (&self.stderr, STDERR),
        ];
        Plan {
            state: self.state.clone(),
            root: self.root.clone(),
            bound: bound.map(|(path, name)| (path.clone(), name)).into(),
            generated: generated
                .map(|(name, content)| GeneratedFile { name, content })
                .into(),
        }
    }

    /// Makes sure that the server's output has files to go to.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn prepare_output(&self) -> Result<(), LaunchError> {
        super::append(&self.stdout)?;
        super::append(&self.stderr).map(drop)
    }
}

/// The program to start.
#[derive(Clone, Debug)]
pub struct Program {
    /// See [`LaunchSpec::argv`].
    pub argv: Vec<OsString>,
    /// See [`LaunchSpec::env`].
    pub env: Vec<(String, String)>,
    /// See [`LaunchSpec::random_seed`].
    pub random_seed: [u8; 16],
    /// See [`LaunchSpec::cpu`].
    pub cpu: Option<usize>,
    /// See [`LaunchSpec::descriptors`].
    pub descriptors: u64,
}

/// Opens the node's ends of tape and doorbell.
///
/// # Errors
/// The container is not one of [`Places::plan`].
pub fn open_tape(container: &Container) -> Result<(OwnedFd, OwnedFd), LaunchError> {
    container.run(|| Ok((open(TAPE)?.into(), open(DOORBELL)?.into())))
}

/// Starts a server as its container's first process.
///
/// # Errors
/// See [`LaunchError`]; nothing is left running then.
pub fn spawn(container: &Container, program: Program) -> Result<Launched, LaunchError> {
    container.run(move || spawn_here(program))
}

fn spawn_here(program: Program) -> Result<Launched, LaunchError> {
    let own = Path::new(OWN_DIRECTORY);
    let path = own.join(INTERPOSER);
    let interposer = File::open(&path).map_err(|source| LaunchError::Container { path, source })?;
    let (tape, doorbell) = (open(TAPE)?, open(DOORBELL)?);
    let spec = LaunchSpec {
        argv: program.argv,
        env: program.env,
        cwd: own.join(WORK),
        temporary: own.join(TEMPORARY),
        tape: tape.as_fd(),
        doorbell: doorbell.as_fd(),
        stdout: own.join(STDOUT),
        stderr: own.join(STDERR),
        random_seed: program.random_seed,
        cpu: program.cpu,
        descriptors: program.descriptors,
        contained: true,
        traceable: false,
    };
    spawn_preloading(interposer.as_fd(), &spec)
}

/// Never blocks: a FIFO that is opened for both has a reader and a writer.
fn open(name: &str) -> Result<File, LaunchError> {
    let path = Path::new(OWN_DIRECTORY).join(name);
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK);
    let opened: io::Result<File> = options.open(&path);
    opened.map_err(|source| LaunchError::Container { path, source })
}
