//! The wire between a stand-alone frontend and a node: framed messages over TCP.
//!
//! ```text
//! frame := payload_len u32 | kind u32 | payload
//! ```
//!
//! The stand-alone frontend says `Hello` with the connections it has and how much output of each it
//! has got; the node answers `Welcome` with the ports to open, then tells of every connection what
//! is committed and gives the output from there on. After that events go up, commits and output
//! come down.

use crate::clients::connection::ByteQueue;
use crate::clients::connection_table::Progress;
use crate::frame::Layout;
use brolga_tape::entry::CloseHow;
use mio::net::TcpStream;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::ops::Range;

/// Changes whenever a frame does.
pub const VERSION: u32 = 3;
/// No frame is larger: events go up in chunks far below, records come down in batches.
const PAYLOAD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The layout of frames.
const LAYOUT: Layout = Layout {
    header_bytes: 8,
    length_at: 0,
    kind_at: Some(4),
    hash_at: None,
    payload_bytes_max: PAYLOAD_BYTES_MAX,
};
/// Batches of records are cut here.
pub const BATCH_BYTES: usize = 1024 * 1024;

/// The kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// Up: [`Hello`].
    Hello = 1,
    /// Up: `count u32 | 0 u32 |` encoded events.
    Events = 2,
    /// Up: are you there?
    Ping = 3,
    /// Down: yes; also the ports, as `Listen` records. All others are closed.
    Welcome = 4,
    /// Down: no, and why, in one line.
    Refused = 5,
    /// Down: records.
    Records = 6,
    /// Down: what is committed, see [`put_progress`].
    Committed = 7,
    /// Down: events may have been lost, send all again that are not committed.
    Resend = 8,
    /// Down: the cluster has given this frontend up.
    Gone = 9,
    /// Down: answer to `Ping`.
    Pong = 10,
}

impl Kind {
    fn from_number(number: u32) -> Option<Self> {
        const ALL: [Kind; 10] = [
            Kind::Hello,
            Kind::Events,
            Kind::Ping,
            Kind::Welcome,
            Kind::Refused,
            Kind::Records,
            Kind::Committed,
            Kind::Resend,
            Kind::Gone,
            Kind::Pong,
        ];
        ALL.into_iter().find(|kind| *kind as u32 == number)
    }
}

/// The first frame of a stand-alone frontend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`] of the stand-alone frontend.
    pub version: u32,
    /// The cluster it was told to join.
    pub cluster: u128,
    /// The identity of the frontend.
    pub frontend: u64,
    /// Connections: counter, and the next output byte that it wants.
    pub conns: Vec<(u64, u64)>,
}

/// Fixed-size integers, so that no other version of a stand-alone frontend can be misread by its
/// first field.
const HELLO: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
    bincode::config::Limit<PAYLOAD_BYTES_MAX>,
> = bincode::config::legacy().with_limit::<PAYLOAD_BYTES_MAX>();

impl Hello {
    /// Encodes it.
    pub fn encode(&self) -> Vec<u8> {
        // Only a list beyond the limit fails, and a frontend has far fewer connections.
        bincode::serde::encode_to_vec(self, HELLO).unwrap_or_default()
    }

    /// Reads it; `None` when it is broken.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (hello, used) = bincode::serde::decode_from_slice(bytes, HELLO).ok()?;
        (used == bytes.len()).then_some(hello)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Bytes of one commit.
const PROGRESS_BYTES: usize = 24;

/// Appends a commit of one connection: `counter u64 | what u64 | position u64`.
pub fn put_progress(out: &mut Vec<u8>, counter: u64, progress: Progress) {
    let (what, position): (u64, u64) = match progress {
        Progress::Nothing | Progress::Gone => return,
        Progress::Up => (1, 0),
        Progress::Opened => (2, 0),
        Progress::Input(next) => (3, next),
        Progress::Ended(CloseHow::Fin) => (4, 0),
        Progress::Ended(CloseHow::Reset) => (5, 0),
        Progress::Credited(upto) => (6, upto),
        Progress::Heard(number) => (7, number),
    };
    for word in [counter, what, position] {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

/// Reads the commits that [`put_progress`] has appended.
pub fn each_progress(bytes: &[u8]) -> impl Iterator<Item = (u64, Progress)> + '_ {
    bytes.chunks_exact(PROGRESS_BYTES).filter_map(|one| {
        let position = word(one, 16)?;
        let progress = match word(one, 8)? {
            1 => Progress::Up,
            2 => Progress::Opened,
            3 => Progress::Input(position),
            4 => Progress::Ended(CloseHow::Fin),
            5 => Progress::Ended(CloseHow::Reset),
            6 => Progress::Credited(position),
            7 => Progress::Heard(position),
            _ => return None,
        };
        Some((word(one, 0)?, progress))
    })
}

/// Appends the count that goes before encoded events.
pub fn events_header(count: u32) -> [u8; 8] {
    let mut header = [0; 8];
    header[..4].copy_from_slice(&count.to_le_bytes());
    header
}

/// Takes the payload of an `Events` frame apart.
pub fn split_events(payload: &[u8]) -> Option<(u32, &[u8])> {
    let (header, events) = payload.split_at_checked(8)?;
    Some((u32::from_le_bytes(header[..4].try_into().ok()?), events))
}

/// Finds the first frame in `bytes`: its kind, and where its payload is; `None` when it is not
/// whole yet.
///
/// # Errors
/// The bytes are no frame of this protocol.
pub fn parse(bytes: &[u8]) -> io::Result<Option<(Kind, Range<usize>)>> {
    let Some(header) = LAYOUT.parse(bytes)? else {
        return Ok(None);
    };
    let kind = Kind::from_number(header.kind).ok_or(io::ErrorKind::InvalidData)?;
    let payload = LAYOUT.header_bytes..LAYOUT.header_bytes + header.length;
    Ok((payload.end <= bytes.len()).then_some((kind, payload)))
}

/// The end of a connection: a nonblocking socket, with bytes that were not decoded or written yet.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    input: ByteQueue,
    output: ByteQueue,
}

impl Wire {
    /// Takes over a connected or connecting socket.
    pub fn new(stream: TcpStream) -> Self {
        // Without it small frames wait for acknowledgements; losing it is only slow.
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            input: ByteQueue::default(),
            output: ByteQueue::default(),
        }
    }

