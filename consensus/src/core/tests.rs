//! Small scenarios on a perfect network; the simulator does the rest.

use super::types::Send;
use super::*;
use std::collections::{BTreeMap, VecDeque};

/// Cores whose messages arrive at once, except at those that hear nothing, and whose journals flush
/// when told to.
struct Net {
    cores: BTreeMap<NodeId, Core>,
    deaf: Vec<NodeId>,
    mail: VecDeque<(NodeId, Send)>,
    unflushed: BTreeMap<NodeId, IoSeq>,
    fetches: Vec<(NodeId, Fetch)>,
    now: Micros,
}

impl Net {
    fn new(size: u64, change: impl Fn(&mut Config)) -> Self {
        let members: Vec<_> = (1..=size).collect();
        let core = |id: &NodeId| {
            let mut config = Config::new(*id, &members);
            change(&mut config);
            (*id, Core::new(config, DurableState::default(), 0))
        };
        let cores = members.iter().map(core).collect();
        let (deaf, mail, unflushed) = (Vec::new(), VecDeque::new(), BTreeMap::new());
        let mut net = Self {
            cores,
            deaf,
            mail,
            unflushed,
            fetches: Vec::new(),
            now: 0,
        };
        for id in &members {
            for peer in members.iter().filter(|peer| *peer != id) {
                net.step(*id, Input::PeerUp(*peer));
            }
        }
        net
    }

    fn step(&mut self, id: NodeId, input: Input) -> Effects {
        let mut out = Effects::default();
        self.cores
            .get_mut(&id)
            .unwrap()
            .step(self.now, input, &mut out);
        if let Some((seq, _)) = out.journal.last() {
            self.unflushed.insert(id, *seq);
        }
        self.fetches
            .extend(out.fetches.iter().map(|fetch| (id, *fetch)));
        self.mail
            .extend(out.sends.iter().map(|send| (id, send.clone())));
        out
    }

    fn flush(&mut self, id: NodeId) {
        if let Some(seq) = self.unflushed.remove(&id) {
            self.step(id, Input::Flushed(seq));
            self.step(id, Input::Tick);
        }
    }

    /// Delivers what is under way, without flushing anything.
    fn deliver(&mut self) {
        while let Some((from, Send { to, msg, .. })) = self.mail.pop_front() {
            if !self.deaf.contains(&to) && self.cores.contains_key(&to) {
                self.step(to, Input::Recv { from, msg });
            }
        }
    }

    fn settle(&mut self) {
        while !self.mail.is_empty() || !self.unflushed.is_empty() {
            for id in self.cores.keys().copied().collect::<Vec<_>>() {
                self.flush(id);
            }
            self.deliver();
        }
    }

    fn run(&mut self, duration: Micros) {
        let end = self.now + duration;
        while self.now < end {
            self.now += 1000;
            for id in self.cores.keys().copied().collect::<Vec<_>>() {
                self.step(id, Input::Tick);
            }
            self.settle();
        }
    }

    fn leader(&self) -> Option<NodeId> {
        self.cores
            .iter()
            .find(|(_, core)| core.is_ready())
            .map(|(id, _)| *id)
    }

    fn elect(&mut self) -> NodeId {
        self.run(1_000_000);
        self.leader().unwrap()
    }
}

#[test]
fn a_value_is_chosen_when_a_quorum_has_flushed_it() {
    let mut net = Net::new(3, |_| {});
    let leader = net.elect();
    let out = net.step(leader, Input::Propose(Value::from_static(b"x")));
    let accepts = |send: &&Send| matches!(send.msg, Msg::Accept { slot: 1, .. });
    assert_eq!(
        out.sends.iter().filter(accepts).count(),
        2,
        "sent while the leader writes"
    );
    assert!(out.sends.iter().all(|send| send.after == IoSeq(0)));
    assert!(matches!(
        out.journal[..],
        [(_, JournalOp::Accept { slot: 1, .. })]
    ));
    net.deliver();
    assert_eq!(net.cores[&leader].commit(), 0, "nobody has flushed");
    let follower = leader % 3 + 1;
    net.flush(follower);
    net.deliver();
    assert_eq!(net.cores[&leader].commit(), 0, "only one has flushed");
    net.flush(leader);
    assert_eq!(net.cores[&leader].commit(), 1);
    net.settle();
    assert!(net.cores.values().all(|core| core.commit() == 1));
    assert_eq!(net.cores[&follower].chosen(1).unwrap(), &b"x"[..]);
}

