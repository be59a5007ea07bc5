//! The fetcher: one attempt with one donor, on a thread that may wait.

use super::files::{Files, Whole};
use super::pieces::{Came, PATIENCE, Pieces};
use super::progress::Progress;
use super::wire::{CheckpointId, EXCEPT_BYTES_MAX, MANIFEST, Message, Piece, receive, send};
use brolga_checkpoint::{
    Checkpoint, CheckpointError, Directory, Manifest, Partial, ServerFingerprint,
};
use brolga_consensus::{NodeId, open_stream};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_128;

/// A longer manifest is not taken.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// A plan: the checkpoint that is needed, and the node that is asked.
#[derive(Clone, Debug)]
pub struct FetchPlan {
    /// The cluster.
    pub cluster: u128,
    /// Number of this node; 0 if it has none.
    pub node: NodeId,
    /// Peer address of a node that may have a checkpoint.
    pub donor: SocketAddr,
    /// The directory that it goes to.
    pub directory: Directory,
    /// The identity that it has to have.
    pub identity: ServerFingerprint,
    /// The least slot that is needed.
    pub at_least: u64,
    /// Hashes of manifests ([`Manifest::hash`]) of checkpoints that cannot be used.
    pub except: Vec<u128>,
}

/// The reason why no checkpoint was fetched. The part that is here is kept, and continued by the
/// next attempt.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The donor has none that can be used.
    #[error("{0}")]
    Nothing(String),
    /// The donor cannot be reached, went away, or violates the protocol.
    #[error("{0}")]
    Donor(#[from] io::Error),
    /// The checkpoint is damaged, or is not one of this node's server.
    #[error("the checkpoint of slot {slot} cannot be used: {what}")]
    OfNoUse {
        /// The slot.
        slot: u64,
        /// Hash of its manifest.
        manifest: u128,
        /// In words.
        what: String,
    },
    /// The checkpoint cannot be stored here.
    #[error(transparent)]
    Here(#[from] CheckpointError),
    /// The fetch was stopped ([`Progress::stop`]).
    #[error("it was stopped")]
    Stopped,
}

/// Fetches the donor's newest checkpoint that is of use, and verifies it; with one that is here in
/// part, goes on with that if the donor has it too. If it is here already, nothing is fetched. To
/// be called on a thread of its own: it waits for the network and for the disk.
///
/// Any process that can reach the donor may call it, a member or not: `brolga_consensus::open_stream`
/// asks for no more than the cluster's number. What to do with the checkpoint is the caller's
/// business: a node restores its server from the newest one in its directory when it starts, and
/// its log goes on behind it (`Replica::install`).
///
/// # Errors
/// See [`FetchError`].
pub fn fetch(plan: &FetchPlan, progress: &Progress) -> Result<Checkpoint, FetchError> {
    let fetched = attempt(plan, progress);
    match fetched {
        Err(FetchError::Donor(_)) if progress.is_stopped() => Err(FetchError::Stopped),
        other => other,
    }
}

fn attempt(plan: &FetchPlan, progress: &Progress) -> Result<Checkpoint, FetchError> {
    let (socket, _) = open_stream(plan.donor, plan.cluster, plan.node, PATIENCE)?;
    progress.uses(&socket);
    let mut line = Line {
        socket,
        input: Vec::new(),
        output: Vec::new(),
    };
    let begun = begun(plan)?;
    let preferred = match &begun {
        Some(manifest) => Some(CheckpointId {
            slot: manifest.position.slot,
            manifest: manifest.hash()?,
        }),
        None => None,
    };
    let (what, manifest_bytes) = line.ask(plan, preferred)?;
    let manifest = match begun.filter(|_| preferred == Some(what)) {
        Some(manifest) => manifest,
        None => line.manifest(what, manifest_bytes, progress)?,
    };
    let of_no_use = |what_is_wrong: &str| FetchError::OfNoUse {
        slot: what.slot,
        manifest: what.manifest,
        what: what_is_wrong.to_owned(),
    };
    if manifest.cluster != plan.cluster || manifest.position.slot != what.slot {
        return Err(of_no_use("it is not what it was said to be"));
    }
    if let Some(objection) = plan.identity.objection(&manifest.fingerprint) {
        return Err(of_no_use(&objection));
    }
    let same = own(&plan.directory, what.slot)?;
    if let Some(good) = same.filter(|own| own.verify(&mut |_| ()).is_ok()) {
        return Ok(good);
    }
    progress.begins(what.slot, manifest.bytes());
    let partial = plan.directory.partial(manifest)?;
    line.files(&partial, plan, progress, &of_no_use)?;
    drop(line);
    let whole = partial.commit(true, &mut |_| ())?;
    // Of others that were begun nothing is wanted any more.
    plan.directory.drop_partials()?;
    Ok(whole)
}

/// The one that is here in part, if it is of use.
fn begun(plan: &FetchPlan) -> Result<Option<Manifest>, CheckpointError> {
    for manifest in plan.directory.partials()? {
        let recent = manifest.position.slot >= plan.at_least;
        if recent && !plan.except.contains(&manifest.hash()?) {
            return Ok(Some(manifest));
        }
    }
    Ok(None)
}

fn own(directory: &Directory, slot: u64) -> Result<Option<Checkpoint>, CheckpointError> {
    let whole = directory.list()?.whole;
    Ok(whole.into_iter().find(|own| own.slot() == slot))
}

/// The connection.
struct Line {
    socket: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

fn senseless() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the answer makes no sense")
}

/// The answer of a donor to a request for a piece.
struct Answer<'a> {
    piece: Piece,
    /// `None`: zeros.
    content: Option<&'a [u8]>,
}

