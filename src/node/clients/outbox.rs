//! Events of a frontend on their way to the leader.

use brolga_tape::entry::{EntryBuilder, Event};
use std::collections::VecDeque;

/// Encoded events sent up in one piece, about.
const CHUNK_BYTES: usize = 192 * 1024;
/// Takes the events that a frontend sends up to the leader.
pub(crate) trait Events {
    /// Takes one more event.
    fn event(&mut self, event: &Event<'_>);
}

/// Events on their way up, in order, in pieces of limited size.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    chunks: VecDeque<EntryBuilder>,
}

impl Outbox {
    /// The first piece.
    pub(crate) fn pop(&mut self) -> Option<EntryBuilder> {
        self.chunks.pop_front()
    }

    /// Returns true when there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Drops all of them.
    pub(crate) fn clear(&mut self) {
        self.chunks.clear();
    }
}

impl Events for Outbox {
    fn event(&mut self, event: &Event<'_>) {
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK_BYTES => chunk.push(event),
            _ => {
                let mut chunk = EntryBuilder::new();
                chunk.push(event);
                self.chunks.push_back(chunk);
            }
        }
    }
}
