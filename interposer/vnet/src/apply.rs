//! Events of admitted entries.

use crate::{Net, SocketIx, State, World, errno, ready};
use brolga_tape::entry::{CloseHow, Event};
use brolga_tape::record::Record;
use brolga_tape::{ConnId, StreamStep, stream_step};
use core::net::SocketAddr;

/// Frontends known at a time: every node has one, every sidecar has one.
const FRONTENDS_MAX: usize = 4096;

#[derive(Clone, Copy)]
#[repr(C)]
struct Frontend {
    frontend: u64,
    /// The node it runs on; 0 for a sidecar.
    node: u64,
    /// Highest connection counter opened.
    opened: u64,
    /// Number of the last datagram from it.
    heard: u64,
    /// Number of the last datagram for it.
    answered: u64,
}

/// The frontends that the log has named.
#[repr(C)]
pub(crate) struct Frontends {
    len: u32,
    known: [Frontend; FRONTENDS_MAX],
}

impl Frontends {
    fn get(&mut self, frontend: u64) -> Option<&mut Frontend> {
        self.known[..self.len as usize]
            .iter_mut()
            .find(|known| known.frontend == frontend)
    }

    /// Remembers a frontend. When the table is full the oldest is forgotten: it can only be one
    /// that never said it was gone.
    fn get_or_add(&mut self, frontend: u64) -> &mut Frontend {
        let known = &self.known[..self.len as usize];
        let at = known
            .iter()
            .position(|known| known.frontend == frontend)
            .unwrap_or_else(|| {
                if self.len as usize == FRONTENDS_MAX {
                    self.known.copy_within(1.., 0);
                    self.len -= 1;
                }
                let at = self.len as usize;
                self.known[at] = Frontend {
                    frontend,
                    node: 0,
                    opened: 0,
                    heard: 0,
                    answered: 0,
                };
                self.len += 1;
                at
            });
        &mut self.known[at]
    }

    /// Numbers one more datagram for a frontend. `None`: it is not known.
    pub(crate) fn next_answer(&mut self, frontend: u64) -> Option<u64> {
        let known = self.get(frontend)?;
        known.answered += 1;
        Some(known.answered)
    }

    fn remove(&mut self, frontend: u64) {
        let known = &self.known[..self.len as usize];
        if let Some(at) = known.iter().position(|known| known.frontend == frontend) {
            self.known.copy_within(at + 1..self.len as usize, at);
            self.len -= 1;
        }
    }
}

impl Net {
    /// Takes one event of an admitted entry.
    pub fn apply(&mut self, event: &Event<'_>, world: &mut impl World) {
        match *event {
            Event::Open {
                conn,
                listener,
                peer,
                local,
            } => {
                self.apply_open(conn, listener, peer, local, world);
            }
            Event::Data {
                conn,
                offset,
                bytes,
            } => self.apply_data(conn, offset, bytes, world),
            Event::Close { conn, offset, how } => self.apply_close(conn, offset, how, world),
            Event::Credit { conn, upto } => self.apply_credit(conn, upto, world),
            Event::Datagram {
                frontend,
                number,
                peer,
                local,
                bytes,
            } => {
                let known = self.frontends.get_or_add(frontend);
                if number > known.heard {
                    known.heard = number;
                    self.apply_datagram(frontend, peer, local, bytes, world);
                }
            }
            Event::Connected {
                conn,
                owner,
                outcome,
            } => self.apply_connected(conn, owner, outcome, world),
            Event::FrontendUp { node, frontend } => self.apply_frontend_up(node, frontend, world),
            Event::FrontendGone { frontend } => self.reset_frontend(frontend, world),
            // Not the sockets' business.
            Event::Signal { .. } => {}
        }
    }

    fn apply_open(
        &mut self,
        conn: ConnId,
        listener: u32,
        peer: SocketAddr,
        local: SocketAddr,
        world: &mut impl World,
    ) {
        let known = self.frontends.get_or_add(conn.frontend);
        if conn.counter <= known.opened {
            return; // A resend.
        }
        known.opened = conn.counter;
        let made = self
            .find_listener(listener)
            .map(|on| self.share_out(on, peer))
            .and_then(|on| Some((on, self.make_socket(false)?)));
        let Some((on, ix)) = made else {
            world.emit(&Record::Closed {
                conn,
                offset: 0,
                reset: true,
            });
            return;
        };
        let v6 = self.socket(on).v6;
        let socket = self.socket_mut(ix);
        socket.state = State::Connected;
        socket.v6 = v6;
        socket.conn = conn;
        socket.peer = Some(peer);
        socket.local = Some(local);
        self.index_connection(ix);
        self.queue_connection(on, ix, world);
    }