impl Line {
    fn say(&mut self, message: &Message<'_>) -> io::Result<()> {
        send(&mut self.socket, message, &mut self.output)
    }

    fn ask(
        &mut self,
        plan: &FetchPlan,
        preferred: Option<CheckpointId>,
    ) -> Result<(CheckpointId, u64), FetchError> {
        let newest = plan.except.len().saturating_sub(EXCEPT_BYTES_MAX / 16);
        let except: Vec<u8> = plan.except[newest..]
            .iter()
            .flat_map(|hash| hash.to_le_bytes())
            .collect();
        self.say(&Message::Ask {
            at_least: plan.at_least,
            preferred,
            except: &except,
        })?;
        let kind = receive(&mut self.socket, &mut self.input)?;
        match Message::decode(kind, &self.input) {
            Some(Message::Offer {
                what,
                manifest_bytes,
            }) => Ok((what, manifest_bytes)),
            Some(Message::Nothing(why)) => Err(FetchError::Nothing(why.to_owned())),
            _ => Err(senseless().into()),
        }
    }

    /// The answer to a question for a piece.
    fn answer(&mut self) -> Result<Answer<'_>, FetchError> {
        let kind = receive(&mut self.socket, &mut self.input)?;
        match Message::decode(kind, &self.input) {
            Some(Message::Chunk {
                file,
                offset,
                bytes: content,
            }) => {
                let bytes = u32::try_from(content.len()).map_err(|_| senseless())?;
                Ok(Answer {
                    piece: Piece {
                        file,
                        offset,
                        bytes,
                    },
                    content: Some(content),
                })
            }
            Some(Message::Hole(piece)) => Ok(Answer {
                piece,
                content: None,
            }),
            Some(Message::Nothing(why)) => Err(FetchError::Nothing(why.to_owned())),
            _ => Err(senseless().into()),
        }
    }

    /// Memory is set aside for what has come only.
    fn manifest(
        &mut self,
        what: CheckpointId,
        bytes: u64,
        progress: &Progress,
    ) -> Result<Manifest, FetchError> {
        if bytes > MANIFEST_BYTES_MAX {
            return Err(io::Error::other("its manifest is too long").into());
        }
        let whole = super::pieces::Missing {
            file: MANIFEST,
            have: 0,
            bytes,
        };
        let mut pieces = Pieces::new([whole]);
        let mut all = Vec::new();
        self.all_pieces(&mut pieces, progress, |_, answer, _| {
            all.extend_from_slice(answer.content.ok_or_else(senseless)?);
            Ok(())
        })?;
        if xxh3_128(&all) != what.manifest {
            return Err(io::Error::other("its manifest is damaged").into());
        }
        Ok(Manifest::decode(&all, Path::new("the donor's manifest"))?)
    }

    /// Asks for everything and gives each answer to `take`, with whether it is the last of its
    /// file.
    fn all_pieces(
        &mut self,
        pieces: &mut Pieces,
        progress: &Progress,
        mut take: impl FnMut(&mut Pieces, &Answer<'_>, bool) -> Result<(), FetchError>,
    ) -> Result<(), FetchError> {
        while !pieces.is_done() {
            if progress.is_stopped() {
                return Err(FetchError::Stopped);
            }
            while let Some(piece) = pieces.next() {
                self.say(&Message::Read(piece))?;
            }
            let answer = self.answer()?;
            match pieces.came(answer.piece) {
                Came::Unasked => return Err(senseless().into()),
                Came::Part => take(pieces, &answer, false)?,
                Came::Last => take(pieces, &answer, true)?,
            }
        }
        Ok(())
    }

    /// Fetches what is missing of the files.
    fn files(
        &mut self,
        partial: &Partial,
        plan: &FetchPlan,
        progress: &Progress,
        of_no_use: &dyn Fn(&str) -> FetchError,
    ) -> Result<(), FetchError> {
        let (mut files, missing) = Files::look(partial, &plan.directory, progress)?;
        let mut pieces = Pieces::new(missing);
        self.all_pieces(&mut pieces, progress, |pieces, answer, last| {
            let Piece {
                file,
                offset,
                bytes,
            } = answer.piece;
            files.add(file, offset, bytes, answer.content)?;
            if !last {
                return Ok(());
            }
            match files.finish(file)? {
                Whole::Right => Ok(()),
                Whole::Resumed => {
                    pieces.again(file, files.length(file));
                    Ok(())
                }
                Whole::Wrong => {
                    let name = files.name(file);
                    Err(of_no_use(&format!("{name} is damaged there")))
                }
            }
        })
    }
}
