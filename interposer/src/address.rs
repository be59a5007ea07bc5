//! Socket addresses between C and Rust.

use core::ffi::{c_int, c_void};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use libc::{sockaddr_in, sockaddr_in6, socklen_t};

/// Reads a `sockaddr`. `None`: too short, or not an internet address.
///
/// # Safety
/// `address` points to `len` readable bytes, or is null.
pub unsafe fn read(address: *const c_void, len: socklen_t) -> Option<SocketAddr> {
    if address.is_null() || (len as usize) < size_of::<sockaddr_in>() {
        return None;
    }
    // SAFETY: at least a sockaddr_in is readable, and the family is its first field.
    let family = i32::from(unsafe { address.cast::<u16>().read_unaligned() });
    if family == libc::AF_INET {
        // SAFETY: the length was checked.
        let v4 = unsafe { address.cast::<sockaddr_in>().read_unaligned() };
        let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
        return Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port)));
    }
    if family == libc::AF_INET6 && len as usize >= size_of::<sockaddr_in6>() {
        // SAFETY: the length was checked.
        let v6 = unsafe { address.cast::<sockaddr_in6>().read_unaligned() };
        let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
        return Some(SocketAddr::new(IpAddr::V6(ip), u16::from_be(v6.sin6_port)));
    }
    None
}

/// Writes an address as the kernel does: as much as fits, and the true length. A socket of version
/// 6 sees version 4 addresses in their mapped form.
///
/// # Safety
/// `len` is null or valid; then `to` points to `*len` writable bytes.
pub unsafe fn write(address: SocketAddr, v6: bool, to: *mut c_void, len: *mut socklen_t) {
    if to.is_null() || len.is_null() {
        return;
    }
    let ip = match address.ip() {
        IpAddr::V4(ip) if v6 => IpAddr::V6(ip.to_ipv6_mapped()),
        ip => ip,
    };
    match ip {
        IpAddr::V4(ip) => {
            let v4 = sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from(ip).to_be(),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: passed on from the caller.
            unsafe { copy(&v4, to, len) }
        }
        IpAddr::V6(ip) => {
            let v6 = sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: ip.octets(),
                },
                sin6_scope_id: 0,
            };
            // SAFETY: passed on from the caller.
            unsafe { copy(&v6, to, len) }
        }
    }
}

/// Copies as much of an address as fits, and the true length.
///
/// # Safety
/// `len` points to the room at `to`, in bytes.
unsafe fn copy<T>(from: &T, to: *mut c_void, len: *mut socklen_t) {
    // SAFETY: the caller of `write` promises both pointers; no more than *len bytes are written.
    unsafe {
        let room = (*len as usize).min(size_of::<T>());
        core::ptr::copy_nonoverlapping(core::ptr::from_ref(from).cast::<u8>(), to.cast(), room);
        *len = size_of::<T>() as socklen_t;
    }
}

/// Returns whether an address is one of the internet families.
///
/// # Safety
/// `to` is null or points to `len` readable bytes.
pub(crate) unsafe fn is_internet(to: *const c_void, len: socklen_t) -> bool {
    // SAFETY: the caller promises that `to` is null or points to `len` readable bytes.
    [libc::AF_INET, libc::AF_INET6].contains(&unsafe { family(to, len) })
}

/// Family of an address, `AF_UNSPEC` if there is none.
///
/// # Safety
/// `to` is null or points to `len` readable bytes.
pub(crate) unsafe fn family(to: *const c_void, len: socklen_t) -> c_int {
    if to.is_null() || len < 2 {
        return libc::AF_UNSPEC;
    }
    // SAFETY: the caller promises `len` readable bytes.
    c_int::from(unsafe { to.cast::<u16>().read_unaligned() })
}