#[test]
fn followers_alone_can_choose() {
    let mut net = Net::new(3, |_| {});
    let leader = net.elect();
    net.step(leader, Input::Propose(Value::from_static(b"x")));
    net.deliver();
    for follower in (1..=3).filter(|id| *id != leader) {
        net.flush(follower);
    }
    net.deliver();
    assert_eq!(
        net.cores[&leader].commit(),
        1,
        "the leader's own disk is the slow one"
    );
}

#[test]
fn a_node_that_heard_nothing_for_a_while_unseats_no_one() {
    let mut net = Net::new(3, |_| {});
    let leader = net.elect();
    let ballot = net.cores[&leader].leadership().ballot;
    for _ in 0..5 {
        net.deaf = vec![leader % 3 + 1];
        net.run(2_000_000);
        net.deaf.clear();
        net.run(100_000);
        for core in net.cores.values() {
            assert_eq!(
                (core.leadership().ballot, core.leadership().leader),
                (ballot, Some(leader))
            );
        }
    }
}

#[test]
fn a_dead_process_is_replaced_within_milliseconds() {
    for seed in 0..50 {
        let mut net = Net::new(5, |config| config.seed = config.id + 100 * seed);
        let leader = net.elect();
        net.cores.remove(&leader);
        for id in net.cores.keys().copied().collect::<Vec<_>>() {
            net.step(id, Input::PeerDown(leader));
        }
        net.run(60_000);
        assert!(net.leader().is_some(), "seed {seed}");
    }
}

#[test]
fn one_that_abstains_hands_over_at_once_and_still_votes() {
    let mut net = Net::new(3, |_| {});
    let first = net.elect();
    net.step(first, Input::Abstain(true));
    net.run(50_000);
    let second = net.leader().unwrap();
    assert_ne!(second, first);
    // The third is gone: nobody but the abstaining one can make the quorum, and it may not lead.
    let third = (1..=3).find(|id| *id != first && *id != second).unwrap();
    net.cores.remove(&third);
    net.step(second, Input::Propose(Value::from_static(b"vote")));
    net.run(5_000_000);
    assert_eq!(net.leader(), Some(second));
    assert_eq!(net.cores[&first].commit(), net.cores[&second].commit());
    assert_eq!(
        &net.cores[&first]
            .chosen(net.cores[&first].commit())
            .unwrap()[..],
        b"vote"
    );
    net.cores.remove(&second);
    net.step(first, Input::PeerDown(second));
    net.run(5_000_000);
    assert_eq!(net.cores[&first].leadership().leader, None);
    net.step(first, Input::Abstain(false));
    net.run(1_000_000);
    assert!(!net.cores[&first].is_ready(), "alone it has no quorum");
}

#[test]
fn the_window_closes_by_slots_and_by_bytes() {
    for (slots, bytes, room) in [(4, 1 << 20, 4), (100, 25, 3)] {
        let mut net = Net::new(1, |config| {
            config.window_slots = slots;
            config.window_bytes = bytes;
        });
        net.run(10_000);
        for round in 1..=3 {
            let mut count = 0;
            while net.cores[&1].window_open() {
                net.step(1, Input::Propose(Value::from_static(b"ten bytes!")));
                count += 1;
            }
            assert_eq!((count, net.cores[&1].inflight()), (room, room));
            net.settle();
            assert_eq!(net.cores[&1].commit(), (round * room) as Slot);
        }
    }
}

#[test]
fn a_follower_does_not_propose() {
    let mut net = Net::new(3, |_| {});
    let follower = net.elect() % 3 + 1;
    let mut out = Effects::default();
    let core = net.cores.get_mut(&follower).unwrap();
    assert_eq!(core.propose(net.now, Value::new(), &mut out), Err(NotReady));
    assert!(out.is_empty());
}

