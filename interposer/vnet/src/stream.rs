//! Connections: reading, writing, closing, windows.
//!
//! Output to the outside is limited by a fixed window that only
//! [`brolga_tape::entry::Event::Credit`] moves, never by the speed of a client, so that a short
//! write happens at the same byte on every replica. Between two sockets of the tree, what is
//! written is unread input of the other one at once, and limited by how much of that there may be.

use crate::{Link, Net, Socket, SocketIx, State, World, errno, ready};
use brolga_tape::record::Record;
use brolga_tape::{CONSUMED_REPORT_BYTES, OUTPUT_WINDOW_BYTES};

/// Unread bytes of a connection within the tree beyond which writing has to wait.
pub(crate) const MATE_WINDOW_BYTES: u64 = 1024 * 1024;

/// Result of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// So many bytes were shown.
    Bytes(usize),
    /// The stream has ended.
    End,
    /// Nothing there yet.
    WouldBlock,
    /// This error was pending (reported once).
    Failed(u8),
    /// Not a connection.
    NotConnected,
}

/// Result of asking for room to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// So many bytes will be taken.
    Room(usize),
    /// The window is full.
    WouldBlock,
    /// This error was pending (reported once).
    Failed(u8),
    /// The other end is gone, or the server ended its own output.
    Broken,
    /// Not a connection.
    NotConnected,
}

impl Socket {
    /// Room in the window of a connection to the outside.
    pub(crate) fn window_room(&self) -> u64 {
        OUTPUT_WINDOW_BYTES - (self.output_next - self.output_credit)
    }

    pub(crate) fn stream_readiness(&self, room: u64) -> u32 {
        let mut mask = 0;
        if self.input.len > 0 || self.input_ended || self.input_shut {
            mask |= ready::IN;
        }
        if self.input_ended || self.input_shut {
            mask |= ready::RDHUP;
        }
        if room > 0 || self.reset || self.output_ended {
            mask |= ready::OUT;
        }
        if self.reset || (self.input_ended && self.output_ended) {
            mask |= ready::HUP;
        }
        if self.error != 0 {
            mask |= ready::ERR;
        }
        mask
    }

    pub(crate) fn failed_readiness(&self) -> u32 {
        let error = if self.error != 0 { ready::ERR } else { 0 };
        ready::IN | ready::OUT | ready::HUP | ready::RDHUP | error
    }
}

impl Net {
    /// Bytes that a write would take now, leaving ends and resets aside.
    pub(crate) fn output_room(&self, ix: SocketIx) -> u64 {
        let socket = self.socket(ix);
        match socket.link {
            Link::Outside => socket.window_room(),
            Link::Mate(mate) => MATE_WINDOW_BYTES.saturating_sub(self.socket(mate).input.len),
            Link::Gone => MATE_WINDOW_BYTES,
        }
    }

    /// A socket of the stream kind: neither one for datagrams nor a descriptor that counts.
    #[must_use]
    pub fn is_stream(&self, ix: SocketIx) -> bool {
        !matches!(self.socket(ix).state, State::Datagram | State::Counter)
    }

    /// True when fewer bytes than `wanted` are unread and more may come.
    #[must_use]
    pub fn awaits_more(&self, ix: SocketIx, wanted: usize) -> bool {
        let socket = self.socket(ix);
        let open = !(socket.input_ended || socket.input_shut || socket.reset);
        socket.state == State::Connected && open && socket.input.len < wanted as u64
    }

    /// Bytes written that the other end has not read. Nobody knows of ends outside.
    #[must_use]
    pub fn unsent(&self, ix: SocketIx) -> u64 {
        match self.socket(ix).link {
            Link::Mate(mate) => self.socket(mate).input.len,
            Link::Outside | Link::Gone => 0,
        }
    }

    /// The state of a TCP connection as `<netinet/tcp.h>` numbers it.
    #[must_use]
    pub fn tcp_state(&self, ix: SocketIx) -> u8 {
        const ESTABLISHED: u8 = 1;
        const SYN_SENT: u8 = 2;
        const FIN_WAIT2: u8 = 5;
        const CLOSE: u8 = 7;
        const CLOSE_WAIT: u8 = 8;
        const LISTEN: u8 = 10;
        let socket = self.socket(ix);
        match socket.state {
            State::Listening => LISTEN,
            State::Connecting => SYN_SENT,
            State::Connected if socket.reset => CLOSE,
            State::Connected => match (socket.input_ended, socket.output_ended) {
                (false, false) => ESTABLISHED,
                (false, true) => FIN_WAIT2,
                (true, false) => CLOSE_WAIT,
                (true, true) => CLOSE,
            },
            _ => CLOSE,
        }
    }

    /// Shows up to `max` unread bytes to `put` and takes them away unless `peek`.
    pub fn read(
        &mut self,
        ix: SocketIx,
        max: usize,
        peek: bool,
        world: &mut impl World,
        put: impl FnMut(&[u8]),
    ) -> ReadOutcome {
        let socket = &mut self.sockets[ix as usize - 1];
        match socket.state {
            State::Connected => {}
            State::Connecting => return ReadOutcome::WouldBlock,
            State::Failed => {
                return socket
                    .take_error()
                    .map_or(ReadOutcome::End, ReadOutcome::Failed);
            }
            _ => return ReadOutcome::NotConnected,
        }
        if socket.input.len == 0 {
            // A broken pipe is the writer's concern: the stream has ended before.
            if socket.error != errno::PIPE
                && let Some(errno) = socket.take_error()
            {
                return ReadOutcome::Failed(errno);
            }
            let ended = socket.input_ended || socket.input_shut;
            return if ended {
                ReadOutcome::End
            } else {
                ReadOutcome::WouldBlock
            };
        }
        let before = socket.input.len;
        let count = self.chunks.read(&mut socket.input, max, peek, put);
        if let Link::Mate(mate) = socket.link {
            let made_room = before >= MATE_WINDOW_BYTES && socket.input.len < MATE_WINDOW_BYTES;
            if made_room {
                self.notify(mate, ready::OUT, world);
            }
            return ReadOutcome::Bytes(count);
        }
        let consumed = socket.input_next - socket.input.len;
        if consumed - socket.input_reported >= CONSUMED_REPORT_BYTES {
            socket.input_reported = consumed;
            world.emit(&Record::Consumed {
                conn: socket.conn,
                upto: consumed,
            });
        }
        ReadOutcome::Bytes(count)
    }

