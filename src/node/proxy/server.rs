//! The node's side of stand-alone frontends: their connections, and the output that every node
//! keeps for all of them.
//!
//! A stand-alone frontend is known by the log as a frontend that is its own node. Whichever node it
//! is attached to passes its events on as if they came from the node's own frontend, tells it what
//! is committed, and gives it the output of the replica there.

use crate::clients::connection_table::{ConnectionTable, Progress};
use crate::clients::id_map::IdMap;
use crate::clients::listeners::Published;
use crate::clients::saved::SavedOutput;
use crate::proxy::unacked_output::UnackedOutput;
use crate::proxy::wire::{self, BATCH_BYTES, Hello, Kind, Wire};
use brolga_tape::ConnId;
use brolga_tape::ENTRY_BYTES_MAX;
use brolga_tape::entry::{ENTRY_HEADER_BYTES, Entry, Event};
use brolga_tape::record::{Record, encode};
use mio::net::TcpListener;
use mio::{Interest, Registry, Token};
use std::io;
use std::net::SocketAddr;

const READ_BYTES: usize = 64 * 1024;

/// Events of a stand-alone frontend, to be ordered.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// Number of events.
    pub count: u32,
    /// Their encoding.
    pub events: Vec<u8>,
}

/// The connection of a stand-alone frontend, which may not have said hello yet.
#[derive(Debug)]
struct Link {
    wire: Wire,
    frontend: Option<u64>,
    /// Gathered during a turn.
    records: Vec<u8>,
    committed: Vec<u8>,
}

/// The state of the node that a hello is answered from.
#[derive(Clone, Copy, Debug)]
pub struct Handshake<'a> {
    /// The cluster.
    pub cluster: u128,
    /// Connections and frontends, as the log knows them.
    pub conns: &'a ConnectionTable,
    /// The server's listeners; `None` while the node is still replaying.
    pub listeners: Option<&'a [Published]>,
}

/// The stand-alone frontends, as a node sees them.
#[derive(Debug)]
pub struct ProxyServer {
    registry: Registry,
    listener: TcpListener,
    listener_token: Token,
    first_token: usize,
    links: Vec<Option<Link>>,
    attached: IdMap<u64, usize>,
    unacked: UnackedOutput,
    buffer: Vec<u8>,
}

impl ProxyServer {
    /// Listens for proxies.
    ///
    /// # Errors
    /// The address can't be listened on.
    pub fn open(
        address: SocketAddr,
        registry: Registry,
        listener_token: Token,
        first_token: usize,
    ) -> io::Result<Self> {
        let mut listener = TcpListener::bind(address)?;
        registry.register(&mut listener, listener_token, Interest::READABLE)?;
        Ok(Self {
            registry,
            listener,
            listener_token,
            first_token,
            links: Vec::new(),
            attached: IdMap::default(),
            unacked: UnackedOutput::default(),
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Returns true when the poll token belongs to a stand-alone frontend's wire.
    pub fn owns(&self, token: Token) -> bool {
        let index = token.0.wrapping_sub(self.first_token);
        token == self.listener_token || index < self.links.len()
    }

    /// ProxyServer attached here.
    pub fn attached(&self) -> impl Iterator<Item = u64> + '_ {
        self.attached.keys().copied()
    }

    /// Something happened at a socket.
    pub fn handle(
        &mut self,
        event: &mio::event::Event,
        handshake: &Handshake<'_>,
        requests: &mut Vec<Request>,
    ) {
        if event.token() == self.listener_token {
            return self.accept();
        }
        let index = event.token().0 - self.first_token;
        if let Err(error) = self.converse(index, handshake, requests) {
            tracing::info!(%error, "the connection of a stand-alone frontend ended");
            self.detach(index);
        }
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((stream, peer)) => {
                    tracing::info!(%peer, "a stand-alone frontend connects");
                    self.add(Wire::new(stream));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Out of descriptors: the stand-alone frontend tries again, here or elsewhere.
                    tracing::warn!(%error, "cannot accept a stand-alone frontend");
                    return;
                }
            }
        }
    }

