//! Names and options of sockets. Options with an effect are kept in the virtual socket; the others
//! are kept by the real socket behind it, for `getsockopt`. Values that the kernel would measure
//! are constants.

use super::datagram::{self, Setting, is_datagram};
use super::published;
use super::unix::Shown;
use crate::address;
use crate::hooks::fd::ioctl::{SIOCATMARK, ioctl};
use crate::hooks::fd::object::{object, on_object};
use crate::hooks::result::{error, finish};
use crate::sys::{self, sys};
use crate::turn::Turn;
use brolga_tape::operation as op;
use brolga_vnet::{Object, SocketIx, State};
use core::ffi::{c_int, c_void};
use libc::socklen_t;

// ---- names ----

/// The address of a socket, or of its peer.
///
/// # Safety
/// As `getsockname`: `to` has room for `*len` bytes.
unsafe fn name_of(fd: c_int, to: *mut c_void, len: *mut socklen_t, peer: bool) -> isize {
    let number = if peer {
        libc::SYS_getpeername
    } else {
        libc::SYS_getsockname
    };
    if let Some(mut turn) = Turn::have()
        && let Some(Object::Socket(ix)) = object(&mut turn, fd)
    {
        let socket = turn.shared().net.socket(ix);
        let (v6, datagrams) = (socket.v6, socket.is_datagram());
        let connecting = socket.state() == State::Connecting;
        let found = match peer {
            true => socket.peer().filter(|_| !connecting),
            false if datagrams => turn.shared().net.datagram_name(ix),
            false => socket.local(),
        };
        if peer && found.is_none() {
            return error(libc::ENOTCONN);
        }
        let socket = *turn.shared().net.socket(ix);
        if published::path_of(&turn, &socket).is_some() {
            // SAFETY: the caller promises that `to` has room for `*len` bytes.
            unsafe { published::write_name(&mut turn, found, to, len) };
            return 0;
        }
        if let Some(address) = found {
            // SAFETY: the caller promises that `to` has room for `*len` bytes.
            unsafe { address::write(address, v6, to, len) };
            return 0;
        }
    }
    let Some(mut turn) = Turn::have().filter(|_| !to.is_null() && !len.is_null()) else {
        // SAFETY: the caller's pointers, passed on.
        return unsafe { sys!(number, fd, to, len) };
    };
    // SAFETY: the caller's promise, and neither is null; the kernel writes to our own memory.
    unsafe {
        let mut shown = Shown::new(to, *len);
        let (ours, ours_len) = shown.place();
        let result = sys!(number, fd, ours, ours_len);
        if result >= 0 {
            *len = shown.give(&mut turn);
        }
        result
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockname(fd: c_int, to: *mut c_void, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { name_of(fd, to, len, false) }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn getpeername(fd: c_int, to: *mut c_void, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { name_of(fd, to, len, true) }) as c_int
}

// ---- setting ----

/// The value of an option of type int.
///
/// # Safety
/// `value` points to `len` readable bytes.
unsafe fn number(value: *const c_void, len: socklen_t) -> Option<c_int> {
    // SAFETY: the length was checked.
    (len as usize >= size_of::<c_int>()).then(|| unsafe { value.cast::<c_int>().read_unaligned() })
}

/// Largest buffer that a program may ask for, as Linux has it by default.
const BUFFER_BYTES_MAX: c_int = 212_992;
const SEND_BUFFER_BYTES_MIN: c_int = 4608;
const RECEIVE_BUFFER_BYTES_MIN: c_int = 2304;

fn note_number(turn: &mut Turn, ix: SocketIx, (level, option): (c_int, c_int), value: c_int) {
    let socket = turn.shared().net.socket_mut(ix);
    let doubled = 2 * value.clamp(0, BUFFER_BYTES_MAX);
    match (level, option) {
        (libc::SOL_SOCKET, libc::SO_REUSEPORT) => socket.reuse_port = value != 0,
        (libc::SOL_SOCKET, libc::SO_REUSEADDR) => socket.reuse_address = value != 0,
        (libc::SOL_SOCKET, libc::SO_SNDBUF) => {
            socket.send_buffer = doubled.max(SEND_BUFFER_BYTES_MIN);
        }
        (libc::SOL_SOCKET, libc::SO_RCVBUF) => {
            socket.receive_buffer = doubled.max(RECEIVE_BUFFER_BYTES_MIN);
        }
        (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) => socket.v6_only = value != 0,
        _ => {}
    }
}

/// # Safety
/// `value` points to `len` readable bytes.
unsafe fn note_option(
    turn: &mut Turn,
    ix: SocketIx,
    (level, option): (c_int, c_int),
    value: *const c_void,
    len: socklen_t,
) {
    // SAFETY: the caller promises that `value` points to `len` readable bytes.
    if let Some(value) = unsafe { number(value, len) } {
        note_number(turn, ix, (level, option), value);
    }
    if level != libc::SOL_SOCKET {
        return;
    }
    let socket = turn.shared().net.socket_mut(ix);
    // SAFETY: in all arms the caller promises `len` readable bytes.
    unsafe {
        match option {
            libc::SO_RCVTIMEO | libc::SO_SNDTIMEO if len as usize >= size_of::<libc::timeval>() => {
                let time = value.cast::<libc::timeval>().read_unaligned();
                let ns = (time.tv_sec.max(0) as u64) * 1_000_000_000
                    + (time.tv_usec.max(0) as u64) * 1000;
                if option == libc::SO_RCVTIMEO {
                    socket.receive_timeout_ns = ns;
                } else {
                    socket.send_timeout_ns = ns;
                }
            }
            libc::SO_LINGER if len as usize >= size_of::<libc::linger>() => {
                let linger = value.cast::<libc::linger>().read_unaligned();
                socket.linger_reset = linger.l_onoff != 0 && linger.l_linger == 0;
            }
            _ => {}
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    option: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    if let Some(mut turn) = Turn::take(op::OPTION)
        && let Some(Object::Socket(ix)) = object(&mut turn, fd)
    {
        if (level, option) == (libc::SOL_SOCKET, libc::SO_ZEROCOPY) {
            // The program would never be told that the memory is free again.
            return finish(error(libc::ENOPROTOOPT)) as c_int;
        }
        if is_datagram(&mut turn, ix) {
            // SAFETY: the caller's promise.
            let setting =
                unsafe { datagram::note_option(&mut turn, ix, (level, option), value, len) };
            if let Setting::Done(result) = setting {
                return finish(result) as c_int;
            }
        }
        // SAFETY: the caller's promise.
        unsafe { note_option(&mut turn, ix, (level, option), value, len) };
    }
    // SAFETY: the caller's pointer, passed on: the placeholder keeps the option for getsockopt.
    finish(unsafe { sys!(sys::SYS_setsockopt, fd, level, option, value, len) }) as c_int
}

// ---- getting ----

/// As Linux has them by default.
const SEND_BUFFER_BYTES: c_int = 16_384;
const RECEIVE_BUFFER_BYTES: c_int = 131_072;
const CONGESTION_CONTROL: [u8; 16] = *b"cubic\0\0\0\0\0\0\0\0\0\0\0";
const SO_COOKIE: c_int = 57;

/// Bytes of `struct tcp_info` as `<netinet/tcp.h>` has it.
const TCP_INFO_BYTES: usize = 104;
/// Positions in it, and what a connection over a fast network would have there.
const TCP_INFO_WORDS: [(usize, u32); 13] = [
    (8, 204_000), // retransmission timeout, microseconds
    (12, 40_000), // delayed acknowledgement, microseconds
    (16, 1448),   // segment sizes
    (20, 1448),
    (60, 1500),   // path MTU
    (64, 64_088), // thresholds
    (68, 1000),   // round trip, microseconds, and its variation
    (72, 500),
    (76, 0x7FFF_FFFF),
    (80, 10), // congestion window, segments
    (84, 1448),
    (88, 3),
    (96, 14_600),
];

fn tcp_info(state: u8) -> [u8; TCP_INFO_BYTES] {
    let mut info = [0; TCP_INFO_BYTES];
    info[0] = state;
    for (at, value) in TCP_INFO_WORDS {
        info[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    info
}

/// Gives a value as the kernel does: as much as there is room for.
///
/// # Safety
/// `len` points to a length, and `to` to as many writable bytes.
unsafe fn give(value: &[u8], to: *mut c_void, len: *mut socklen_t) -> isize {
    // SAFETY: the caller's promise; no more than `*len` bytes are written.
    unsafe {
        if (*len).cast_signed() < 0 {
            return error(libc::EINVAL);
        }
        let count = value.len().min(*len as usize);
        to.cast::<u8>()
            .copy_from_nonoverlapping(value.as_ptr(), count);
        *len = count as socklen_t;
    }
    0
}

/// A value of an option.
enum Value {
    Number(c_int),
    Cookie(u64),
    Congestion,
    TcpInfo(u8),
    Credentials(libc::ucred),
}

impl Value {
    /// # Safety
    /// As for [`give`].
    unsafe fn give(&self, to: *mut c_void, len: *mut socklen_t) -> isize {
        let give = |bytes: &[u8]| {
            // SAFETY: the caller's promise.
            unsafe { give(bytes, to, len) }
        };
        match *self {
            Self::Number(number) => give(&number.to_ne_bytes()),
            Self::Cookie(number) => give(&number.to_ne_bytes()),
            Self::Congestion => give(&CONGESTION_CONTROL),
            Self::TcpInfo(state) => give(&tcp_info(state)),
            Self::Credentials(libc::ucred { pid, uid, gid }) => {
                let mut bytes = [0; size_of::<libc::ucred>()];
                for (at, word) in [pid.cast_unsigned(), uid, gid].iter().enumerate() {
                    bytes[4 * at..][..4].copy_from_slice(&word.to_ne_bytes());
                }
                give(&bytes)
            }
        }
    }
}

/// The value of an option that the real socket does not know, or not the same everywhere.
fn virtual_value(turn: &mut Turn, ix: SocketIx, wanted: (c_int, c_int)) -> Option<Value> {
    let socket = *turn.shared().net.socket(ix);
    let unix = published::path_of(turn, &socket).is_some();
    let net = &mut turn.shared().net;
    let tcp = !unix && !net.socket(ix).is_datagram();
    let state = net.tcp_state(ix);
    let socket = net.socket_mut(ix);
    let set = |bytes: c_int, default: c_int| if bytes == 0 { default } else { bytes };
    Some(match wanted {
        (libc::SOL_SOCKET, libc::SO_ERROR) => {
            Value::Number(socket.take_error().map_or(0, c_int::from))
        }
        (libc::SOL_SOCKET, libc::SO_ACCEPTCONN) => {
            Value::Number((socket.state() == State::Listening).into())
        }
        (libc::SOL_SOCKET, libc::SO_SNDBUF) if tcp => {
            Value::Number(set(socket.send_buffer, SEND_BUFFER_BYTES))
        }
        (libc::SOL_SOCKET, libc::SO_RCVBUF) if tcp => {
            Value::Number(set(socket.receive_buffer, RECEIVE_BUFFER_BYTES))
        }
        (libc::SOL_SOCKET, libc::SO_PEERCRED) if unix => {
            Value::Credentials(published::peer_credentials(socket))
        }
        (libc::SOL_SOCKET, SO_COOKIE) => Value::Cookie(ix.into()),
        (libc::IPPROTO_TCP, libc::TCP_CONGESTION) if tcp => Value::Congestion,
        (libc::IPPROTO_TCP, libc::TCP_INFO) if tcp => Value::TcpInfo(state),
        _ => return None,
    })
}

/// The other end of a UNIX socket is a process of the tree, which has another number there.
///
/// # Safety
/// `to` points to `len` bytes of a `ucred` that the kernel has written.
unsafe fn translate_peer(turn: &mut Turn, to: *mut c_void, len: socklen_t) {
    if (len as usize) < size_of::<libc::ucred>() {
        return;
    }
    // SAFETY: the caller promises that `to` points to `len` bytes of a `ucred` that the kernel has
    // written.
    unsafe {
        let mut who = to.cast::<libc::ucred>().read_unaligned();
        who.pid = turn.shared().virtual_pid(who.pid);
        to.cast::<libc::ucred>().write_unaligned(who);
    }
}

/// Reads an option.
///
/// # Safety
/// As `getsockopt`: `to` has room for `*len` bytes.
unsafe fn getsockopt_(
    fd: c_int,
    wanted: (c_int, c_int),
    to: *mut c_void,
    len: *mut socklen_t,
) -> isize {
    let (level, option) = wanted;
    let raw = || {
        // SAFETY: the caller's pointers, passed on.
        unsafe { sys!(libc::SYS_getsockopt, fd, level, option, to, len) }
    };
    on_object(fd, op::OPTION, raw, |mut turn, object| match object {
        Object::Socket(ix) => {
            // SAFETY: the caller promises a length, and as many writable bytes.
            let given = virtual_value(&mut turn, ix, wanted).map(|it| unsafe { it.give(to, len) });
            given.unwrap_or_else(raw)
        }
        Object::Stream if wanted == (libc::SOL_SOCKET, libc::SO_PEERCRED) => {
            let result = raw();
            if result == 0 {
                // SAFETY: the kernel has just filled it.
                unsafe { translate_peer(&mut turn, to, *len) };
            }
            result
        }
        _ => raw(),
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    option: c_int,
    to: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { getsockopt_(fd, (level, option), to, len) }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sockatmark(fd: c_int) -> c_int {
    let mut mark: c_int = 0;
    // SAFETY: SIOCATMARK takes an int of ours.
    match unsafe { ioctl(fd, SIOCATMARK, &raw mut mark) } {
        0 => mark,
        failed => failed,
    }
}
