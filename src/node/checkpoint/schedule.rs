//! When this replica takes a checkpoint without being asked, and whose turn it is.
//!
//! ```text
//!  log has grown, or time is up ──▶ due ──▶ a backup asks the leader  ◀─ no answer: asks again
//!                                              │ nobody else is at it
//!                                              ▼
//!   others: busy ◀── it says so to all ◀── it has the turn ──▶ over: it says so to all
//! ```
//!
//! # Invariants
//!
//! * The leader gives the turn to one node at a time, and to none while it takes a checkpoint itself,
//!   while any node says that it is busy, or before every living node has said under *this* ballot
//!   whether it is: so a turn that an earlier leader gave is respected by the next.
//! * A turn ends when its node says so or its link goes down.
//! * The leader goes last: when every living backup has a newer checkpoint than it has itself, or when
//!   its log has grown as much again, or as much time has gone by: a backup may be unable to take any.
//! * A log that does not grow causes nothing: no checkpoint, no word, no timer.
//!
//! Whoever is asked by an operator waits for the turn too, but not for the backups, and for nobody when
//! there is no leader to ask.
//!
//! Sans-IO. Deliberately absent: how a checkpoint is taken ([`crate::checkpoint::procedure`]).

use brolga_consensus::{Ballot, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Bytes of the log per entry beside its payload, about.
const ENTRY_OVERHEAD: u64 = 64;
/// Between questions for the turn.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// The pause after the first failure; it doubles with each that follows.
const PAUSE_LEAST: Duration = Duration::from_secs(1);
const PAUSE_MOST: Duration = Duration::from_secs(3600);

/// What nodes say about turns, each with the ballot it is said under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// To the leader: the sender would like to take one.
    Ask,
    /// From the leader: take it now.
    Take,
    /// The sender takes one.
    Busy,
    /// The sender does not take one; a turn that is on its way to it stays its own.
    Idle,
    /// The sender's turn is over, or it does not want it any more.
    Over,
}

impl Word {
    /// Its number in a frame.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The word of a number.
    pub fn of_number(number: u32) -> Option<Self> {
        let all = [Self::Ask, Self::Take, Self::Busy, Self::Idle, Self::Over];
        all.into_iter().find(|word| word.number() == number)
    }
}

/// When the next one is due.
#[derive(Debug)]
pub struct Triggers {
    every: Option<Duration>,
    log_bytes: Option<u64>,
    /// Of the log, since the node was started.
    seen: u64,
    /// The same at the newest checkpoint, and at the one that is being taken.
    covered: u64,
    noted: u64,
    last_at: Instant,
    failures: u32,
    not_before: Option<Instant>,
    last_error: Option<String>,
    ask_at: Option<Instant>,
}

impl Triggers {
    /// `every`: a period; `log_bytes`: growth of the log; either may be missing.
    pub fn new(every: Option<Duration>, log_bytes: Option<u64>, now: Instant) -> Self {
        Self {
            every,
            log_bytes,
            seen: 0,
            covered: 0,
            noted: 0,
            last_at: now,
            failures: 0,
            not_before: None,
            last_error: None,
            ask_at: None,
        }
    }

    /// The log has an entry more.
    pub fn logged(&mut self, bytes: usize) {
        self.seen += bytes as u64 + ENTRY_OVERHEAD;
    }

    /// Bytes that the log has grown by since the node was started, about.
    pub fn logged_bytes(&self) -> u64 {
        self.seen
    }

    /// One was due, and is again: whoever was to go first will not, or takes too long.
    pub fn is_overdue(&self, now: Instant) -> bool {
        let grown = self.seen - self.covered;
        let by_log = self.log_bytes.is_some_and(|most| grown / 2 >= most);
        let by_time = |every: Duration| grown > 0 && self.last_at + 2 * every <= now;
        self.is_due(now) && (by_log || self.every.is_some_and(by_time))
    }

    /// The time from which one is due, if the log grows no further.
    fn due_at(&self) -> Option<Instant> {
        let grown = self.seen - self.covered;
        let by_log = self.log_bytes.is_some_and(|most| grown >= most);
        let period = self.every.filter(|_| grown > 0);
        let at = match by_log {
            true => Some(self.last_at),
            false => period.map(|every| self.last_at + every),
        };
        at.map(|at| self.not_before.map_or(at, |pause| pause.max(at)))
    }