    fn add(&mut self, mut wire: Wire) {
        let free = self.links.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.links.push(None);
            self.links.len() - 1
        });
        let token = Token(self.first_token + index);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.registry.register(wire.stream(), token, interest) {
            tracing::warn!(%error, "cannot watch the connection of a stand-alone frontend");
            return;
        }
        self.links[index] = Some(Link {
            wire,
            frontend: None,
            records: Vec::new(),
            committed: Vec::new(),
        });
    }

    fn converse(
        &mut self,
        index: usize,
        handshake: &Handshake<'_>,
        requests: &mut Vec<Request>,
    ) -> io::Result<()> {
        let Some(link) = &mut self.links[index] else {
            return Ok(());
        };
        link.wire.receive(&mut self.buffer)?;
        while let Some(link) = &mut self.links[index] {
            let Some((kind, payload)) = link.wire.next()? else {
                break;
            };
            match (kind, link.frontend) {
                (Kind::Hello, None) => self.greet(index, &payload, handshake)?,
                (Kind::Ping, Some(_)) => link.wire.send(Kind::Pong, &[]),
                (Kind::Events, Some(frontend)) => {
                    let (count, events) =
                        wire::split_events(&payload).ok_or(io::ErrorKind::InvalidData)?;
                    if !are_of(count, events, frontend) {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    let events = events.to_vec();
                    requests.push(Request { count, events });
                }
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        match &mut self.links[index] {
            Some(link) => link.wire.flush(),
            None => Ok(()),
        }
    }

    fn greet(&mut self, index: usize, payload: &[u8], handshake: &Handshake<'_>) -> io::Result<()> {
        let hello = Hello::decode(payload).ok_or(io::ErrorKind::InvalidData)?;
        let refusal = if hello.version != wire::VERSION {
            Some(format!("this node speaks version {}", wire::VERSION))
        } else if hello.cluster != handshake.cluster {
            Some(format!(
                "this node belongs to cluster {:032x}",
                handshake.cluster
            ))
        } else if handshake.listeners.is_none() {
            Some("this node is still replaying the log".to_owned())
        } else {
            None
        };
        // An older wire of the same stand-alone frontend is dead, even if nobody has noticed.
        if let Some(old) = self.attached.get(&hello.frontend).copied() {
            self.detach(old);
        }
        let Some(link) = &mut self.links[index] else {
            return Ok(());
        };
        if let Some(refusal) = refusal {
            link.wire.send(Kind::Refused, &[refusal.as_bytes()]);
            return Ok(());
        }
        link.frontend = Some(hello.frontend);
        let mut ports = Vec::new();
        for port in handshake.listeners.unwrap_or_default() {
            let listen = Record::Listen {
                listener: port.listener,
                address: port.address,
                transport: port.transport,
                chosen: port.chosen,
            };
            encode(&listen, |piece| ports.extend_from_slice(piece));
        }
        link.wire.send(Kind::Welcome, &[&ports]);
        self.attached.insert(hello.frontend, index);
        self.resume(index, &hello, handshake.conns);
        Ok(())
    }

    /// Tells a stand-alone frontend that has come from elsewhere where each of its connections
    /// stands.
    fn resume(&mut self, index: usize, hello: &Hello, conns: &ConnectionTable) {
        let Some(link) = &mut self.links[index] else {
            return;
        };
        let Some(known) = conns.frontend(hello.frontend) else {
            return;
        };
        wire::put_progress(&mut link.committed, 0, Progress::Up);
        wire::put_progress(&mut link.committed, 0, Progress::Heard(known.heard));
        for (counter, next) in &hello.conns {
            let (counter, conn) = (
                *counter,
                ConnId {
                    frontend: hello.frontend,
                    counter: *counter,
                },
            );
            if counter > known.last_counter {
                continue; // its open is still under way
            }
            wire::put_progress(&mut link.committed, counter, Progress::Opened);
            if let Some(open) = conns.get(conn) {
                let input = Progress::Input(open.input_next);
                wire::put_progress(&mut link.committed, counter, input);
                let credit = Progress::Credited(open.credit);
                wire::put_progress(&mut link.committed, counter, credit);
                if open.ended {
                    let ended = Progress::Ended(brolga_tape::entry::CloseHow::Fin);
                    wire::put_progress(&mut link.committed, counter, ended);
                }
            } else if !self.unacked.knows(conn) {
                let gone = Record::Closed {
                    conn,
                    offset: *next,
                    reset: true,
                };
                encode(&gone, |piece| link.records.extend_from_slice(piece));
            }
            self.unacked.replay(conn, *next, &mut link.records);
        }
    }

    /// Sends all proxies away to other nodes, and forgets what the server told them.
    pub fn detach_all(&mut self) {
        for index in 0..self.links.len() {
            self.detach(index);
        }
        self.unacked = UnackedOutput::default();
    }

    /// Output that is held, for a checkpoint.
    pub fn save(&self) -> Vec<SavedOutput> {
        self.unacked.save()
    }

    /// Holds what was held then.
    pub fn load(&mut self, saved: Vec<SavedOutput>) {
        self.unacked = UnackedOutput::load(saved);
    }

    /// Returns true when output of this frontend's connections is held here for a stand-alone
    /// frontend.
    pub fn retains_for(&self, frontend: u64, conns: &ConnectionTable) -> bool {
        let known = conns.frontend(frontend);
        known.is_some_and(|known| known.is_proxy(frontend))
    }

    fn detach(&mut self, index: usize) {
        let Some(mut link) = self.links[index].take() else {
            return;
        };
        // The socket is closed next, so that failing to take it off the poll changes nothing.
        let _ = self.registry.deregister(link.wire.stream());
        if let Some(frontend) = link.frontend
            && self.attached.get(&frontend) == Some(&index)
        {
            self.attached.remove(&frontend);
        }
    }

    // ---- what happens in the replica ----

    /// The server did something to a connection of another frontend than the node's own.
    pub fn record(&mut self, conn: ConnId, record: &Record<'_>, conns: &ConnectionTable) {
        if !self.retains_for(conn.frontend, conns) {
            return;
        }
        self.unacked.record(conn, record, conns);
        let index = self.attached.get(&conn.frontend);
        if let Some(Some(link)) = index.and_then(|index| self.links.get_mut(*index)) {
            encode(record, |piece| link.records.extend_from_slice(piece));
        }
    }

    /// A datagram of the server for somebody that a stand-alone frontend has heard of. It is not
    /// held: whoever misses the answer asks again.
    pub fn datagram(&mut self, frontend: u64, record: &Record<'_>) {
        let index = self.attached.get(&frontend);
        if let Some(Some(link)) = index.and_then(|index| self.links.get_mut(*index)) {
            encode(record, |piece| link.records.extend_from_slice(piece));
        }
    }

    /// The server listens, or no longer does.
    pub fn ports_changed(&mut self, record: &Record<'_>) {
        for link in self
            .links
            .iter_mut()
            .flatten()
            .filter(|link| link.frontend.is_some())
        {
            encode(record, |piece| link.records.extend_from_slice(piece));
        }
    }

    /// Something is committed of a frontend that is not the node's own.
    pub fn committed(
        &mut self,
        frontend: u64,
        counter: u64,
        event: &Event<'_>,
        progress: Progress,
    ) {
        self.unacked.event(event);
        let Some(Some(link)) = self
            .attached
            .get(&frontend)
            .and_then(|at| self.links.get_mut(*at))
        else {
            return;
        };
        if progress == Progress::Gone {
            link.wire.send(Kind::Gone, &[]);
        } else {
            wire::put_progress(&mut link.committed, counter, progress);
        }
    }

    /// Events of attached proxies may have been lost.
    pub fn ask_again(&mut self) {
        for link in self
            .links
            .iter_mut()
            .flatten()
            .filter(|link| link.frontend.is_some())
        {
            link.wire.send(Kind::Resend, &[]);
        }
    }

    /// Sends what has gathered during the turn.
    pub fn flush(&mut self) {
        for index in 0..self.links.len() {
            let Some(link) = &mut self.links[index] else {
                continue;
            };
            if !link.committed.is_empty() {
                link.wire.send(Kind::Committed, &[&link.committed]);
                link.committed.clear();
            }
            send_records(&mut link.wire, &mut link.records);
            if let Err(error) = link.wire.flush() {
                tracing::info!(%error, "the connection of a stand-alone frontend ended");
                self.detach(index);
            }
        }
    }
}

/// Sends records in batches of limited size; records are never cut.
fn send_records(wire: &mut Wire, records: &mut Vec<u8>) {
    let mut rest = &records[..];
    while !rest.is_empty() {
        let mut batch = 0;
        while batch < rest.len().min(BATCH_BYTES) {
            let Ok((_, used)) = brolga_tape::record::decode(&rest[batch..]) else {
                tracing::error!("records for a stand-alone frontend are broken");
                records.clear();
                return;
            };
            batch += used;
        }
        let (now, later) = rest.split_at(batch);
        wire.send(Kind::Records, &[now]);
        rest = later;
    }
    records.clear();
}

/// Events of one frame: what is far larger than a frontend ever sends could not be cut to fit in an
/// entry, and an entry that does not fit on a tape would end every node.
const EVENTS_BYTES_MAX: usize = ENTRY_BYTES_MAX / 2;

/// Returns true when the bytes are whole events, all of `frontend`, which it may send.
pub(crate) fn are_of(count: u32, events: &[u8], frontend: u64) -> bool {
    if events.len() > EVENTS_BYTES_MAX {
        return false;
    }
    let mut entry = vec![0; ENTRY_HEADER_BYTES];
    entry[12..16].copy_from_slice(&count.to_le_bytes());
    entry.extend_from_slice(events);
    let Ok(entry) = Entry::parse(&entry) else {
        return false;
    };
    entry.events().all(|event| match event {
        Ok(
            Event::Open { conn, .. }
            | Event::Data { conn, .. }
            | Event::Close { conn, .. }
            | Event::Credit { conn, .. },
        ) => conn.frontend == frontend,
        Ok(Event::Datagram { frontend: of, .. }) => of == frontend,
        Ok(Event::FrontendUp { node, frontend: up }) => up == frontend && node == frontend,
        Ok(Event::Connected { .. } | Event::FrontendGone { .. } | Event::Signal { .. })
        | Err(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use brolga_tape::entry::EntryBuilder;

    #[test]
    fn a_frontend_sends_no_more_at_once_than_fits_in_an_entry() {
        let of_bytes = |len: usize| {
            let mut events = EntryBuilder::new();
            events.push(&Event::Data {
                conn: ConnId {
                    frontend: 7,
                    counter: 1,
                },
                offset: 0,
                bytes: &vec![1; len],
            });
            are_of(1, events.encoded_events(), 7)
        };
        assert!(of_bytes(EVENTS_BYTES_MAX - 100));
        assert!(!of_bytes(EVENTS_BYTES_MAX));
        assert!(!of_bytes(8 * EVENTS_BYTES_MAX));
    }

    #[test]
    fn a_frontend_can_only_speak_for_itself() {
        let mut events = EntryBuilder::new();
        events.push(&Event::FrontendUp {
            node: 7,
            frontend: 7,
        });
        events.push(&Event::Credit {
            conn: ConnId {
                frontend: 7,
                counter: 1,
            },
            upto: 3,
        });
        events.push(&Event::Datagram {
            frontend: 7,
            number: 1,
            peer: "127.0.0.1:1".parse().unwrap(),
            local: "127.0.0.1:2".parse().unwrap(),
            bytes: b"",
        });
        assert!(are_of(3, events.encoded_events(), 7));
        assert!(!are_of(3, events.encoded_events(), 8));
        assert!(!are_of(4, events.encoded_events(), 7));
        assert!(!are_of(1, events.encoded_events(), 7));
        events.push(&Event::FrontendGone { frontend: 7 });
        assert!(!are_of(4, events.encoded_events(), 7));
    }
}
