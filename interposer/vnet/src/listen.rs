//! Listeners and their accept queues.

use crate::{Net, SocketIx, State, World};
use brolga_tape::record::Record;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

impl Net {
    /// Gives a fresh socket its address. Nothing is asked of the kernel: the node owns real ports.
    pub fn bind(&mut self, ix: SocketIx, address: SocketAddr) {
        self.socket_mut(ix).local = Some(address);
    }

    /// True when another listener has this port in the same protocol family.
    #[must_use]
    pub fn port_taken(&self, address: SocketAddr) -> bool {
        let mut listeners = self.sockets[..self.sockets_used as usize]
            .iter()
            .filter(|socket| socket.state == State::Listening)
            .filter_map(|socket| socket.local);
        listeners.any(|local| local.port() == address.port() && local.ip() == address.ip())
    }

    /// Makes a fresh socket a listener and tells the node. Listening again changes nothing.
    pub fn listen(&mut self, ix: SocketIx, world: &mut impl World) {
        if self.socket(ix).state == State::Listening {
            return;
        }
        self.listeners_made += 1;
        let listener = self.listeners_made;
        let socket = self.socket_mut(ix);
        assert_eq!(socket.state, State::Fresh);
        let any = if socket.v6 {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        } else {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        };
        let address = *socket.local.get_or_insert(SocketAddr::new(any, 0));
        socket.state = State::Listening;
        socket.listener = listener;
        world.emit(&Record::Listen { listener, address });
    }

    pub(crate) fn find_listener(&self, listener: u32) -> Option<SocketIx> {
        (1..=self.sockets_used).find(|ix| {
            let socket = self.socket(*ix);
            socket.state == State::Listening && socket.listener == listener
        })
    }

    pub(crate) fn queue_connection(&mut self, on: SocketIx, ix: SocketIx) {
        match self.socket(on).queue_tail {
            0 => self.socket_mut(on).queue_head = ix,
            tail => self.socket_mut(tail).queue_next = ix,
        }
        self.socket_mut(on).queue_tail = ix;
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

    pub(crate) fn close_listener(&mut self, ix: SocketIx, world: &mut impl World) {
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
