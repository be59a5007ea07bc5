//! The index of the log: the position of the newest accepted value of each slot.

use super::{NOWHERE, Position};
use crate::core::Slot;
use std::collections::VecDeque;

/// The positions by slot. Slots up to `gone` are forgotten for good.
#[derive(Debug, Default)]
pub(super) struct Index {
    gone: Slot,
    /// The first one is of the slot after `gone`.
    positions: VecDeque<Position>,
}

impl Index {
    /// The first slot that may be there.
    pub fn first(&self) -> Slot {
        self.gone + 1
    }

    pub fn put(&mut self, slot: Slot, position: Position) {
        assert!(slot > 0, "slots start at 1");
        if slot <= self.gone {
            return;
        }
        let at = (slot - self.gone - 1) as usize;
        if at >= self.positions.len() {
            self.positions.resize(at + 1, NOWHERE);
        }
        self.positions[at] = position;
    }

    pub fn get(&self, slot: Slot) -> Option<Position> {
        let at = slot.checked_sub(self.gone + 1)?;
        let position = self.positions.get(usize::try_from(at).ok()?)?;
        (*position != NOWHERE).then_some(*position)
    }

    /// Forgets all slots up to `upto`.
    pub fn forget(&mut self, upto: Slot) {
        let count = upto.saturating_sub(self.gone);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.positions.drain(..count.min(self.positions.len()));
        self.gone = self.gone.max(upto);
    }

    /// The first slot up to `commit` that should be there and is not.
    pub fn gap(&self, commit: Slot) -> Option<Slot> {
        (self.gone + 1..=commit).find(|slot| self.get(*slot).is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_stays_so() {
        let place = |number: u32| Position {
            segment: number,
            offset8: 8,
        };
        let mut index = Index::default();
        for slot in [1, 2, 4] {
            index.put(slot, place(slot as u32));
        }
        assert_eq!((index.gap(2), index.gap(4)), (None, Some(3)));
        index.forget(3);
        index.put(2, place(9));
        assert_eq!(index.get(2), None);
        assert_eq!((index.first(), index.get(4)), (4, Some(place(4))));
        index.forget(10);
        index.put(11, place(11));
        assert_eq!((index.get(4), index.get(11)), (None, Some(place(11))));
        assert_eq!(index.gap(11), None);
    }
}
