//! Connections: reading, writing, closing, windows.
//!
//! Output is limited by a fixed window that only [`brolga_tape::entry::Event::Credit`] moves, never by
//! the speed of a client, so that a short write happens at the same byte on every replica.

use crate::{Net, Socket, SocketIx, State, World, ready};
use brolga_tape::record::Record;
use brolga_tape::{CONSUMED_REPORT_BYTES, OUTPUT_WINDOW_BYTES};

/// What came of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// So many bytes were shown.
    Bytes(usize),
    /// The stream has ended.
    End,
    /// Nothing there yet.
    WouldBlock,
    /// The client is gone (reported once, then [`ReadOutcome::End`]).
    Reset,
    /// Not a connection.
    NotConnected,
}

/// What came of asking for room to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// So many bytes will be taken.
    Room(usize),
    /// The window is full.
    WouldBlock,
    /// The client is gone, or the server ended its own output.
    Broken,
    /// Not a connection.
    NotConnected,
}

impl Socket {
    pub(crate) fn output_room(&self) -> u64 {
        OUTPUT_WINDOW_BYTES - (self.output_next - self.output_credit)
    }

    pub(crate) fn stream_readiness(&self) -> u32 {
        let mut mask = 0;
        if self.input.len > 0 || self.input_ended || self.input_shut {
            mask |= ready::IN;
        }
        if self.input_ended || self.input_shut {
            mask |= ready::RDHUP;
        }
        if self.output_room() > 0 || self.reset || self.output_ended {
            mask |= ready::OUT;
        }
        if self.reset || (self.input_ended && self.output_ended) {
            mask |= ready::HUP;
        }
        if self.error_pending {
            mask |= ready::ERR;
        }
        mask
    }
}

impl Net {
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
        if socket.state != State::Connected {
            return ReadOutcome::NotConnected;
        }
        if socket.input.len == 0 {
            return match () {
                () if socket.error_pending => {
                    socket.error_pending = false;
                    ReadOutcome::Reset
                }
                () if socket.input_ended || socket.input_shut => ReadOutcome::End,
                () => ReadOutcome::WouldBlock,
            };
        }
        let count = self.chunks.read(&mut socket.input, max, peek, put);
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

    /// How much of `wanted` bytes a write would take now.
    #[must_use]
    pub fn write_room(&self, ix: SocketIx, wanted: usize) -> WriteOutcome {
        let socket = self.socket(ix);
        if socket.state != State::Connected {
            return WriteOutcome::NotConnected;
        }
        if socket.reset || socket.output_ended {
            return WriteOutcome::Broken;
        }
        match socket.output_room() {
            0 => WriteOutcome::WouldBlock,
            room => WriteOutcome::Room(wanted.min(usize::try_from(room).unwrap_or(usize::MAX))),
        }
    }

    /// Writes bytes for which [`Net::write_room`] said there is room.
    pub fn write(&mut self, ix: SocketIx, bytes: &[u8], world: &mut impl World) {
        let socket = self.socket_mut(ix);
        assert!(
            bytes.len() as u64 <= socket.output_room(),
            "room was asked for"
        );
        let offset = socket.output_next;
        socket.output_next += bytes.len() as u64;
        world.emit(&Record::Data {
            conn: socket.conn,
            offset,
            bytes,
        });
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
        if socket.state != State::Connected {
            return false;
        }
        let mut mask = 0;
        if reading && !socket.input_shut {
            socket.input_shut = true;
            self.chunks.clear(&mut socket.input);
            mask |= ready::IN | ready::RDHUP;
        }
        if writing && !socket.output_ended {
            socket.output_ended = true;
            let (conn, offset) = (socket.conn, socket.output_next);
            world.emit(&Record::Fin { conn, offset });
            mask |= ready::OUT;
        }
        if mask != 0 {
            self.notify(ix, mask | ready::HUP, world);
        }
        true
    }

    /// The last descriptor is gone: tells the node and forgets the connection.
    pub(crate) fn close_connection(&mut self, ix: SocketIx, world: &mut impl World) {
        self.unindex_connection(ix);
        let socket = &mut self.sockets[ix as usize - 1];
        self.chunks.clear(&mut socket.input);
        world.emit(&Record::Closed {
            conn: socket.conn,
            offset: socket.output_next,
            reset: socket.linger_reset,
        });
    }
}
