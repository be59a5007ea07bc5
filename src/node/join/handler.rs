//! The join handler, the member's side: joiners are told the cluster's configuration and genesis,
//! each on a thread of its own.

use super::wire::{ClusterInfo, Request, read_frame, write_frame};
use super::{PATIENCE, genesis};
use brolga_config::NodeConfig;
use std::io;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

/// Joiners at once.
const JOINERS_MAX: usize = 4;

/// The answers to every joiner.
#[derive(Debug)]
struct Answers {
    info: Vec<u8>,
    genesis: Option<PathBuf>,
}

/// Answers joiners.
#[derive(Debug)]
pub struct JoinHandler {
    answers: Arc<Answers>,
    /// Held by each thread that talks to a joiner.
    place: Arc<()>,
}

impl JoinHandler {
    /// The handler of a node with this configuration.
    #[must_use]
    pub fn new(config: &NodeConfig) -> Self {
        let info = ClusterInfo::of(config);
        let info = info.and_then(|it| serde_json::to_vec(&it));
        Self {
            answers: Arc::new(Answers {
                // A configuration is made of numbers and texts, which always can be written.
                info: info.unwrap_or_default(),
                genesis: config.genesis.clone(),
            }),
            place: Arc::new(()),
        }
    }

    /// Talks to a joiner on a thread of its own, unless there are too many. Never waits.
    pub fn accept(&self, joiner: TcpStream) {
        if Arc::strong_count(&self.place) > JOINERS_MAX {
            tracing::warn!("too many joiners at once");
            return;
        }
        let (answers, place) = (Arc::clone(&self.answers), Arc::clone(&self.place));
        let talk = move || {
            let _place = place;
            match answers.talk(joiner) {
                Ok(()) => {}
                Err(error) => tracing::warn!(%error, "a joiner did not get all answers"),
            }
        };
        let named = thread::Builder::new().name("joiner".into());
        if let Err(error) = named.spawn(talk) {
            tracing::warn!(%error, "cannot start a thread for a joiner");
        }
    }
}

impl Answers {
    fn talk(&self, mut joiner: TcpStream) -> io::Result<()> {
        joiner.set_read_timeout(Some(PATIENCE))?;
        joiner.set_write_timeout(Some(PATIENCE))?;
        if let Ok(address) = joiner.peer_addr() {
            tracing::info!(%address, "a joiner asks for the configuration of the cluster");
        }
        loop {
            let request = match read_frame(&mut joiner) {
                Ok(request) => request,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            };
            match Request::decode(&request) {
                Some(Request::ClusterInfo) => write_frame(&mut joiner, &self.info)?,
                Some(Request::Genesis) => match &self.genesis {
                    Some(genesis) => genesis::send(genesis, &mut joiner)?,
                    None => {
                        return Err(io::Error::other("it requests a genesis and there is none"));
                    }
                },
                None => return Err(io::Error::other("malformed request")),
            }
        }
    }
}
