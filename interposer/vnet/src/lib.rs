//! Virtual sockets and epoll instances, through which the server sees its clients.
//!
//! All of it is a function of the admitted entries and of the server's own calls; the kernel is
//! never asked. A [`Net`] lies in memory shared by the server's process tree and is touched only by
//! the thread that has the turn, so it is plain data: arrays and indices, no pointers. Zeroed
//! memory is a valid empty [`Net`].
//!
//! * [`Net::apply`] takes the events of an entry.
//! * `stream`: reading, writing and closing connections; windows.
//! * `listen`: listeners and accept queues.
//! * `connect`: connections that the server opens itself; `ports`: the ports it is given for them.
//! * `datagram`: datagram sockets, their ports, and the way back to their peers.
//! * `epoll`: interest and ready lists with the kernel's semantics (level, edge, one-shot,
//!   exclusive).
//! * `descriptors`: which descriptor of which process names what.
//!
//! What happens outside (waking threads, output records) goes through [`World`].
//!
//! Deliberately absent: system calls, errno, blocking. A call that cannot go on says so in its
//! outcome, and the interposer lets the thread wait.
#![no_std]
#![cfg_attr(not(test), forbid(unsafe_code))]

#[cfg(test)]
extern crate std;

mod apply;
mod chunks;
mod connect;
mod counter;
mod datagram;
mod descriptors;
mod epoll;
mod listen;
mod peer_hash;
mod ports;
mod stream;
mod table;

pub use connect::ConnectOutcome;
pub use counter::CounterKind;
pub use datagram::{DatagramError, DatagramOptions, Envelope, Received, Way, plain};
pub use descriptors::{FDS_MAX, Object, PROCESSES_MAX};
pub use epoll::{EpollError, EpollIx};
pub use stream::{ReadOutcome, WriteOutcome};

use brolga_tape::ConnId;
use brolga_tape::record::Record;
use core::net::SocketAddr;

/// Sockets that a process tree may have at a time.
pub const SOCKETS_MAX: usize = 64 * 1024;

/// Index of a socket, from 1. 0 is no socket.
pub type SocketIx = u32;

/// Readiness bits, with the values of `<sys/epoll.h>`, which `poll` shares.
pub mod ready {
    /// There is something to read or accept, or the stream has ended.
    pub const IN: u32 = 0x001;
    /// Writing would take at least one byte.
    pub const OUT: u32 = 0x004;
    /// The connection was reset.
    pub const ERR: u32 = 0x008;
    /// Both directions have ended.
    pub const HUP: u32 = 0x010;
    /// The client has ended its stream.
    pub const RDHUP: u32 = 0x2000;
}

/// Errors that a socket keeps for its owner (`SO_ERROR`), with the values of `<errno.h>`. How
/// opening a connection to the outside fails is told by the log.
pub mod errno {
    /// The other end is gone, and its stream had ended before.
    pub const PIPE: u8 = 32;
    /// The other end is gone.
    pub const RESET: u8 = 104;
    /// An earlier datagram went to a port that nobody has.
    pub const REFUSED: u8 = 111;
}

/// The objects that a thread can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitOn {
    /// Something to read or accept.
    Readable(SocketIx),
    /// Room to write.
    Writable(SocketIx),
    /// An item of an epoll instance.
    Epoll(EpollIx),
    /// A change of a socket that a `poll` or `select` of several descriptors watches: see
    /// [`Net::watch_socket`].
    AnySocket,
}

/// Effects of this crate on the outside.
pub trait World {
    /// Wakes up to `count` threads that wait for this, first come first served. Returns their
    /// number.
    fn wake(&mut self, on: WaitOn, count: usize) -> usize;
    /// Puts a record on the output ring.
    fn emit(&mut self, record: &Record<'_>);
    /// The timer descriptor to which this alarm of the scheduler belonged is gone.
    fn alarm_gone(&mut self, alarm: u16);
}

/// State of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum State {
    /// Not in use.
    #[default]
    Free = 0,
    /// Made, perhaps bound.
    Fresh = 1,
    /// Listening.
    Listening = 2,
    /// An end of a connection.
    Connected = 3,
    /// Opening a connection to the outside, not answered yet.
    Connecting = 6,
    /// The connection could not be opened; another try is allowed.
    Failed = 7,
    /// Not a socket but an epoll instance, as others see it.
    StandIn = 8,
    /// Not a socket but a descriptor that counts: eventfd, timerfd, signalfd.
    Counter = 4,
    /// Takes datagrams, not connections.
    Datagram = 5,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C, u32)]
pub(crate) enum Link {
    /// Somebody outside: bytes come by the log and go to the output ring.
    #[default]
    Outside = 0,
    /// Another socket of the tree.
    Mate(SocketIx) = 1,
    /// A socket of the tree that is closed.
    Gone = 2,
}

