//! Names of hosts. libc would ask name servers, daemons and the routing table, whose answers differ
//! between machines and moments; here it is made to read `/etc/hosts` only.

use crate::libc_symbols::libc_own;
use crate::turn::Turn;
use core::ffi::{c_char, c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};
use libc::{addrinfo, hostent, sockaddr, socklen_t};

static FILES_ONLY: AtomicBool = AtomicBool::new(false);

/// Tells libc where to look; once per process.
fn look_into_files() {
    if !Turn::is_scheduled() || FILES_ONLY.swap(true, Ordering::Relaxed) {
        return;
    }
    let (database, sources) = (c"hosts".as_ptr(), c"files".as_ptr());
    // What came of it does not matter: it fails for lack of memory only.
    libc_own!(__nss_configure_lookup(database: *const c_char, sources: *const c_char) -> c_int);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn getaddrinfo(
    host: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    to: *mut *mut addrinfo,
) -> c_int {
    look_into_files();
    // Files are opened and closed meanwhile, whose descriptors others must not get in between.
    let turn = Turn::have();
    // SAFETY: the caller promises null or valid hints, which are plain data.
    let asked = unsafe { hints.as_ref().map(|hints| ptr::from_ref(hints).read()) };
    let own = asked.map(|mut hints| {
        if turn.is_some() {
            // Which versions of IP a machine has differs.
            hints.ai_flags &= !libc::AI_ADDRCONFIG;
        }
        hints
    });
    let hints: *const addrinfo = own.as_ref().map_or(ptr::null(), ptr::from_ref);
    libc_own!(getaddrinfo(
        host: *const c_char,
        service: *const c_char,
        hints: *const addrinfo,
        to: *mut *mut addrinfo
    ) -> c_int)
}

/// Functions that only have to look into files.
macro_rules! with_files {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> $result {
            look_into_files();
            libc_own!($name($($argument: $type),*) -> $result)
        }
    )* };
}

with_files! {
    gethostbyname(name: *const c_char) -> *mut hostent;
    gethostbyname2(name: *const c_char, family: c_int) -> *mut hostent;
    gethostbyaddr(address: *const c_void, len: socklen_t, family: c_int) -> *mut hostent;
    gethostbyname_r(name: *const c_char, to: *mut hostent, buffer: *mut c_char, len: usize,
        result: *mut *mut hostent, error: *mut c_int) -> c_int;
    gethostbyname2_r(name: *const c_char, family: c_int, to: *mut hostent, buffer: *mut c_char,
        len: usize, result: *mut *mut hostent, error: *mut c_int) -> c_int;
    gethostbyaddr_r(address: *const c_void, address_len: socklen_t, family: c_int, to: *mut hostent,
        buffer: *mut c_char, len: usize, result: *mut *mut hostent, error: *mut c_int) -> c_int;
    getnameinfo(address: *const sockaddr, address_len: socklen_t, host: *mut c_char,
        host_len: socklen_t, service: *mut c_char, service_len: socklen_t, flags: c_int) -> c_int;
}
