//! From the log to the tape: looks at every chosen slot once, in order, and puts its entry on the
//! tape of the running server.
//!
//! Two cursors, because a server that was started again replays from slot 1 while the node goes on
//! learning what is committed. While the server keeps up, which is nearly always, each slot is read
//! once for both.

use crate::server::tape::ServerTape;
use brolga_consensus::Replica;
use brolga_consensus::journal::JournalError;
use brolga_tape::ring::PushError;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bytes read from the log at a time.
const READ_BYTES: usize = 256 * 1024;
/// Reads in one iteration. A long log must not keep the node from its heartbeats.
const READS_PER_ITERATION: usize = 4;
/// Bytes waiting for room on the tape, beyond which slots are read again later instead.
const QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The chosen prefix of the log.
pub(crate) trait Log {
    /// Every slot up to this one is chosen.
    fn chosen_upto(&self) -> u64;
    /// Appends chosen slots from `from` on, in order, a noop with an empty value; about
    /// `max_bytes`.
    ///
    /// # Errors
    /// The log does not hold the slots any more, or can't be read.
    fn read_chosen(
        &mut self,
        from: u64,
        max_bytes: usize,
        out: &mut Vec<(u64, Bytes)>,
    ) -> Result<(), LogError>;
}

impl Log for Replica {
    fn chosen_upto(&self) -> u64 {
        Replica::chosen_upto(self)
    }

    fn read_chosen(
        &mut self,
        from: u64,
        max_bytes: usize,
        out: &mut Vec<(u64, Bytes)>,
    ) -> Result<(), LogError> {
        Ok(Replica::read_chosen(self, from, max_bytes, out)?)
    }
}

/// A log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The files of the log cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A replay has a checkpoint only.
    #[error("there is none")]
    Missing,
}

/// Why feeding can't go on.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The log can't be read.
    #[error("cannot read the log from slot {slot} on: {source}")]
    Log {
        /// The slot.
        slot: u64,
        /// The reason.
        source: LogError,
    },
    /// An entry does not fit on the tape at all.
    #[error("the entry of slot {slot} has {bytes} bytes and does not fit on the tape")]
    TooLarge {
        /// The slot.
        slot: u64,
        /// The size of the entry.
        bytes: usize,
    },
}

/// Random real delays before entries are fed; for tests of determinism.
#[derive(Debug)]
struct Perturbation {
    most: Duration,
    rng: fastrand::Rng,
}

impl Perturbation {
    fn next(&mut self) -> Duration {
        let most = self.most.as_nanos() as u64;
        Duration::from_nanos(self.rng.u64(..=most))
    }
}

/// The cursors of a node in its log.
#[derive(Debug)]
pub(crate) struct Feeder {
    seen: u64,
    last_entry: u64,
    tape_next: u64,
    queue: VecDeque<(u64, Bytes)>,
    queue_bytes: usize,
    read: Vec<(u64, Bytes)>,
    perturbation: Option<Perturbation>,
    hold_until: Option<Instant>,
    /// There is room on the tape and more to feed, but the iteration had to end.
    unfinished: bool,
    /// The last entry that was put on the tape.
    fed: u64,
    /// Entries that may still be put on the tape; `None`: all.
    allowance: Option<u64>,
}

impl Feeder {
    /// Before slot 1. `perturb` above zero delays each entry by a random time up to it.
    pub(crate) fn new(perturb: Duration, seed: u64) -> Self {
        let perturbation = (!perturb.is_zero()).then_some(Perturbation {
            most: perturb,
            rng: fastrand::Rng::with_seed(seed),
        });
        Self {
            seen: 0,
            last_entry: 0,
            tape_next: 1,
            queue: VecDeque::new(),
            queue_bytes: 0,
            read: Vec::new(),
            perturbation,
            hold_until: None,
            unfinished: false,
            fed: 0,
            allowance: None,
        }
    }

    /// A fresh server gets everything again.
    pub(crate) fn restart(&mut self) {
        self.restart_after(0);
    }

    /// A server that has had everything up to `slot` gets what follows.
    pub(crate) fn restart_after(&mut self, slot: u64) {
        self.tape_next = slot + 1;
        self.fed = slot;
        self.queue.clear();
        self.queue_bytes = 0;
        self.hold_until = None;
        self.unfinished = false;
        self.allowance = None;
    }

    /// Shows the log from after `seen` on, the last entry of which is in slot `last_entry`.
    pub(crate) fn resume(&mut self, seen: u64, last_entry: u64) {
        self.seen = seen;
        self.last_entry = last_entry;
    }

    /// The last entry that the server was given.
    pub(crate) fn fed(&self) -> u64 {
        self.fed
    }

