//! Clients that count in a database: each in a row of its own, and all of them in one that they share.

use std::collections::BTreeSet;
use std::sync::Mutex;

/// The numbers that the clients have seen.
#[derive(Debug, Default)]
pub struct Counters {
    /// Every number that the shared counter has given out.
    shared: Mutex<BTreeSet<u64>>,
    /// Clients with the numbers that they have counted up to.
    own: Mutex<Vec<(usize, u64)>>,
}

impl Counters {
    /// The shared counter has answered `number`, which it gives to nobody else.
    #[track_caller]
    pub fn was_given(&self, number: &str) {
        let fresh = self.shared.lock().unwrap().insert(number.parse().unwrap());
        assert!(fresh, "{number} was given out twice");
    }

    /// A client is done.
    pub fn counted(&self, client: usize, count: u64) {
        self.own.lock().unwrap().push((client, count));
    }

    /// The shared counter has left no number out. Returns the clients with their numbers.
    #[track_caller]
    pub fn complete(&self) -> Vec<(usize, u64)> {
        let shared = self.shared.lock().unwrap();
        let last = shared.last().copied();
        assert_eq!(last, Some(shared.len() as u64), "a number is missing");
        self.own.lock().unwrap().clone()
    }
}
