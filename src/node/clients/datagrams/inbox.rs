//! Datagrams that have come from clients and are not committed yet.

use crate::clients::outbox::Events;
use brolga_os::sys;
use brolga_tape::DATAGRAM_BYTES_MAX;
use brolga_tape::entry::Event;
use mio::net::UdpSocket;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Held bytes, beyond which nothing more is read until something is committed.
pub(super) const HELD_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that a held datagram counts beside its payload.
const HELD_OVERHEAD_BYTES: usize = 128;
/// A datagram that could not be committed for this long is dropped: resolvers wait for five
/// seconds.
pub(super) const STALE_AFTER: Duration = Duration::from_secs(5);

/// A datagram of a client.
#[derive(Debug)]
pub(super) struct Held {
    number: u64,
    peer: SocketAddr,
    local: SocketAddr,
    bytes: Box<[u8]>,
    since: Instant,
}

/// The datagrams that are held until they are committed.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) last_number: u64,
    /// Oldest first.
    pub(super) held: VecDeque<Held>,
    pub(super) held_bytes: usize,
    received: u64,
    buffer: Vec<u8>,
}

impl Inbox {
    /// An empty inbox.
    pub(super) fn new() -> Self {
        Self {
            last_number: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            received: 0,
            buffer: vec![0; DATAGRAM_BYTES_MAX + 1],
        }
    }

    /// Datagrams read so far.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Returns true when no datagram is held.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The datagrams that are held, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Held> {
        self.held.iter()
    }

    /// Numbers start over, and what was held under the old ones is dropped.
    pub(super) fn restart(&mut self) {
        self.forget(u64::MAX);
        self.last_number = 0;
    }

    /// Drops what could not be committed in time. Returns how many.
    pub(super) fn drop_stale(&mut self, now: Instant) -> u64 {
        let mut dropped = 0;
        while let Some(first) = self.held.front()
            && now.saturating_duration_since(first.since) > STALE_AFTER
        {
            let number = first.number;
            self.forget(number);
            dropped += 1;
        }
        dropped
    }

    /// Reads what a socket has, as far as it can be held, and gives it to `say`. Returns true when
    /// the socket is empty.
    pub(super) fn drain(
        &mut self,
        socket: &UdpSocket,
        now: Instant,
        local: impl Fn(Option<IpAddr>) -> SocketAddr,
        mut say: impl FnMut(&Held),
    ) -> bool {
        while self.held_bytes < HELD_BYTES_MAX {
            let got = match sys::receive_datagram(socket.as_fd(), &mut self.buffer) {
                Ok(got) => got,
                Err(error) if is_about_one_datagram(&error) => continue,
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        tracing::warn!(%error, "cannot read datagrams for now");
                    }
                    return true;
                }
            };
            self.last_number += 1;
            self.received += 1;
            let one = Held {
                number: self.last_number,
                peer: got.peer,
                local: local(got.local),
                bytes: self.buffer[..got.len].into(),
                since: now,
            };
            say(&one);
            self.held_bytes += one.cost();
            self.held.push_back(one);
        }
        false
    }

    /// Drops everything up to a number.
    pub(super) fn forget(&mut self, upto: u64) {
        while let Some(first) = self.held.front()
            && first.number <= upto
        {
            self.held_bytes -= first.cost();
            self.held.pop_front();
        }
    }
}

impl Held {
    fn cost(&self) -> usize {
        self.bytes.len() + HELD_OVERHEAD_BYTES
    }

    /// Puts the datagram among the events of a frontend.
    pub(super) fn say(&self, frontend: u64, events: &mut impl Events) {
        events.event(&Event::Datagram {
            frontend,
            number: self.number,
            peer: self.peer,
            local: self.local,
            bytes: &self.bytes,
        });
    }
}

/// An interruption, or the answer to something sent earlier: the next datagram may be fine.
fn is_about_one_datagram(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}