    /// The server gets no more than `count` further entries; `None`: all.
    pub(crate) fn allow(&mut self, count: Option<u64>) {
        self.allowance = count;
    }

    /// The whole log is shown again, as to a node that has just started.
    pub(crate) fn start_over(&mut self) {
        self.restart();
        self.seen = 0;
        self.last_entry = 0;
    }

    /// Every slot up to this one was shown by [`Feeder::observe`].
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// The last of them that holds an entry.
    pub(crate) fn last_entry(&self) -> u64 {
        self.last_entry
    }

    /// The server was given every entry before this slot.
    #[cfg(test)]
    pub fn tape_next(&self) -> u64 {
        self.tape_next
    }

    /// The time at which feeding is to go on although nothing has happened.
    pub(crate) fn wakeup(&self) -> Option<Instant> {
        self.hold_until
    }

    /// Returns true when an iteration has done its share and the next one should follow at once.
    pub(crate) fn has_more(&self, chosen_upto: u64) -> bool {
        self.seen < chosen_upto || self.unfinished
    }

    /// Shows newly chosen entries to `observer`, all of them unless they are very many.
    ///
    /// # Errors
    /// The log can't be read.
    pub(crate) fn observe(
        &mut self,
        log: &mut impl Log,
        mut observer: impl FnMut(u64, &[u8]),
    ) -> Result<(), FeedError> {
        for _ in 0..READS_PER_ITERATION {
            if self.seen >= log.chosen_upto() {
                break;
            }
            let mut read = std::mem::take(&mut self.read);
            read_from(log, self.seen + 1, &mut read)?;
            if read.is_empty() {
                self.read = read;
                break;
            }
            for (slot, bytes) in read.drain(..) {
                assert_eq!(slot, self.seen + 1, "the log skipped a slot");
                self.seen = slot;
                if !bytes.is_empty() {
                    self.last_entry = slot;
                    observer(slot, &bytes);
                }
                self.offer(slot, bytes);
            }
            self.read = read;
        }
        Ok(())
    }

    /// Puts on the tape what there is room for, and wakes the server.
    ///
    /// # Errors
    /// See [`FeedError`].
    pub(crate) fn feed(
        &mut self,
        log: &mut impl Log,
        tape: &mut ServerTape,
        now: Instant,
    ) -> Result<(), FeedError> {
        self.unfinished = false;
        for _ in 0..READS_PER_ITERATION {
            while let Some((slot, bytes)) = self.queue.front().cloned() {
                if self.allowance == Some(0) {
                    return Ok(());
                }
                if !bytes.is_empty() {
                    if self.hold(now) || !push(tape, slot, &bytes)? {
                        return Ok(());
                    }
                    self.fed = slot;
                    self.allowance = self.allowance.map(|left| left - 1);
                }
                self.queue.pop_front();
                self.queue_bytes -= bytes.len();
                self.tape_next = slot + 1;
                self.hold_until = None;
            }
            if self.tape_next > self.seen || !self.refill(log)? {
                return Ok(());
            }
        }
        self.unfinished = true;
        Ok(())
    }

    /// Queues a slot for the tape when it is the next one the queue lacks.
    fn offer(&mut self, slot: u64, bytes: Bytes) {
        let next = self.tape_next + self.queue.len() as u64;
        if slot == next && self.queue_bytes < QUEUE_BYTES_MAX {
            self.queue_bytes += bytes.len();
            self.queue.push_back((slot, bytes));
        }
    }

    fn refill(&mut self, log: &mut impl Log) -> Result<bool, FeedError> {
        let mut read = std::mem::take(&mut self.read);
        read_from(log, self.tape_next, &mut read)?;
        for (slot, bytes) in read.drain(..) {
            // What was not observed yet comes by that way.
            if slot <= self.seen {
                self.offer(slot, bytes);
            }
        }
        self.read = read;
        Ok(!self.queue.is_empty())
    }

    /// True while the next entry has to wait for its random delay.
    fn hold(&mut self, now: Instant) -> bool {
        let Some(perturbation) = &mut self.perturbation else {
            return false;
        };
        let until = *self
            .hold_until
            .get_or_insert_with(|| now + perturbation.next());
        now < until
    }
}

/// Puts an entry on the tape and wakes the server; false when there is no room now.
fn push(tape: &mut ServerTape, slot: u64, bytes: &[u8]) -> Result<bool, FeedError> {
    match tape.tape_mut().push_entry(slot, bytes) {
        Ok(()) => {
            tape.wake_server();
            Ok(true)
        }
        Err(PushError::Full) => Ok(false),
        Err(PushError::TooLarge) => Err(FeedError::TooLarge {
            slot,
            bytes: bytes.len(),
        }),
    }
}

