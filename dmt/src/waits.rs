//! Wait queues: a fixed table of buckets, each a first-come list of blocked threads.
//!
//! Threads with different keys may share a bucket; the order within one key is the order of
//! blocking, whatever else is in the bucket.

use crate::{Key, Scheduler, ThreadIx};

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

impl Waits {
    pub(crate) fn is_empty(&self) -> bool {
        self.blocked == 0
    }
}

fn bucket_of(key: Key) -> usize {
    let mixed = (key.id ^ key.space.rotate_left(40)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 54) as usize % BUCKETS
}

/// Appends a thread to the queue of its key.
pub(crate) fn enqueue(scheduler: &mut Scheduler, ix: ThreadIx) {
    let bucket = bucket_of(scheduler.thread(ix).key);
    let tail = scheduler.waits.buckets[bucket].tail;
    let thread = scheduler.thread_mut(ix);
    thread.next_wait = 0;
    thread.prev_wait = tail;
    if tail == 0 {
        scheduler.waits.buckets[bucket].head = ix;
    } else {
        scheduler.thread_mut(tail).next_wait = ix;
    }
    scheduler.waits.buckets[bucket].tail = ix;
    scheduler.waits.blocked += 1;
}

/// Takes a thread out of the queue of its key.
pub(crate) fn dequeue(scheduler: &mut Scheduler, ix: ThreadIx) {
    let thread = scheduler.thread(ix);
    let (key, next, prev) = (thread.key, thread.next_wait, thread.prev_wait);
    let bucket = bucket_of(key);
    match prev {
        0 => scheduler.waits.buckets[bucket].head = next,
        prev => scheduler.thread_mut(prev).next_wait = next,
    }
    match next {
        0 => scheduler.waits.buckets[bucket].tail = prev,
        next => scheduler.thread_mut(next).prev_wait = prev,
    }
    scheduler.waits.blocked -= 1;
}

/// Gives every waiting thread the key that takes the place of its own.
pub(crate) fn rekey(scheduler: &mut Scheduler, now: impl Fn(Key) -> Key) {
    // All chains in one first, so that nobody who has moved is met again.
    let mut all = Bucket::default();
    for bucket in 0..BUCKETS {
        let Bucket { head, tail } = core::mem::take(&mut scheduler.waits.buckets[bucket]);
        if head == 0 {
            continue;
        }
        match all.tail {
            0 => all.head = head,
            last => scheduler.thread_mut(last).next_wait = head,
        }
        all.tail = tail;
    }
    scheduler.waits.blocked = 0;
    let mut ix = all.head;
    while ix != 0 {
        let thread = scheduler.thread_mut(ix);
        let next = thread.next_wait;
        thread.key = now(thread.key);
        enqueue(scheduler, ix);
        ix = next;
    }
}

/// The thread that has waited longest on `key` for any of `bits`.
pub(crate) fn first(scheduler: &Scheduler, key: Key, bits: u32) -> Option<ThreadIx> {
    if scheduler.waits.is_empty() {
        return None;
    }
    let mut ix = scheduler.waits.buckets[bucket_of(key)].head;
    while ix != 0 {
        let thread = scheduler.thread(ix);
        if thread.key == key && thread.bits & bits != 0 {
            return Some(ix);
        }
        ix = thread.next_wait;
    }
    None
}