fn propose(net: &mut Net, leader: NodeId, text: &'static [u8]) {
    net.step(leader, Input::Propose(Value::from_static(text)));
    net.settle();
}

impl Net {
    /// A node comes back with an empty disk.
    fn wipe(&mut self, id: NodeId) {
        self.cores.remove(&id);
        self.unflushed.remove(&id);
        self.mail
            .retain(|(from, send)| *from != id && send.to != id);
        let mut config = Config::new(id, &(1..=3).collect::<Vec<_>>());
        config.seed = 1000 + self.now;
        let core = Core::new(config, DurableState::default(), self.now);
        let others: Vec<_> = self.cores.keys().copied().collect();
        for other in &others {
            self.step(*other, Input::PeerDown(id));
        }
        self.cores.insert(id, core);
        for other in others {
            self.step(other, Input::PeerUp(id));
            self.step(id, Input::PeerUp(other));
        }
    }

    fn recovery(&self, id: NodeId) -> Recovery {
        self.cores[&id].recovery()
    }
}

#[test]
fn a_member_that_lost_its_disk_elects_nobody() {
    let mut net = Net::new(3, |_| {});
    let leader = net.elect();
    propose(&mut net, leader, b"x");
    let (wiped, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    net.wipe(wiped);
    net.cores.remove(&leader);
    net.step(other, Input::PeerDown(leader));
    net.run(5_000_000);
    assert_eq!(net.recovery(wiped), Recovery::Lost, "one has not answered");
    assert_eq!(net.leader(), None, "its vote does not count");
}

#[test]
fn a_member_that_lost_its_disk_votes_again_when_it_has_caught_up() {
    let mut net = Net::new(3, |_| {});
    let leader = net.elect();
    for _ in 0..10 {
        propose(&mut net, leader, b"x");
    }
    let (wiped, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    net.wipe(wiped);
    net.run(200_000);
    assert!(net.recovery(wiped).votes());
    assert_eq!(net.cores[&wiped].commit(), 10);
    net.cores.remove(&other);
    propose(&mut net, leader, b"y");
    assert_eq!(net.cores[&leader].commit(), 11, "its vote counts");
    net.cores.remove(&leader);
    net.run(5_000_000);
    // Its next ballots are far above all that it may have used before.
    assert!(net.recovery(wiped).floor() > 1 << 31);
}

#[test]
fn a_slot_beyond_the_log_is_filled_for_who_waits_for_it() {
    let mut net = Net::new(3, |_| {});
    let leader = net.elect();
    propose(&mut net, leader, b"x");
    // Others had voted up to slot 4 for somebody whom nobody has elected since.
    let recovered = DurableState {
        recovery: Some(Recovery::CatchingUp { upto: 4, floor: 9 }),
        ..DurableState::default()
    };
    let waiting = leader % 3 + 1;
    net.wipe(waiting);
    let config = Config::new(waiting, &[1, 2, 3]);
    net.unflushed.remove(&waiting);
    let core = Core::new(config, recovered, net.now);
    net.cores.insert(waiting, core);
    net.run(500_000);
    assert_eq!(net.recovery(waiting), Recovery::Voter { floor: 9 });
    assert_eq!(net.cores[&waiting].commit(), 4);
}

#[test]
fn nobody_votes_when_so_many_have_lost_their_disks_that_votes_may_be_gone() {
    let mut net = Net::new(3, |_| {});
    let leader = net.elect();
    propose(&mut net, leader, b"x");
    for id in (1..=3).filter(|id| *id != leader) {
        net.wipe(id);
    }
    net.run(5_000_000);
    for id in (1..=3).filter(|id| *id != leader) {
        assert_eq!(net.recovery(id), Recovery::Lost);
        assert_eq!(net.cores[&id].answers().count(), 2);
    }
}

#[test]
fn a_new_cluster_needs_all_members_or_to_be_told_that_it_is_new() {
    let members: Vec<_> = (1..=3).collect();
    let alone = |new_cluster| {
        let mut config = Config::new(1, &members);
        config.new_cluster = new_cluster;
        Core::new(config, DurableState::default(), 0).recovery()
    };
    assert_eq!(alone(false), Recovery::Lost);
    assert_eq!(alone(true), Recovery::Voter { floor: 0 });
    let mut config = Config::new(1, &members);
    config.new_cluster = true;
    let recovery = Some(Recovery::Lost);
    let lost = DurableState {
        recovery,
        ..DurableState::default()
    };
    let core = Core::new(config, lost, 0);
    assert_eq!(core.recovery(), Recovery::Lost, "what is noted counts");
}

/// A learner that is linked with all members.
fn with_learner(members: u64) -> (Net, NodeId) {
    let mut net = Net::new(members, |config| config.new_cluster = true);
    let learner = LEARNERS_FROM + 7;
    let members: Vec<_> = (1..=members).collect();
    let core = Core::new(Config::new(learner, &members), DurableState::default(), 0);
    net.cores.insert(learner, core);
    for member in members {
        net.step(member, Input::PeerUp(learner));
        net.step(learner, Input::PeerUp(member));
    }
    (net, learner)
}

#[test]
fn a_learner_gets_the_whole_log_and_is_seen_to() {
    let mut net = Net::new(3, |config| {
        config.new_cluster = true;
        config.retain_slots = 2;
    });
    let leader = net.elect();
    for number in 0..40u8 {
        net.step(leader, Input::Propose(Value::from(vec![number])));
    }
    net.settle();
    let learner = LEARNERS_FROM;
    let core = Core::new(Config::new(learner, &[1, 2, 3]), DurableState::default(), 0);
    net.cores.insert(learner, core);
    net.step(leader, Input::PeerUp(learner));
    net.step(learner, Input::PeerUp(leader));
    net.run(200_000);
    // What has left the leader's memory is asked of its log.
    let (at, fetch) = net.fetches.pop().unwrap();
    let Fetch { to, from, upto, .. } = fetch;
    assert_eq!((at, to, from), (leader, learner, 1));
    let values = (from..=upto).map(|slot| Value::from(vec![slot as u8 - 1]));
    let values = values.collect();
    net.step(leader, Input::Fetched { to, from, values });
    net.settle();
    net.run(100_000);
    assert_eq!(net.cores[&learner].chosen(40).unwrap(), &[39][..]);
    assert_eq!(net.cores[&learner].recovery(), Recovery::Learner);
    let seen: Vec<_> = net.cores[&leader].learners().collect();
    assert_eq!(seen, [(learner, 40)]);
}

#[test]
fn a_learner_makes_no_quorum_and_never_leads() {
    let (mut net, learner) = with_learner(3);
    let leader = net.elect();
    assert_ne!(leader, learner);
    let others: Vec<_> = (1..=3).filter(|id| *id != leader).collect();
    net.deaf.clone_from(&others);
    net.step(leader, Input::Propose(Value::from_static(b"x")));
    net.settle();
    assert_eq!(net.cores[&learner].last_slot(), 1, "it has the value");
    assert_eq!(net.cores[&leader].commit(), 0);
    net.run(2_000_000);
    assert_eq!(net.cores[&leader].commit(), 0);
    assert_eq!(net.leader(), None, "who hears a learner alone gives up");
    net.deaf.clear();
    net.cores.remove(&leader);
    net.run(2_000_000);
    assert!(others.contains(&net.leader().unwrap()));
}

#[test]
fn learners_that_are_gone_make_room_for_others() {
    let mut net = Net::new(1, |_| {});
    let ids: Vec<_> = (0..=LEARNERS_MAX as u64)
        .map(|n| LEARNERS_FROM + n)
        .collect();
    let count = |net: &Net| net.cores[&1].learners().count();
    for learner in &ids {
        net.step(1, Input::PeerUp(*learner));
    }
    assert_eq!(count(&net), LEARNERS_MAX, "there is an end");
    net.step(1, Input::PeerDown(ids[0]));
    assert_eq!(count(&net), LEARNERS_MAX - 1);
    net.step(1, Input::PeerUp(ids[LEARNERS_MAX]));
    assert_eq!(count(&net), LEARNERS_MAX);
    net.step(1, Input::PeerUp(77));
    assert_eq!(count(&net), LEARNERS_MAX, "not an id of a learner");
}
