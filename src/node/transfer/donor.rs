//! The donor: the side that has the checkpoint.
//!
//! Each fetcher has a thread and a connection of its own, so that the event loop and the links of
//! consensus have nothing to do with it. The checkpoint is held as long as the connection, and all
//! fetchers share one [`Throttle`].
//!
//! # Invariants
//!
//! * Only files are read that the manifest names, and nothing but checkpoints is looked at.
//! * A fetcher that asks for nothing for [`IDLE_MAX`] is disconnected: it would keep an old
//!   checkpoint for ever.
//!
//! Deliberately absent: a check of what is read, which the fetcher compares with the manifest
//! anyway.

use super::throttle::Throttle;
use super::wire::{
    CHUNK_HEAD_BYTES, CheckpointId, HEADER_BYTES, MANIFEST, Message, Piece, begin_chunk, end_chunk,
    receive, send,
};
use brolga_checkpoint::{Checkpoint, CheckpointError, Directory, Hold, PartKind, manifest};
use brolga_consensus::UpgradedStream;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_128;

/// See above.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Fetchers at once.
const FETCHERS_MAX: usize = 8;

/// The nodes that fetch here. Dropping it disconnects them.
#[derive(Debug)]
pub struct Serving {
    directory: Directory,
    throttle: Arc<Mutex<Throttle>>,
    fetchers: Vec<Fetcher>,
}

#[derive(Debug)]
struct Fetcher {
    socket: TcpStream,
    thread: thread::JoinHandle<()>,
}

impl Serving {
    /// Serves no node yet. `bytes_per_second` is for all together; 0: no bound.
    pub fn new(directory: Directory, bytes_per_second: u64) -> Self {
        Self {
            directory,
            throttle: Arc::new(Mutex::new(Throttle::new(bytes_per_second))),
            fetchers: Vec::new(),
        }
    }

    /// Serves a node on a thread of its own. Never waits.
    pub fn serve(&mut self, stream: UpgradedStream) {
        self.fetchers.retain(|it| !it.thread.is_finished());
        if self.fetchers.len() >= FETCHERS_MAX {
            // It finds the connection closed, and tries another node.
            tracing::warn!(
                node = stream.from,
                "too many fetch checkpoints here already"
            );
            return;
        }
        let UpgradedStream { socket, from } = stream;
        let begun = socket.try_clone().and_then(|own| {
            let (directory, throttle) = (self.directory.clone(), Arc::clone(&self.throttle));
            let work = move || {
                super::lower_priority();
                match serve(socket, &directory, &throttle) {
                    Ok(()) => tracing::info!(node = from, "a fetcher of a checkpoint is gone"),
                    Err(error) => tracing::warn!(node = from, "a fetcher of a checkpoint: {error}"),
                }
            };
            let thread = thread::Builder::new().name("donor".into()).spawn(work)?;
            Ok(Fetcher {
                socket: own,
                thread,
            })
        });
        match begun {
            Ok(fetcher) => self.fetchers.push(fetcher),
            Err(error) => tracing::warn!(node = from, "a checkpoint cannot be sent: {error}"),
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        for fetcher in self.fetchers.drain(..) {
            // It may be gone.
            let _ = fetcher.socket.shutdown(Shutdown::Both);
            // A panic was shown already.
            let _ = fetcher.thread.join();
        }
    }
}

/// A piece cannot be sent. The fetcher is told in words.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    /// The manifest ends before the piece does.
    #[error("the manifest is not as long as that")]
    ManifestEnds,
    /// The manifest names no such file.
    #[error("there is no such file")]
    NoSuchFile,
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// A checkpoint that is being served.
struct OpenCheckpoint {
    checkpoint: Checkpoint,
    manifest: Vec<u8>,
    /// The file that was read last.
    open: Option<(u32, File)>,
    _hold: Hold,
}

/// Answers one fetcher until it goes.
fn serve(
    mut socket: TcpStream,
    directory: &Directory,
    throttle: &Mutex<Throttle>,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(IDLE_MAX))?;
    socket.set_write_timeout(Some(IDLE_MAX))?;
    let (mut input, mut output) = (Vec::new(), Vec::new());
    let mut served: Option<OpenCheckpoint> = None;
    loop {
        let kind = match receive(&mut socket, &mut input) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        };
        match (Message::decode(kind, &input), &mut served) {
            (
                Some(Message::Ask {
                    at_least,
                    preferred,
                    except,
                }),
                _,
            ) => {
                served = find(directory, at_least, preferred, except).map_err(io::Error::other)?;
                send(&mut socket, &offer(served.as_ref()), &mut output)?;
            }
            (Some(Message::Read(piece)), Some(served)) => match served.read(piece, &mut output) {
                Ok(()) => {
                    thread::sleep(wait_for(throttle, output.len()));
                    socket.write_all(&output)?;
                }
                Err(why) => {
                    let why = why.to_string();
                    return send(&mut socket, &Message::Nothing(&why), &mut output);
                }
            },
            _ => return Err(io::Error::other("protocol violation")),
        }
    }
}

