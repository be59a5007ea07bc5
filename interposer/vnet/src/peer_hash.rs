//! The hash of a peer's address: chooses among sockets that share an address (`SO_REUSEPORT`) and
//! finds the way back to a peer. The same on every replica.

use brolga_tape::entry::address_bytes;
use core::net::SocketAddr;

pub(crate) const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// Hashes an address.
pub(crate) fn peer_hash(address: SocketAddr) -> u64 {
    let bytes = address_bytes(address);
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().fold(0, |hash: u64, word| {
        let mixed = (hash.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(MULTIPLIER);
        mixed ^ (mixed >> 32)
    })
}
