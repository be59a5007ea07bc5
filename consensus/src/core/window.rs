//! The part of the log held in memory: all that is not chosen yet, and some of what is.

use super::types::{Ballot, IoSeq, Slot, Value};
use std::collections::VecDeque;

/// A vote of this node.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub ballot: Ballot,
    /// Operation that makes the vote durable.
    pub seq: IoSeq,
    pub value: Value,
}

/// Consecutive slots from `base`, with holes where messages overtook each other.
///
/// Invariant: the last element is never a hole, so `last` is exact.
#[derive(Debug)]
pub(crate) struct Window {
    base: Slot,
    bytes: usize,
    entries: VecDeque<Option<Entry>>,
}

impl Window {
    pub fn new(base: Slot) -> Self {
        assert!(base > 0, "slots start at 1");
        Self {
            base,
            bytes: 0,
            entries: VecDeque::new(),
        }
    }

    /// First slot that may be in memory.
    pub fn base(&self) -> Slot {
        self.base
    }

    /// Highest slot held, or the one before `base`.
    pub fn last(&self) -> Slot {
        self.base - 1 + self.entries.len() as u64
    }

    /// Slots spanned.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of all values held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn get(&self, slot: Slot) -> Option<&Entry> {
        let index = slot.checked_sub(self.base)?;
        self.entries.get(usize::try_from(index).ok()?)?.as_ref()
    }

    /// Puts a vote in, in place of one at a lower ballot.
    pub fn insert(&mut self, slot: Slot, entry: Entry) {
        assert!(
            slot >= self.base,
            "slot {slot} is below the window at {}",
            self.base
        );
        let index = (slot - self.base) as usize;
        self.bytes += entry.value.len();
        if index >= self.entries.len() {
            self.entries.resize_with(index, || None);
            self.entries.push_back(Some(entry));
            return;
        }
        if let Some(old) = self.entries[index].replace(entry) {
            self.bytes -= old.value.len();
        }
    }

    /// Drops all slots before `base`.
    pub fn skip_to(&mut self, base: Slot) {
        while self.base < base && !self.entries.is_empty() {
            self.pop_front();
        }
        self.base = self.base.max(base);
    }

    /// Drops the first slot.
    pub fn pop_front(&mut self) {
        if let Some(front) = self.entries.pop_front() {
            self.bytes -= front.map_or(0, |entry| entry.value.len());
            self.base += 1;
        }
    }
}
