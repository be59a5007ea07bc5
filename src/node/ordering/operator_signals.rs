//! Operators' signals on their way through the log.
//!
//! Each gets an entry of its own from the leader, so that whoever asked can be told the slot. What
//! is chosen in that slot decides: when it is something else, because the leader was deposed, the
//! signal was not sent and never will be.

use brolga_consensus::NodeId;
use tokio::sync::oneshot;

/// The outcome of a request to send a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordered {
    /// The server gets it at this slot.
    At(u64),
    /// This node does not lead; the one that does, if it is known.
    NotLeader(Option<NodeId>),
    /// The signal was proposed and not chosen: no server gets it.
    Lost,
}

#[derive(Debug)]
struct Request {
    signal: u32,
    reply: oneshot::Sender<Ordered>,
    /// The slot it was proposed for.
    slot: Option<u64>,
}

/// The signals that operators have requested at this node.
#[derive(Debug, Default)]
pub(crate) struct OperatorSignals {
    requests: Vec<Request>,
}

impl OperatorSignals {
    /// An operator requests that the server gets `signal`.
    pub(crate) fn request(&mut self, signal: u32, reply: oneshot::Sender<Ordered>) {
        let slot = None;
        self.requests.push(Request {
            signal,
            reply,
            slot,
        });
    }

    /// Proposes what was not proposed yet: `propose` tells the slot, or nothing when it cannot.
    pub(crate) fn propose(&mut self, mut propose: impl FnMut(u32) -> Option<u64>) {
        for request in self
            .requests
            .iter_mut()
            .filter(|request| request.slot.is_none())
        {
            request.slot = propose(request.signal);
            if request.slot.is_none() {
                return;
            }
        }
    }

    /// Another node leads, or nobody does that is known.
    pub(crate) fn leader_changed(&mut self, leader: Option<NodeId>) {
        self.answer(|request| request.slot.is_none().then_some(Ordered::NotLeader(leader)));
    }

    /// Every slot up to `seen` was looked at; these had signals in them.
    pub(crate) fn seen(&mut self, seen: u64, signals: &[(u64, u32)]) {
        self.answer(|request| {
            let slot = request.slot.filter(|slot| *slot <= seen)?;
            let chosen = signals.contains(&(slot, request.signal));
            Some(if chosen {
                Ordered::At(slot)
            } else {
                Ordered::Lost
            })
        });
    }

    fn answer(&mut self, answer: impl Fn(&Request) -> Option<Ordered>) {
        for request in std::mem::take(&mut self.requests) {
            match answer(&request) {
                // Whoever asked may have given up waiting.
                Some(ordered) => drop(request.reply.send(ordered)),
                None => self.requests.push(request),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(operator: &mut OperatorSignals, signal: u32) -> oneshot::Receiver<Ordered> {
        let (reply, answer) = oneshot::channel();
        operator.request(signal, reply);
        answer
    }

    #[test]
    fn who_asks_is_told_the_slot_that_was_chosen() {
        let mut operator = OperatorSignals::default();
        let (mut one, mut other) = (request(&mut operator, 1), request(&mut operator, 15));
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
        let mut answer = request(&mut operator, 1);
        operator.propose(|_| None);
        operator.leader_changed(Some(3));
        assert_eq!(answer.try_recv(), Ok(Ordered::NotLeader(Some(3))));
    }
}
