//! The state of all connections, as far as the log tells: the node's own copy of the bookkeeping
//! that the interposer does in every server, event for event, so that a frontend knows what is
//! committed without asking anybody.

use crate::clients::id_map::{IdMap, IdSet};
use crate::clients::saved::{self, SavedConn, SavedConns, SavedFrontend};
use brolga_tape::entry::{CloseHow, Event};
use brolga_tape::{ConnId, OUTGOING, StreamStep, stream_step};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The state of an open connection, as the log knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnectionState {
    /// The frontend that has it.
    pub owner: u64,
    /// Input bytes committed.
    pub input_next: u64,
    /// The client's end of stream is committed.
    pub ended: bool,
    /// Output that the client has got, as committed.
    pub credit: u64,
}

/// A frontend, as the log knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownFrontend {
    /// The node that it belongs to; a stand-alone frontend names itself.
    pub node: u64,
    /// The last connection it opened.
    pub last_counter: u64,
    /// The number of the last datagram from it.
    pub heard: u64,
    /// Connections of it that the server has opened.
    pub outgoing: usize,
}

impl KnownFrontend {
    fn of_node(node: u64) -> Self {
        Self {
            node,
            last_counter: 0,
            heard: 0,
            outgoing: 0,
        }
    }

    /// The log knows this frontend as a stand-alone one: it is its own node.
    pub(crate) fn is_proxy(self, frontend: u64) -> bool {
        self.node == frontend
    }
}

/// The change that an event has made, for the frontend that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// No change: the event was known.
    Nothing,
    /// The frontend is known now.
    Up,
    /// The frontend's connections are all gone.
    Gone,
    /// A connection is open, or one that the server wanted to open was answered.
    Opened,
    /// Input is committed up to this byte.
    Input(u64),
    /// The client's close is committed; it was this kind.
    Ended(CloseHow),
    /// A credit is committed up to this byte.
    Credited(u64),
    /// Datagrams are committed up to this number.
    Heard(u64),
}

/// All connections and frontends that the log knows.
#[derive(Debug, Default)]
pub(crate) struct ConnectionTable {
    conns: IdMap<ConnId, ConnectionState>,
    frontends: IdMap<u64, KnownFrontend>,
    outgoing: Outgoing,
}

/// Connections that the server opens, by number. The log may answer one before a server that lags
/// or replays has asked for it.
#[derive(Debug, Default)]
struct Outgoing {
    /// The last one that the server has asked for.
    asked_upto: u64,
    /// Asked for, and neither answered nor closed by the server.
    unanswered: BTreeMap<u64, SocketAddr>,
    /// Answered, and not closed by the server.
    answered: IdSet<u64>,
}

impl Outgoing {
    /// Takes note of an answer; false when it has no effect.
    fn answer(&mut self, counter: u64) -> bool {
        let waited = self.unanswered.remove(&counter).is_some();
        let closed_before = counter <= self.asked_upto && !waited;
        !closed_before && self.answered.insert(counter)
    }
}

impl ConnectionTable {
    /// An empty table, as before slot 1.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Takes one committed event.
    pub(crate) fn apply(&mut self, event: &Event<'_>) -> Progress {
        match *event {
            Event::Data {
                conn,
                offset,
                bytes,
            } => self.data(conn, offset, bytes.len()),
            Event::Credit { conn, upto } => self.credit(conn, upto),
            Event::Open { conn, .. } => self.open(conn),
            Event::Connected {
                conn,
                owner,
                outcome,
            } => self.connected(conn, owner, outcome.is_ok()),
            Event::Close { conn, offset, how } => self.close(conn, offset, how),
            Event::Datagram {
                frontend, number, ..
            } => self.datagram(frontend, number),
            Event::FrontendUp { node, frontend } => self.frontend_up(node, frontend),
            Event::FrontendGone { frontend } => {
                self.forget_frontend(frontend);
                Progress::Gone
            }
            Event::Signal { .. } => Progress::Nothing,
        }
    }

