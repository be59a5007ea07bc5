//! The other nodes as a transport knows them, and which of their connections it admits.

use super::error::Refusal;
use super::wire::{Hello, VERSION};
use super::{TransportConfig, TransportEvent};
use crate::backoff::Backoff;
use crate::core::{LEARNERS_FROM, LEARNERS_MAX, NodeId};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const DIAL_PAUSE_FIRST: Duration = Duration::from_millis(5);
const DIAL_PAUSE_MAX: Duration = Duration::from_millis(200);
/// Pause after a refusal, which seldom passes by itself.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// One other node.
#[derive(Debug)]
pub(super) struct Neighbor {
    pub id: NodeId,
    /// `None` for a learner, which dials itself.
    pub address: Option<SocketAddr>,
    /// The connection that is up, or the one being dialed.
    pub connection: Option<usize>,
    pub up: bool,
    /// Time of the next dial; `None` if the other side dials.
    dial_at: Option<Instant>,
    backoff: Backoff,
}

impl Neighbor {
    /// A node that dials itself.
    fn new(id: NodeId) -> Self {
        Self {
            id,
            address: None,
            connection: None,
            up: false,
            dial_at: None,
            backoff: Backoff::new(DIAL_PAUSE_FIRST, DIAL_PAUSE_MAX),
        }
    }

    /// Puts the next dial off, longer each time.
    pub fn delay(&mut self, now: Instant) {
        if self.dial_at.is_some() {
            self.dial_at = Some(now + self.backoff.fail());
        }
    }

    /// Puts the next dial off after a refusal.
    pub fn refused(&mut self, now: Instant) {
        if self.dial_at.is_some() {
            self.dial_at = Some(now + REFUSED_PAUSE);
        }
    }

    /// The time of the next dial, unless there is a connection or the other side dials.
    pub fn dial_at(&self) -> Option<Instant> {
        self.dial_at.filter(|_| self.connection.is_none())
    }

    /// Both sides have said hello on a connection.
    pub fn link_up(&mut self, connection: usize) {
        self.connection = Some(connection);
        self.up = true;
        self.backoff.reset();
    }
}

/// All other nodes: the members, and the learners that have a link.
#[derive(Debug)]
pub(super) struct Neighbors {
    cluster: u128,
    id: NodeId,
    members: Vec<NodeId>,
    all: Vec<Neighbor>,
}

