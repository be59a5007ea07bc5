//! Addresses, as entries and records have them.

use super::EntryError;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of an encoded address.
pub const ADDRESS_BYTES: usize = 24;

/// `family u16 (4 or 6) | port u16 | scope u32 | address 16 bytes`
///
/// # Errors
/// Too few bytes from `at` on, or a family that there is not.
pub fn read_address(bytes: &[u8], at: usize) -> Result<SocketAddr, EntryError> {
    let b = bytes
        .get(at..at + ADDRESS_BYTES)
        .ok_or(EntryError::Truncated)?;
    let port = u16::from_le_bytes([b[2], b[3]]);
    let ip = match b[0] {
        4 => IpAddr::V4(Ipv4Addr::new(b[8], b[9], b[10], b[11])),
        6 => {
            let mut octets = [0; 16];
            octets.copy_from_slice(&b[8..24]);
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        _ => return Err(EntryError::BadField),
    };
    Ok(SocketAddr::new(ip, port))
}

/// The encoding that [`read_address`] reads.
#[must_use]
pub fn address_bytes(address: SocketAddr) -> [u8; ADDRESS_BYTES] {
    let mut b = [0; ADDRESS_BYTES];
    b[2..4].copy_from_slice(&address.port().to_le_bytes());
    match address.ip() {
        IpAddr::V4(ip) => {
            b[0] = 4;
            b[8..12].copy_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            b[0] = 6;
            b[8..24].copy_from_slice(&ip.octets());
        }
    }
    b
}