    /// The socket.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Puts a frame on its way, in several pieces if that saves a copy.
    pub fn send(&mut self, kind: Kind, pieces: &[&[u8]]) {
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        let header = LAYOUT.header(kind as u32, len);
        let header = header.expect("a frame is far below its limit");
        self.output.push(&header[..LAYOUT.header_bytes]);
        for piece in pieces {
            self.output.push(piece);
        }
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    /// The wire is broken.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(self.output.as_slice()) {
                Ok(written) => self.output.consume(written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what there is.
    ///
    /// # Errors
    /// The wire is broken or was closed.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(got) => self.input.push(&buffer[..got]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the next whole frame out.
    ///
    /// # Errors
    /// The bytes are no frame of this protocol.
    pub fn next(&mut self) -> io::Result<Option<(Kind, Vec<u8>)>> {
        let bytes = self.input.as_slice();
        let Some((kind, payload)) = parse(bytes)? else {
            return Ok(None);
        };
        let end = payload.end;
        let payload = bytes[payload].to_vec();
        self.input.consume(end);
        Ok(Some((kind, payload)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hexadecimal;

    #[test]
    fn a_hello_survives_the_round_trip() {
        let hello = Hello {
            version: 1,
            cluster: 5,
            frontend: 7,
            conns: vec![(1, 2), (3, 4)],
        };
        assert_eq!(Hello::decode(&hello.encode()), Some(hello.clone()));
        assert_eq!(Hello::decode(&hello.encode()[..40]), None);
        assert_eq!(Hello::decode(&[]), None);
    }

    #[test]
    fn golden_bytes() {
        let hello = Hello {
            version: VERSION,
            cluster: 5,
            frontend: 7,
            conns: vec![(1, 2)],
        };
        assert_eq!(
            hexadecimal(&hello.encode()),
            "030000000500000000000000000000000000000007000000000000000100000000000000\
             01000000000000000200000000000000"
        );
        let header = LAYOUT.header(Kind::Events as u32, 0x0102).unwrap();
        let header = hexadecimal(&header[..LAYOUT.header_bytes]);
        assert_eq!(header, "0201000002000000");
        assert_eq!(hexadecimal(&events_header(3)), "0300000000000000");
        let mut progress = Vec::new();
        put_progress(&mut progress, 9, Progress::Credited(8));
        let golden = "090000000000000006000000000000000800000000000000";
        assert_eq!(hexadecimal(&progress), golden);
        let kinds: Vec<u32> = (0..20)
            .filter(|it| Kind::from_number(*it).is_some())
            .collect();
        assert_eq!(kinds, (1..=10).collect::<Vec<u32>>());
    }

    #[test]
    fn commits_survive_the_round_trip() {
        let all = [
            (1, Progress::Up),
            (2, Progress::Opened),
            (3, Progress::Input(9)),
            (4, Progress::Ended(CloseHow::Fin)),
            (5, Progress::Ended(CloseHow::Reset)),
            (6, Progress::Credited(8)),
            (0, Progress::Heard(11)),
        ];
        let mut bytes = Vec::new();
        for (counter, progress) in all {
            put_progress(&mut bytes, counter, progress);
        }
        assert!(each_progress(&bytes).eq(all));
    }

    #[test]
    fn frames_come_out_whole_and_foreign_ones_are_refused() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut wire = Wire::new(TcpStream::from_std(near));
        wire.send(Kind::Resend, &[]);
        wire.send(Kind::Events, &[&events_header(3), b"abc"]);
        wire.flush().unwrap();
        let mut bytes = [0; 8 + 8 + 11];
        far.read_exact(&mut bytes).unwrap();
        far.write_all(&bytes[..20]).unwrap();
        let mut buffer = [0; 100];
        let mut frames = Vec::new();
        while frames.is_empty() {
            wire.receive(&mut buffer).unwrap();
            frames.extend(wire.next().unwrap());
        }
        assert_eq!(frames, [(Kind::Resend, Vec::new())]);
        assert_eq!(wire.next().unwrap(), None);
        far.write_all(&bytes[20..]).unwrap();
        far.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        let payload = loop {
            wire.receive(&mut buffer).unwrap();
            if let Some((Kind::Events, payload)) = wire.next().unwrap() {
                break payload;
            }
        };
        assert_eq!(split_events(&payload), Some((3, &b"abc"[..])));
        while wire.next().is_ok() {
            wire.receive(&mut buffer).unwrap();
        }
    }
}
