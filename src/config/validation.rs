//! Values that are well-formed and cannot work, with what to do about them.

use crate::{Containment, DESCRIPTORS_MIN, Member, NodeConfig, PRELOAD_VARIABLE};
use brolga_consensus::LEARNERS_FROM;
use brolga_tape::unix::{PATH_BYTES, PATHS_MAX, Paths};
use std::collections::BTreeSet;
use std::path::Path;

/// The smallest size of a log segment: one has to hold the largest entry.
const SEGMENT_BYTES_MIN: u64 = 2 * brolga_tape::ENTRY_BYTES_MAX as u64;

impl NodeConfig {
    /// The first thing in the configuration that cannot work.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        members_problem(&self.members)
            .or_else(|| self.own_problem())
            .or_else(|| self.timing_problem())
            .or_else(|| self.server_problem())
    }

    fn own_problem(&self) -> Option<String> {
        let listed = self.members.iter().any(|member| member.id == self.node);
        match (&self.learner, listed) {
            (None, true) => None,
            (None, false) => Some(format!("node = {} is not one of the members", self.node)),
            (Some(_), true) => Some(format!(
                "node = {} is one of the members and cannot be a learner",
                self.node
            )),
            (Some(_), false) if self.node < LEARNERS_FROM => Some(format!(
                "node = {} is too small for a learner: from {LEARNERS_FROM} on",
                self.node
            )),
            (Some(_), false) => None,
        }
    }

    fn timing_problem(&self) -> Option<String> {
        let [least, most] = self.election_timeout_ms;
        if self.heartbeat_ms == 0 {
            return Some("heartbeat_ms must be at least 1".into());
        }
        if least > most {
            return Some(format!(
                "election_timeout_ms = [{least}, {most}]: the first must not be the larger"
            ));
        }
        if least < 2 * self.heartbeat_ms {
            return Some(format!(
                "election_timeout_ms = [{least}, {most}] must start at twice heartbeat_ms ({})",
                2 * self.heartbeat_ms
            ));
        }
        let positive = [
            ("clocks_per_event", self.clocks_per_event),
            ("quantum_ticks", self.quantum_ticks),
            ("cpus", self.cpus),
        ];
        let zero = positive.iter().find(|(_, value)| *value == 0);
        zero.map(|(name, _)| format!("{name} must be at least 1"))
    }

    fn server_problem(&self) -> Option<String> {
        if self.command.first().is_none_or(String::is_empty) {
            return Some("command must name the server's program".into());
        }
        if self.log_segment_bytes < SEGMENT_BYTES_MIN {
            return Some(format!(
                "log_segment_bytes must be at least {SEGMENT_BYTES_MIN}"
            ));
        }
        let largest = 8 * u64::from(u32::MAX);
        if !self.log_segment_bytes.is_multiple_of(8) || self.log_segment_bytes > largest {
            return Some(format!(
                "log_segment_bytes must be a multiple of 8, at most {largest}"
            ));
        }
        if self.descriptors_max < DESCRIPTORS_MIN {
            return Some(format!(
                "descriptors_max must be at least {DESCRIPTORS_MIN}"
            ));
        }
        if let Some(genesis) = self.genesis.as_ref().filter(|genesis| !genesis.is_dir()) {
            return Some(format!(
                "genesis = {} is not a directory",
                genesis.display()
            ));
        }
        let root = self.root.as_deref();
        root.and_then(|root| root_problem(root, self.container))
            .or_else(|| self.env.iter().find_map(|pair| environment_problem(pair)))
            .or_else(|| unix_problem(&self.unix_sockets))
    }
}

/// Checks a root file system for the server: the complaint, if any.
#[must_use]
pub fn root_problem(root: &Path, container: Containment) -> Option<String> {
    if !root.is_dir() {
        return Some(format!("root = {} is not a directory", root.display()));
    }
    if root.canonicalize().is_ok_and(|root| root == Path::new("/")) {
        return Some("root = / is the machine's: leave it out".into());
    }
    let contained = container == Containment::Required;
    (!contained).then(|| "root is for servers in containers: add container = \"required\"".into())
}

/// Checks a list of UNIX sockets to be published: the complaint, if any.
pub fn unix_problem(all: &[String]) -> Option<String> {
    let mut paths = Paths::NONE;
    let mut names = Vec::new();
    for path in all {
        let name = Path::new(path).file_name();
        if name.is_none() || names.contains(&name) {
            return Some(format!(
                "unix_sockets = {path}: the last parts of the paths are the names of the published sockets, so \
                 each needs one of its own"
            ));
        }
        names.push(name);
        if !paths.add(path.as_bytes()) {
            return Some(format!(
                "unix_sockets = {path}: at most {PATHS_MAX} paths of at most {} bytes can be published",
                PATH_BYTES - 1
            ));
        }
    }
    None
}

/// Checks one `NAME=VALUE` of the environment: the complaint, if any.
#[must_use]
pub fn environment_problem(pair: &str) -> Option<String> {
    match pair.split_once('=') {
        None | Some(("", _)) => Some(format!("environment `{pair}` is not NAME=VALUE")),
        Some((PRELOAD_VARIABLE, _)) => Some(format!(
            "environment {PRELOAD_VARIABLE} is needed for the wrapper itself"
        )),
        Some(_) if pair.contains('\0') => Some("environment must not contain NUL".into()),
        Some(_) => None,
    }
}

fn members_problem(members: &[Member]) -> Option<String> {
    if members.is_empty() {
        return Some("members must list every replica".into());
    }
    let mut ids = BTreeSet::new();
    let mut sockets = BTreeSet::new();
    for member in members {
        if member.id == 0 {
            return Some("member ids count from 1".into());
        }
        if !ids.insert(member.id) {
            return Some(format!("two members have id = {}", member.id));
        }
        for socket in [member.peer, member.sidecar] {
            if socket.port() == 0 {
                return Some(format!("member {} needs fixed ports, not 0", member.id));
            }
            if !sockets.insert(socket) {
                return Some(format!("{socket} is given twice among the members"));
            }
        }
    }
    None
}
