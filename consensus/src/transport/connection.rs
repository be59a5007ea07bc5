//! One connection of a transport: its socket, its state, and the bytes under way in both
//! directions.

use super::outbox::Outbox;
use super::wire::{BODY_BYTES_MAX, FrameError, GREETING_BYTES_MAX, Kind, take_frame};
use crate::core::NodeId;
use bytes::{Bytes, BytesMut};
use mio::net::TcpStream;
use std::io::{self, Read};
use std::time::{Duration, Instant};

const PING_AFTER: Duration = Duration::from_millis(500);
const DEAD_AFTER: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Dialed and not connected yet.
    Connecting,
    /// The other side has not said hello yet.
    Greeting,
    Up,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub socket: TcpStream,
    pub state: State,
    /// Known from the start on a dialed connection, after hello on an accepted one.
    pub peer: Option<NodeId>,
    pub out: Outbox,
    input: BytesMut,
    heard_at: Instant,
    wrote_at: Instant,
}

impl Connection {
    pub fn new(socket: TcpStream, state: State, peer: Option<NodeId>, now: Instant) -> Self {
        Self {
            socket,
            state,
            peer,
            out: Outbox::default(),
            input: BytesMut::new(),
            heard_at: now,
            wrote_at: now,
        }
    }

    /// Finishes a dialed connection. Returns whether it is connected now and was not before.
    ///
    /// # Errors
    /// The connection failed.
    pub fn finish_connect(&mut self) -> io::Result<bool> {
        if self.state != State::Connecting {
            return Ok(false);
        }
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        if self.socket.peer_addr().is_err() {
            return Ok(false); // Not connected yet.
        }
        self.state = State::Greeting;
        Ok(true)
    }

    /// Reads once, through `scratch`. Returns the number of bytes; 0 at the end of the stream.
    pub fn read(&mut self, scratch: &mut [u8], now: Instant) -> io::Result<usize> {
        let count = self.socket.read(scratch)?;
        self.heard_at = now;
        self.input.extend_from_slice(&scratch[..count]);
        Ok(count)
    }

    /// The next whole frame of what was read.
    pub fn next_frame(&mut self) -> Result<Option<(Kind, Bytes)>, FrameError> {
        // A stranger must not make this node set memory aside.
        let limit = match self.state {
            State::Up => BODY_BYTES_MAX,
            State::Connecting | State::Greeting => GREETING_BYTES_MAX,
        };
        take_frame(&mut self.input, limit)
    }

    /// Returns true if bytes were read that belong to no frame taken so far.
    pub fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Writes as much as the socket takes.
    pub fn write(&mut self, now: Instant) -> io::Result<()> {
        if self.state != State::Connecting && self.out.flush(&mut self.socket)? {
            self.wrote_at = now;
        }
        Ok(())
    }

    /// Returns true if the other side has been silent for too long.
    pub fn is_dead(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard_at) >= DEAD_AFTER
    }

    /// Gathers a ping if nothing was written for a while.
    pub fn ping(&mut self, now: Instant) {
        let idle = now.saturating_duration_since(self.wrote_at) >= PING_AFTER;
        if self.state == State::Up && idle {
            self.wrote_at = now;
            self.out.push(Kind::Ping, &[], None);
        }
    }

    /// The time of the next ping, or of the end of patience.
    pub fn deadline(&self) -> Instant {
        let dead = self.heard_at + DEAD_AFTER;
        match self.state {
            State::Up => dead.min(self.wrote_at + PING_AFTER),
            State::Connecting | State::Greeting => dead,
        }
    }
}
