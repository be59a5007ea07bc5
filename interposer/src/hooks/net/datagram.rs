//! Datagram sockets of the internet families. The calls that work on both kinds of sockets come
//! here from [`socket`](super::socket) and [`recv_send`](super::recv_send).

use super::waiting;
use crate::address;
use crate::hooks::fd::iovec::Vectors;
use crate::hooks::result::error;
use crate::turn::{self, Turn};
use brolga_tape::DATAGRAM_BYTES_MAX;
use brolga_vnet::{DatagramError, Envelope, Received, SocketIx, WaitOn, Way};
use core::ffi::{c_int, c_uint, c_void};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use libc::{cmsghdr, in_pktinfo, in6_pktinfo, msghdr, socklen_t};

/// The interface that a server is told for everything: the kernel's number of the loopback
/// one.
const INTERFACE: c_uint = 1;

/// Returns whether a virtual socket is one for datagrams.
pub(crate) fn is_datagram(turn: &mut Turn, ix: SocketIx) -> bool {
    turn.shared().net.socket(ix).is_datagram()
}

/// Datagrams of these sockets are virtual.
pub(crate) fn is_ours(kind: c_int, protocol: c_int) -> bool {
    kind & 0xF == libc::SOCK_DGRAM && [0, libc::IPPROTO_UDP].contains(&protocol)
}

fn errno(failure: DatagramError) -> isize {
    error(match failure {
        DatagramError::NoDestination => libc::EDESTADDRREQ,
        DatagramError::TooLong => libc::EMSGSIZE,
        DatagramError::Unreachable => libc::ENETUNREACH,
        DatagramError::Refused => libc::ECONNREFUSED,
        DatagramError::Shut => libc::EPIPE,
        DatagramError::InUse | DatagramError::NoPort => libc::EADDRINUSE,
    })
}

/// An address for this socket.
///
/// # Safety
/// `to` points to `len` readable bytes, or is null.
pub(crate) unsafe fn address_for(
    turn: &mut Turn,
    ix: SocketIx,
    to: *const c_void,
    len: socklen_t,
) -> Result<SocketAddr, isize> {
    // SAFETY: the caller promises that `to` points to `len` readable bytes, or is null.
    let to = unsafe { address::read(to, len) }.ok_or(error(libc::EINVAL))?;
    let v6 = turn.shared().net.socket(ix).v6;
    if to.is_ipv6() && !v6 {
        return Err(error(libc::EAFNOSUPPORT));
    }
    Ok(to)
}

/// # Safety
/// `to` points to `len` readable bytes, or is null.
pub(crate) unsafe fn bind(
    turn: &mut Turn,
    ix: SocketIx,
    to: *const c_void,
    len: socklen_t,
) -> isize {
    // SAFETY: the caller promises that `to` points to `len` readable bytes, or is null.
    let to = match unsafe { address_for(turn, ix, to, len) } {
        Ok(to) => to,
        Err(failure) => return failure,
    };
    let net = &mut turn.shared().net;
    if net.socket(ix).local().is_some() {
        return error(libc::EINVAL);
    }
    match net.bind_datagram(ix, to) {
        Ok(()) => 0,
        Err(failure) => errno(failure),
    }
}

/// # Safety
/// `to` points to `len` readable bytes, or is null.
pub(crate) unsafe fn connect(
    turn: &mut Turn,
    ix: SocketIx,
    to: *const c_void,
    len: socklen_t,
) -> isize {
    // SAFETY: the caller promises that `to` points to `len` readable bytes, or is null.
    let peer = if unsafe { address::family(to, len) } == libc::AF_UNSPEC {
        None
    } else {
        // SAFETY: the caller promises that `to` points to `len` readable bytes, or is null.
        match unsafe { address_for(turn, ix, to, len) } {
            Ok(to) => Some(to),
            Err(failure) => return failure,
        }
    };
    let (net, mut outside) = turn.net();
    match net.connect_datagram(ix, peer, &mut outside) {
        Ok(()) => 0,
        Err(failure) => errno(failure),
    }
}

// ---- receiving ----

