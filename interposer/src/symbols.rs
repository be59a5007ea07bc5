//! Symbol look-up: libc's own functions for us, and ours for others.
//!
//! Libraries that wrap libc themselves (jemalloc wraps `pthread_create`) ask the loader for the *next*
//! definition, and would so go round our hooks. `dlsym` is therefore a hook too: whoever asks for the
//! next definition of something that we export is given ours. We in turn take our own from libc by its
//! handle, never from the next in line, so that wrapper and hook cannot call each other for ever.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};

unsafe extern "C" {
    fn dlvsym(handle: *mut c_void, name: *const c_char, version: *const c_char) -> *mut c_void;
    fn dladdr(address: *const c_void, info: *mut libc::Dl_info) -> c_int;
    fn dladdr1(
        address: *const c_void,
        info: *mut libc::Dl_info,
        extra: *mut *mut c_void,
        flags: c_int,
    ) -> c_int;
    fn __errno_location() -> *mut c_int;
}

type Dlsym = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;

const NO_INFO: libc::Dl_info = libc::Dl_info {
    dli_fname: core::ptr::null(),
    dli_fbase: core::ptr::null_mut(),
    dli_sname: core::ptr::null(),
    dli_saddr: core::ptr::null_mut(),
};

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

/// The start of glibc's `struct link_map`, which `<link.h>` publishes.
#[repr(C)]
struct LinkMap {
    base: usize,
    name: *const c_char,
    dynamic: *const Dynamic,
}

/// `Elf64_Dyn`. glibc has relocated the pointers in it.
#[repr(C)]
struct Dynamic {
    tag: i64,
    value: usize,
}

/// `Elf64_Sym`.
#[repr(C)]
struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: usize,
    size: u64,
}

/// A library's dynamic symbols, for look-ups without the loader.
struct Library {
    base: usize,
    symbols: *const Symbol,
    strings: *const c_char,
    hash: *const u32,
    versions: *const u16,
}

impl Library {
    /// libc, found by the address of a function that only libc has. Not by dlopen, which allocates
    /// (an allocator's first steps may have brought us here); and the loader's own look-up wants a
    /// handle that only dlopen gives.
    fn libc() -> Self {
        const LINK_MAP: c_int = 2;
        let mut info = NO_INFO;
        let mut map = core::ptr::null_mut();
        // SAFETY: an address in libc and room for both answers; a link map and its dynamic section,
        // which ends with a null tag, stay as long as the library does.
        unsafe {
            dladdr1(
                __errno_location as *const c_void,
                &raw mut info,
                &raw mut map,
                LINK_MAP,
            );
            let map = &*map.cast::<LinkMap>();
            let entry = |tag: i64| {
                let mut at = map.dynamic;
                while (*at).tag != tag {
                    assert_ne!((*at).tag, 0, "libc lacks a dynamic table");
                    at = at.add(1);
                }
                (*at).value
            };
            Self {
                base: map.base,
                symbols: entry(6) as *const Symbol,
                strings: entry(5) as *const c_char,
                hash: entry(0x6fff_fef5) as *const u32,
                versions: entry(0x6fff_fff0) as *const u16,
            }
        }
    }

    /// A function's default version. (GNU hash table: buckets of chains that end with an odd hash.)
    fn find(&self, name: &CStr) -> Option<*mut c_void> {
        const HIDDEN: u16 = 0x8000;
        let wanted = name.to_bytes().iter().fold(5381u32, |hash, byte| {
            hash.wrapping_mul(33).wrapping_add(u32::from(*byte))
        });
        // SAFETY: the tables of a loaded library, read in their documented layout: four words, the
        // Bloom filter, the buckets, the chains.
        unsafe {
            let [buckets, first, filter] = [0, 1, 2].map(|at| *self.hash.add(at));
            let table = self.hash.add(4 + 2 * filter as usize);
            let chains = table.add(buckets as usize);
            let mut at = *table.add((wanted % buckets) as usize);
            if at < first {
                return None;
            }
            loop {
                let hash = *chains.add((at - first) as usize);
                let symbol = &*self.symbols.add(at as usize);
                let shown = *self.versions.add(at as usize) & HIDDEN == 0;
                if hash | 1 == wanted | 1
                    && shown
                    && symbol.section != 0
                    && CStr::from_ptr(self.strings.add(symbol.name as usize)) == name
                {
                    return Some((self.base + symbol.value) as *mut c_void);
                }
                if hash & 1 != 0 {
                    return None;
                }
                at += 1;
            }
        }
    }
}

/// libc's own definition of a function.
///
/// # Panics
/// When libc does not have it, which cannot be with the glibc we are linked against.
pub fn libc_symbol(name: &CStr) -> *mut c_void {
    let found = Library::libc().find(name);
    found.unwrap_or_else(|| {
        crate::turn::fault(&[
            b"libc lacks a function that the interposer needs: ",
            name.to_bytes(),
        ])
    })
}

/// Start of the library that an address lies in.
fn library_of(address: *const c_void) -> *mut c_void {
    let mut info = NO_INFO;
    // SAFETY: any address may be asked for; room for the answer.
    unsafe { dladdr(address, &raw mut info) };
    info.dli_fbase
}

/// What a look-up of the next definition of a name of ours gives; null for all other look-ups.
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
