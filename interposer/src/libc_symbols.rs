//! libc's own functions, for hooks that call the function they replace.
//!
//! They are looked up in libc itself, never as the next definition: a library that wraps libc could
//! come in between, and its wrapper and our hook would call each other for ever.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};

unsafe extern "C" {
    fn dladdr1(
        address: *const c_void,
        info: *mut libc::Dl_info,
        extra: *mut *mut c_void,
        flags: c_int,
    ) -> c_int;
    fn __errno_location() -> *mut c_int;
}

/// An empty answer of `dladdr`.
pub const NO_INFO: libc::Dl_info = libc::Dl_info {
    dli_fname: core::ptr::null(),
    dli_fbase: core::ptr::null_mut(),
    dli_sname: core::ptr::null(),
    dli_saddr: core::ptr::null_mut(),
};

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
        crate::output::fault(&[
            b"libc lacks a function that the interposer needs: ",
            name.to_bytes(),
        ])
    })
}

/// The real function behind a hook that can't be re-done by a system call, looked up at first use
/// (before there is a schedule, or outside it, more than one thread may do so: they find the same).
pub struct Real(AtomicPtr<c_void>, &'static CStr);

impl Real {
    /// A function that is looked up later.
    pub const fn new(name: &'static CStr) -> Self {
        Self(AtomicPtr::new(core::ptr::null_mut()), name)
    }

    /// The address of libc's function.
    pub fn get(&self) -> *mut c_void {
        let known = self.0.load(Ordering::Relaxed);
        if !known.is_null() {
            return known;
        }
        let found = libc_symbol(self.1);
        self.0.store(found, Ordering::Relaxed);
        found
    }
}

/// Calls libc's own function: `libc_own!(name(argument: type, ...) -> result)`.
macro_rules! libc_own {
    ($name:ident($($argument:ident: $type:ty),*) -> $result:ty) => {{
        const NAME: &core::ffi::CStr = match core::ffi::CStr::from_bytes_with_nul(
            concat!(stringify!($name), "\0").as_bytes(),
        ) {
            Ok(name) => name,
            Err(_) => panic!("a name has no NUL in it"),
        };
        static OWN: $crate::libc_symbols::Real = $crate::libc_symbols::Real::new(NAME);
        // SAFETY: libc's function of that name has this signature; the caller of the hook promises
        // what libc's contract asks for.
        unsafe {
            let own: unsafe extern "C" fn($($type),*) -> $result =
                core::mem::transmute(OWN.get());
            own($($argument),*)
        }
    }};
}
pub(crate) use libc_own;