impl Neighbors {
    /// The other members. The lower id dials; a learner dials all of them.
    pub fn new(config: &TransportConfig, now: Instant) -> Self {
        let members: Vec<_> = config.members.iter().map(|(id, _)| *id).collect();
        let learns = !members.contains(&config.id);
        let others = config.members.iter().filter(|(id, _)| *id != config.id);
        let all = others.map(|(id, address)| Neighbor {
            address: Some(*address),
            dial_at: (config.id < *id || learns).then_some(now),
            ..Neighbor::new(*id)
        });
        Self {
            cluster: config.cluster,
            id: config.id,
            all: all.collect(),
            members,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Neighbor> {
        self.all.iter()
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn at(&mut self, index: usize) -> &mut Neighbor {
        &mut self.all[index]
    }

    pub fn get(&mut self, id: NodeId) -> Option<&mut Neighbor> {
        self.all.iter_mut().find(|neighbor| neighbor.id == id)
    }

    /// The connection to a node, if the link is up.
    pub fn link(&self, to: NodeId) -> Option<usize> {
        let neighbor = self.all.iter().find(|neighbor| neighbor.id == to)?;
        neighbor.connection.filter(|_| neighbor.up)
    }

    /// Adds the sender of an admitted hello, if it is a learner without a link.
    pub fn add_learner(&mut self, from: NodeId) {
        if self.may_learn(from) && self.get(from).is_none() {
            self.all.push(Neighbor::new(from));
        }
    }

    /// A connection of a node was closed. A learner is forgotten with its link.
    pub fn closed(&mut self, id: NodeId, at: usize, now: Instant, out: &mut Vec<TransportEvent>) {
        let Some(neighbor) = self.get(id).filter(|it| it.connection == Some(at)) else {
            return;
        };
        neighbor.connection = None;
        if std::mem::take(&mut neighbor.up) {
            neighbor.delay(now);
            out.push(TransportEvent::Down(id));
        }
        self.all.retain(|it| it.id != id || it.address.is_some());
    }

    /// Checks that the sender is of this cluster and speaks this version.
    pub fn check_cluster(&self, hello: &Hello) -> Result<(), Refusal> {
        let from = hello.from;
        if hello.version != VERSION {
            let found = hello.version;
            return Err(Refusal::Version { from, found });
        }
        if hello.cluster != self.cluster {
            let (found, expected) = (hello.cluster, self.cluster);
            return Err(Refusal::ForeignCluster {
                from,
                found,
                expected,
            });
        }
        Ok(())
    }

    /// Checks a hello; `dialed` is the node that was dialed, on a connection from here.
    pub fn check(&self, hello: &Hello, dialed: Option<NodeId>) -> Result<(), Refusal> {
        self.check_cluster(hello)?;
        let (from, id) = (hello.from, self.id);
        if hello.to != id {
            let wanted = hello.to;
            return Err(Refusal::WrongNode { from, wanted, id });
        }
        let expected = match dialed {
            Some(dialed) => from == dialed,
            None if self.may_learn(from) => return self.check_learner(from),
            None => from < id && self.members.contains(&from),
        };
        match expected {
            true => Ok(()),
            false => Err(Refusal::Unexpected(from)),
        }
    }

    /// Returns true if the id is that of a learner.
    fn may_learn(&self, from: NodeId) -> bool {
        from >= LEARNERS_FROM && !self.members.contains(&from)
    }

    fn learners(&self) -> impl Iterator<Item = &Neighbor> {
        self.all.iter().filter(|it| it.address.is_none())
    }

    fn check_learner(&self, from: NodeId) -> Result<(), Refusal> {
        match self.learners().any(|it| it.id == from && it.up) {
            true => Err(Refusal::LearnerTwice(from)),
            false => self.check_room(),
        }
    }

    /// Checks that another learner can be served.
    pub fn check_room(&self) -> Result<(), Refusal> {
        match self.learners().count() {
            LEARNERS_MAX.. => Err(Refusal::TooManyLearners),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbors(id: NodeId, now: Instant) -> Neighbors {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let members = (1..=3).map(|id| (id, address(id as u16))).collect();
        let config = TransportConfig {
            cluster: 5,
            id,
            members,
        };
        Neighbors::new(&config, now)
    }

    fn hello(from: NodeId, to: NodeId) -> Hello {
        Hello {
            version: VERSION,
            cluster: 5,
            from,
            to,
        }
    }

    #[test]
    fn the_lower_member_dials_and_a_learner_dials_all() {
        let now = Instant::now();
        let dials = |id| {
            let neighbors = neighbors(id, now);
            let dialed = neighbors.iter().filter(|it| it.dial_at().is_some());
            dialed.map(|it| it.id).collect::<Vec<_>>()
        };
        assert_eq!(dials(2), [3]);
        assert_eq!(dials(LEARNERS_FROM), [1, 2, 3]);
    }

    #[test]
    fn a_hello_is_admitted_from_whom_it_is_expected_only() {
        let known = neighbors(2, Instant::now());
        assert_eq!(known.check(&hello(1, 2), None), Ok(()));
        assert_eq!(known.check(&hello(3, 2), Some(3)), Ok(()));
        assert_eq!(known.check(&hello(LEARNERS_FROM, 2), None), Ok(()));
        for (from, dialed) in [(3, None), (1, Some(3)), (7, None), (2, None)] {
            let refused = Err(Refusal::Unexpected(from));
            assert_eq!(known.check(&hello(from, 2), dialed), refused);
        }
        let wrong = known.check(&hello(1, 3), None).unwrap_err();
        assert_eq!(wrong.to_string(), "node 1 looks for node 3, this is node 2");
        let mut old = hello(1, 2);
        old.version = 1;
        assert!(matches!(
            known.check(&old, None),
            Err(Refusal::Version { .. })
        ));
        let mut foreign = hello(1, 2);
        foreign.cluster = 6;
        let refused = known.check(&foreign, None);
        assert!(matches!(refused, Err(Refusal::ForeignCluster { .. })));
    }

    #[test]
    fn a_learner_is_known_as_long_as_its_link_lives() {
        let now = Instant::now();
        let mut known = neighbors(1, now);
        let mut out = Vec::new();
        for number in 0..LEARNERS_MAX as u64 {
            known.check_room().unwrap();
            known.add_learner(LEARNERS_FROM + number);
            known.get(LEARNERS_FROM + number).unwrap().link_up(9);
        }
        let twice = known.check(&hello(LEARNERS_FROM, 1), None);
        assert_eq!(twice, Err(Refusal::LearnerTwice(LEARNERS_FROM)));
        assert_eq!(known.check_room(), Err(Refusal::TooManyLearners));
        known.closed(LEARNERS_FROM, 8, now, &mut out);
        assert!(out.is_empty(), "that was an older connection");
        known.closed(LEARNERS_FROM, 9, now, &mut out);
        assert!(matches!(out[..], [TransportEvent::Down(LEARNERS_FROM)]));
        assert!(known.get(LEARNERS_FROM).is_none());
        known.check_room().unwrap();
    }
}