/// `read` and `readv`: like the kernel, they leave datagrams alone when there is no room at all.
///
/// # Safety
/// The vectors point to writable memory.
pub(crate) unsafe fn read(turn: &mut Turn, ix: SocketIx, vectors: Vectors) -> isize {
    // SAFETY: the caller promises that the vectors point to writable memory.
    unsafe {
        if vectors.len() == 0 {
            return 0;
        }
        let mut message = vectors.message();
        receive(turn, ix, &mut message, 0)
    }
}

/// Receives a datagram, waiting if it may.
///
/// # Safety
/// The message's parts point to memory as long as they say.
pub(crate) unsafe fn receive(
    turn: &mut Turn,
    ix: SocketIx,
    message: &mut msghdr,
    flags: c_int,
) -> isize {
    if flags & libc::MSG_ERRQUEUE != 0 {
        return error(libc::EAGAIN);
    }
    // SAFETY: the caller promises that the message's parts point to memory as long as they say.
    let Some(vectors) = (unsafe { Vectors::of(message) }) else {
        return error(libc::EMSGSIZE);
    };
    // SAFETY: the caller promises that the message's parts point to memory as long as they say.
    let room = unsafe { vectors.len() };
    let socket = turn.shared().net.socket(ix);
    let waits = !socket.nonblocking && flags & libc::MSG_DONTWAIT == 0;
    let timeout = socket.receive_timeout_ns;
    let deadline = waiting::deadline(turn, timeout);
    let peek = flags & libc::MSG_PEEK != 0;
    loop {
        if !is_datagram(turn, ix) {
            return error(libc::EBADF); // Closed while this thread waited.
        }
        let mut at = 0;
        let net = &mut turn.shared().net;
        let received = net.receive_datagram(ix, room, peek, |piece| {
            // SAFETY: the caller promises that the message's parts point to memory as long as they
            // say.
            unsafe { vectors.put(at, piece) };
            at += piece.len();
        });
        return match received {
            Received::Datagram(envelope) => {
                turn.scheduler().note(envelope.len as u64);
                // SAFETY: the caller promises that the message's parts point to memory as long as
                // they say.
                unsafe { describe(turn, ix, message, &envelope, room) };
                let shown = match flags & libc::MSG_TRUNC {
                    0 => envelope.len.min(room),
                    _ => envelope.len,
                };
                shown as isize
            }
            Received::End => {
                message.msg_namelen = 0;
                message.msg_controllen = 0;
                message.msg_flags = 0;
                0
            }
            Received::Refused => error(libc::ECONNREFUSED),
            Received::WouldBlock if waits => {
                match waiting::pause(turn, ix, WaitOn::Readable(ix), deadline) {
                    Ok(()) => continue,
                    Err(result) => result,
                }
            }
            Received::WouldBlock => error(libc::EAGAIN),
        };
    }
}

/// Fills in what a message says beside its bytes.
///
/// # Safety
/// `message` is valid for writing, and `room` is what its caller has given.
unsafe fn describe(
    turn: &mut Turn,
    ix: SocketIx,
    message: &mut msghdr,
    envelope: &Envelope,
    room: usize,
) {
    let socket = turn.shared().net.socket(ix);
    let (v6, options) = (socket.v6, socket.datagram);
    message.msg_flags = match envelope.len > room {
        true => libc::MSG_TRUNC,
        false => 0,
    };
    if message.msg_name.is_null() {
        message.msg_namelen = 0;
    }
    // SAFETY: the caller promises room for a name as long as the message says.
    unsafe {
        let len = &raw mut message.msg_namelen;
        address::write(envelope.peer, v6, message.msg_name, len);
    }
    let local = envelope.local.ip();
    let mut control = Control::of(message);
    if let (true, IpAddr::V4(ip)) = (options.tells_local, local) {
        let address = libc::in_addr {
            s_addr: u32::from(ip).to_be(),
        };
        let info = in_pktinfo {
            ipi_ifindex: INTERFACE as c_int,
            ipi_spec_dst: address,
            ipi_addr: address,
        };
        // SAFETY: the caller promises room for as much control data as the message says.
        unsafe { control.put(libc::IPPROTO_IP, libc::IP_PKTINFO, &info) };
    }
    if options.tells_local_v6 && v6 {
        let ip = match local {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let info = in6_pktinfo {
            ipi6_addr: libc::in6_addr {
                s6_addr: ip.octets(),
            },
            ipi6_ifindex: INTERFACE,
        };
        // SAFETY: as above.
        unsafe { control.put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info) };
    }
    message.msg_controllen = control.used;
    if control.truncated {
        message.msg_flags |= libc::MSG_CTRUNC;
    }
}

