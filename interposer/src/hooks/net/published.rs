//! Published UNIX sockets: listeners that clients outside of the tree may use, on the paths that
//! the node has named.
//!
//! From its `bind` on such a listener is virtual, like one of the internet families: connections
//! come from the log, and those of the tree itself are linked without the kernel. The real socket
//! behind the descriptor is bound to the path, so that the file exists, and never listens. The
//! socket's virtual address says which path it is; see [`brolga_tape::unix`].
//!
//! Descriptors cannot be passed over these connections. Clients' credentials are not known: they
//! appear as user nobody.
//!
//! Rules of this file: raw system calls only, no allocation; every function has the turn.

use crate::hooks::fd::object::name;
use crate::hooks::fd::real::is_nonblocking;
use crate::hooks::result::error;
use crate::sys::{self, sys};
use crate::turn::{self, Turn};
use brolga_tape::unix;
use brolga_vnet::{Object, Socket, SocketIx};
use core::ffi::{c_int, c_void};
use core::net::SocketAddr;
use libc::{cmsghdr, msghdr, sockaddr_un, socklen_t};

const FAMILY_BYTES: usize = size_of::<u16>();
/// The user and group of unknown clients: nobody.
const NOBODY: u32 = 65_534;

/// The path that a socket belongs to: as its listener, or as an end of a connection.
pub(crate) fn path_of(turn: &Turn, socket: &Socket) -> Option<usize> {
    let paths = &turn.local().unix;
    let mut ends = socket.local().into_iter().chain(socket.peer());
    ends.find_map(|address| paths.of(address.ip()))
}

/// Which of the paths an address of the server's names.
///
/// # Safety
/// `to` is null or points to `len` readable bytes.
unsafe fn named(turn: &Turn, to: *const c_void, len: socklen_t) -> Option<usize> {
    let len = (len as usize).min(size_of::<sockaddr_un>());
    if to.is_null() || len <= FAMILY_BYTES {
        return None;
    }
    // SAFETY: the caller promises `len` readable bytes.
    let bytes = unsafe { core::slice::from_raw_parts(to.cast::<u8>(), len) };
    if i32::from(u16::from_ne_bytes([bytes[0], bytes[1]])) != libc::AF_UNIX {
        return None;
    }
    let path = &bytes[FAMILY_BYTES..];
    let end = path.iter().position(|byte| *byte == 0);
    turn.local().unix.find(&path[..end.unwrap_or(path.len())])
}

fn is_stream(fd: c_int) -> bool {
    let mut kind: c_int = 0;
    let mut len = size_of::<c_int>() as socklen_t;
    // SAFETY: room for an int, and its length.
    let result = unsafe {
        sys!(
            libc::SYS_getsockopt,
            fd,
            libc::SOL_SOCKET,
            libc::SO_TYPE,
            &raw mut kind,
            &raw mut len
        )
    };
    result == 0 && kind == libc::SOCK_STREAM
}

/// Makes a real descriptor name a virtual socket. The error, if there is no room.
fn make_virtual(turn: &mut Turn, fd: c_int) -> Result<SocketIx, isize> {
    let nonblocking = is_nonblocking(fd);
    let net = &mut turn.shared().net;
    let Some(ix) = net.make_socket(false) else {
        return Err(error(libc::ENFILE));
    };
    net.socket_mut(ix).nonblocking = nonblocking;
    match name(turn, fd as isize, Object::Socket(ix)) {
        failure if failure < 0 => Err(failure),
        _ => Ok(ix),
    }
}

