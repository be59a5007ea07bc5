//! Operators' signals on their way through the log.
//!
//! Each gets an entry of its own from the leader, so that whoever asked can be told the slot. What
//! is chosen in that slot decides: when it is something else, because the leader was deposed, the
//! signal was not sent and never will be.

use brolga_consensus::NodeId;
use tokio::sync::oneshot;

/// What has become of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordered {
    /// The server gets it at this slot.
    At(u64),
    /// This node does not lead; the one that does, if it is known.
    NotLeader(Option<NodeId>),
    /// It was proposed and not chosen: no server gets it.
    Lost,
}

#[derive(Debug)]
struct Wish {
    signal: u32,
    reply: oneshot::Sender<Ordered>,
    /// The slot it was proposed for.
    slot: Option<u64>,
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct OperatorSignals {
    wishes: Vec<Wish>,
}

impl OperatorSignals {
    /// Somebody wants the server to get `signal`.
    pub fn wish(&mut self, signal: u32, reply: oneshot::Sender<Ordered>) {
        let slot = None;
        self.wishes.push(Wish {
            signal,
            reply,
            slot,
        });
    }

    /// Proposes what was not proposed yet: `propose` tells the slot, or nothing when it cannot.
    pub fn propose(&mut self, mut propose: impl FnMut(u32) -> Option<u64>) {
        for wish in self.wishes.iter_mut().filter(|wish| wish.slot.is_none()) {
            wish.slot = propose(wish.signal);
            if wish.slot.is_none() {
                return;
            }
        }
    }

    /// Another node leads, or nobody does that is known.
    pub fn leader_changed(&mut self, leader: Option<NodeId>) {
        self.answer(|wish| wish.slot.is_none().then_some(Ordered::NotLeader(leader)));
    }

    /// Every slot up to `seen` was looked at; these had signals in them.
    pub fn seen(&mut self, seen: u64, signals: &[(u64, u32)]) {
        self.answer(|wish| {
            let slot = wish.slot.filter(|slot| *slot <= seen)?;
            let chosen = signals.contains(&(slot, wish.signal));
            Some(if chosen {
                Ordered::At(slot)
            } else {
                Ordered::Lost
            })
        });
    }

    fn answer(&mut self, answer: impl Fn(&Wish) -> Option<Ordered>) {
        for wish in std::mem::take(&mut self.wishes) {
            match answer(&wish) {
                // Whoever asked may have given up waiting.
                Some(ordered) => drop(wish.reply.send(ordered)),
                None => self.wishes.push(wish),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(operator: &mut OperatorSignals, signal: u32) -> oneshot::Receiver<Ordered> {
        let (reply, answer) = oneshot::channel();
        operator.wish(signal, reply);
        answer
    }

    #[test]
    fn who_asks_is_told_the_slot_that_was_chosen() {
        let mut operator = OperatorSignals::default();
        let (mut one, mut other) = (wish(&mut operator, 1), wish(&mut operator, 15));
        let mut next = 7;
        operator.propose(|_| {
            next += 1;
            Some(next)
        });
        operator.propose(|_| panic!("they were proposed"));
        operator.seen(7, &[]);
        assert!(one.try_recv().is_err(), "not chosen yet");
        operator.seen(8, &[(8, 1)]);
        assert_eq!(one.try_recv(), Ok(Ordered::At(8)));
        operator.leader_changed(Some(3));
        assert!(other.try_recv().is_err(), "it may still be chosen");
        operator.seen(9, &[]);
        assert_eq!(other.try_recv(), Ok(Ordered::Lost));
    }

    #[test]
    fn what_was_not_proposed_goes_to_the_new_leader() {
        let mut operator = OperatorSignals::default();
        let mut answer = wish(&mut operator, 1);
        operator.propose(|_| None);
        operator.leader_changed(Some(3));
        assert_eq!(answer.try_recv(), Ok(Ordered::NotLeader(Some(3))));
    }
}
