//! Tests of agreement: three replicas, some of which do something else from a slot on.

use super::*;

/// Three replicas that all apply slots 1 to `slots`, of which some do something else from a slot
/// on.
struct Room {
    histories: BTreeMap<NodeId, History>,
    agreements: BTreeMap<NodeId, Agreement>,
}

fn hashes(slot: u64, kind: u64) -> SlotHashes {
    SlotHashes {
        slot,
        output_hash: slot * 10 + kind,
        schedule_hash: slot,
    }
}

impl Room {
    /// `wrong`: who differs, from which slot on, and in which way.
    fn new(slots: u64, wrong: &[(NodeId, u64, u64)]) -> Self {
        Self::with_slots(&(1..=slots), wrong)
    }

    fn with_slots(
        slots: &(impl IntoIterator<Item = u64> + Clone),
        wrong: &[(NodeId, u64, u64)],
    ) -> Self {
        let mut room = Self {
            histories: BTreeMap::new(),
            agreements: BTreeMap::new(),
        };
        for id in 1..=3 {
            room.histories.insert(id, History::default());
            let agreement = Agreement::new((1..=3).filter(|peer| *peer != id));
            room.agreements.insert(id, agreement);
            for slot in slots.clone() {
                let kind = wrong
                    .iter()
                    .find(|(who, from, _)| *who == id && slot >= *from);
                room.apply(id, hashes(slot, kind.map_or(0, |(_, _, kind)| *kind)));
            }
        }
        room
    }

    fn apply(&mut self, id: NodeId, hashes: SlotHashes) {
        let history = self.histories.get_mut(&id).unwrap();
        history.put(hashes);
        let agreement = self.agreements.get_mut(&id).unwrap();
        agreement.progressed(hashes.slot, history);
    }

    fn link(&mut self, ids: &[NodeId]) {
        for one in ids {
            for other in ids.iter().filter(|other| *other != one) {
                self.agreements.get_mut(one).unwrap().peer_up(*other);
                let last = self.agreements[other].applied;
                let said = self.histories[other].at(last);
                self.report(*other, *one, said.unwrap());
            }
        }
    }

    fn report(&mut self, from: NodeId, to: NodeId, hashes: SlotHashes) {
        let agreement = self.agreements.get_mut(&to).unwrap();
        agreement.report(from, hashes, &self.histories[&to]);
    }

    /// Asks and answers until nobody has a question, and counts the votes.
    fn settle(&mut self, id: NodeId) -> (Option<(Dispute, Verdict)>, u32) {
        let agreement = self.agreements.get_mut(&id).unwrap();
        let history = &self.histories[&id];
        let mut asked = 0;
        loop {
            agreement.find_dispute(history);
            let decided = agreement.decide();
            if decided.is_some() {
                return (decided, asked);
            }
            let Some(Question { to, low, high }) = agreement.next_question(history) else {
                return (None, asked);
            };
            asked += 1;
            let told = Agreement::answer(low, high, &self.histories[&to]);
            agreement.samples(to, (low, high), &told, history);
        }
    }
}

#[test]
fn replicas_that_are_equal_say_so() {
    let mut room = Room::new(50, &[]);
    room.link(&[1, 2, 3]);
    let agreement = &room.agreements[&1];
    assert_eq!(agreement.agreed_upto(), 50);
    assert!(!agreement.in_doubt());
    assert_eq!(room.settle(1), (None, 0));
    assert_eq!(Agreement::new([]).agreed_upto(), u64::MAX);
    assert_eq!(Agreement::new([2]).agreed_upto(), 0);
}

#[test]
fn a_learner_is_judged_by_a_majority_of_the_members_alone() {
    // Node 4 is no member. It stands alone against three, or with one of two who differ.
    for wrong in [vec![(4, 2, 1)], vec![(3, 2, 1), (4, 2, 1)]] {
        let (verdict, _) = learner_room(&wrong).settle(4);
        assert_eq!(verdict.unwrap().1, Verdict::SelfFaulty, "{wrong:?}");
    }
    let mut right = learner_room(&[(3, 2, 1)]);
    let (verdict, _) = right.settle(4);
    assert_eq!(verdict.unwrap().1, Verdict::OthersFaulty(vec![3]));
    assert_eq!(right.agreements[&4].agreed_upto(), 3);
    // One member is as good as the learner's own word: not good enough.
    let mut agreement = Agreement::of_learner(1..=3);
    assert_eq!(agreement.agreed_upto(), 0);
    let mut history = History::default();
    history.put(hashes(1, 0));
    agreement.progressed(1, &history);
    agreement.report(1, hashes(1, 0), &history);
    assert_eq!(agreement.agreed_upto(), 0);
    agreement.report(2, hashes(1, 0), &history);
    assert_eq!(agreement.agreed_upto(), 1);
}

/// Three members and a learner, number 4, all linked.
fn learner_room(wrong: &[(NodeId, u64, u64)]) -> Room {
    let mut room = Room::new(3, wrong);
    room.histories.insert(4, History::default());
    room.agreements.insert(4, Agreement::of_learner(1..=3));
    let kind = wrong.iter().find(|(who, ..)| *who == 4);
    for slot in 1..=3 {
        let kind = kind.filter(|(_, from, _)| slot >= *from);
        room.apply(4, hashes(slot, kind.map_or(0, |(_, _, kind)| *kind)));
    }
    room.link(&[1, 2, 3, 4]);
    room
}