    /// All of it, for a checkpoint.
    pub(crate) fn save(&self) -> SavedConns {
        let conn = |(conn, state): (&ConnId, &ConnectionState)| SavedConn {
            id: saved::id(*conn),
            owner: state.owner,
            input_next: state.input_next,
            ended: state.ended,
            credit: state.credit,
        };
        let frontend = |(id, known): (&u64, &KnownFrontend)| SavedFrontend {
            id: *id,
            node: known.node,
            last_counter: known.last_counter,
            heard: known.heard,
            outgoing: known.outgoing as u64,
        };
        let Outgoing {
            asked_upto,
            unanswered,
            answered,
        } = &self.outgoing;
        let mut saved = SavedConns {
            conns: self.conns.iter().map(conn).collect(),
            frontends: self.frontends.iter().map(frontend).collect(),
            asked_upto: *asked_upto,
            unanswered: unanswered.iter().map(|(at, to)| (*at, *to)).collect(),
            answered: answered.iter().copied().collect(),
        };
        saved.conns.sort_unstable_by_key(|conn| conn.id);
        saved.frontends.sort_unstable_by_key(|known| known.id);
        saved.answered.sort_unstable();
        saved
    }

    /// As it was when it was saved.
    pub(crate) fn load(saved: &SavedConns) -> Self {
        let conn = |saved: &SavedConn| {
            let state = ConnectionState {
                owner: saved.owner,
                input_next: saved.input_next,
                ended: saved.ended,
                credit: saved.credit,
            };
            (saved::conn_of(saved.id), state)
        };
        let frontend = |saved: &SavedFrontend| {
            let known = KnownFrontend {
                node: saved.node,
                last_counter: saved.last_counter,
                heard: saved.heard,
                outgoing: usize::try_from(saved.outgoing).unwrap_or(usize::MAX),
            };
            (saved.id, known)
        };
        Self {
            conns: saved.conns.iter().map(conn).collect(),
            frontends: saved.frontends.iter().map(frontend).collect(),
            outgoing: Outgoing {
                asked_upto: saved.asked_upto,
                unanswered: saved.unanswered.iter().copied().collect(),
                answered: saved.answered.iter().copied().collect(),
            },
        }
    }

    /// The server goes on from where it had asked for what `saved` says.
    pub(crate) fn server_goes_back(&mut self, saved: &SavedConns) {
        self.outgoing.asked_upto = saved.asked_upto;
        let answered = &self.outgoing.answered;
        let unanswered = saved.unanswered.iter().copied();
        self.outgoing.unanswered = unanswered
            .filter(|(counter, _)| !answered.contains(counter))
            .collect();
    }

    /// The connection, while the log holds it open.
    pub(crate) fn get(&self, conn: ConnId) -> Option<&ConnectionState> {
        self.conns.get(&conn)
    }

    /// The server has closed the connection: input for it has no effect any more.
    pub(crate) fn closed_by_server(&mut self, conn: ConnId) {
        self.remove(conn);
        if conn.is_outgoing() {
            self.outgoing.unanswered.remove(&conn.counter);
            self.outgoing.answered.remove(&conn.counter);
        }
    }

    fn remove(&mut self, conn: ConnId) {
        let Some(gone) = self.conns.remove(&conn) else {
            return;
        };
        if conn.is_outgoing()
            && let Some(owner) = self.frontends.get_mut(&gone.owner)
        {
            owner.outgoing -= 1;
        }
    }

    // ---- connections that the server opens ----

    /// The server opens a connection.
    pub(crate) fn asked_by_server(&mut self, conn: ConnId, address: SocketAddr) {
        let outgoing = &mut self.outgoing;
        outgoing.asked_upto = outgoing.asked_upto.max(conn.counter);
        if !outgoing.answered.contains(&conn.counter) {
            outgoing.unanswered.insert(conn.counter, address);
        }
    }

    /// A fresh server asks for everything again.
    pub(crate) fn server_restarts(&mut self) {
        self.outgoing.asked_upto = 0;
        self.outgoing.unanswered.clear();
    }

