//! Hashes of what a server has done, slot by slot.
//!
//! Every replica hashes the same record bytes in the same order, so equal hashes at a slot mean
//! equal outputs from the start up to that slot.

use serde::{Deserialize, Serialize};

/// Number of slots whose hashes are kept.
pub(crate) const HISTORY_SLOTS: usize = 64 * 1024;

/// Both hashes of a server after one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotHashes {
    /// The slot.
    pub slot: u64,
    /// Hash of every record from the start up to this slot.
    pub output_hash: u64,
    /// The scheduler's own hash.
    pub schedule_hash: u64,
}

/// The hashes of the last [`HISTORY_SLOTS`] slots.
#[derive(Debug, Default)]
pub(crate) struct History {
    slots: Vec<SlotHashes>,
}

impl History {
    /// The hashes at `slot`, if they are still known.
    pub(crate) fn at(&self, slot: u64) -> Option<SlotHashes> {
        let found = self.slots.get(Self::index(slot))?;
        (found.slot == slot && slot != 0).then_some(*found)
    }

    /// The last known slot above `low` and up to `high`.
    pub(crate) fn last_between(&self, low: u64, high: u64) -> Option<SlotHashes> {
        let oldest = high.saturating_sub(HISTORY_SLOTS as u64);
        let slots = oldest.max(low) + 1..=high;
        slots.rev().find_map(|slot| self.at(slot))
    }

    /// The known slots above `low` and up to `high`, in order.
    pub(crate) fn between(&self, low: u64, high: u64) -> Vec<SlotHashes> {
        let oldest = high.saturating_sub(HISTORY_SLOTS as u64).max(low);
        (oldest + 1..=high)
            .filter_map(|slot| self.at(slot))
            .collect()
    }

    /// Remembers `hashes`. When the same slot is there already, from before the server was started
    /// again, and differs, it is returned: the server is not deterministic.
    pub(crate) fn put(&mut self, hashes: SlotHashes) -> Option<SlotHashes> {
        let index = Self::index(hashes.slot);
        if index >= self.slots.len() {
            let grown = (index + 1).next_power_of_two().min(HISTORY_SLOTS);
            self.slots.resize(grown, SlotHashes::default());
        }
        let before = std::mem::replace(&mut self.slots[index], hashes);
        (before.slot == hashes.slot && before != hashes).then_some(before)
    }

    fn index(slot: u64) -> usize {
        (slot % HISTORY_SLOTS as u64) as usize
    }
}
