//! Network interfaces: two, the same on every replica, whatever the machine has. The server reaches
//! the network only through the log, so real interfaces would tell it nothing true.

use crate::hooks::result::{error, finish};
use crate::libc_symbols::libc_own;
use crate::turn::Turn;
use brolga_tape::operation as op;
use core::ffi::{CStr, c_char, c_int, c_ulong, c_void};
use libc::{ifaddrs, in_addr, sockaddr_in};

/// An interface as the server sees it.
struct Interface {
    index: u32,
    name: &'static CStr,
    flags: c_int,
    address: u32,
    mask: u32,
    broadcast: u32,
    hardware: [u8; 6],
}

const UP: c_int = libc::IFF_UP | libc::IFF_RUNNING;

/// The second one's address is of the documentation's network (RFC 5737): nobody has it. The
/// virtual sockets know it, so that the server finds itself there.
static INTERFACES: [Interface; 2] = [
    Interface {
        index: 1,
        name: c"lo",
        flags: UP | libc::IFF_LOOPBACK,
        address: 0x7F00_0001,
        mask: 0xFF00_0000,
        broadcast: 0,
        hardware: [0; 6],
    },
    Interface {
        index: 2,
        name: c"eth0",
        flags: UP | libc::IFF_BROADCAST | libc::IFF_MULTICAST,
        address: 0xC000_0201,
        mask: 0xFFFF_FF00,
        broadcast: 0xC000_02FF,
        hardware: [0x02, 0, 0, 0, 0, 0x01],
    },
];

const NAME_BYTES: usize = libc::IFNAMSIZ;
const REQUEST_BYTES: usize = 40;

fn socket_address(address: u32) -> sockaddr_in {
    sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 0,
        sin_addr: in_addr {
            s_addr: address.to_be(),
        },
        sin_zero: [0; 8],
    }
}

fn by_index(index: u32) -> Option<&'static Interface> {
    INTERFACES.iter().find(|it| it.index == index)
}

/// # Safety
/// `name` points to a name that ends with NUL or after 16 bytes.
unsafe fn by_name(name: *const c_char) -> Option<&'static Interface> {
    INTERFACES.iter().find(|it| {
        let own = it.name.to_bytes_with_nul();
        // SAFETY: reading stops at the first difference, so within the name.
        (0..own.len()).all(|at| unsafe { *name.add(at) } as u8 == own[at])
    })
}

// ---- ioctl ----

/// # Safety
/// `to` has room for a `struct ifreq`.
unsafe fn put_name(to: *mut u8, interface: &Interface) {
    let name = interface.name.to_bytes_with_nul();
    // SAFETY: the caller's promise; names are shorter than the field.
    unsafe {
        to.write_bytes(0, NAME_BYTES);
        to.copy_from_nonoverlapping(name.as_ptr(), name.len());
    }
}

/// # Safety
/// As for SIOCGIFCONF: `argument` points to a length and a buffer.
unsafe fn list(argument: *mut c_void) -> isize {
    #[repr(C)]
    struct Configuration {
        length: c_int,
        buffer: *mut u8,
    }
    // SAFETY: the caller's promise.
    let wanted = unsafe { &mut *argument.cast::<Configuration>() };
    if wanted.buffer.is_null() {
        wanted.length = (INTERFACES.len() * REQUEST_BYTES) as c_int;
        return 0;
    }
    let room = usize::try_from(wanted.length).unwrap_or(0) / REQUEST_BYTES;
    let count = room.min(INTERFACES.len());
    for (at, interface) in INTERFACES.iter().enumerate().take(count) {
        // SAFETY: the buffer has room for `count` requests.
        unsafe {
            let to = wanted.buffer.add(at * REQUEST_BYTES);
            to.write_bytes(0, REQUEST_BYTES);
            put_name(to, interface);
            let address = socket_address(interface.address);
            to.add(NAME_BYTES)
                .cast::<sockaddr_in>()
                .write_unaligned(address);
        }
    }
    wanted.length = (count * REQUEST_BYTES) as c_int;
    0
}

/// Answers questions about interfaces. `None`: another request.
///
/// # Safety
/// `argument` fits the request.
pub(crate) unsafe fn control(request: c_ulong, argument: *mut c_void) -> Option<isize> {
    let known = [
        libc::SIOCGIFNAME,
        libc::SIOCGIFCONF,
        libc::SIOCGIFFLAGS,
        libc::SIOCGIFADDR,
        libc::SIOCGIFBRDADDR,
        libc::SIOCGIFNETMASK,
        libc::SIOCGIFMTU,
        libc::SIOCGIFHWADDR,
        libc::SIOCGIFINDEX,
    ];
    if !known.contains(&request) || Turn::take(op::OPTION).is_none() {
        return None;
    }
    if request == libc::SIOCGIFCONF {
        // SAFETY: the caller promises that `argument` fits the request.
        return Some(unsafe { list(argument) });
    }
    let name = argument.cast::<u8>();
    // SAFETY: the caller promises a struct ifreq: a name, then 24 bytes of a union.
    unsafe {
        let value = name.add(NAME_BYTES);
        let found = if request == libc::SIOCGIFNAME {
            by_index(value.cast::<u32>().read_unaligned())
        } else {
            by_name(name.cast())
        };
        let Some(interface) = found else {
            return Some(error(libc::ENODEV));
        };
        let put_address = |address| {
            let address = socket_address(address);
            value.cast::<sockaddr_in>().write_unaligned(address);
        };
        match request {
            libc::SIOCGIFNAME => put_name(name, interface),
            libc::SIOCGIFADDR => put_address(interface.address),
            libc::SIOCGIFBRDADDR => put_address(interface.broadcast),
            libc::SIOCGIFNETMASK => put_address(interface.mask),
            libc::SIOCGIFFLAGS => value.cast::<i16>().write_unaligned(interface.flags as i16),
            libc::SIOCGIFMTU => value.cast::<c_int>().write_unaligned(1500),
            libc::SIOCGIFINDEX => value.cast::<u32>().write_unaligned(interface.index),
            _ => {
                value.cast::<u16>().write_unaligned(libc::ARPHRD_ETHER);
                value
                    .add(2)
                    .copy_from_nonoverlapping(interface.hardware.as_ptr(), 6);
            }
        }
    }
    Some(0)
}

