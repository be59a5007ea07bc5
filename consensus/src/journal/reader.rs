//! A log that is only read, also while its owner writes to it.
//!
//! The reader sees the log as it was when it was opened. It takes no lock and changes nothing. What
//! the owner is writing at that moment may be seen in part, which looks like a torn tail, and is
//! left out like one; in the worst case it looks like damage for a moment, so damage is looked at
//! again.

use super::scan::{self, Access};
use super::segment::Segments;
use super::{Journal, JournalConfig, JournalError};
use crate::core::{Slot, Value};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::channel;

/// Attempts to read a log that looks damaged before it counts as damaged.
const LOOKS: usize = 5;

/// A log opened for reading only.
#[derive(Debug)]
pub struct LogReader {
    journal: Journal,
    commit: Slot,
    accepted: Slot,
}

impl LogReader {
    /// Opens the log of a node, whether it runs or not.
    ///
    /// # Errors
    /// There is no such directory, it holds another node's log, or the log is damaged.
    pub fn open(config: JournalConfig) -> Result<Self, JournalError> {
        let JournalConfig {
            dir,
            cluster,
            node,
            segment_bytes,
        } = config;
        let segments = Segments {
            dir,
            cluster,
            node,
            segment_bytes,
        };
        let mut looks = 0;
        let found = loop {
            looks += 1;
            match scan::recover(&segments, Access::Reader) {
                Err(JournalError::Corrupt { .. }) if looks < LOOKS => {}
                outcome => break outcome?,
            }
        };
        let commit = found.recovered.commit;
        let there = |slot: &Slot| found.index.get(*slot).is_some();
        let accepted = commit + (commit + 1..).take_while(there).count() as Slot;
        let (_, spare_rx) = channel();
        let journal = Journal {
            segments,
            index: found.index,
            segment: found.segment,
            offset: found.offset,
            last_seq: found.recovered.last_seq,
            current: found.current,
            full: found.full,
            truncation: None,
            written: Arc::new(AtomicU64::new(found.recovered.last_seq.0)),
            durable: Arc::new(AtomicU64::new(found.recovered.last_seq.0)),
            batch_tx: None,
            spare_rx,
            spare: Vec::new(),
            writer: None,
            thread: None,
            here_again_at: None,
            readers: HashMap::new(),
            _lock: None,
        };
        Ok(Self {
            journal,
            commit,
            accepted,
        })
    }

    /// The first slot that is still there.
    pub fn first(&self) -> Slot {
        self.journal.first()
    }

    /// Every slot up to this one is known to be chosen.
    pub fn commit(&self) -> Slot {
        self.commit
    }

    /// Every slot up to this one has a value. Those above [`LogReader::commit`] were voted for
    /// here, and may have been chosen.
    pub fn accepted(&self) -> Slot {
        self.accepted
    }

    /// Reads the value of a slot.
    ///
    /// # Errors
    /// The slot is not there or cannot be read.
    pub fn read(&mut self, slot: Slot) -> Result<Value, JournalError> {
        self.journal.read(slot)
    }
}