/// Binds a UNIX socket to one of the paths. `None`: it is to another one, and real.
///
/// # Safety
/// `to` is null or points to `len` readable bytes.
pub(crate) unsafe fn bind(
    turn: &mut Turn,
    fd: c_int,
    to: *const c_void,
    len: socklen_t,
) -> Option<isize> {
    // SAFETY: the caller promises that `to` is null or points to `len` readable bytes.
    let which = unsafe { named(turn, to, len) }.filter(|_| is_stream(fd))?;
    // SAFETY: the caller's pointer, passed on.
    let result = unsafe { sys!(sys::SYS_bind, fd, to, len) };
    if result < 0 {
        return Some(result);
    }
    let made = make_virtual(turn, fd).map(|ix| {
        let address = SocketAddr::new(unix::address(which), 0);
        match turn.shared().net.bind(ix, address) {
            true => 0,
            false => error(libc::ENOBUFS),
        }
    });
    Some(made.unwrap_or_else(|failure| failure))
}

/// A socket for a connection to one of the paths, and the address to connect it to. `None`: no
/// listener of the tree listens there.
///
/// # Safety
/// `to` is null or points to `len` readable bytes.
pub(crate) unsafe fn destination(
    turn: &mut Turn,
    fd: c_int,
    to: *const c_void,
    len: socklen_t,
) -> Option<Result<(SocketIx, SocketAddr), isize>> {
    // SAFETY: the caller promises that `to` is null or points to `len` readable bytes.
    let which = unsafe { named(turn, to, len) }.filter(|_| is_stream(fd))?;
    let address = turn.shared().net.listener_on(unix::address(which))?;
    Some(make_virtual(turn, fd).map(|ix| (ix, address)))
}

/// Writes the address of one end of a connection, or of a listener, as the server knows it: ends
/// that did not listen have no name.
///
/// # Safety
/// `len` is null or valid; then `to` points to `*len` writable bytes.
pub(crate) unsafe fn write_name(
    turn: &mut Turn,
    end: Option<SocketAddr>,
    to: *mut c_void,
    len: *mut socklen_t,
) {
    if to.is_null() || len.is_null() {
        return;
    }
    let listens = |end: &SocketAddr| turn.shared().net.listener_on(end.ip()) == Some(*end);
    let which = end.filter(listens);
    let which = which.and_then(|end| turn.local().unix.of(end.ip()));
    let path = which.map_or(&[][..], |which| turn.local().unix.get(which));
    let mut bytes = [0; size_of::<sockaddr_un>()];
    bytes[..FAMILY_BYTES].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
    bytes[FAMILY_BYTES..][..path.len()].copy_from_slice(path);
    let all = match path.len() {
        0 => FAMILY_BYTES,
        path => FAMILY_BYTES + path + 1,
    };
    // SAFETY: the caller promises both pointers; no more than *len bytes are written.
    unsafe {
        let room = (*len as usize).min(all);
        to.cast::<u8>()
            .copy_from_nonoverlapping(bytes.as_ptr(), room);
        *len = all as socklen_t;
    }
}

/// The other end of a connection: a process of the tree is of the server's own user, a client is
/// nobody.
pub(crate) fn peer_credentials(socket: &Socket) -> libc::ucred {
    let is_client = socket.peer().is_none_or(|peer| peer.port() == 0);
    let own = |number: libc::c_long| {
        // SAFETY: no arguments.
        unsafe { sys!(number) as u32 }
    };
    match is_client {
        true => libc::ucred {
            pid: 0,
            uid: NOBODY,
            gid: NOBODY,
        },
        false => libc::ucred {
            pid: 0,
            uid: own(libc::SYS_geteuid),
            gid: own(libc::SYS_getegid),
        },
    }
}

/// Ends the server if a message has descriptors in it, which cannot go along.
///
/// # Safety
/// The message is valid.
pub(crate) unsafe fn refuse_descriptors(turn: &mut Turn, ix: SocketIx, message: &msghdr) {
    let socket = *turn.shared().net.socket(ix);
    if message.msg_controllen < size_of::<cmsghdr>() || path_of(turn, &socket).is_none() {
        return;
    }
    // SAFETY: the caller promises as many control bytes.
    let header = unsafe { message.msg_control.cast::<cmsghdr>().read_unaligned() };
    if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
        turn::fault(&[
            b"the server passes descriptors over a UNIX socket that is published (--unix); clients \
              cannot be given any",
        ]);
    }
}