// ---- libc's own lists ----

/// An element of the list: libc's `freeifaddrs` is a hook as well, so the layout is our own.
#[repr(C)]
struct Element {
    list: ifaddrs,
    address: sockaddr_in,
    mask: sockaddr_in,
    broadcast: sockaddr_in,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn getifaddrs(to: *mut *mut ifaddrs) -> c_int {
    if Turn::take(op::OPTION).is_none() {
        return libc_own!(getifaddrs(to: *mut *mut ifaddrs) -> c_int);
    }
    // SAFETY: malloc has no preconditions; zeroed memory of the right size is valid for all fields.
    let elements = unsafe { libc::calloc(INTERFACES.len(), size_of::<Element>()) };
    let elements = elements.cast::<Element>();
    if elements.is_null() {
        return finish(error(libc::ENOMEM)) as c_int;
    }
    for (at, interface) in INTERFACES.iter().enumerate() {
        // SAFETY: there is room for all interfaces, and nobody else has it.
        unsafe {
            let element = &mut *elements.add(at);
            element.address = socket_address(interface.address);
            element.mask = socket_address(interface.mask);
            element.broadcast = socket_address(interface.broadcast);
            element.list.ifa_name = interface.name.as_ptr().cast_mut();
            element.list.ifa_flags = interface.flags.cast_unsigned();
            element.list.ifa_addr = (&raw mut element.address).cast();
            element.list.ifa_netmask = (&raw mut element.mask).cast();
            if interface.broadcast != 0 {
                element.list.ifa_ifu = (&raw mut element.broadcast).cast();
            }
            if at + 1 < INTERFACES.len() {
                element.list.ifa_next = &raw mut (*elements.add(at + 1)).list;
            }
        }
    }
    // SAFETY: the caller promises room for a pointer; the list is the first field of the first
    // element.
    unsafe { to.write(elements.cast()) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn freeifaddrs(list: *mut ifaddrs) {
    // SAFETY: both lists are one block of malloc's that starts with the first element.
    unsafe { libc::free(list.cast()) };
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn if_nametoindex(name: *const c_char) -> u32 {
    if Turn::take(op::OPTION).is_none() {
        return libc_own!(if_nametoindex(name: *const c_char) -> u32);
    }
    // SAFETY: the caller promises a NUL-terminated name.
    match unsafe { by_name(name) } {
        Some(interface) => interface.index,
        None => {
            finish(error(libc::ENODEV));
            0
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn if_indextoname(index: u32, to: *mut c_char) -> *mut c_char {
    if Turn::take(op::OPTION).is_none() {
        return libc_own!(if_indextoname(index: u32, to: *mut c_char) -> *mut c_char);
    }
    let Some(interface) = by_index(index) else {
        finish(error(libc::ENXIO));
        return core::ptr::null_mut();
    };
    // SAFETY: the caller promises room for a name of 16 bytes.
    unsafe { put_name(to.cast(), interface) };
    to
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn if_nameindex() -> *mut libc::if_nameindex {
    if Turn::take(op::OPTION).is_none() {
        return libc_own!(if_nameindex() -> *mut libc::if_nameindex);
    }
    // SAFETY: calloc has no preconditions; the last element stays zero, which ends the list.
    let list = unsafe { libc::calloc(INTERFACES.len() + 1, size_of::<libc::if_nameindex>()) };
    let list = list.cast::<libc::if_nameindex>();
    if list.is_null() {
        finish(error(libc::ENOBUFS));
        return list;
    }
    for (at, interface) in INTERFACES.iter().enumerate() {
        // SAFETY: there is room for all interfaces.
        unsafe {
            (*list.add(at)).if_index = interface.index;
            (*list.add(at)).if_name = interface.name.as_ptr().cast_mut();
        }
    }
    list
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn if_freenameindex(list: *mut libc::if_nameindex) {
    if !Turn::is_scheduled() {
        libc_own!(if_freenameindex(list: *mut libc::if_nameindex) -> ());
        return;
    }
    // SAFETY: the block that if_nameindex has allocated; names are static.
    unsafe { libc::free(list.cast()) };
}