    /// One is to be taken.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due_at().is_some_and(|at| at <= now)
    }

    /// When to look again.
    pub fn wakeup(&self, now: Instant) -> Option<Instant> {
        let due = self.due_at().filter(|at| *at > now);
        // What is asked for has its own time.
        let ask = self.ask_at.filter(|at| *at > now);
        due.into_iter().chain(ask).min()
    }

    /// It is wanted; true when the leader is to be asked (again).
    pub fn asks(&mut self, now: Instant) -> bool {
        let asks = self.ask_at.is_none_or(|at| at <= now);
        if asks {
            self.ask_at = Some(now + ASK_AGAIN);
        }
        asks
    }

    /// Whatever was asked was asked of somebody who does not lead, or is of no interest any more.
    pub fn forget_question(&mut self) {
        self.ask_at = None;
    }

    /// One is dumped: it covers the log up to here.
    pub fn begun(&mut self) {
        self.noted = self.seen;
    }

    /// It is whole.
    pub fn succeeded(&mut self, now: Instant) {
        self.covered = self.noted;
        self.last_at = now;
        self.failures = 0;
        self.not_before = None;
        self.last_error = None;
    }

    /// It came to nothing. True when the reason is another than last time.
    pub fn failed(&mut self, error: &str, now: Instant) -> bool {
        let doubled = PAUSE_LEAST.saturating_mul(1 << self.failures.min(16));
        self.not_before = Some(now + doubled.min(PAUSE_MOST));
        self.failures += 1;
        let news = self.last_error.as_deref() != Some(error);
        self.last_error = Some(error.to_owned());
        news
    }

    /// How often in a row none could be taken, and why.
    pub fn trouble(&self) -> Option<String> {
        let error = self.last_error.as_ref()?;
        Some(match self.failures {
            0 | 1 => format!("failed: {error}"),
            many => format!("failed {many} times in a row: {error}"),
        })
    }
}

/// Who takes a checkpoint, as far as this node knows.
#[derive(Debug, Default)]
pub struct Turns {
    /// To whom this node, which leads, has given the turn.
    given: Option<NodeId>,
    busy: BTreeSet<NodeId>,
    /// Under which ballot each has last said whether it is busy.
    told: BTreeMap<NodeId, Ballot>,
}

impl Turns {
    /// A node has said something.
    pub fn hear(&mut self, from: NodeId, word: Word, ballot: Ballot) {
        match word {
            Word::Busy => drop(self.busy.insert(from)),
            Word::Ask | Word::Idle | Word::Over => drop(self.busy.remove(&from)),
            // It leads, and says nothing of itself.
            Word::Take => return,
        }
        if word == Word::Over && self.given == Some(from) {
            self.given = None;
        }
        self.told.insert(from, ballot);
    }

    /// The link to a node went down.
    pub fn lost(&mut self, node: NodeId) {
        self.busy.remove(&node);
        self.told.remove(&node);
        if self.given == Some(node) {
            self.given = None;
        }
    }

    /// Another ballot: what this node has given counts no more.
    pub fn start_over(&mut self) {
        self.given = None;
    }

    /// Nobody of the `living` others has the turn or may have it from an earlier leader.
    pub fn are_free(&self, living: &[NodeId], ballot: Ballot) -> bool {
        let told = |node: &NodeId| self.told.get(node) == Some(&ballot);
        self.given.is_none() && self.busy.is_empty() && living.iter().all(told)
    }

