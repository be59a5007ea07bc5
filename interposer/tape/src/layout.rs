//! The layout of the shared mapping: what the header page holds.

use crate::sync::{AtomicU32, AtomicU64};

/// `"BROLGAT1"`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"BROLGAT1");
/// Bytes before the first ring.
pub const HEADER_BYTES: usize = 4096;
/// Bytes of an input frame before the entry: `len u32 | 0 u32 | slot u64`.
pub const FRAME_HEADER_BYTES: usize = 16;

/// Settings that the node passes to the interposer once, before the server starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Parameters {
    /// Seed of all randomness the server is given; the same on every replica.
    pub seed: [u8; 32],
    /// Bytes of the input ring, a multiple of the page size.
    pub input_bytes: u64,
    /// Bytes of the output ring, a multiple of the page size.
    pub output_bytes: u64,
    /// Ticks after which a thread hands on the turn (serial policy).
    pub quantum: u32,
    /// Upper bound of the random real delays put in at scheduling points, microseconds; 0 for none.
    /// Different on each replica in tests; must never change a result.
    pub perturb_us: u32,
    /// Number of processors the server is told of.
    pub cpus: u32,
    /// Nonzero: `fsync` and the like really reach the disk.
    pub keep_fsync: u32,
    /// Nonzero: loopback addresses that the server does not listen on are those of the machine that
    /// makes the connection. The same on every replica.
    pub host_loopback: u32,
    /// Nonzero: policy `parallel`, threads run beside each other between ordered operations;
    /// otherwise `serial`, one thread at a time. The same on every replica.
    pub parallel: u32,
    /// Nonzero: system calls that go round the interposer are caught. The same on every replica.
    pub syscall_filter: u32,
    /// Nonzero: every ordered operation leaves a [`crate::record::Record::Step`].
    pub trace: u32,
    /// UNIX sockets that clients outside of the tree may use. The same on every replica.
    pub unix: crate::unix::Paths,
}

/// A word on a cache line of its own.
#[derive(Default)]
#[repr(C, align(64))]
pub(crate) struct Line<T>(pub(crate) T);

/// The first page of the mapping.
#[repr(C)]
pub struct Header {
    magic: u64,
    parameters: Parameters,
    /// Tells one start or restore of a server from another; 0 until the node has prepared the tape.
    pub(crate) generation: AtomicU64,
    /// Futex: 0 until the node has prepared everything for a server that was restored.
    pub(crate) ready: AtomicU32,
    /// Bytes the node has put on the input ring.
    pub(crate) input_head: Line<AtomicU64>,
    /// Bytes the interposer has taken from it.
    pub(crate) input_tail: Line<AtomicU64>,
    /// Futex: 1 while the server sleeps for input.
    pub(crate) input_waiting: Line<AtomicU32>,
    /// Bytes the interposer has put on the output ring.
    pub(crate) output_head: Line<AtomicU64>,
    /// Bytes the node has taken from it.
    pub(crate) output_tail: Line<AtomicU64>,
    /// 1 while the node sleeps and wants the doorbell.
    pub(crate) output_waiting: Line<AtomicU32>,
    /// Futex: 1 while the server sleeps for room on the output ring.
    pub(crate) output_full: Line<AtomicU32>,
    /// `Stall`: thread and process; the kernel's number; seconds (0: none) and how many wait.
    pub(crate) stall: Line<[AtomicU64; 3]>,
}

const _: () = assert!(size_of::<Header>() <= HEADER_BYTES);

impl Header {
    /// Returns the header of a fresh tape.
    pub(crate) fn new(parameters: &Parameters) -> Self {
        Self {
            magic: MAGIC,
            parameters: *parameters,
            generation: AtomicU64::default(),
            ready: AtomicU32::default(),
            input_head: Line::default(),
            input_tail: Line::default(),
            input_waiting: Line::default(),
            output_head: Line::default(),
            output_tail: Line::default(),
            output_waiting: Line::default(),
            output_full: Line::default(),
            stall: Line::default(),
        }
    }

    /// Returns the parameters, if this is the header of a tape.
    pub(crate) fn parameters(&self) -> Option<Parameters> {
        (self.magic == MAGIC).then_some(self.parameters)
    }
}

/// Bytes of the memory object behind a tape.
#[must_use]
pub fn object_bytes(parameters: &Parameters) -> u64 {
    HEADER_BYTES as u64 + parameters.input_bytes + parameters.output_bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn the_header_has_the_layout_that_it_always_had() {
        let parameters = [
            offset_of!(Parameters, seed),
            offset_of!(Parameters, input_bytes),
            offset_of!(Parameters, output_bytes),
            offset_of!(Parameters, quantum),
            offset_of!(Parameters, perturb_us),
            offset_of!(Parameters, cpus),
            offset_of!(Parameters, keep_fsync),
            offset_of!(Parameters, host_loopback),
            offset_of!(Parameters, parallel),
            offset_of!(Parameters, syscall_filter),
            offset_of!(Parameters, trace),
            offset_of!(Parameters, unix),
            size_of::<Parameters>(),
        ];
        assert_eq!(
            parameters,
            [0, 32, 40, 48, 52, 56, 60, 64, 68, 72, 76, 80, 512]
        );
        let header = [
            offset_of!(Header, magic),
            offset_of!(Header, parameters),
            offset_of!(Header, generation),
            offset_of!(Header, ready),
            offset_of!(Header, input_head),
            offset_of!(Header, input_tail),
            offset_of!(Header, input_waiting),
            offset_of!(Header, output_head),
            offset_of!(Header, output_tail),
            offset_of!(Header, output_waiting),
            offset_of!(Header, output_full),
            offset_of!(Header, stall),
        ];
        assert_eq!(
            header,
            [0, 8, 520, 528, 576, 640, 704, 768, 832, 896, 960, 1024]
        );
    }
}
