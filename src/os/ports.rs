//! Ports for listeners that are bound later, or again after a restart.
//!
//! The kernel gives the ports of one range to clients (`ip_local_port_range`), on every address; one of
//! those that is free now may be a client's by the time that its listener starts. So ports are taken
//! from outside of that range. Two pickers do not get the same port either: each holds the name of its
//! port in the abstract UNIX namespace for as long as its process lives.
//!
//! Left out: programs that are not ours and begin to listen in between. Who binds the port says so.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher;
use std::io;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Mutex;

/// Ports below are left to services with well-known ones.
const LOWEST: u16 = 10_000;

/// The reservations, held until the process ends.
static RESERVED: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// A port from `lowest` on that nobody listens at on any of these addresses, with TCP or UDP, reserved
/// until this process ends.
///
/// # Errors
/// One of the addresses is not this machine's, or no port is free.
pub fn reserve_from(lowest: u16, addresses: &[IpAddr]) -> io::Result<u16> {
    for address in addresses {
        TcpListener::bind((*address, 0))?;
    }
    let all = candidates(lowest, client_ports());
    let start = RandomState::new().hash_one(lowest) as usize % all.len().max(1);
    let around = all[start..].iter().chain(&all[..start]);
    for port in around {
        let Some(reservation) = reservation(*port) else {
            continue;
        };
        if addresses.iter().all(|address| is_free(*address, *port)) {
            let mut reserved = RESERVED.lock().unwrap_or_else(|held| held.into_inner());
            reserved.push(reservation);
            return Ok(*port);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AddrInUse,
        format!("no port is free on {addresses:?}"),
    ))
}

/// As [`reserve_from`], from where well-known ports end.
///
/// # Errors
/// See [`reserve_from`].
pub fn reserve(addresses: &[IpAddr]) -> io::Result<u16> {
    reserve_from(LOWEST, addresses)
}

fn is_free(address: IpAddr, port: u16) -> bool {
    TcpListener::bind((address, port)).is_ok() && UdpSocket::bind((address, port)).is_ok()
}

fn reservation(port: u16) -> Option<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("brolga-port-{port}")).ok()?;
    UnixListener::bind_addr(&name).ok()
}

/// The ports outside of the clients' range; all, if none is.
fn candidates(lowest: u16, clients: RangeInclusive<u16>) -> Vec<u16> {
    let outside: Vec<u16> = (lowest..=u16::MAX)
        .filter(|it| !clients.contains(it))
        .collect();
    match outside.is_empty() {
        true => (lowest..=u16::MAX).collect(),
        false => outside,
    }
}

/// The range of ports that the kernel gives to clients; its default if it cannot be read.
fn client_ports() -> RangeInclusive<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut words = text.split_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        _ => 32_768..=60_999,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn ports_are_outside_of_what_clients_get_and_never_given_twice() {
        let address = [IpAddr::from(Ipv4Addr::LOCALHOST)];
        let mut ports: Vec<u16> = (0..40).map(|_| reserve(&address).unwrap()).collect();
        let clients = client_ports();
        assert!(
            ports.iter().all(|port| !clients.contains(port)),
            "{ports:?}"
        );
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 40);
    }

    #[test]
    fn without_a_port_outside_any_will_do() {
        assert_eq!(candidates(65_530, 1024..=u16::MAX).len(), 6);
        assert_eq!(candidates(60_998, 32_768..=60_999)[0], 61_000);
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let elsewhere = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1));
        let error = reserve(&[elsewhere]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