    /// The part of `wanted` bytes that a write would take now.
    pub fn write_room(&mut self, ix: SocketIx, wanted: usize) -> WriteOutcome {
        let socket = self.socket_mut(ix);
        match socket.state {
            State::Connecting => return WriteOutcome::WouldBlock,
            State::Connected | State::Failed => {}
            _ => return WriteOutcome::NotConnected,
        }
        match socket.take_error() {
            Some(errno) if errno != errno::PIPE => return WriteOutcome::Failed(errno),
            _ => {}
        }
        if socket.reset || socket.output_ended || socket.state == State::Failed {
            return WriteOutcome::Broken;
        }
        match self.output_room(ix) {
            0 => WriteOutcome::WouldBlock,
            room => WriteOutcome::Room(wanted.min(usize::try_from(room).unwrap_or(usize::MAX))),
        }
    }

    /// Writes bytes for which [`Net::write_room`] said there is room.
    pub fn write(&mut self, ix: SocketIx, bytes: &[u8], world: &mut impl World) {
        assert!(
            bytes.len() as u64 <= self.output_room(ix),
            "room was asked for"
        );
        let socket = self.socket_mut(ix);
        let (conn, offset) = (socket.conn, socket.output_next);
        socket.output_next += bytes.len() as u64;
        match socket.link {
            Link::Outside => world.emit(&Record::Data {
                conn,
                offset,
                bytes,
            }),
            Link::Mate(mate) => self.receive_from_mate(mate, bytes, world),
            // Whoever is gone answers with a reset.
            Link::Gone => self.reset(ix, world),
        }
    }

    fn receive_from_mate(&mut self, ix: SocketIx, bytes: &[u8], world: &mut impl World) {
        let socket = &mut self.sockets[ix as usize - 1];
        if socket.input_shut {
            return;
        }
        self.chunks.append(&mut socket.input, bytes);
        self.notify(ix, ready::IN, world);
    }

    /// The other end, a socket of the tree, has ended its stream.
    fn end_from_mate(&mut self, ix: SocketIx, world: &mut impl World) {
        let socket = self.socket_mut(ix);
        if !socket.input_ended {
            socket.input_ended = true;
            self.notify(ix, ready::IN | ready::RDHUP | ready::HUP, world);
        }
    }

    /// Ends one or both directions, as `shutdown` does. False: not connected.
    pub fn shutdown(
        &mut self,
        ix: SocketIx,
        reading: bool,
        writing: bool,
        world: &mut impl World,
    ) -> bool {
        let socket = &mut self.sockets[ix as usize - 1];
        if socket.is_datagram() {
            return self.shutdown_datagram(ix, reading, writing, world);
        }
        if socket.state == State::Listening {
            if reading {
                self.stop_listening(ix, world);
            }
            return true;
        }
        if socket.state != State::Connected {
            return false;
        }
        let mut mask = 0;
        let link = socket.link;
        if reading && !socket.input_shut {
            let was_full = socket.input.len >= MATE_WINDOW_BYTES;
            socket.input_shut = true;
            self.chunks.clear(&mut socket.input);
            if let Link::Mate(mate) = link
                && was_full
            {
                self.notify(mate, ready::OUT, world);
            }
            mask |= ready::IN | ready::RDHUP;
        }
        let socket = self.socket_mut(ix);
        if writing && !socket.output_ended {
            socket.output_ended = true;
            let (conn, offset) = (socket.conn, socket.output_next);
            match link {
                Link::Outside => world.emit(&Record::Fin { conn, offset }),
                Link::Mate(mate) => self.end_from_mate(mate, world),
                Link::Gone => {}
            }
            mask |= ready::OUT;
        }
        if mask != 0 {
            self.notify(ix, mask | ready::HUP, world);
        }
        true
    }

    /// The last descriptor is gone: tells the other end and forgets the connection.
    pub(crate) fn close_connection(&mut self, ix: SocketIx, world: &mut impl World) {
        let socket = &mut self.sockets[ix as usize - 1];
        let (link, unread) = (socket.link, socket.input.len > 0);
        self.chunks.clear(&mut socket.input);
        match link {
            Link::Outside => {
                let closed = Record::Closed {
                    conn: socket.conn,
                    offset: socket.output_next,
                    reset: socket.linger_reset || socket.state == State::Connecting,
                };
                self.unindex_connection(ix);
                world.emit(&closed);
            }
            Link::Mate(mate) => {
                let reset = socket.linger_reset || unread;
                self.socket_mut(mate).link = Link::Gone;
                if reset {
                    self.reset(mate, world);
                } else {
                    self.end_from_mate(mate, world);
                }
                // Whoever waits for room to write will not get any more of it.
                self.notify(mate, ready::OUT, world);
            }
            Link::Gone => {}
        }
    }
}
