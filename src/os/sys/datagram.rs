//! Datagrams with the local address that they were sent to, or are to be sent from.

use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

/// A datagram that was received into a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedDatagram {
    /// The number of bytes.
    pub len: usize,
    /// The sender.
    pub peer: SocketAddr,
    /// The address that it was sent to, if the socket tells.
    pub local: Option<IpAddr>,
}

/// Makes a socket that is bound to any address report the local address of each datagram.
///
/// # Errors
/// The socket is not one of that family.
pub fn report_local_addresses(socket: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    match v6 {
        false => setsockopt(&socket, Ipv4PacketInfo, &true)?,
        true => setsockopt(&socket, Ipv6RecvPacketInfo, &true)?,
    }
    Ok(())
}

/// Room for one control message with an address, aligned for its header.
#[repr(align(8))]
struct Control([u8; 64]);

/// Receives one datagram.
///
/// # Errors
/// None has arrived, or the socket has an error.
pub fn receive_datagram(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<ReceivedDatagram> {
    let mut control = Control([0; 64]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control.0),
        MsgFlags::empty(),
    )?;
    let peer = message.address.as_ref().and_then(socket_address);
    let peer = peer.ok_or(io::ErrorKind::InvalidData)?;
    Ok(ReceivedDatagram {
        len: message.bytes,
        peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()),
        local: message.cmsgs()?.find_map(|told| local_address(&told)),
    })
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|it| SocketAddr::V4((*it).into()));
    v4.or_else(|| {
        address
            .as_sockaddr_in6()
            .map(|it| SocketAddr::V6((*it).into()))
    })
}

/// The address in a control message, if it has the one that a datagram was sent to.
fn local_address(told: &ControlMessageOwned) -> Option<IpAddr> {
    match told {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into())
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into())
        }
        _ => None,
    }
}

/// Sends one datagram, from the address `source` if one is given.
///
/// # Errors
/// The kernel does not take it.
pub fn send_datagram(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    source: Option<IpAddr>,
    peer: SocketAddr,
) -> io::Result<()> {
    let v6 = socket2::SockRef::from(&socket).domain()? == socket2::Domain::IPV6;
    let mapped = |ip: IpAddr| match ip {
        IpAddr::V4(ip) if v6 => ip.to_ipv6_mapped().into(),
        ip => ip,
    };
    let peer = SockaddrStorage::from(SocketAddr::new(mapped(peer.ip()), peer.port()));
    let send = |control: &[ControlMessage<'_>]| {
        let parts = [IoSlice::new(bytes)];
        sendmsg(
            socket.as_raw_fd(),
            &parts,
            control,
            MsgFlags::empty(),
            Some(&peer),
        )
    };
    match source.map(mapped) {
        None => send(&[])?,
        Some(IpAddr::V4(ip)) => send(&[ControlMessage::Ipv4PacketInfo(&libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr {
                s_addr: u32::from(ip).to_be(),
            },
            ipi_addr: libc::in_addr { s_addr: 0 },
        })])?,
        Some(IpAddr::V6(ip)) => send(&[ControlMessage::Ipv6PacketInfo(&libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr {
                s6_addr: ip.octets(),
            },
            ipi6_ifindex: 0,
        })])?,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    #[test]
    fn a_datagram_tells_the_address_that_it_was_sent_to_and_goes_back_from_it() {
        for (any, at) in [
            ("0.0.0.0:0", "127.0.0.5"),
            ("[::]:0", "::1"),
            ("[::]:0", "127.0.0.5"),
        ] {
            let server = UdpSocket::bind(any).unwrap();
            report_local_addresses(server.as_fd(), any.starts_with('[')).unwrap();
            let at: IpAddr = at.parse().unwrap();
            let local = if at.is_ipv4() {
                "127.0.0.1:0"
            } else {
                "[::1]:0"
            };
            let client = UdpSocket::bind(local).unwrap();
            let port = server.local_addr().unwrap().port();
            client.send_to(b"ping", (at, port)).unwrap();
            let mut buffer = [0; 16];
            let got = receive_datagram(server.as_fd(), &mut buffer).unwrap();
            assert_eq!(&buffer[..got.len], b"ping");
            assert_eq!(got.peer, client.local_addr().unwrap());
            assert_eq!(got.local.map(|ip| ip.to_canonical()), Some(at));
            send_datagram(server.as_fd(), b"pong", got.local, got.peer).unwrap();
            let (len, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(
                (&buffer[..len], from),
                (&b"pong"[..], SocketAddr::new(at, port))
            );
        }
    }
}
