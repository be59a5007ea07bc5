//! Connection id to socket: open addressing with linear probing and no tombstones.

use crate::{Net, SOCKETS_MAX, SocketIx, State};
use brolga_tape::ConnId;

/// Twice the sockets, so that probes stay short.
const SLOTS: usize = 2 * SOCKETS_MAX;

/// The table. 0 is an empty slot.
#[repr(C)]
pub(crate) struct Table {
    slots: [SocketIx; SLOTS],
}

fn home(conn: ConnId) -> usize {
    let mixed = (conn.counter ^ conn.frontend.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 40) as usize % SLOTS
}

impl Net {
    /// The socket of a connection that the server has not closed.
    pub(crate) fn find(&self, conn: ConnId) -> Option<SocketIx> {
        let mut at = home(conn);
        loop {
            match self.connections.slots[at] {
                0 => return None,
                ix if self.socket(ix).conn == conn => return Some(ix),
                _ => at = (at + 1) % SLOTS,
            }
        }
    }

    /// The socket of a connection that is open, not only being opened.
    pub(crate) fn find_open(&self, conn: ConnId) -> Option<SocketIx> {
        let found = self.find(conn);
        found.filter(|ix| self.socket(*ix).state == State::Connected)
    }

    pub(crate) fn index_connection(&mut self, ix: SocketIx) {
        let mut at = home(self.socket(ix).conn);
        while self.connections.slots[at] != 0 {
            at = (at + 1) % SLOTS;
        }
        self.connections.slots[at] = ix;
    }

    /// Removes a connection and closes the gap, so that later probes still end at the first empty
    /// slot.
    pub(crate) fn unindex_connection(&mut self, ix: SocketIx) {
        let mut at = home(self.socket(ix).conn);
        while self.connections.slots[at] != ix {
            assert_ne!(
                self.connections.slots[at], 0,
                "a connection is indexed until it closes"
            );
            at = (at + 1) % SLOTS;
        }
        let mut probe = at;
        loop {
            probe = (probe + 1) % SLOTS;
            let moving = self.connections.slots[probe];
            if moving == 0 {
                break;
            }
            let wanted = home(self.socket(moving).conn);
            let reachable = (probe + SLOTS - wanted) % SLOTS >= (probe + SLOTS - at) % SLOTS;
            if reachable {
                self.connections.slots[at] = moving;
                at = probe;
            }
        }
        self.connections.slots[at] = 0;
    }
}