/// A socket: fresh, listening, one end of a connection, or one for datagrams.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Socket {
    state: State,
    /// Internet protocol version 6.
    pub v6: bool,
    /// `IPV6_V6ONLY`.
    pub v6_only: bool,
    /// `O_NONBLOCK` of the open file description.
    pub nonblocking: bool,
    /// Closing aborts (`SO_LINGER` with zero).
    pub linger_reset: bool,
    /// `SO_REUSEADDR`; of sockets for datagrams, others with it may have the same address then, and
    /// the latest gets what comes.
    pub reuse_address: bool,
    /// `SO_REUSEPORT`: others with it may have the same address; each peer is given to one of them.
    pub reuse_port: bool,
    /// The other end has ended its stream.
    input_ended: bool,
    /// The server shut its reading side.
    input_shut: bool,
    /// The server ended its output.
    output_ended: bool,
    /// The other end is gone.
    reset: bool,
    /// `SO_ERROR`, 0 for none.
    error: u8,
    /// `connect` said that it was under way, and was not asked again since.
    connect_unreported: bool,
    /// A `poll` or `select` of several descriptors waits for it, or did when it last changed.
    watched: bool,
    /// Descriptors that name it.
    references: u32,
    conn: ConnId,
    /// The frontend that has an outgoing connection.
    owner: u64,
    link: Link,
    /// A port of [`ports::Ports`] that it holds; 0 for none.
    held_port: u16,
    local: Option<SocketAddr>,
    peer: Option<SocketAddr>,
    /// `SO_SNDBUF`, 0 for the default. Has no effect.
    pub send_buffer: i32,
    /// `SO_RCVBUF`, the same.
    pub receive_buffer: i32,
    /// `SO_RCVTIMEO`, nanoseconds, 0 for none.
    pub receive_timeout_ns: u64,
    /// `SO_SNDTIMEO`, nanoseconds, 0 for none.
    pub send_timeout_ns: u64,
    /// State that only datagram sockets have.
    pub datagram: DatagramOptions,
    /// Unread bytes; of datagrams with their heads.
    input: chunks::Queue,
    /// Stream position of the next byte expected from the client.
    input_next: u64,
    /// Stream position reported as consumed.
    input_reported: u64,
    output_next: u64,
    output_credit: u64,
    listener: u32,
    /// The epoll instance that it stands for.
    instance: EpollIx,
    /// Next in the list of listeners.
    next_listener: SocketIx,
    queue_head: SocketIx,
    queue_tail: SocketIx,
    queue_next: SocketIx,
    /// First epoll item that watches it.
    items: u32,
    next_free: SocketIx,
    counter: counter::Counter,
}

/// All virtual sockets of a process tree.
#[repr(C)]
pub struct Net {
    sockets_used: u32,
    sockets_free: SocketIx,
    listeners_made: u32,
    /// A `poll` or `select` waits for an epoll instance, that is for any socket.
    all_watched: bool,
    /// The oldest listener.
    first_listener: SocketIx,
    ports: ports::Ports,
    /// Connections opened to the outside so far.
    outgoing_made: u64,
    frontends: apply::Frontends,
    connections: table::Table,
    datagrams: datagram::Datagrams,
    epolls: epoll::Epolls,
    descriptors: descriptors::Descriptors,
    signal_files: counter::SignalFiles,
    sockets: [Socket; SOCKETS_MAX],
    chunks: chunks::Pool,
}

impl Net {
    /// A socket by index.
    #[must_use]
    pub fn socket(&self, ix: SocketIx) -> &Socket {
        &self.sockets[ix as usize - 1]
    }

    /// A socket by index.
    pub fn socket_mut(&mut self, ix: SocketIx) -> &mut Socket {
        &mut self.sockets[ix as usize - 1]
    }

    /// A fresh socket. `None`: there are too many.
    pub fn make_socket(&mut self, v6: bool) -> Option<SocketIx> {
        let ix = if self.sockets_free != 0 {
            let ix = self.sockets_free;
            self.sockets_free = self.socket(ix).next_free;
            ix
        } else if (self.sockets_used as usize) < SOCKETS_MAX {
            self.sockets_used += 1;
            self.sockets_used
        } else {
            return None;
        };
        *self.socket_mut(ix) = Socket {
            state: State::Fresh,
            v6,
            ..Socket::FREE
        };
        Some(ix)
    }

    fn free_socket(&mut self, ix: SocketIx) {
        let held = self.socket(ix).held_port;
        self.ports.give_back(held);
        let next_free = self.sockets_free;
        *self.socket_mut(ix) = Socket {
            next_free,
            ..Socket::FREE
        };
        self.sockets_free = ix;
    }

    /// Counts one more descriptor that names the socket.
    pub fn retain_socket(&mut self, ix: SocketIx) {
        self.socket_mut(ix).references += 1;
    }