    /// Connections that the server has asked for and nobody has answered.
    pub(crate) fn unanswered(&self) -> impl Iterator<Item = (ConnId, SocketAddr)> + '_ {
        let conn = |counter| ConnId {
            frontend: OUTGOING,
            counter,
        };
        let unanswered = self.outgoing.unanswered.iter();
        unanswered.map(move |(counter, address)| (conn(*counter), *address))
    }

    /// Connections of `owner` that the server has opened.
    pub(crate) fn outgoing_of(&self, owner: u64) -> impl Iterator<Item = ConnId> + '_ {
        let theirs = move |(conn, state): &(&ConnId, &ConnectionState)| {
            conn.is_outgoing() && state.owner == owner
        };
        self.conns.iter().filter(theirs).map(|(conn, _)| *conn)
    }

    /// The frontend that a connection's events come from.
    pub(crate) fn owner(&self, conn: ConnId) -> u64 {
        let outgoing = self.conns.get(&conn).filter(|_| conn.is_outgoing());
        outgoing.map_or(conn.frontend, |state| state.owner)
    }

    fn connected(&mut self, conn: ConnId, owner: u64, open: bool) -> Progress {
        let Some(known) = self.frontends.get_mut(&owner) else {
            return Progress::Nothing;
        };
        if !self.outgoing.answer(conn.counter) {
            return Progress::Nothing;
        }
        if open {
            known.outgoing += 1;
            let state = ConnectionState {
                owner,
                ..ConnectionState::default()
            };
            self.conns.insert(conn, state);
        }
        Progress::Opened
    }

    // ---- frontends ----

    /// Returns a frontend, if the log knows it.
    pub(crate) fn frontend(&self, frontend: u64) -> Option<KnownFrontend> {
        self.frontends.get(&frontend).copied()
    }

    /// Frontends that the log knows, with their nodes.
    pub(crate) fn frontends(&self) -> impl Iterator<Item = (u64, KnownFrontend)> + '_ {
        self.frontends.iter().map(|(id, known)| (*id, *known))
    }

    fn data(&mut self, conn: ConnId, offset: u64, len: usize) -> Progress {
        let Some(state) = self.conns.get_mut(&conn) else {
            return Progress::Nothing;
        };
        match stream_step(state.input_next, offset, len) {
            StreamStep::Take(seen) if !state.ended => {
                state.input_next += (len - seen) as u64;
                Progress::Input(state.input_next)
            }
            _ => Progress::Nothing,
        }
    }

    fn credit(&mut self, conn: ConnId, upto: u64) -> Progress {
        match self.conns.get_mut(&conn) {
            Some(state) if upto > state.credit => {
                state.credit = upto;
                Progress::Credited(upto)
            }
            _ => Progress::Nothing,
        }
    }

    fn frontend_or_new(&mut self, frontend: u64) -> &mut KnownFrontend {
        let unknown = KnownFrontend::of_node(frontend);
        self.frontends.entry(frontend).or_insert(unknown)
    }

    fn datagram(&mut self, frontend: u64, number: u64) -> Progress {
        let known = self.frontend_or_new(frontend);
        if number <= known.heard {
            return Progress::Nothing;
        }
        known.heard = number;
        Progress::Heard(number)
    }

    fn open(&mut self, conn: ConnId) -> Progress {
        let frontend = self.frontend_or_new(conn.frontend);
        if conn.counter <= frontend.last_counter {
            return Progress::Nothing;
        }
        frontend.last_counter = conn.counter;
        let state = ConnectionState {
            owner: conn.frontend,
            ..ConnectionState::default()
        };
        self.conns.insert(conn, state);
        Progress::Opened
    }

    fn close(&mut self, conn: ConnId, offset: u64, how: CloseHow) -> Progress {
        let Some(state) = self.conns.get_mut(&conn) else {
            return Progress::Nothing;
        };
        match how {
            CloseHow::Reset => self.remove(conn),
            CloseHow::Fin if state.ended || offset != state.input_next => return Progress::Nothing,
            CloseHow::Fin => state.ended = true,
        }
        Progress::Ended(how)
    }

    fn frontend_up(&mut self, node: u64, frontend: u64) -> Progress {
        if self.frontends.contains_key(&frontend) {
            return Progress::Nothing;
        }
        let earlier = |(id, known): (&u64, &KnownFrontend)| (known.node == node).then_some(*id);
        let earlier: Vec<u64> = self.frontends.iter().filter_map(earlier).collect();
        for old in earlier {
            self.forget_frontend(old);
        }
        let known = KnownFrontend::of_node(node);
        self.frontends.insert(frontend, known);
        Progress::Up
    }

    fn forget_frontend(&mut self, frontend: u64) {
        self.frontends.remove(&frontend);
        self.conns.retain(|_, state| state.owner != frontend);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONN: ConnId = ConnId {
        frontend: 7,
        counter: 1,
    };

    fn open(conn: ConnId) -> Event<'static> {
        let address = "127.0.0.1:1".parse().unwrap();
        Event::Open {
            conn,
            listener: 1,
            peer: address,
            local: address,
        }
    }

    fn data(offset: u64, bytes: &[u8]) -> Event<'_> {
        Event::Data {
            conn: CONN,
            offset,
            bytes,
        }
    }

    fn close(offset: u64, how: CloseHow) -> Event<'static> {
        Event::Close {
            conn: CONN,
            offset,
            how,
        }
    }

    #[test]
    fn resends_change_nothing_and_gaps_are_dropped() {
        let mut conns = ConnectionTable::new();
        let up = Event::FrontendUp {
            node: 2,
            frontend: 7,
        };
        assert_eq!(conns.apply(&up), Progress::Up);
        assert_eq!(conns.apply(&open(CONN)), Progress::Opened);
        assert_eq!(conns.apply(&data(0, b"abc")), Progress::Input(3));
        assert_eq!(conns.apply(&up), Progress::Nothing);
        assert_eq!(conns.apply(&open(CONN)), Progress::Nothing);
        assert_eq!(conns.apply(&data(0, b"abc")), Progress::Nothing);
        assert_eq!(conns.apply(&data(4, b"e")), Progress::Nothing);
        assert_eq!(conns.apply(&data(1, b"bcde")), Progress::Input(5));
        assert_eq!(conns.apply(&close(3, CloseHow::Fin)), Progress::Nothing);
        assert_eq!(
            conns.apply(&close(5, CloseHow::Fin)),
            Progress::Ended(CloseHow::Fin)
        );
        assert_eq!(conns.apply(&close(5, CloseHow::Fin)), Progress::Nothing);
        assert_eq!(
            conns.apply(&close(0, CloseHow::Reset)),
            Progress::Ended(CloseHow::Reset)
        );
        assert_eq!(conns.get(CONN), None);
        assert_eq!(conns.apply(&open(CONN)), Progress::Nothing);
    }

    #[test]
    fn a_new_frontend_of_a_node_ends_the_connections_of_the_old_one() {
        let mut conns = ConnectionTable::new();
        let up = |node, frontend| Event::FrontendUp { node, frontend };
        conns.apply(&up(2, 7));
        conns.apply(&up(3, 9));
        conns.apply(&open(CONN));
        let other = ConnId {
            frontend: 9,
            counter: 4,
        };
        conns.apply(&open(other));
        assert_eq!(conns.apply(&up(2, 8)), Progress::Up);
        assert_eq!(conns.get(CONN), None);
        assert!(conns.get(other).is_some());
        assert_eq!(
            conns.apply(&Event::FrontendGone { frontend: 9 }),
            Progress::Gone
        );
        assert_eq!(conns.get(other), None);
        assert_eq!(conns.frontends().count(), 1);
    }

    #[test]
    fn datagrams_are_numbered_apart_from_connections() {
        let mut conns = ConnectionTable::new();
        let datagram = |number| Event::Datagram {
            frontend: 7,
            number,
            peer: "127.0.0.1:1".parse().unwrap(),
            local: "127.0.0.1:2".parse().unwrap(),
            bytes: b"x",
        };
        assert_eq!(conns.apply(&datagram(1)), Progress::Heard(1));
        assert_eq!(conns.apply(&datagram(4)), Progress::Heard(4));
        assert_eq!(conns.apply(&datagram(4)), Progress::Nothing);
        assert_eq!(conns.apply(&datagram(2)), Progress::Nothing);
        assert_eq!(conns.apply(&open(CONN)), Progress::Opened);
    }

    fn outgoing(counter: u64) -> ConnId {
        ConnId {
            frontend: OUTGOING,
            counter,
        }
    }

    fn connected(counter: u64, owner: u64, outcome: Result<(), u8>) -> Event<'static> {
        let local = "10.0.0.1:1".parse().unwrap();
        Event::Connected {
            conn: outgoing(counter),
            owner,
            outcome: outcome.map(|()| local),
        }
    }

    fn unanswered(conns: &ConnectionTable) -> Vec<u64> {
        conns.unanswered().map(|(conn, _)| conn.counter).collect()
    }

    /// Knows frontends 7 of node 2 and 9 of node 3.
    fn with_frontends() -> ConnectionTable {
        let mut conns = ConnectionTable::new();
        for (node, frontend) in [(2, 7), (3, 9)] {
            conns.apply(&Event::FrontendUp { node, frontend });
        }
        conns
    }

    #[test]
    fn the_first_answer_to_a_connection_of_the_server_counts() {
        let mut conns = with_frontends();
        let address = "192.0.2.1:80".parse().unwrap();
        conns.asked_by_server(outgoing(1), address);
        conns.asked_by_server(outgoing(2), address);
        assert_eq!(unanswered(&conns), [1, 2]);
        assert_eq!(conns.apply(&connected(1, 5, Ok(()))), Progress::Nothing);
        assert_eq!(conns.apply(&connected(1, 7, Ok(()))), Progress::Opened);
        assert_eq!(conns.apply(&connected(1, 9, Ok(()))), Progress::Nothing);
        assert_eq!((conns.owner(outgoing(1)), conns.owner(CONN)), (7, 7));
        assert_eq!(conns.apply(&connected(2, 9, Err(111))), Progress::Opened);
        assert!(unanswered(&conns).is_empty());
        assert_eq!(conns.frontend(7).unwrap().outgoing, 1);
        assert_eq!(conns.frontend(9).unwrap().outgoing, 0);
        assert_eq!(conns.outgoing_of(7).collect::<Vec<_>>(), [outgoing(1)]);
        conns.closed_by_server(outgoing(1));
        assert_eq!(conns.frontend(7).unwrap().outgoing, 0);
        assert_eq!(conns.apply(&connected(1, 9, Ok(()))), Progress::Nothing);
    }

    #[test]
    fn a_server_that_replays_asks_for_nothing_that_was_answered_or_closed() {
        let mut conns = with_frontends();
        let address = "192.0.2.1:80".parse().unwrap();
        for counter in 1..=4 {
            conns.asked_by_server(outgoing(counter), address);
        }
        conns.apply(&connected(1, 7, Ok(())));
        conns.apply(&connected(2, 7, Ok(())));
        for closed in [2, 3] {
            conns.closed_by_server(outgoing(closed));
        }
        assert_eq!(conns.apply(&connected(3, 7, Ok(()))), Progress::Nothing);
        conns.server_restarts();
        for counter in 1..=4 {
            conns.asked_by_server(outgoing(counter), address);
        }
        for closed in [2, 3] {
            conns.closed_by_server(outgoing(closed));
        }
        assert_eq!(unanswered(&conns), [4]);
        assert!(conns.get(outgoing(1)).is_some());
        // A server that lags behind the log.
        assert_eq!(conns.apply(&connected(5, 9, Ok(()))), Progress::Opened);
        conns.asked_by_server(outgoing(5), address);
        assert_eq!(unanswered(&conns), [4]);
    }

    #[test]
    fn connections_of_the_server_end_with_their_frontend() {
        let mut conns = with_frontends();
        for (counter, owner) in [(1, 7), (2, 9)] {
            conns.apply(&connected(counter, owner, Ok(())));
        }
        conns.apply(&Event::FrontendGone { frontend: 7 });
        assert_eq!(conns.get(outgoing(1)), None);
        let reset = Event::Close {
            conn: outgoing(2),
            offset: 0,
            how: CloseHow::Reset,
        };
        assert_eq!(conns.apply(&reset), Progress::Ended(CloseHow::Reset));
        assert_eq!(conns.frontend(9).unwrap().outgoing, 0);
    }
}
