//! The defaults of [`NodeConfig`](crate::NodeConfig), one function a key.

use crate::DESCRIPTORS_DEFAULT;

/// The default of [`NodeConfig::heartbeat_ms`](crate::NodeConfig).
#[must_use]
pub fn heartbeat_ms() -> u64 {
    50
}

/// The default of [`NodeConfig::election_timeout_ms`](crate::NodeConfig).
#[must_use]
pub fn election_timeout_ms() -> [u64; 2] {
    [250, 500]
}

/// The default of [`NodeConfig::clocks_per_event`](crate::NodeConfig).
#[must_use]
pub fn clocks_per_event() -> u32 {
    brolga_tape::CLOCKS_PER_EVENT
}

/// The default of [`NodeConfig::bubble_wait_us`](crate::NodeConfig).
#[must_use]
pub fn bubble_wait_us() -> u64 {
    100
}

/// The default of [`NodeConfig::quantum_ticks`](crate::NodeConfig).
#[must_use]
pub fn quantum_ticks() -> u32 {
    100
}

/// The default of [`NodeConfig::syscall_filter`](crate::NodeConfig).
#[must_use]
pub fn syscall_filter() -> bool {
    true
}

/// The default of [`NodeConfig::cpus`](crate::NodeConfig).
#[must_use]
pub fn cpus() -> u32 {
    1
}

/// The default of [`NodeConfig::checkpoints_kept`](crate::NodeConfig).
#[must_use]
pub fn checkpoints_kept() -> usize {
    2
}

/// The default of [`NodeConfig::checkpoint_transfer_mib_s`](crate::NodeConfig).
#[must_use]
pub fn checkpoint_transfer_mib_s() -> u64 {
    200
}

/// The default of [`NodeConfig::log_segment_bytes`](crate::NodeConfig).
#[must_use]
pub fn log_segment_bytes() -> u64 {
    brolga_consensus::journal::SEGMENT_BYTES
}

/// The default of [`NodeConfig::descriptors`](crate::NodeConfig).
#[must_use]
pub fn descriptors() -> u64 {
    DESCRIPTORS_DEFAULT
}
