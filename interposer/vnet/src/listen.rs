//! Listeners and their accept queues.

use crate::peer_hash::peer_hash;
use crate::{Net, SocketIx, State, WaitOn, World, ready};
use brolga_tape::record::{Record, Transport};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

impl Net {
    /// Gives a fresh socket its address, with a port if that names none. Nothing is asked of the
    /// kernel: the node owns real ports. False: there is no free port.
    #[must_use]
    pub fn bind(&mut self, ix: SocketIx, mut address: SocketAddr) -> bool {
        if address.port() == 0 {
            let Some(port) = self.take_port(ix) else {
                return false;
            };
            address.set_port(port);
        }
        self.socket_mut(ix).local = Some(address);
        true
    }

    /// True when another listener has this address and does not share it.
    #[must_use]
    pub fn port_taken(&self, ix: SocketIx, address: SocketAddr) -> bool {
        let mut wanted = *self.socket(ix);
        wanted.local = Some(address);
        let mut others = self.listeners().map(|other| self.socket(other));
        others.any(|other| {
            let same_port = other.local.is_some_and(|it| it.port() == address.port());
            same_port && wanted.overlaps(other) && !(wanted.reuse_port && other.reuse_port)
        })
    }

    /// Of the listeners that share an address, the one that a peer is given to: always the same one
    /// as long as they are the same.
    pub(crate) fn share_out(&self, on: SocketIx, peer: SocketAddr) -> SocketIx {
        if !self.socket(on).reuse_port {
            return on;
        }
        let local = self.socket(on).local;
        let sharing = |ix: &SocketIx| {
            let socket = self.socket(*ix);
            socket.reuse_port && socket.local == local
        };
        let count = self.listeners().filter(sharing).count() as u64;
        let chosen = (peer_hash(peer) % count.max(1)) as usize;
        self.listeners().filter(sharing).nth(chosen).unwrap_or(on)
    }

    /// Makes a fresh socket a listener and tells the node. Listening again changes nothing. False:
    /// it needs a port, and there is no free one.
    #[must_use]
    pub fn listen(&mut self, ix: SocketIx, world: &mut impl World) -> bool {
        let socket = self.socket(ix);
        if socket.state == State::Listening {
            return true;
        }
        assert_eq!(socket.state, State::Fresh);
        let any = if socket.v6 {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        } else {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        };
        if socket.local.is_none() && !self.bind(ix, SocketAddr::new(any, 0)) {
            return false;
        }
        self.listeners_made += 1;
        let listener = self.listeners_made;
        let socket = self.socket_mut(ix);
        let Some(address) = socket.local else {
            unreachable!("it is bound by now")
        };
        socket.state = State::Listening;
        socket.listener = listener;
        self.append_listener(ix);
        let chosen = self.ports.is_given(address.port());
        world.emit(&Record::Listen {
            listener,
            address,
            transport: Transport::Stream,
            chosen,
        });
        true
    }

    /// All listeners, the oldest first.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = SocketIx> + '_ {
        let first = (self.first_listener != 0).then_some(self.first_listener);
        core::iter::successors(first, |ix| {
            let next = self.socket(*ix).next_listener;
            (next != 0).then_some(next)
        })
    }

    fn append_listener(&mut self, ix: SocketIx) {
        match self.listeners().last() {
            Some(last) => self.socket_mut(last).next_listener = ix,
            None => self.first_listener = ix,
        }
    }

    fn remove_listener(&mut self, ix: SocketIx) {
        let next = core::mem::take(&mut self.socket_mut(ix).next_listener);
        let before = self
            .listeners()
            .find(|at| self.socket(*at).next_listener == ix);
        match before {
            Some(before) => self.socket_mut(before).next_listener = next,
            None => self.first_listener = next,
        }
    }

    /// The address of the oldest listener on just this address of a machine.
    #[must_use]
    pub fn listener_on(&self, address: IpAddr) -> Option<SocketAddr> {
        let mut locals = self.listeners().filter_map(|ix| self.socket(ix).local);
        locals.find(|local| local.ip() == address)
    }

    pub(crate) fn find_listener(&self, listener: u32) -> Option<SocketIx> {
        self.listeners()
            .find(|ix| self.socket(*ix).listener == listener)
    }

    /// Puts a connection at the end of a listener's queue and wakes who accepts.
    pub(crate) fn queue_connection(&mut self, on: SocketIx, ix: SocketIx, world: &mut impl World) {
        match self.socket(on).queue_tail {
            0 => self.socket_mut(on).queue_head = ix,
            tail => self.socket_mut(tail).queue_next = ix,
        }
        self.socket_mut(on).queue_tail = ix;
        world.wake(WaitOn::Readable(on), 1);
        self.notify_polls(on, world);
        self.notify_items(on, ready::IN, world);
    }

    /// The connection that has waited longest, without taking it.
    #[must_use]
    pub fn acceptable(&self, on: SocketIx) -> Option<SocketIx> {
        let ix = self.socket(on).queue_head;
        (ix != 0).then_some(ix)
    }

    /// Takes the connection that has waited longest. It has no reference yet.
    pub fn accept(&mut self, on: SocketIx) -> Option<SocketIx> {
        let ix = self.acceptable(on)?;
        let next = core::mem::take(&mut self.socket_mut(ix).queue_next);
        let listener = self.socket_mut(on);
        listener.queue_head = next;
        if next == 0 {
            listener.queue_tail = 0;
        }
        Some(ix)
    }

    /// `shutdown` of a listener: it is a bound socket again, and whoever waits for a connection is
    /// told.
    pub(crate) fn stop_listening(&mut self, ix: SocketIx, world: &mut impl World) {
        self.close_listener(ix, world);
        self.socket_mut(ix).state = State::Fresh;
        self.notify(ix, ready::IN | ready::HUP, world);
    }

    pub(crate) fn close_listener(&mut self, ix: SocketIx, world: &mut impl World) {
        self.remove_listener(ix);
        while let Some(waiting) = self.accept(ix) {
            self.socket_mut(waiting).linger_reset = true;
            self.close_connection(waiting, world);
            self.free_socket(waiting);
        }
        world.emit(&Record::Unlisten {
            listener: self.socket(ix).listener,
        });
    }
}
