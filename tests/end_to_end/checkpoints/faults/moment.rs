//! Moments of a checkpoint or a restore: something that can be seen from outside has happened, and a
//! little time has gone by since.

use super::{names, tree};

use crate::harness::PATIENCE;
use fastrand::Rng;
use std::fmt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Between looks.
const LOOK: Duration = Duration::from_micros(100);
/// The longest pause after an event is two to this power, in quarters of a millisecond.
const PAUSE_BITS: u64 = 8;

/// Something that can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Nothing at all: it was asked for.
    Asked,
    /// The directory of a checkpoint is there.
    Staged,
    /// CRIU dumps.
    Dumping,
    /// CRIU writes pages.
    Pages,
    /// The processes are dumped, files are copied.
    Files,
    /// All is dumped.
    Dumped,
    /// All is hashed.
    Manifest,
    /// The checkpoint has its final name.
    Named,
    /// CRIU restores.
    Restoring,
    /// The server is back.
    Server,
}

pub const OF_DUMP: [Sign; 8] = [
    Sign::Asked,
    Sign::Staged,
    Sign::Dumping,
    Sign::Pages,
    Sign::Files,
    Sign::Dumped,
    Sign::Manifest,
    Sign::Named,
];
pub const OF_CRIUS_DUMP: [Sign; 2] = [Sign::Dumping, Sign::Pages];
pub const OF_RESTORE: [Sign; 3] = [Sign::Asked, Sign::Restoring, Sign::Server];
pub const OF_CRIUS_RESTORE: [Sign; 1] = [Sign::Restoring];
pub const OF_SERVERS_RESTORE: [Sign; 1] = [Sign::Server];

/// See the module's description.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub sign: Sign,
    pub pause: Duration,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} + {:?}", self.sign, self.pause)
    }
}

impl Moment {
    /// Short pauses are as likely as long ones.
    pub fn chosen(signs: &[Sign], rng: &mut Rng) -> Self {
        let sign = signs[rng.usize(..signs.len())];
        let most = 1 << rng.u64(..PAUSE_BITS + 1);
        Self {
            sign,
            pause: Duration::from_micros(250) * u32::try_from(rng.u64(..most)).unwrap(),
        }
    }

    /// Waits for it; false if `over` was true before.
    pub fn wait(&self, scene: &Scene, over: impl Fn() -> bool) -> bool {
        let started = Instant::now();
        while !scene.shows(self.sign) {
            if over() {
                return false;
            }
            assert!(started.elapsed() < PATIENCE, "{self} never came");
            thread::sleep(LOOK);
        }
        thread::sleep(self.pause);
        true
    }
}

/// The places where signs are looked for.
#[derive(Debug)]
pub struct Scene {
    /// The node's process.
    pub node: u64,
    /// The node's directory of checkpoints, and what was in there before.
    pub checkpoints: PathBuf,
    pub before: Vec<String>,
}

impl Scene {
    pub fn new(node: u64, checkpoints: &Path) -> Self {
        Self {
            node,
            checkpoints: checkpoints.to_owned(),
            before: names(checkpoints),
        }
    }

    fn shows(&self, sign: Sign) -> bool {
        match sign {
            Sign::Asked => true,
            Sign::Staged => self.has_staged(""),
            Sign::Dumping => !tree::criu_below(self.node, "dump").is_empty(),
            Sign::Restoring => !tree::criu_below(self.node, "restore").is_empty(),
            Sign::Pages => self.has_staged("server/process/pages-1.img"),
            Sign::Files => self.has_staged("server/files"),
            Sign::Dumped => self.has_staged("node"),
            Sign::Manifest => self.has_staged("manifest"),
            Sign::Named => {
                let new = |name: &String| !self.before.contains(name) && !name.contains('-');
                names(&self.checkpoints).iter().any(new)
            }
            Sign::Server => {
                let found = tree::servers_below(self.node);
                !found.is_empty() && tree::criu_below(self.node, "").is_empty()
            }
        }
    }

    fn has_staged(&self, file: &str) -> bool {
        let mut names = names(&self.checkpoints).into_iter();
        names
            .any(|name| name.starts_with("new-") && self.checkpoints.join(name).join(file).exists())
    }
}