    /// The answer to [`Net::connect`]. An owner that the log has given up can't send anything.
    fn apply_connected(
        &mut self,
        conn: ConnId,
        owner: u64,
        outcome: Result<SocketAddr, u8>,
        world: &mut impl World,
    ) {
        let known = self.frontends.get(owner).is_some();
        let found = self.find(conn).filter(|_| known);
        let waiting = found.filter(|ix| self.socket(*ix).state == State::Connecting);
        let Some(ix) = waiting else { return };
        match outcome {
            Ok(local) => {
                let socket = self.socket_mut(ix);
                socket.state = State::Connected;
                socket.owner = owner;
                socket.local = Some(local);
                self.notify(ix, ready::OUT, world);
            }
            Err(errno) => {
                // Whether it is closed or has failed, a connection that was asked for ends in one
                // record.
                self.close_connection(ix, world);
                let socket = self.socket_mut(ix);
                socket.state = State::Failed;
                socket.error = errno;
                socket.connect_unreported = false;
                let all = socket.failed_readiness();
                self.notify(ix, all, world);
            }
        }
    }

    fn apply_data(&mut self, conn: ConnId, offset: u64, bytes: &[u8], world: &mut impl World) {
        let Some(ix) = self.find_open(conn) else {
            return;
        };
        let socket = &mut self.sockets[ix as usize - 1];
        if socket.input_ended || socket.reset {
            return;
        }
        let StreamStep::Take(from) = stream_step(socket.input_next, offset, bytes.len()) else {
            return;
        };
        let bytes = &bytes[from..];
        socket.input_next += bytes.len() as u64;
        if socket.input_shut {
            return; // The server said that it will not read; the bytes count as consumed.
        }
        self.chunks.append(&mut socket.input, bytes);
        self.notify(ix, ready::IN, world);
    }

    fn apply_close(&mut self, conn: ConnId, offset: u64, how: CloseHow, world: &mut impl World) {
        let Some(ix) = self.find_open(conn) else {
            return;
        };
        let socket = self.socket_mut(ix);
        match how {
            CloseHow::Fin if offset == socket.input_next && !socket.input_ended => {
                socket.input_ended = true;
                self.notify(ix, ready::IN | ready::RDHUP, world);
            }
            CloseHow::Fin => {}
            CloseHow::Reset => self.reset(ix, world),
        }
    }

    fn apply_credit(&mut self, conn: ConnId, upto: u64, world: &mut impl World) {
        let Some(ix) = self.find_open(conn) else {
            return;
        };
        let socket = self.socket_mut(ix);
        if upto <= socket.output_credit || upto > socket.output_next {
            return;
        }
        let was_full = socket.window_room() == 0;
        socket.output_credit = upto;
        if was_full {
            self.notify(ix, ready::OUT, world);
        }
    }

    fn apply_frontend_up(&mut self, node: u64, frontend: u64, world: &mut impl World) {
        loop {
            let known = &self.frontends.known[..self.frontends.len as usize];
            let earlier = known
                .iter()
                .find(|known| known.node == node && known.frontend != frontend);
            let Some(earlier) = earlier.map(|known| known.frontend) else {
                break;
            };
            self.reset_frontend(earlier, world);
        }
        self.frontends.get_or_add(frontend).node = node;
    }

    fn reset_frontend(&mut self, frontend: u64, world: &mut impl World) {
        if self.frontends.get(frontend).is_none() {
            return;
        }
        for ix in 1..=self.sockets_used {
            let socket = self.socket(ix);
            let owned = socket.conn.frontend == frontend || socket.owner == frontend;
            if socket.state == State::Connected && owned {
                self.reset(ix, world);
            }
        }
        self.frontends.remove(frontend);
    }

    /// The other end is gone. What it has sent before can still be read, as Linux has it.
    pub(crate) fn reset(&mut self, ix: SocketIx, world: &mut impl World) {
        let socket = &mut self.sockets[ix as usize - 1];
        if socket.reset {
            return;
        }
        socket.reset = true;
        socket.error = if socket.input_ended {
            errno::PIPE
        } else {
            errno::RESET
        };
        socket.input_ended = true;
        self.notify(
            ix,
            ready::IN | ready::OUT | ready::ERR | ready::HUP | ready::RDHUP,
            world,
        );
    }
}
