//! `dlsym`.
//!
//! Libraries that wrap libc themselves (jemalloc wraps `pthread_create`) ask the loader for the
//! *next* definition of a symbol, which would bypass our hooks. `dlsym` is therefore a hook too: a
//! look-up of the next definition of a function that we export returns our function.

use crate::libc_symbols::NO_INFO;
use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};

unsafe extern "C" {
    fn dlvsym(handle: *mut c_void, name: *const c_char, version: *const c_char) -> *mut c_void;
    fn dladdr(address: *const c_void, info: *mut libc::Dl_info) -> c_int;
}

type Dlsym = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;

/// libc's dlsym, which the hook jumps to so that the loader still sees the original caller.
static DLSYM: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());

fn real_dlsym() -> Dlsym {
    let mut found = DLSYM.load(Ordering::Relaxed);
    if found.is_null() {
        for version in [c"GLIBC_2.34", c"GLIBC_2.2.5"] {
            // SAFETY: NUL-terminated strings.
            found = unsafe { dlvsym(libc::RTLD_NEXT, c"dlsym".as_ptr(), version.as_ptr()) };
            if !found.is_null() {
                break;
            }
        }
        assert!(!found.is_null(), "libc has no dlsym");
        DLSYM.store(found, Ordering::Relaxed);
    }
    // SAFETY: libc's function of that name and signature.
    unsafe { core::mem::transmute::<*mut c_void, Dlsym>(found) }
}

/// Start of the library that an address lies in.
fn library_of(address: *const c_void) -> *mut c_void {
    let mut info = NO_INFO;
    // SAFETY: any address may be asked for; room for the answer.
    unsafe { dladdr(address, &raw mut info) };
    info.dli_fbase
}

/// Our function, for a look-up of the next definition of its name; null for all other look-ups.
///
/// # Safety
/// `name` is null or ends with a NUL.
unsafe extern "C" fn choose(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    let dlsym = real_dlsym();
    if handle != libc::RTLD_NEXT || name.is_null() {
        return core::ptr::null_mut();
    }
    // SAFETY: the caller's name. We come first in the global order, so if it is ours it is found.
    let first = unsafe { dlsym(libc::RTLD_DEFAULT, name) };
    let ours = library_of((&raw const DLSYM).cast());
    if !first.is_null() && library_of(first) == ours {
        first
    } else {
        core::ptr::null_mut()
    }
}

#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    core::arch::naked_asm!(
        "push rdi",
        "push rsi",
        "sub rsp, 8",
        "call {choose}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "test rax, rax",
        "jne 2f",
        // A jump, not a call: the loader finds out from the return address who asks.
        "jmp qword ptr [rip + {real}]",
        "2:",
        "ret",
        choose = sym choose,
        real = sym DLSYM,
    )
}