/// Writes control messages.
struct Control {
    base: *mut u8,
    room: usize,
    used: usize,
    truncated: bool,
}

const fn aligned(len: usize) -> usize {
    (len + 7) & !7
}

impl Control {
    fn of(message: &msghdr) -> Self {
        let room = match message.msg_control.is_null() {
            true => 0,
            false => message.msg_controllen,
        };
        Self {
            base: message.msg_control.cast(),
            room,
            used: 0,
            truncated: false,
        }
    }

    /// Like the kernel, as much as there is room for if that is a header at least.
    ///
    /// # Safety
    /// `room` bytes from `base` on are writable.
    unsafe fn put<T>(&mut self, level: c_int, kind: c_int, value: &T) {
        const HEADER_BYTES: usize = size_of::<cmsghdr>();
        let left = self.room - self.used;
        let len = (HEADER_BYTES + size_of::<T>()).min(left);
        self.truncated |= len < HEADER_BYTES + size_of::<T>();
        if len < HEADER_BYTES {
            return;
        }
        // SAFETY: `len` bytes are left, which is a header and perhaps not all of the value.
        unsafe {
            let at = self.base.add(self.used);
            let mut header: cmsghdr = core::mem::zeroed();
            header.cmsg_len = len;
            header.cmsg_level = level;
            header.cmsg_type = kind;
            at.cast::<cmsghdr>().write_unaligned(header);
            let data = core::ptr::from_ref(value).cast();
            at.add(HEADER_BYTES)
                .copy_from_nonoverlapping(data, len - HEADER_BYTES);
        }
        self.used += aligned(len).min(left);
    }
}

// ---- sending ----

/// `write` and `writev`.
///
/// # Safety
/// The vectors point to readable memory.
pub(crate) unsafe fn write(turn: &mut Turn, ix: SocketIx, vectors: Vectors, flags: c_int) -> isize {
    // SAFETY: the caller promises that the vectors point to readable memory.
    unsafe { send(turn, ix, &vectors.message(), flags) }
}

/// Sends a datagram; that never waits.
///
/// # Safety
/// The message's parts point to memory as long as they say.
pub(crate) unsafe fn send(turn: &mut Turn, ix: SocketIx, message: &msghdr, flags: c_int) -> isize {
    if flags & libc::MSG_OOB != 0 {
        return error(libc::EOPNOTSUPP);
    }
    if flags & libc::MSG_MORE != 0 {
        turn::fault(&[b"MSG_MORE on a datagram socket is not supported"]);
    }
    // SAFETY: the caller promises that the message's parts point to memory as long as they say.
    let Some(vectors) = (unsafe { Vectors::of(message) }) else {
        return error(libc::EMSGSIZE);
    };
    let to = match message.msg_name.is_null() || message.msg_namelen == 0 {
        true => None,
        // SAFETY: the caller promises that the message's parts point to memory as long as they say.
        false => match unsafe { address_for(turn, ix, message.msg_name, message.msg_namelen) } {
            Ok(to) if to.port() == 0 => return error(libc::EINVAL),
            Ok(to) => Some(to),
            Err(failure) => return failure,
        },
    };
    // SAFETY: the caller promises that the message's parts point to memory as long as they say.
    let source = match unsafe { source_of(message) } {
        Ok(source) => source,
        Err(failure) => return failure,
    };
    // SAFETY: the caller promises that the message's parts point to memory as long as they say.
    let len = unsafe { vectors.len() };
    if len > DATAGRAM_BYTES_MAX {
        return error(libc::EMSGSIZE);
    }
    let way = Way {
        to,
        source,
        loopback_is_outside: turn.local().host_loopback,
    };
    let (net, mut outside) = turn.net();
    let sent = net.send_datagram(ix, &way, len, &mut outside, |room| {
        // SAFETY: the caller's promise; the room is as long as the vectors.
        unsafe { vectors.gather(room) };
    });
    match sent {
        Ok(()) => len as isize,
        Err(failure) => errno(failure),
    }
}

