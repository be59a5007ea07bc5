//! The member's side: newcomers are told what the cluster is, each on a thread of its own.

use super::wire::{Question, read_frame, write_frame};
use super::{Introduction, PATIENCE, genesis};
use brolga_config::NodeConfig;
use std::io;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

/// Newcomers at once.
const NEWCOMERS_MAX: usize = 4;

/// What every newcomer is told.
#[derive(Debug)]
struct Folder {
    introduction: Vec<u8>,
    genesis: Option<PathBuf>,
}

/// See the module's description.
#[derive(Debug)]
pub struct Receptionist {
    folder: Arc<Folder>,
    /// Held by each thread that talks to a newcomer.
    desk: Arc<()>,
}

impl Receptionist {
    /// Of a node with this configuration.
    #[must_use]
    pub fn new(config: &NodeConfig) -> Self {
        let introduction = Introduction::of(config);
        let introduction = introduction.and_then(|it| serde_json::to_vec(&it));
        Self {
            folder: Arc::new(Folder {
                // A configuration is made of numbers and texts, which always can be written.
                introduction: introduction.unwrap_or_default(),
                genesis: config.genesis.clone(),
            }),
            desk: Arc::new(()),
        }
    }

    /// Somebody wants to know the cluster. Never waits; whoever is too much is sent away.
    pub fn welcome(&self, newcomer: TcpStream) {
        if Arc::strong_count(&self.desk) > NEWCOMERS_MAX {
            tracing::warn!("too many newcomers at once");
            return;
        }
        let (folder, desk) = (Arc::clone(&self.folder), Arc::clone(&self.desk));
        let talk = move || {
            let _desk = desk;
            match folder.talk(newcomer) {
                Ok(()) => {}
                Err(error) => tracing::warn!(%error, "a newcomer was not told everything"),
            }
        };
        let named = thread::Builder::new().name("newcomer".into());
        if let Err(error) = named.spawn(talk) {
            tracing::warn!(%error, "no thread for a newcomer");
        }
    }
}

impl Folder {
    fn talk(&self, mut newcomer: TcpStream) -> io::Result<()> {
        newcomer.set_read_timeout(Some(PATIENCE))?;
        newcomer.set_write_timeout(Some(PATIENCE))?;
        if let Ok(address) = newcomer.peer_addr() {
            tracing::info!(%address, "a newcomer asks what this cluster is");
        }
        loop {
            let question = match read_frame(&mut newcomer) {
                Ok(question) => question,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            };
            match Question::decode(&question) {
                Some(Question::Introduction) => write_frame(&mut newcomer, &self.introduction)?,
                Some(Question::Genesis) => match &self.genesis {
                    Some(genesis) => genesis::send(genesis, &mut newcomer)?,
                    None => return Err(io::Error::other("it wants files that there are none of")),
                },
                None => return Err(io::Error::other("its question makes no sense")),
            }
        }
    }
}
