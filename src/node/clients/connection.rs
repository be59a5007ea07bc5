//! One connection at a frontend, of a client or of the server to somebody outside: the TCP socket,
//! the input that is not committed yet, and the output that the other end has not taken yet.
//!
//! A connection that the server opens is the mirror image of a client's: the other end is called
//! the client here all the same. The log hears of it when it was answered, and of nothing else
//! before that answer is committed, because another frontend's answer may come first.
//!
//! Positions in both streams are absolute and only ever grow, so whatever comes twice (events that
//! a leader change made necessary to resend, output of a server that replays) is recognised as a
//! duplicate.

use crate::clients::outbox::Events;
use brolga_os::sys;
use brolga_tape::entry::{CloseHow, Event};
use brolga_tape::{ConnId, INPUT_WINDOW_BYTES, OUTPUT_WINDOW_BYTES, StreamStep, stream_step};
use mio::net::TcpStream;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};

/// Largest piece of input in one event.
pub(crate) const DATA_BYTES_MAX: usize = 64 * 1024;
/// A credit is sent each time this much more output was delivered.
const CREDIT_STEP_BYTES: u64 = OUTPUT_WINDOW_BYTES / 4;
/// A queue that has grown beyond this gives its memory back when it is empty.
const KEEP_CAPACITY: usize = 64 * 1024;

/// A queue of bytes that are mostly put in and taken out in one go.
#[derive(Debug, Default)]
pub(crate) struct ByteQueue {
    bytes: Vec<u8>,
    head: usize,
}

impl ByteQueue {
    /// Appends bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The bytes in the queue.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    /// Returns true when the queue is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.head == self.bytes.len()
    }

    /// The number of bytes in the queue.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    /// Takes the first `count` bytes away.
    pub(crate) fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "consumed more than there was");
        self.head += count;
        if self.is_empty() {
            self.clear();
        } else if self.head > self.bytes.len() / 2 && self.head >= 4096 {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
    }

    /// Takes everything away.
    pub(crate) fn clear(&mut self) {
        self.head = 0;
        if self.bytes.capacity() > KEEP_CAPACITY {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }
}

/// The end of the server's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServerEnd {
    Open,
    /// No more output.
    Fin,
    /// No more anything; `reset`: the client is to see a reset.
    Closed {
        reset: bool,
    },
}

/// The way from the client to the log.
#[derive(Debug)]
struct Input {
    /// Bytes that are committed.
    committed: u64,
    /// Read from the client and not committed: from `committed` on.
    pending: ByteQueue,
    /// Bytes that the server has consumed.
    consumed: u64,
    /// The client's end of the stream, once it was seen.
    end: Option<CloseHow>,
    end_committed: bool,
    /// The socket may have something to read (the poll is edge-triggered).
    readable: bool,
    /// The poll has told of the end of the stream, so that a short read is not the last one.
    hangup: bool,
}

impl Input {
    fn read_upto(&self) -> u64 {
        self.committed + self.pending.len() as u64
    }

    fn room(&self) -> usize {
        let limit = self.consumed + INPUT_WINDOW_BYTES;
        let room = limit.saturating_sub(self.read_upto());
        usize::try_from(room).unwrap_or(usize::MAX)
    }
}

/// The way from the server to the client.
#[derive(Debug)]
struct Output {
    /// The next byte expected from the server.
    next: u64,
    /// Got from the server and not written to the socket.
    unsent: ByteQueue,
    credit_sent: u64,
    credit_committed: u64,
    server_end: ServerEnd,
    /// The end of the output was passed on.
    shut: bool,
    writable: bool,
}

impl Output {
    fn delivered(&self) -> u64 {
        self.next - self.unsent.len() as u64
    }
}

/// The origin of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A client has come to a listener of the server.
    Accepted {
        /// The listener.
        listener: u32,
        /// The client's address.
        peer: SocketAddr,
        /// The address that it connected to.
        local: SocketAddr,
    },
    /// The server has asked for it.
    Dialled {
        /// The frontend that dials.
        owner: u64,
        /// The answer to it: the own address, or an `errno`.
        answer: Option<Result<SocketAddr, u8>>,
    },
}

/// The identity of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionInfo {
    /// The id in the log.
    pub conn: ConnId,
    /// The origin.
    pub origin: Origin,
}

