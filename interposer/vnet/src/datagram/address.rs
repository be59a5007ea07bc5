//! Addresses of datagram sockets: overlap, and how well a datagram fits one.

use crate::Socket;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An address without the second way of writing version 4.
#[must_use]
pub fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn fits(bound: IpAddr, other: IpAddr) -> bool {
    bound == other || bound.is_unspecified()
}

impl Socket {
    /// The address that it takes datagrams of version 4 at.
    fn version_4(&self) -> Option<Ipv4Addr> {
        match self.local?.ip() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(ip) if ip.is_unspecified() && !self.v6_only => Some(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => None,
        }
    }

    /// The address that it takes datagrams of version 6 at.
    fn version_6(&self) -> Option<Ipv6Addr> {
        match self.local?.ip() {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => Some(ip),
        }
    }

    /// The address at which it takes datagrams of that version.
    pub(super) fn of_version(&self, of: IpAddr) -> Option<IpAddr> {
        match of {
            IpAddr::V4(_) => self.version_4().map(IpAddr::V4),
            IpAddr::V6(_) => self.version_6().map(IpAddr::V6),
        }
    }

    /// True when some address is both sockets'.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let (four, six) = (self.version_4(), self.version_6());
        let same = |one: Option<IpAddr>, two: Option<IpAddr>| {
            let (Some(one), Some(two)) = (one, two) else {
                return false;
            };
            fits(one, two) || fits(two, one)
        };
        same(four.map(Into::into), other.version_4().map(Into::into))
            || same(six.map(Into::into), other.version_6().map(Into::into))
    }

    pub(super) fn tolerates(&self, other: &Self) -> bool {
        (self.reuse_port && other.reuse_port) || (self.reuse_address && other.reuse_address)
    }

    /// Rates how well a datagram fits: `None` is not at all. From outside it comes to whatever
    /// address a frontend has, so that only the port and the version decide.
    pub(super) fn fitness(&self, peer: SocketAddr, local: SocketAddr, inside: bool) -> Option<u32> {
        let own = self.of_version(local.ip())?;
        if self.local?.port() != local.port() {
            return None;
        }
        let for_peer = match self.peer {
            Some(only) if only != peer => return None,
            Some(_) => 8,
            None => 0,
        };
        let for_address = match () {
            () if own == local.ip() => 4,
            () if own.is_unspecified() && (!inside || local.ip().is_loopback()) => 2,
            () if inside => return None,
            () => 0,
        };
        let for_version = u32::from(self.v6 == local.is_ipv6());
        Some(for_peer + for_address + for_version)
    }
}

/// The address from which the kernel would send there, as far as all replicas have the same one.
pub(super) fn own_address(to: IpAddr) -> IpAddr {
    match to {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}
