//! UNIX sockets of the server that clients outside of its tree may connect to.
//!
//! Which paths these are is told beforehand, the same on every replica. A listener on one of them
//! is a listener like any other for the log: it has an address that stands for its path, in a
//! corner of the loopback network, and a port of its own.

use core::net::{IpAddr, Ipv4Addr};

/// Most paths that can be published.
pub const PATHS_MAX: usize = 4;
/// Longest path, as in a `sockaddr_un`, with room for a NUL.
pub const PATH_BYTES: usize = 108;

/// The network whose addresses stand for paths: the first is .1.
const NETWORK: [u8; 3] = [127, 84, 0];

/// The paths, as the server writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Paths {
    bytes: [[u8; PATH_BYTES]; PATHS_MAX],
}

impl Paths {
    /// None.
    pub const NONE: Self = Self {
        bytes: [[0; PATH_BYTES]; PATHS_MAX],
    };

    /// Adds a path. False: it is empty or too long, has a NUL in it, or there are as many as can
    /// be.
    #[must_use]
    pub fn add(&mut self, path: &[u8]) -> bool {
        let fits = !path.is_empty() && path.len() < PATH_BYTES && !path.contains(&0);
        match self.bytes.iter_mut().find(|slot| slot[0] == 0) {
            Some(slot) if fits => {
                slot[..path.len()].copy_from_slice(path);
                true
            }
            _ => false,
        }
    }

    /// The index of a path.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<usize> {
        (0..PATHS_MAX).find(|which| !path.is_empty() && self.get(*which) == path)
    }

    /// A path; empty if there is none.
    #[must_use]
    pub fn get(&self, which: usize) -> &[u8] {
        let slot = self.bytes.get(which).map_or(&[][..], |slot| &slot[..]);
        let end = slot.iter().position(|byte| *byte == 0);
        &slot[..end.unwrap_or(slot.len())]
    }

    /// The path that an address stands for.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> Option<usize> {
        let IpAddr::V4(address) = address else {
            return None;
        };
        let [a, b, c, last] = address.octets();
        let which = usize::from(last).checked_sub(1)?;
        ([a, b, c] == NETWORK && !self.get(which).is_empty()).then_some(which)
    }
}

/// True when an address may stand for a path.
#[must_use]
pub fn is_one(address: IpAddr) -> bool {
    (0..PATHS_MAX).any(|which| self::address(which) == address)
}

/// The address that stands for a path.
#[must_use]
pub fn address(which: usize) -> IpAddr {
    let [a, b, c] = NETWORK;
    IpAddr::V4(Ipv4Addr::new(a, b, c, which as u8 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_addresses() {
        let mut paths = Paths::NONE;
        assert!(paths.add(b"/run/a.sock"));
        assert!(paths.add(b"b.sock"));
        assert_eq!(paths.find(b"b.sock"), Some(1));
        assert_eq!(paths.find(b"c.sock"), None);
        assert_eq!(paths.find(b""), None);
        assert_eq!(paths.get(0), b"/run/a.sock");
        assert_eq!(paths.get(3), b"");
        assert_eq!(paths.of(address(1)), Some(1));
        assert_eq!(paths.of(address(2)), None);
        assert!(is_one(address(2)) && !is_one(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(paths.of(Ipv4Addr::LOCALHOST.into()), None);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        let mut paths = Paths::NONE;
        assert!(!paths.add(b""));
        assert!(!paths.add(b"a\0b"));
        assert!(!paths.add(&[b'x'; PATH_BYTES]));
        assert!(paths.add(&[b'x'; PATH_BYTES - 1]));
        for path in [b"b", b"c", b"d"] {
            assert!(paths.add(path));
        }
        assert!(!paths.add(b"e"));
        assert_eq!(paths.find(&[b'x'; PATH_BYTES - 1]), Some(0));
    }
}
