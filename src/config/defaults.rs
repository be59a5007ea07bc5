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

/// The default of [`NodeConfig::n_clock`](crate::NodeConfig).
#[must_use]
pub fn n_clock() -> u32 {
    brolga_tape::CLOCKS_PER_EVENT
}

/// The default of [`NodeConfig::w_timeout_us`](crate::NodeConfig).
#[must_use]
pub fn w_timeout_us() -> u64 {
    100
}

/// The default of [`NodeConfig::quantum`](crate::NodeConfig).
#[must_use]
pub fn quantum() -> u32 {
    100
}

/// The default of [`NodeConfig::backstop`](crate::NodeConfig).
#[must_use]
pub fn backstop() -> bool {
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

/// The default of [`NodeConfig::checkpoint_transfer_mb_s`](crate::NodeConfig).
#[must_use]
pub fn checkpoint_transfer_mb_s() -> u64 {
    200
}

/// The default of [`NodeConfig::segment_bytes`](crate::NodeConfig).
#[must_use]
pub fn segment_bytes() -> u64 {
    brolga_consensus::journal::SEGMENT_BYTES
}

/// The default of [`NodeConfig::descriptors`](crate::NodeConfig).
#[must_use]
pub fn descriptors() -> u64 {
    DESCRIPTORS_DEFAULT
}