    /// Counts one descriptor fewer that names the socket; the last one closes it.
    pub fn release_socket(&mut self, ix: SocketIx, world: &mut impl World) {
        let socket = self.socket_mut(ix);
        assert!(
            socket.references > 0,
            "a socket is released as often as it was retained"
        );
        socket.references -= 1;
        if socket.references > 0 {
            return;
        }
        self.drop_items(ix);
        match self.socket(ix).state {
            State::Listening => self.close_listener(ix, world),
            State::Connected | State::Connecting => self.close_connection(ix, world),
            State::Counter => self.close_counter(ix, world),
            State::Datagram => self.close_datagram(ix, world),
            State::Fresh | State::Failed => {}
            State::Free | State::StandIn => unreachable!("no descriptor names it"),
        }
        self.free_socket(ix);
    }

    /// Bytes that one call could read now.
    #[must_use]
    pub fn unread(&mut self, ix: SocketIx) -> u64 {
        if self.socket(ix).is_datagram() {
            return self
                .next_datagram(ix)
                .map_or(0, |envelope| envelope.len as u64);
        }
        self.socket(ix).input.len
    }

    /// The readiness of a socket, as `poll` reports it.
    #[must_use]
    pub fn readiness(&self, ix: SocketIx) -> u32 {
        let socket = self.socket(ix);
        match socket.state {
            State::Free => 0,
            // As the kernel has it for an unconnected stream socket.
            State::Fresh => ready::OUT | ready::HUP,
            State::Listening if socket.queue_head != 0 => ready::IN,
            State::Listening | State::Connecting => 0,
            State::StandIn if self.epoll_ready(socket.instance) => ready::IN,
            State::StandIn => 0,
            State::Failed => socket.failed_readiness(),
            State::Counter => socket.counter.readiness(),
            State::Connected => socket.stream_readiness(self.output_room(ix)),
            State::Datagram => socket.datagram_readiness(),
        }
    }

    /// A `poll` or `select` is about to wait for several descriptors, and this socket is one of
    /// them.
    ///
    /// There is one queue for all such calls ([`WaitOn::AnySocket`]): whoever is woken looks again,
    /// and says again what it watches. So the first change of a watched socket wakes them all and
    /// ends the watch, and a change of a socket that nobody watches costs nothing.
    pub fn watch_socket(&mut self, ix: SocketIx) {
        self.socket_mut(ix).watched = true;
    }

    /// Watches all sockets, for an epoll instance, which may become ready with any of them.
    pub fn watch_all(&mut self) {
        self.all_watched = true;
    }

    /// Wakes the calls that watch a socket.
    pub(crate) fn notify_polls(&mut self, ix: SocketIx, world: &mut impl World) {
        if core::mem::take(&mut self.socket_mut(ix).watched) || self.all_watched {
            self.all_watched = false;
            world.wake(WaitOn::AnySocket, usize::MAX);
        }
    }

    /// Tells everybody who watches a socket that it may be ready for `mask`.
    fn notify(&mut self, ix: SocketIx, mask: u32, world: &mut impl World) {
        if mask & !ready::OUT != 0 {
            world.wake(WaitOn::Readable(ix), usize::MAX);
        }
        if mask & (ready::OUT | ready::ERR) != 0 {
            world.wake(WaitOn::Writable(ix), usize::MAX);
        }
        self.notify_polls(ix, world);
        self.notify_items(ix, mask, world);
    }
}

impl Socket {
    const FREE: Self = Self {
        state: State::Free,
        v6: false,
        v6_only: false,
        nonblocking: false,
        linger_reset: false,
        reuse_address: false,
        reuse_port: false,
        input_ended: false,
        input_shut: false,
        output_ended: false,
        reset: false,
        error: 0,
        connect_unreported: false,
        watched: false,
        references: 0,
        conn: ConnId {
            frontend: 0,
            counter: 0,
        },
        owner: 0,
        link: Link::Outside,
        held_port: 0,
        local: None,
        peer: None,
        send_buffer: 0,
        receive_buffer: 0,
        receive_timeout_ns: 0,
        send_timeout_ns: 0,
        datagram: DatagramOptions::NONE,
        input: chunks::Queue::EMPTY,
        input_next: 0,
        input_reported: 0,
        output_next: 0,
        output_credit: 0,
        listener: 0,
        instance: 0,
        next_listener: 0,
        queue_head: 0,
        queue_tail: 0,
        queue_next: 0,
        items: 0,
        next_free: 0,
        counter: counter::Counter::NONE,
    };

    /// The state of the socket.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The local address, if bound or connected.
    #[must_use]
    pub fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    /// The address of the other end, if connected.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Takes the pending `SO_ERROR`.
    pub fn take_error(&mut self) -> Option<u8> {
        match core::mem::take(&mut self.error) {
            0 => None,
            errno => Some(errno),
        }
    }
}

#[cfg(test)]
mod tests;
