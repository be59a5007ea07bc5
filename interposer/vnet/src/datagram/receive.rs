//! Receiving: which socket gets a datagram, and its queue.
//!
//! Loss is decided here and nowhere else once a datagram is in the log: a queue that is full drops
//! what comes, at the same datagram on every replica.

use super::address::plain;
use crate::peer_hash::peer_hash;
use crate::{Net, SocketIx, World, ready};
use brolga_tape::entry::{ADDRESS_BYTES, address_bytes, read_address};
use brolga_tape::record::Record;
use core::net::SocketAddr;

/// Bytes that wait in a socket, heads included: more than the largest entry brings.
const QUEUE_BYTES_MAX: u64 = 1 << 20;
/// Bytes that wait in all sockets.
const WAITING_BYTES_MAX: u64 = 512 << 20;
/// `length u32 | 0 u32 | peer | local`, before each datagram in a queue.
const HEAD_BYTES: usize = 8 + 2 * ADDRESS_BYTES;

/// A datagram without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Bytes of the payload.
    pub len: usize,
    /// The sender.
    pub peer: SocketAddr,
    /// The address that it was sent to.
    pub local: SocketAddr,
}

/// Result of receiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A datagram, of which as much was shown as was asked for.
    Datagram(Envelope),
    /// Nothing there yet.
    WouldBlock,
    /// The server shut its reading side.
    End,
    /// An earlier datagram went to a port that nobody has (reported once).
    Refused,
}

/// The bytes of a datagram.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    Event(&'a [u8]),
    /// The first bytes of [`super::Datagrams::outgoing`].
    Outgoing(usize),
}

impl Net {
    /// Takes a datagram of an admitted entry.
    pub(crate) fn apply_datagram(
        &mut self,
        frontend: u64,
        peer: SocketAddr,
        local: SocketAddr,
        bytes: &[u8],
        world: &mut impl World,
    ) {
        let (peer, local) = (plain(peer), plain(local));
        let Some(to) = self.receiver(peer, local, false) else {
            return self.lose(world);
        };
        // An answer to a socket that has asked: the next question goes by whoever leads then.
        if self.socket(to).listener != 0 {
            self.datagrams.routes.learn(peer, local, frontend);
        }
        self.deliver(to, peer, local, Payload::Event(bytes), world);
    }

    fn lose(&mut self, world: &mut impl World) {
        self.datagrams.lost += 1;
        let total = self.datagrams.lost;
        world.emit(&Record::Lost { total });
    }

    /// The socket that gets a datagram: the one that fits best, and among those that share the
    /// address with `SO_REUSEPORT` always the same one for a peer.
    pub(super) fn receiver(
        &self,
        peer: SocketAddr,
        local: SocketAddr,
        inside: bool,
    ) -> Option<SocketIx> {
        let mut best: Option<(u32, SocketIx)> = None;
        for ix in self.bound_to(local.port()) {
            let fitness = self.socket(ix).fitness(peer, local, inside);
            if fitness.is_some() && fitness > best.map(|(fitness, _)| fitness) {
                best = fitness.map(|fitness| (fitness, ix));
            }
        }
        let (fitness, first) = best?;
        let sharing = |ix: &SocketIx| {
            let (socket, first) = (self.socket(*ix), self.socket(first));
            socket.reuse_port
                && socket.local == first.local
                && socket.fitness(peer, local, inside) == Some(fitness)
        };
        let count = self.bound_to(local.port()).filter(sharing).count() as u64;
        if count < 2 || !self.socket(first).reuse_port {
            return Some(first);
        }
        let chosen = (peer_hash(peer) % count) as usize;
        self.bound_to(local.port()).filter(sharing).nth(chosen)
    }

    pub(super) fn deliver(
        &mut self,
        to: SocketIx,
        peer: SocketAddr,
        local: SocketAddr,
        payload: Payload<'_>,
        world: &mut impl World,
    ) {
        let socket = &mut self.sockets[to as usize - 1];
        let bytes = match payload {
            Payload::Event(bytes) => bytes,
            Payload::Outgoing(len) => &self.datagrams.outgoing[..len],
        };
        let whole = (HEAD_BYTES + bytes.len()) as u64;
        let full = socket.input.len + whole > QUEUE_BYTES_MAX
            || self.datagrams.waiting_bytes + whole > WAITING_BYTES_MAX;
        if full || socket.input_shut {
            return self.lose(world);
        }
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        head[8..8 + ADDRESS_BYTES].copy_from_slice(&address_bytes(peer));
        head[8 + ADDRESS_BYTES..].copy_from_slice(&address_bytes(local));
        self.chunks.append(&mut socket.input, &head);
        self.chunks.append(&mut socket.input, bytes);
        self.datagrams.waiting_bytes += whole;
        self.notify(to, ready::IN, world);
    }

    /// The datagram that would be received next.
    #[must_use]
    pub fn next_datagram(&mut self, ix: SocketIx) -> Option<Envelope> {
        let socket = &mut self.sockets[ix as usize - 1];
        if socket.input.len == 0 {
            return None;
        }
        let (mut head, mut at) = ([0; HEAD_BYTES], 0);
        self.chunks
            .read(&mut socket.input, HEAD_BYTES, true, |piece| {
                head[at..at + piece.len()].copy_from_slice(piece);
                at += piece.len();
            });
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let address = |at| match read_address(&head, at) {
            Ok(address) => address,
            Err(_) => unreachable!("a queue holds what `deliver` has put there"),
        };
        Some(Envelope {
            len,
            peer: address(8),
            local: address(8 + ADDRESS_BYTES),
        })
    }

    /// Shows up to `max` bytes of the next datagram to `put` and takes it away unless `peek`.
    pub fn receive_datagram(
        &mut self,
        ix: SocketIx,
        max: usize,
        peek: bool,
        mut put: impl FnMut(&[u8]),
    ) -> Received {
        if self.socket_mut(ix).take_error().is_some() {
            return Received::Refused;
        }
        let Some(envelope) = self.next_datagram(ix) else {
            return match self.socket(ix).input_shut {
                true => Received::End,
                false => Received::WouldBlock,
            };
        };
        let shown = envelope.len.min(max);
        let queue = &mut self.sockets[ix as usize - 1].input;
        if peek {
            let mut head_left = HEAD_BYTES;
            self.chunks.read(queue, HEAD_BYTES + shown, true, |piece| {
                let skip = head_left.min(piece.len());
                head_left -= skip;
                put(&piece[skip..]);
            });
            return Received::Datagram(envelope);
        }
        self.chunks.read(queue, HEAD_BYTES, false, |_| ());
        self.chunks.read(queue, shown, false, put);
        self.chunks.read(queue, envelope.len - shown, false, |_| ());
        self.datagrams.waiting_bytes -= (HEAD_BYTES + envelope.len) as u64;
        Received::Datagram(envelope)
    }
}