    /// The turn is given.
    pub fn give(&mut self, to: NodeId) {
        self.given = Some(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn growth_of_the_log_makes_one_due_and_what_grows_meanwhile_counts_for_the_next() {
        let now = Instant::now();
        let mut triggers = Triggers::new(None, Some(1000), now);
        triggers.logged(900);
        assert!(!triggers.is_due(now + MINUTE));
        triggers.logged(100);
        assert!(triggers.is_due(now));
        triggers.begun();
        triggers.logged(900);
        triggers.succeeded(now);
        assert!(!triggers.is_due(now));
        triggers.logged(100);
        assert!(triggers.is_due(now));
    }

    #[test]
    fn who_waits_for_others_waits_for_as_much_again() {
        let now = Instant::now();
        let mut triggers = Triggers::new(Some(MINUTE), Some(1000), now);
        triggers.logged(1000);
        assert!(triggers.is_due(now) && !triggers.is_overdue(now));
        triggers.logged(1000);
        assert!(triggers.is_overdue(now));
        triggers.begun();
        triggers.succeeded(now);
        triggers.logged(1);
        assert!(triggers.is_due(now + MINUTE) && !triggers.is_overdue(now + MINUTE));
        assert!(triggers.is_overdue(now + 2 * MINUTE));
        triggers.failed("disk full", now + 2 * MINUTE);
        assert!(!triggers.is_overdue(now + 2 * MINUTE));
    }

    #[test]
    fn a_period_counts_only_when_the_log_has_grown() {
        let now = Instant::now();
        let mut triggers = Triggers::new(Some(MINUTE), None, now);
        assert_eq!(triggers.wakeup(now), None);
        assert!(!triggers.is_due(now + 2 * MINUTE));
        triggers.logged(1);
        assert!(!triggers.is_due(now));
        assert_eq!(triggers.wakeup(now), Some(now + MINUTE));
        assert!(triggers.is_due(now + MINUTE));
        triggers.begun();
        triggers.succeeded(now + MINUTE);
        assert_eq!(triggers.wakeup(now + MINUTE), None);
        let mut none = Triggers::new(None, None, now);
        none.logged(usize::MAX >> 1);
        assert!(!none.is_due(now + MINUTE));
        assert_eq!(none.wakeup(now), None);
    }

    #[test]
    fn pauses_double_while_it_fails_and_each_reason_is_news_once() {
        let now = Instant::now();
        let mut triggers = Triggers::new(None, Some(1), now);
        triggers.logged(1);
        let mut pauses = Vec::new();
        for failure in 0..20 {
            assert_eq!(triggers.failed("disk full", now), failure == 0);
            pauses.push(triggers.wakeup(now).unwrap() - now);
        }
        assert_eq!(pauses[..3], [PAUSE_LEAST, 2 * PAUSE_LEAST, 4 * PAUSE_LEAST]);
        assert_eq!(pauses[19], PAUSE_MOST);
        let trouble = triggers.trouble().unwrap();
        assert_eq!(trouble, "failed 20 times in a row: disk full");
        assert!(triggers.failed("CRIU", now));
        assert!(!triggers.failed("CRIU", now));
        triggers.begun();
        triggers.succeeded(now);
        assert_eq!((triggers.trouble(), triggers.wakeup(now)), (None, None));
    }

    #[test]
    fn the_turn_is_with_one_node_at_a_time_also_over_a_change_of_leaders() {
        let ballot = |round| Ballot { round, node: 1 };
        let mut turns = Turns::default();
        let living = [2, 3];
        assert!(
            !turns.are_free(&living, ballot(1)),
            "nobody has said anything"
        );
        turns.hear(2, Word::Ask, ballot(1));
        assert!(
            !turns.are_free(&living, ballot(1)),
            "3 may have one of an earlier leader"
        );
        turns.hear(3, Word::Idle, ballot(1));
        assert!(turns.are_free(&living, ballot(1)));
        turns.give(2);
        turns.hear(2, Word::Idle, ballot(1));
        assert!(
            !turns.are_free(&living, ballot(1)),
            "it has not heard of it yet"
        );
        turns.hear(2, Word::Busy, ballot(1));
        turns.start_over();
        turns.hear(3, Word::Idle, ballot(2));
        assert!(!turns.are_free(&living, ballot(2)));
        turns.hear(2, Word::Over, ballot(2));
        assert!(turns.are_free(&living, ballot(2)));
        turns.give(3);
        turns.lost(3);
        assert!(turns.are_free(&[2], ballot(2)));
        assert!(
            !turns.are_free(&living, ballot(2)),
            "it is back and has said nothing"
        );
    }

    #[test]
    fn words_have_numbers() {
        for number in 0..5 {
            assert_eq!(Word::of_number(number).unwrap().number(), number);
        }
        assert_eq!(Word::of_number(5), None);
    }
}