fn wait_for(throttle: &Mutex<Throttle>, bytes: usize) -> Duration {
    let mut throttle = throttle.lock().unwrap_or_else(PoisonError::into_inner);
    throttle.wait_for(bytes as u64, Instant::now())
}

fn offer(served: Option<&OpenCheckpoint>) -> Message<'static> {
    match served {
        None => Message::Nothing("there is no checkpoint that would be of use"),
        Some(served) => Message::Offer {
            what: CheckpointId {
                slot: served.checkpoint.slot(),
                manifest: xxh3_128(&served.manifest),
            },
            manifest_bytes: served.manifest.len() as u64,
        },
    }
}

/// The one that is wanted, or else the newest that is of use.
fn find(
    directory: &Directory,
    at_least: u64,
    preferred: Option<CheckpointId>,
    except: &[u8],
) -> Result<Option<OpenCheckpoint>, CheckpointError> {
    let mut best = None;
    for checkpoint in directory.list()?.whole {
        if checkpoint.slot() < at_least {
            continue;
        }
        let Ok(manifest) = fs::read(checkpoint.path.join(manifest::FILE_NAME)) else {
            continue; // Removed meanwhile.
        };
        let hash = xxh3_128(&manifest);
        let wanted = preferred
            == Some(CheckpointId {
                slot: checkpoint.slot(),
                manifest: hash,
            });
        let mut refused = except.chunks(16);
        let refused = refused.any(|it| it == hash.to_le_bytes());
        if refused || (best.is_some() && !wanted) {
            continue;
        }
        let Some(hold) = checkpoint.hold()? else {
            continue; // It is being removed.
        };
        best = Some(OpenCheckpoint {
            checkpoint,
            manifest,
            open: None,
            _hold: hold,
        });
    }
    Ok(best)
}

impl OpenCheckpoint {
    /// Makes `out` the answer.
    fn read(&mut self, piece: Piece, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let Piece {
            file,
            offset,
            bytes,
        } = piece;
        begin_chunk(out, file, offset);
        let head = HEADER_BYTES + CHUNK_HEAD_BYTES;
        if file == MANIFEST {
            let begin = usize::try_from(offset).ok();
            let content = begin.and_then(|at| self.manifest.get(at..)?.get(..bytes as usize));
            out.extend_from_slice(content.ok_or(ReadError::ManifestEnds)?);
        } else {
            out.resize(head + bytes as usize, 0);
            self.read_file(piece, &mut out[head..])?;
        }
        if file != MANIFEST && is_zero(&out[head..]) {
            Message::Hole(piece).encode(out);
        } else {
            end_chunk(out);
        }
        Ok(())
    }

    fn read_file(&mut self, piece: Piece, to: &mut [u8]) -> Result<(), ReadError> {
        let index = usize::try_from(piece.file).ok();
        let part = index.and_then(|at| self.checkpoint.manifest.parts.get(at));
        let part = part.filter(|part| matches!(part.kind, PartKind::File { .. }));
        let part = part.ok_or(ReadError::NoSuchFile)?;
        let path = self.checkpoint.path.join(&part.path);
        let failed = |source: io::Error| ReadError::File {
            path: path.clone(),
            source,
        };
        let file = match &self.open {
            Some((open, file)) if *open == piece.file => file,
            _ => {
                let file = File::open(&path).map_err(failed)?;
                &self.open.insert((piece.file, file)).1
            }
        };
        file.read_exact_at(to, piece.offset).map_err(failed)
    }
}

/// Returns true when all bytes are zero. Compares the bytes with themselves, moved by one, which is
/// as fast as memory.
pub fn is_zero(bytes: &[u8]) -> bool {
    match bytes.first() {
        Some(0) => bytes[1..] == bytes[..bytes.len() - 1],
        Some(_) => false,
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_known() {
        assert!(is_zero(&[]) && is_zero(&[0]) && is_zero(&[0; 4096]));
        for at in [0, 1, 100, 4095] {
            let mut bytes = [0; 4096];
            bytes[at] = 1;
            assert!(!is_zero(&bytes), "{at}");
        }
    }
}