/// The server's output did not continue where it ended before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("output has a gap: expected byte {expected}, got byte {offset}")]
pub(crate) struct OutputGap {
    /// The next byte that was due.
    pub expected: u64,
    /// The byte that came.
    pub offset: u64,
}

/// A connection at a frontend.
#[derive(Debug)]
pub(crate) struct Connection {
    identity: ConnectionInfo,
    /// Gone once the client is, while its close is not committed yet.
    stream: Option<TcpStream>,
    open_committed: bool,
    input: Input,
    output: Output,
}

impl Connection {
    /// A connection that was just accepted, and says so in `events`, or is being dialled, with a
    /// socket unless that has failed at once.
    pub(crate) fn new(
        identity: ConnectionInfo,
        stream: Option<TcpStream>,
        events: &mut impl Events,
    ) -> Self {
        let client = Self {
            identity,
            stream,
            open_committed: false,
            input: Input {
                committed: 0,
                pending: ByteQueue::default(),
                consumed: 0,
                end: None,
                end_committed: false,
                readable: false,
                hangup: false,
            },
            output: Output {
                next: 0,
                unsent: ByteQueue::default(),
                credit_sent: 0,
                credit_committed: 0,
                server_end: ServerEnd::Open,
                shut: false,
                writable: true,
            },
        };
        client.say_open(events);
        client
    }

    /// The id in the log.
    pub(crate) fn conn(&self) -> ConnId {
        self.identity.conn
    }

    /// The other end has not answered yet.
    pub(crate) fn is_dialling(&self) -> bool {
        let answer = |origin| matches!(origin, Origin::Dialled { answer: None, .. });
        answer(self.identity.origin)
    }

    /// Looks whether the other end has answered; if so, says it in `events`.
    pub(crate) fn dialled(&mut self, events: &mut impl Events) {
        if let Some(answer) = self.stream.as_ref().and_then(sys::connect_outcome) {
            self.answered(answer.map_err(|error| sys::errno_of(&error)), events);
        }
    }

    /// The other end has answered, or it could not even be asked.
    pub(crate) fn answered(&mut self, outcome: Result<SocketAddr, u8>, events: &mut impl Events) {
        if let Origin::Dialled { answer, .. } = &mut self.identity.origin {
            *answer = Some(outcome);
        }
        if outcome.is_err() {
            self.stream = None;
        }
        self.say_open(events);
    }

    /// Dialling has failed.
    fn has_failed(&self) -> bool {
        let answer = |origin| match origin {
            Origin::Dialled { answer, .. } => answer.is_some_and(|answer| answer.is_err()),
            Origin::Accepted { .. } => false,
        };
        answer(self.identity.origin)
    }

    /// Input may be sent up. Nobody else can be the frontend of a client.
    fn may_receive(&self) -> bool {
        self.open_committed || matches!(self.identity.origin, Origin::Accepted { .. })
    }

    /// The socket, while there is one.
    #[cfg(test)]
    pub fn stream_mut(&mut self) -> Option<&mut TcpStream> {
        self.stream.as_mut()
    }

    /// The poll says that something has changed.
    pub(crate) fn ready(&mut self, readable: bool, writable: bool, hangup: bool) {
        self.input.readable |= readable;
        self.input.hangup |= hangup;
        self.output.writable |= writable;
    }

    /// Reads what there is, as far as the window allows.
    pub(crate) fn receive(&mut self, buffer: &mut [u8], events: &mut impl Events) {
        while self.input.readable && self.input.end.is_none() && self.may_receive() {
            let most = self.input.room().min(buffer.len()).min(DATA_BYTES_MAX);
            let Some(stream) = self.stream.as_mut().filter(|_| most > 0) else {
                return;
            };
            match stream.read(&mut buffer[..most]) {
                Ok(0) => self.end(CloseHow::Fin, events),
                Ok(got) => {
                    self.received(&buffer[..got], events);
                    // A short read has emptied the socket: what comes later rings again.
                    self.input.readable = got == most || self.input.hangup;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.input.readable = false;
                }
                Err(_) => self.end(CloseHow::Reset, events),
            }
        }
    }

