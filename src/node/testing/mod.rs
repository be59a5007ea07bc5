//! Tests of the node as a whole, with a fake server in place of a wrapped one.

mod checkpoint;
mod cluster;
mod divergence;
mod fake_server;
pub(crate) mod fuzz;
mod image;

/// Bytes as hexadecimal digits, for tests that hold the bytes of a format.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
