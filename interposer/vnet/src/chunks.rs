//! Unread input: queues of fixed-size chunks out of one pool.
//!
//! The pool is larger than memory on purpose (its pages are touched only when used); what is unread
//! is bounded by the input window of every connection. Freed chunks are used again first, so a busy
//! server touches few pages.

/// Bytes of a chunk, a page less its link.
const PAYLOAD_BYTES: usize = 4096 - 8;
/// 4 GiB worth of chunks: 16,384 connections with a full window each.
const CHUNKS: usize = 1 << 20;

#[derive(Clone, Copy)]
#[repr(C)]
struct Chunk {
    next: u32,
    len: u32,
    bytes: [u8; PAYLOAD_BYTES],
}

/// All chunks of a process tree.
#[repr(C)]
pub(crate) struct Pool {
    used: u32,
    free: u32,
    chunks: [Chunk; CHUNKS],
}

/// A byte queue.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Queue {
    head: u32,
    tail: u32,
    /// Bytes already taken from the first chunk.
    taken: u32,
    /// Bytes in the queue.
    pub(crate) len: u64,
}

impl Queue {
    pub(crate) const EMPTY: Self = Self {
        head: 0,
        tail: 0,
        taken: 0,
        len: 0,
    };
}

impl Pool {
    fn chunk(&mut self, ix: u32) -> &mut Chunk {
        &mut self.chunks[ix as usize - 1]
    }

    fn take(&mut self) -> u32 {
        let ix = if self.free != 0 {
            let ix = self.free;
            self.free = self.chunk(ix).next;
            ix
        } else {
            // The frontends' input windows keep the sum below this by far; going on would lose
            // input.
            assert!(
                (self.used as usize) < CHUNKS,
                "out of memory for unread input"
            );
            self.used += 1;
            self.used
        };
        let chunk = self.chunk(ix);
        chunk.next = 0;
        chunk.len = 0;
        ix
    }

    fn give(&mut self, ix: u32) {
        let free = self.free;
        self.chunk(ix).next = free;
        self.free = ix;
    }

    /// Appends bytes.
    pub(crate) fn append(&mut self, queue: &mut Queue, mut bytes: &[u8]) {
        queue.len += bytes.len() as u64;
        while !bytes.is_empty() {
            if queue.tail == 0 {
                queue.tail = self.take();
                queue.head = queue.tail;
                queue.taken = 0;
            } else if self.chunk(queue.tail).len as usize == PAYLOAD_BYTES {
                let next = self.take();
                self.chunk(queue.tail).next = next;
                queue.tail = next;
            }
            let chunk = self.chunk(queue.tail);
            let at = chunk.len as usize;
            let (now, later) = bytes.split_at(bytes.len().min(PAYLOAD_BYTES - at));
            chunk.bytes[at..at + now.len()].copy_from_slice(now);
            chunk.len += now.len() as u32;
            bytes = later;
        }
    }

    /// Shows up to `max` bytes from the front, piece by piece, and takes them away unless `peek`.
    pub(crate) fn read(
        &mut self,
        queue: &mut Queue,
        max: usize,
        peek: bool,
        mut put: impl FnMut(&[u8]),
    ) -> usize {
        let mut view = *queue;
        let mut left = max;
        while left > 0 && view.head != 0 {
            let chunk = self.chunk(view.head);
            let (from, to) = (view.taken as usize, chunk.len as usize);
            let now = left.min(to - from);
            put(&chunk.bytes[from..from + now]);
            left -= now;
            view.len -= now as u64;
            view.taken += now as u32;
            if from + now < to {
                break;
            }
            let (head, next) = (view.head, chunk.next);
            view.head = next;
            view.taken = 0;
            if next == 0 {
                view.tail = 0;
            }
            if !peek {
                self.give(head);
            }
        }
        if !peek {
            *queue = view;
        }
        max - left
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self, queue: &mut Queue) {
        let mut ix = queue.head;
        while ix != 0 {
            let next = self.chunk(ix).next;
            self.give(ix);
            ix = next;
        }
        *queue = Queue::EMPTY;
    }
}