    fn received(&mut self, bytes: &[u8], events: &mut impl Events) {
        events.event(&Event::Data {
            conn: self.identity.conn,
            offset: self.input.read_upto(),
            bytes,
        });
        self.input.pending.push(bytes);
    }

    fn end(&mut self, how: CloseHow, events: &mut impl Events) {
        if self.input.end == Some(CloseHow::Reset) {
            return;
        }
        self.input.end = Some(how);
        self.input.end_committed = false;
        if how == CloseHow::Reset {
            self.stream = None;
            self.output.unsent.clear();
        }
        self.say_end(events);
    }

    /// Breaks the connection from our side, as if the client had reset it.
    pub(crate) fn abort(&mut self, events: &mut impl Events) {
        self.drop_stream();
        self.end(CloseHow::Reset, events);
    }

    /// Ends the connection so that the other end sees a reset.
    fn drop_stream(&mut self) {
        if let Some(stream) = self.stream.take() {
            // If it fails, the client sees an orderly end instead; nothing is left to try.
            let _ = sys::reset_on_close(&stream);
        }
        self.output.unsent.clear();
    }

    // ---- what is committed ----

    /// The open is committed.
    pub(crate) fn committed_open(&mut self) {
        self.open_committed = true;
    }

    /// Input up to byte `next` is committed.
    pub(crate) fn committed_input(&mut self, next: u64) {
        let fresh = next.saturating_sub(self.input.committed);
        let fresh = usize::try_from(fresh).unwrap_or(usize::MAX);
        let fresh = fresh.min(self.input.pending.len());
        self.input.pending.consume(fresh);
        self.input.committed += fresh as u64;
    }

    /// The close is committed. A leader may have closed a connection that is still there.
    pub(crate) fn committed_end(&mut self, how: CloseHow) {
        if how == CloseHow::Reset {
            self.drop_stream();
            self.input.end = Some(how);
        }
        if self.input.end == Some(how) {
            self.input.end_committed = true;
        }
    }

    /// A credit is committed.
    pub(crate) fn committed_credit(&mut self, upto: u64) {
        self.output.credit_committed = self.output.credit_committed.max(upto);
    }

    /// Returns true while something that was sent to the leader is not committed.
    pub(crate) fn is_outstanding(&self) -> bool {
        let end_open = self.input.end.is_some() && !self.input.end_committed;
        let credit_open = self.output.credit_sent > self.output.credit_committed;
        !self.is_closed_by_server()
            && !self.is_dialling()
            && (!self.open_committed || !self.input.pending.is_empty() || end_open || credit_open)
    }

    /// Says everything again that is not committed, in order.
    pub(crate) fn resend(&self, events: &mut impl Events) {
        if self.is_closed_by_server() || self.is_dialling() {
            return;
        }
        if !self.open_committed {
            self.say_open(events);
        }
        let mut offset = self.input.committed;
        for bytes in self.input.pending.as_slice().chunks(DATA_BYTES_MAX) {
            let conn = self.identity.conn;
            events.event(&Event::Data {
                conn,
                offset,
                bytes,
            });
            offset += bytes.len() as u64;
        }
        if self.input.end.is_some() && !self.input.end_committed {
            self.say_end(events);
        }
        if self.output.credit_sent > self.output.credit_committed {
            self.say_credit(events);
        }
    }

    fn say_open(&self, events: &mut impl Events) {
        let conn = self.identity.conn;
        match self.identity.origin {
            Origin::Accepted {
                listener,
                peer,
                local,
            } => events.event(&Event::Open {
                conn,
                listener,
                peer,
                local,
            }),
            Origin::Dialled {
                owner,
                answer: Some(outcome),
            } => events.event(&Event::Connected {
                conn,
                owner,
                outcome,
            }),
            Origin::Dialled { answer: None, .. } => {}
        }
    }

    fn say_end(&self, events: &mut impl Events) {
        if let Some(how) = self.input.end {
            events.event(&Event::Close {
                conn: self.identity.conn,
                offset: self.input.read_upto(),
                how,
            });
        }
    }

    fn say_credit(&self, events: &mut impl Events) {
        events.event(&Event::Credit {
            conn: self.identity.conn,
            upto: self.output.credit_sent,
        });
    }

    // ---- what the server does ----