/// The address that a message wants to come from. Other control messages have no effect here.
///
/// # Safety
/// The message's control data are as long as it says.
unsafe fn source_of(message: &msghdr) -> Result<Option<IpAddr>, isize> {
    let mut source = None;
    let (base, len) = (message.msg_control.cast::<u8>(), message.msg_controllen);
    let mut at = 0;
    while !base.is_null() && len.saturating_sub(at) >= size_of::<cmsghdr>() {
        // SAFETY: a header's bytes are left.
        let (header, data) = unsafe {
            let header = base.add(at).cast::<cmsghdr>().read_unaligned();
            (header, base.add(at + size_of::<cmsghdr>()))
        };
        if header.cmsg_len < size_of::<cmsghdr>() || header.cmsg_len > len - at {
            return Err(error(libc::EINVAL));
        }
        let has = header.cmsg_len - size_of::<cmsghdr>();
        match (header.cmsg_level, header.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) if has >= size_of::<in_pktinfo>() => {
                // SAFETY: the length was checked.
                let info = unsafe { data.cast::<in_pktinfo>().read_unaligned() };
                let ip = Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr));
                source = (!ip.is_unspecified()).then_some(IpAddr::V4(ip));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if has >= size_of::<in6_pktinfo>() => {
                // SAFETY: the length was checked.
                let info = unsafe { data.cast::<in6_pktinfo>().read_unaligned() };
                let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                source = (!ip.is_unspecified()).then_some(IpAddr::V6(ip));
            }
            _ => {}
        }
        at += aligned(header.cmsg_len);
    }
    Ok(source)
}

// ---- options ----

/// The outcome of setting an option.
pub(crate) enum Setting {
    /// The placeholder keeps it for `getsockopt`.
    Pass,
    /// It has no effect, or is said not to be there.
    Done(isize),
}

const UDP_SEGMENT: c_int = 103;
const UDP_GRO: c_int = 104;
/// Joining and leaving groups, in either family: from `IP_ADD_MEMBERSHIP` to `MCAST_MSFILTER`, and
/// the older numbers of version 6.
const GROUPS: core::ops::RangeInclusive<c_int> = 35..=48;
const GROUPS_V6: [c_int; 4] = [20, 21, 27, 28];

/// Takes note of an option of a datagram socket. Groups are joined without effect, since what is
/// sent to one does not come through a frontend; what would join several datagrams into one, or
/// tear one apart, is refused, so that the server does without.
///
/// # Safety
/// `value` points to `len` readable bytes.
pub(crate) unsafe fn note_option(
    turn: &mut Turn,
    ix: SocketIx,
    (level, option): (c_int, c_int),
    value: *const c_void,
    len: socklen_t,
) -> Setting {
    let on = match len as usize {
        // SAFETY: the caller promises that `value` points to `len` readable bytes.
        4.. => unsafe { value.cast::<c_int>().read_unaligned() != 0 },
        // SAFETY: the same.
        1..4 => unsafe { value.cast::<u8>().read() != 0 },
        0 => false,
    };
    let options = &mut turn.shared().net.socket_mut(ix).datagram;
    match (level, option) {
        (libc::SOL_SOCKET, libc::SO_BINDTODEVICE)
        | (libc::IPPROTO_IP, libc::IP_MULTICAST_IF)
        | (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF) => return Setting::Done(0),
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => options.tells_local = on,
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) => options.tells_local_v6 = on,
        (libc::IPPROTO_IP | libc::IPPROTO_IPV6, group) if GROUPS.contains(&group) => {
            return Setting::Done(0);
        }
        (libc::IPPROTO_IPV6, group) if GROUPS_V6.contains(&group) => return Setting::Done(0),
        (libc::IPPROTO_UDP, libc::UDP_CORK | UDP_SEGMENT | UDP_GRO)
        | (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF | libc::SO_ATTACH_REUSEPORT_EBPF) => {
            return Setting::Done(error(libc::ENOPROTOOPT));
        }
        _ => {}
    }
    Setting::Pass
}