fn read_from(log: &mut impl Log, slot: u64, out: &mut Vec<(u64, Bytes)>) -> Result<(), FeedError> {
    out.clear();
    log.read_chosen(slot, READ_BYTES, out)
        .map_err(|source| FeedError::Log { slot, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use brolga_tape::ring::Parameters;

    struct VecLog(Vec<Bytes>);

    impl Log for VecLog {
        fn chosen_upto(&self) -> u64 {
            self.0.len() as u64
        }

        fn read_chosen(
            &mut self,
            from: u64,
            max_bytes: usize,
            out: &mut Vec<(u64, Bytes)>,
        ) -> Result<(), LogError> {
            let mut bytes = 0;
            for (at, value) in self.0.iter().enumerate().skip(from as usize - 1) {
                out.push((at as u64 + 1, value.clone()));
                bytes += value.len();
                if bytes >= max_bytes {
                    break;
                }
            }
            Ok(())
        }
    }

    fn tape() -> ServerTape {
        ServerTape::create(&Parameters {
            seed: [0; 32],
            input_bytes: 8192,
            output_bytes: 4096,
            quantum: 1,
            parallel: 0,
            perturb_us: 0,
            cpus: 1,
            keep_fsync: 0,
            host_loopback: 0,
            syscall_filter: 0,
            trace: 0,
            unix: brolga_tape::unix::Paths::NONE,
        })
        .unwrap()
    }

    fn log(slots: u64) -> VecLog {
        let value = |slot: u64| match slot % 5 {
            0 => Bytes::new(),
            _ => Bytes::from(vec![slot as u8; 500 + slot as usize % 700]),
        };
        VecLog((1..=slots).map(value).collect())
    }

    /// Takes everything that is on the tape, as a server would.
    fn take(tape: &ServerTape, cursor: &mut u64, slots: &mut Vec<u64>) {
        while let Some((slot, bytes, next)) = tape.tape().next_entry(*cursor) {
            assert!(bytes.iter().all(|byte| *byte == slot as u8));
            slots.push(slot);
            *cursor = next;
        }
        tape.tape().release_input(*cursor);
    }

    fn run(feeder: &mut Feeder, log: &mut VecLog, node: &mut ServerTape) -> Vec<u64> {
        let server = node.share().unwrap();
        let (mut cursor, mut slots) = (0, Vec::new());
        while feeder.tape_next() <= log.chosen_upto() {
            feeder.feed(log, node, Instant::now()).unwrap();
            take(&server, &mut cursor, &mut slots);
        }
        slots
    }

    #[test]
    fn every_entry_is_shown_once_and_fed_once_per_server() {
        let mut log = log(100);
        let expected: Vec<u64> = (1..=100).filter(|slot| slot % 5 != 0).collect();
        let mut feeder = Feeder::new(Duration::ZERO, 1);
        let mut shown = Vec::new();
        feeder
            .observe(&mut log, |slot, _| shown.push(slot))
            .unwrap();
        assert_eq!(shown, expected);
        assert_eq!((feeder.seen(), feeder.last_entry()), (100, 99));
        assert_eq!(run(&mut feeder, &mut log, &mut tape()), expected);
        feeder.restart();
        feeder
            .observe(&mut log, |slot, _| panic!("slot {slot} was shown before"))
            .unwrap();
        assert_eq!(run(&mut feeder, &mut log, &mut tape()), expected);
    }

    #[test]
    fn a_long_log_is_shown_and_fed_in_shares() {
        let value = Bytes::from(vec![3; 100_000]);
        let mut log = VecLog(vec![value; 100]);
        let mut feeder = Feeder::new(Duration::ZERO, 1);
        let mut turns = 0;
        while feeder.has_more(100) {
            feeder.observe(&mut log, |_, _| {}).unwrap();
            turns += 1;
        }
        assert_eq!(feeder.seen(), 100);
        assert!(turns > 5, "{turns} turns");
    }

    #[test]
    fn a_delayed_feeder_says_when_it_goes_on() {
        let mut log = log(1);
        let mut feeder = Feeder::new(Duration::from_secs(1), 99);
        feeder.observe(&mut log, |_, _| {}).unwrap();
        let now = Instant::now();
        let mut tape = tape();
        feeder.feed(&mut log, &mut tape, now).unwrap();
        let until = feeder.wakeup().unwrap();
        assert!(until > now && until <= now + Duration::from_secs(1));
        assert_eq!(feeder.tape_next(), 1);
        feeder.feed(&mut log, &mut tape, until).unwrap();
        assert_eq!((feeder.tape_next(), feeder.wakeup()), (2, None));
    }
}
