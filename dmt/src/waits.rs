//! Wait queues: a fixed table of buckets, each a first-come list of blocked threads.
//!
//! Threads with different keys may share a bucket; the order within one key is the order of
//! blocking, whatever else is in the bucket.

use crate::thread::{Key, ThreadIx, Threads};

const BUCKETS: usize = 1024;

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Bucket {
    head: ThreadIx,
    tail: ThreadIx,
}

/// All wait queues.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Waits {
    blocked: u32,
    buckets: [Bucket; BUCKETS],
}

#[cfg(test)]
impl Default for Waits {
    fn default() -> Self {
        Self {
            blocked: 0,
            buckets: [Bucket::default(); BUCKETS],
        }
    }
}

fn bucket_of(key: Key) -> usize {
    let mixed = (key.id ^ key.space.rotate_left(40)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 54) as usize % BUCKETS
}

impl Waits {
    /// Appends a thread to the queue of its key.
    pub(crate) fn enqueue(&mut self, threads: &mut Threads, ix: ThreadIx) {
        let bucket = &mut self.buckets[bucket_of(threads.get(ix).key)];
        let tail = bucket.tail;
        let thread = threads.get_mut(ix);
        thread.next_wait = 0;
        thread.prev_wait = tail;
        if tail == 0 {
            bucket.head = ix;
        } else {
            threads.get_mut(tail).next_wait = ix;
        }
        bucket.tail = ix;
        self.blocked += 1;
    }

    /// Removes a thread from the queue of its key.
    pub(crate) fn dequeue(&mut self, threads: &mut Threads, ix: ThreadIx) {
        let thread = threads.get(ix);
        let (key, next, prev) = (thread.key, thread.next_wait, thread.prev_wait);
        let bucket = &mut self.buckets[bucket_of(key)];
        match prev {
            0 => bucket.head = next,
            prev => threads.get_mut(prev).next_wait = next,
        }
        match next {
            0 => bucket.tail = prev,
            next => threads.get_mut(next).prev_wait = prev,
        }
        self.blocked -= 1;
    }

    /// Replaces the key of every waiting thread by what `new_key` makes of it. The order of waiting
    /// for each key stays.
    pub(crate) fn rekey(&mut self, threads: &mut Threads, new_key: impl Fn(Key) -> Key) {
        // All chains in one first, so that a thread that has moved is not met again.
        let mut all = Bucket::default();
        for bucket in &mut self.buckets {
            let Bucket { head, tail } = core::mem::take(bucket);
            if head == 0 {
                continue;
            }
            match all.tail {
                0 => all.head = head,
                last => threads.get_mut(last).next_wait = head,
            }
            all.tail = tail;
        }
        self.blocked = 0;
        let mut ix = all.head;
        while ix != 0 {
            let thread = threads.get_mut(ix);
            let next = thread.next_wait;
            thread.key = new_key(thread.key);
            self.enqueue(threads, ix);
            ix = next;
        }
    }

    /// Returns the thread that has waited longest on `key` for any of `bits`.
    pub(crate) fn first(&self, threads: &Threads, key: Key, bits: u32) -> Option<ThreadIx> {
        if self.blocked == 0 {
            return None;
        }
        let mut ix = self.buckets[bucket_of(key)].head;
        while ix != 0 {
            let thread = threads.get(ix);
            if thread.key == key && thread.bits & bits != 0 {
                return Some(ix);
            }
            ix = thread.next_wait;
        }
        None
    }
}