    /// The server has consumed input up to `upto`. True when reading may go on now.
    pub(crate) fn consumed(&mut self, upto: u64) -> bool {
        self.input.consumed = self.input.consumed.max(upto);
        self.input.readable && self.input.end.is_none()
    }

    /// Output from the server. True when there is something to flush.
    ///
    /// # Errors
    /// Bytes are missing before it.
    pub(crate) fn output(&mut self, offset: u64, bytes: &[u8]) -> Result<bool, OutputGap> {
        match stream_step(self.output.next, offset, bytes.len()) {
            StreamStep::Seen => Ok(false),
            StreamStep::Gap => Err(OutputGap {
                expected: self.output.next,
                offset,
            }),
            StreamStep::Take(seen) => {
                let bytes = &bytes[seen..];
                self.output.next += bytes.len() as u64;
                if self.stream.is_some() {
                    self.output.unsent.push(bytes);
                }
                Ok(self.stream.is_some())
            }
        }
    }

    /// The server ended its output at `offset`.
    pub(crate) fn server_fin(&mut self) {
        if self.output.server_end == ServerEnd::Open {
            self.output.server_end = ServerEnd::Fin;
        }
    }

    /// The server closed the connection.
    pub(crate) fn server_closed(&mut self, reset: bool) {
        self.output.server_end = ServerEnd::Closed { reset };
    }

    /// The server has closed it: nothing that is sent up has an effect any more.
    pub(crate) fn is_closed_by_server(&self) -> bool {
        matches!(self.output.server_end, ServerEnd::Closed { .. })
    }

    /// Position of the output that was written to the client's socket.
    #[cfg(test)]
    pub fn delivered(&self) -> u64 {
        self.output.delivered()
    }

    /// The next byte of output that it wants.
    pub(crate) fn output_next(&self) -> u64 {
        self.output.next
    }

    /// Tells the log that the client has got all that it will get (close notification).
    pub(crate) fn notify_closed(&self, events: &mut impl Events) {
        events.event(&Event::Close {
            conn: self.identity.conn,
            offset: self.input.read_upto(),
            how: CloseHow::Reset,
        });
    }

    /// Writes to the socket what it takes, and passes the end of the output on.
    pub(crate) fn flush(&mut self, events: &mut impl Events) {
        while self.output.writable && !self.output.unsent.is_empty() {
            let Some(stream) = &mut self.stream else {
                return;
            };
            match stream.write(self.output.unsent.as_slice()) {
                Ok(written) => {
                    self.output.writable = written == self.output.unsent.len();
                    self.output.unsent.consume(written);
                    if !self.output.writable {
                        // A short write may also have been an interrupted one, and then no edge
                        // would come: ask once more until the socket itself says no.
                        self.output.writable = written > 0;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.output.writable = false;
                }
                Err(_) => return self.end(CloseHow::Reset, events),
            }
        }
        self.credit(events);
        self.pass_end_on();
    }

    fn credit(&mut self, events: &mut impl Events) {
        let delivered = self.output.delivered();
        let due = delivered - self.output.credit_sent >= CREDIT_STEP_BYTES;
        if due && self.stream.is_some() && !self.is_closed_by_server() {
            self.output.credit_sent = delivered;
            self.say_credit(events);
        }
    }

    fn pass_end_on(&mut self) {
        if !self.output.unsent.is_empty() {
            return;
        }
        match (self.output.server_end, &self.stream) {
            (ServerEnd::Fin, Some(stream)) if !self.output.shut => {
                // It can only fail when the client is gone, which the next read tells.
                let _ = stream.shutdown(Shutdown::Write);
                self.output.shut = true;
            }
            (ServerEnd::Closed { reset: true }, Some(_)) => self.drop_stream(),
            (ServerEnd::Closed { reset: false }, Some(_)) => self.stream = None,
            _ => {}
        }
    }

    /// Returns true when nothing is left to do: the connection can be forgotten.
    pub(crate) fn is_finished(&self) -> bool {
        let reset = self.input.end == Some(CloseHow::Reset) && self.input.end_committed;
        let failed = self.has_failed() && self.open_committed;
        self.stream.is_none() && (reset || failed || self.is_closed_by_server())
    }
}

#[cfg(test)]
mod tests;
