//! What ties a data directory to one replica of one cluster.
//!
//! A node's log only means something to the same member of the same cluster, with the same server
//! and the same interposer: replayed by anything else it leads to another state than the one that
//! clients were told of. So the first start writes down what it was, and later ones compare.

use crate::cluster::{ClusterError, write_whole};
use crate::config::{ClusterId, ConfigError, NodeConfig, read_toml};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// The content of `identity.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    cluster: ClusterId,
    node: u64,
    /// Hash of what must be alike on all replicas.
    configuration: String,
    /// Hash of the server's program file.
    program: String,
    /// Hash of the embedded interposer.
    interposer: String,
}

/// Why a data directory is not this node's. One line each.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The directory cannot be used.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Another node daemon runs on it.
    #[error("{0} is in use by a node that is running")]
    InUse(PathBuf),
    /// It is someone else's.
    #[error("{dir} belongs to {what} {theirs}, the configuration says {ours}: check data_dir")]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// The differing thing.
        what: &'static str,
        /// In the directory.
        theirs: String,
        /// In the configuration.
        ours: String,
    },
    /// It is ours, but replay would not lead to the same state.
    #[error(
        "{what} changed since the log in {dir} began, so a replay could end in another state: \
         put the old one back, or start afresh with another data directory"
    )]
    Changed {
        /// The directory.
        dir: PathBuf,
        /// The differing thing.
        what: &'static str,
    },
    /// The file that tells cannot be read or written.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file that tells cannot be written.
    #[error(transparent)]
    Write(#[from] ClusterError),
}

/// Keeps other node daemons off the data directory for as long as it lives.
#[derive(Debug)]
#[must_use]
pub struct DataDirLock {
    _file: Flock<File>,
    identity: Identity,
}

impl DataDirLock {
    /// What a checkpoint has to be of to be restored here.
    #[must_use]
    pub fn checkpoint_identity(&self) -> brolga_checkpoint::Identity {
        of_checkpoint(&self.identity)
    }
}

fn of_checkpoint(identity: &Identity) -> brolga_checkpoint::Identity {
    brolga_checkpoint::Identity {
        configuration: identity.configuration.clone(),
        program: identity.program.clone(),
        interposer: identity.interposer.clone(),
        genesis: String::new(),
    }
}

/// What a checkpoint has to be of to be restored under this configuration, for whoever leaves the
/// node's directory alone.
///
/// # Errors
/// The program cannot be read.
pub fn checkpoint_identity(
    config: &NodeConfig,
    program: &Path,
) -> Result<brolga_checkpoint::Identity, IdentityError> {
    Ok(of_checkpoint(&identity(config, program)?))
}

/// Creates and locks the data directory, and makes sure that it is this node's.
///
/// # Errors
/// See [`IdentityError`].
pub fn claim(config: &NodeConfig, program: &Path) -> Result<DataDirLock, IdentityError> {
    let dir = &config.data_dir;
    fs::create_dir_all(dir).map_err(failed("create", dir))?;
    let lock_path = dir.join("lock");
    let mut options = OpenOptions::new();
    let file = options
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path);
    let file = Flock::lock(
        file.map_err(failed("write to", &lock_path))?,
        FlockArg::LockExclusiveNonblock,
    )
    .map_err(|_| IdentityError::InUse(dir.clone()))?;
    let ours = identity(config, program)?;
    let path = dir.join("identity.toml");
    if path.exists() {
        compare(dir, &read_toml(&path)?, &ours)?;
    } else {
        let text = toml::to_string(&ours).map_err(|error| {
            ClusterError::Plan(format!("cannot write {}: {error}", path.display()))
        })?;
        write_whole(&path, &text)?;
    }
    Ok(DataDirLock {
        _file: file,
        identity: ours,
    })
}

/// What is not as it was when the log of this node began.
///
/// # Errors
/// See [`IdentityError`]; the directory is another node's, or not one of a node.
pub fn changes(config: &NodeConfig, program: &Path) -> Result<Vec<&'static str>, IdentityError> {
    let ours = identity(config, program)?;
    let theirs = read_toml(&config.data_dir.join("identity.toml"))?;
    belongs(&config.data_dir, &theirs, &ours)?;
    Ok(differing(&theirs, &ours))
}

fn identity(config: &NodeConfig, program: &Path) -> Result<Identity, IdentityError> {
    Ok(Identity {
        cluster: config.cluster,
        node: config.node,
        configuration: format!("{:016x}", config.fingerprint()),
        program: hash_of_file(program).map_err(failed("read", program))?,
        interposer: format!("{:016x}", xxh3_64(crate::launch::interposer_image())),
    })
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::File {
        action,
        path,
        source,
    }
}

fn compare(dir: &Path, theirs: &Identity, ours: &Identity) -> Result<(), IdentityError> {
    belongs(dir, theirs, ours)?;
    match differing(theirs, ours).first() {
        Some(what) => Err(IdentityError::Changed {
            dir: dir.to_owned(),
            what,
        }),
        None => Ok(()),
    }
}

fn belongs(dir: &Path, theirs: &Identity, ours: &Identity) -> Result<(), IdentityError> {
    let foreign = |what, theirs: String, ours: String| {
        Err(IdentityError::Foreign {
            dir: dir.to_owned(),
            what,
            theirs,
            ours,
        })
    };
    if theirs.cluster != ours.cluster {
        return foreign(
            "the cluster",
            theirs.cluster.to_string(),
            ours.cluster.to_string(),
        );
    }
    if theirs.node != ours.node {
        return foreign("node", theirs.node.to_string(), ours.node.to_string());
    }
    Ok(())
}

fn differing(theirs: &Identity, ours: &Identity) -> Vec<&'static str> {
    let parts = [
        (
            "the command or another setting of the server",
            theirs.configuration != ours.configuration,
        ),
        ("the server's program file", theirs.program != ours.program),
        ("brolga's interposer", theirs.interposer != ours.interposer),
    ];
    let differing = parts.into_iter().filter(|(_, differs)| *differs);
    differing.map(|(what, _)| what).collect()
}

fn hash_of_file(path: &Path) -> io::Result<String> {
    let mut hash = Hasher(Xxh3::new());
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(format!("{:016x}", hash.0.digest()))
}

struct Hasher(Xxh3);

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