#[test]
fn the_first_slot_is_found_and_the_minority_named() {
    let mut room = Room::new(40_000, &[(2, 7_777, 1)]);
    room.link(&[1, 2, 3]);
    assert!(room.agreements[&1].in_doubt());
    let (found, asked) = room.settle(1);
    let (dispute, verdict) = found.unwrap();
    assert_eq!(
        (dispute.slot, dispute.exact, dispute.with),
        (7_777, true, 2)
    );
    assert_eq!(dispute.theirs, hashes(7_777, 1));
    assert_eq!(verdict, Verdict::OthersFaulty(vec![2]));
    assert!(asked <= 5, "{asked} questions");
    assert!(!room.agreements[&1].in_doubt());
    let (found, _) = room.settle(2);
    let (dispute, verdict) = found.unwrap();
    assert_eq!((dispute.slot, verdict), (7_777, Verdict::SelfFaulty));
    assert!(room.agreements[&2].in_doubt());
    assert_eq!(room.agreements[&2].agreed_upto(), 7_776);
}

#[test]
fn slots_without_entries_do_not_confuse_the_search() {
    let mut room = Room::with_slots(&[3, 4, 9, 20, 21, 300], &[(3, 20, 1)]);
    room.link(&[1, 2, 3]);
    let (dispute, verdict) = room.settle(1).0.unwrap();
    assert_eq!((dispute.slot, dispute.exact), (20, true));
    assert_eq!(verdict, Verdict::OthersFaulty(vec![3]));
}

#[test]
fn two_alone_do_not_know_who_is_right_until_the_third_comes() {
    let mut room = Room::new(20, &[(2, 5, 1)]);
    room.link(&[1, 2]);
    for id in [1, 2] {
        assert_eq!(room.settle(id).0, None);
        let agreement = &room.agreements[&id];
        assert!(agreement.in_doubt());
        assert_eq!(agreement.dispute().unwrap().slot, 5);
        assert!(agreement.agreed_upto() < 5);
    }
    room.link(&[1, 2, 3]);
    assert_eq!(room.settle(1).0.unwrap().1, Verdict::OthersFaulty(vec![2]));
    assert_eq!(room.settle(2).0.unwrap().1, Verdict::SelfFaulty);
    assert_eq!(room.settle(3).0.unwrap().1, Verdict::OthersFaulty(vec![2]));
}

#[test]
fn three_opinions_make_no_majority() {
    let mut room = Room::new(20, &[(2, 5, 1), (3, 5, 2)]);
    room.link(&[1, 2, 3]);
    for id in 1..=3 {
        assert_eq!(room.settle(id).0, None);
        assert!(room.agreements[&id].in_doubt());
    }
}

#[test]
fn one_after_the_other_may_be_wrong() {
    let mut room = Room::new(20, &[(2, 5, 1), (3, 9, 2)]);
    room.link(&[1, 2, 3]);
    let (dispute, verdict) = room.settle(1).0.unwrap();
    assert_eq!((dispute.slot, verdict), (5, Verdict::OthersFaulty(vec![2])));
    let (found, _) = room.settle(1);
    assert_eq!(found, None, "at 9 there are three opinions");
    assert_eq!(room.agreements[&1].dispute().unwrap().slot, 9);
    assert_eq!(room.settle(2).0.unwrap().1, Verdict::SelfFaulty);
}

#[test]
fn who_starts_again_and_agrees_is_forgiven() {
    let mut room = Room::new(20, &[(2, 5, 1)]);
    room.link(&[1, 2, 3]);
    room.settle(1).0.unwrap();
    room.settle(2).0.unwrap();
    room.histories.insert(2, History::default());
    room.agreements.get_mut(&2).unwrap().restart();
    for slot in 1..=20 {
        room.apply(2, hashes(slot, 0));
        room.report(2, 1, hashes(slot, 0));
    }
    assert_eq!(
        room.agreements[&2].agreed_upto(),
        20,
        "the peers' last word is kept"
    );
    assert!(!room.agreements[&2].in_doubt());
    room.apply(2, hashes(21, 1));
    room.apply(1, hashes(21, 0));
    room.report(2, 1, hashes(21, 1));
    assert!(room.agreements[&1].in_doubt(), "it is listened to again");
}

#[test]
fn a_server_far_behind_keeps_some_of_what_it_is_told() {
    let mut room = Room::new(1, &[]);
    room.link(&[1, 2, 3]);
    for slot in 2..10_000 {
        room.report(2, 1, hashes(slot, 0));
    }
    for slot in 2..10_000 {
        room.apply(1, hashes(slot, 0));
    }
    assert_eq!(room.agreements[&1].agreed_upto(), 9_999);
}

#[test]
fn what_is_forgotten_is_said_to_be_inexact() {
    let mut room = Room::new(20, &[(2, 5, 1)]);
    let mut short = History::default();
    for slot in 15..=20 {
        short.put(hashes(slot, 1));
    }
    room.histories.insert(2, short);
    room.link(&[1, 2, 3]);
    let (dispute, verdict) = room.settle(1).0.unwrap();
    assert_eq!((dispute.slot, dispute.exact), (15, false));
    assert_eq!(verdict, Verdict::OthersFaulty(vec![2]));
}
