//! Names of UNIX sockets.
//!
//! All trees on a machine share the kernel's abstract namespace, and replicas use the same names.
//! The kernel is therefore given a longer name, with a tag of the tree in front; the server sees
//! its own. Names that the kernel would choose (autobind) are numbered.
//!
//! Names in the file system are not changed, except those below the common names of the tree's
//! directories ([`path`]) in a container: CRIU binds a socket again by the name that the kernel has
//! for it, at a moment when the descriptors behind the common names are not open. The kernel is
//! given the real paths.
//!
//! Rules of this file: raw system calls only, no allocation; every function has the turn.

use crate::address;
use crate::hooks::fs::path;
use crate::turn::Turn;
use core::ffi::c_void;
use libc::socklen_t;

const FAMILY_BYTES: usize = size_of::<u16>();
/// The NUL that says "abstract", after the family.
const NAME_AT: usize = FAMILY_BYTES + 1;
const TAG_BYTES: usize = size_of::<u64>();
/// The longest address of a UNIX socket.
const ADDRESS_BYTES_MAX: usize = size_of::<libc::sockaddr_un>();
/// Room for an address of any family.
const ROOM_BYTES: usize = size_of::<libc::sockaddr_storage>();
/// Digits of a name that the kernel would choose.
const AUTOMATIC_DIGITS: usize = 5;

/// An address as the kernel knows it.
pub(crate) struct KernelAddress {
    bytes: [u8; ROOM_BYTES],
    len: usize,
}

impl KernelAddress {
    /// The address to give to the kernel for `to`. `None`: `to` itself.
    ///
    /// # Safety
    /// `to` is null or points to `len` readable bytes.
    pub(crate) unsafe fn of(turn: &mut Turn, to: *const c_void, len: socklen_t) -> Option<Self> {
        let len = len as usize;
        if to.is_null() || len <= FAMILY_BYTES || len > ADDRESS_BYTES_MAX {
            return None;
        }
        // SAFETY: the caller promises `len` readable bytes.
        let theirs = unsafe { core::slice::from_raw_parts(to.cast::<u8>(), len) };
        if family(theirs) != libc::AF_UNIX {
            return None;
        }
        if theirs[FAMILY_BYTES] != 0 {
            return path::contained().find_map(|(common, real)| Self::moved(theirs, common, real));
        }
        Some(Self::tagged(turn, &theirs[NAME_AT..]))
    }

    /// The address to bind to for `to`; a name that is left to the system is made up here.
    ///
    /// # Safety
    /// `to` is null or points to `len` readable bytes.
    pub(crate) unsafe fn to_bind(
        turn: &mut Turn,
        to: *const c_void,
        len: socklen_t,
    ) -> Option<Self> {
        // SAFETY: the caller's promise, and the length is looked at before.
        let unnamed = len as usize == FAMILY_BYTES
            && !to.is_null()
            && unsafe { address::family(to, len) } == libc::AF_UNIX;
        if !unnamed {
            // SAFETY: the caller promises that `to` is null or points to `len` readable bytes.
            return unsafe { Self::of(turn, to, len) };
        }
        let shared = turn.shared();
        let number = shared.automatic_names;
        shared.automatic_names += 1;
        let digit = |at: usize| {
            let digit = (number >> (4 * (AUTOMATIC_DIGITS - 1 - at)) & 0xf) as u8;
            digit + if digit < 10 { b'0' } else { b'a' - 10 }
        };
        Some(Self::tagged(
            turn,
            &core::array::from_fn::<u8, AUTOMATIC_DIGITS, _>(digit),
        ))
    }

    /// A name that is too long with its tag keeps its length: the kernel refuses it as it does any
    /// other.
    fn tagged(turn: &mut Turn, name: &[u8]) -> Self {
        let mut bytes = [0; ROOM_BYTES];
        bytes[..FAMILY_BYTES].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
        bytes[NAME_AT..][..TAG_BYTES].copy_from_slice(&turn.shared().tag.to_ne_bytes());
        bytes[NAME_AT + TAG_BYTES..][..name.len()].copy_from_slice(name);
        let len = NAME_AT + TAG_BYTES + name.len();
        Self { bytes, len }
    }

    /// The address with another beginning of its path, if it has `from` there and if there is
    /// room.
    fn moved(address: &[u8], from: &[u8], to: &[u8]) -> Option<Self> {
        let rest = address.get(FAMILY_BYTES..)?.strip_prefix(from)?;
        let len = FAMILY_BYTES + to.len() + rest.len();
        if rest.first() != Some(&b'/') || len > ROOM_BYTES {
            return None;
        }
        let mut bytes = [0; ROOM_BYTES];
        bytes[..FAMILY_BYTES].copy_from_slice(&address[..FAMILY_BYTES]);
        bytes[FAMILY_BYTES..][..to.len()].copy_from_slice(to);
        bytes[FAMILY_BYTES + to.len()..len].copy_from_slice(rest);
        Some(Self { bytes, len })
    }

    /// The address's bytes.
    pub(crate) fn as_ptr(&self) -> *const c_void {
        self.bytes.as_ptr().cast()
    }

    /// The number of bytes.
    pub(crate) fn len(&self) -> socklen_t {
        self.len as socklen_t
    }

    /// The name as the server knows it.
    fn untag(&mut self, turn: &mut Turn) {
        let known = &self.bytes[..self.len.min(ROOM_BYTES)];
        let tag = turn.shared().tag.to_ne_bytes();
        let ours = known.len() >= NAME_AT + TAG_BYTES
            && family(known) == libc::AF_UNIX
            && known[FAMILY_BYTES] == 0
            && known[NAME_AT..].starts_with(&tag);
        if ours {
            self.bytes
                .copy_within(NAME_AT + TAG_BYTES..self.len, NAME_AT);
            self.len -= TAG_BYTES;
            return;
        }
        let known = &self.bytes[..self.len.min(ROOM_BYTES)];
        if known.len() <= FAMILY_BYTES || family(known) != libc::AF_UNIX {
            return;
        }
        let mut names = path::contained();
        if let Some(moved) = names.find_map(|(common, real)| Self::moved(known, real, common)) {
            *self = moved;
        }
    }
}

fn family(address: &[u8]) -> i32 {
    i32::from(u16::from_ne_bytes([address[0], address[1]]))
}

/// An address that the kernel writes and the server reads: it goes through our hands.
pub(crate) struct Shown {
    /// Room for the kernel's answer.
    ours: KernelAddress,
    kernel_len: socklen_t,
    theirs: *mut c_void,
    room: socklen_t,
}

impl Shown {
    /// For the caller's `room` bytes at `theirs`, or nothing if that is null.
    pub(crate) fn new(theirs: *mut c_void, room: socklen_t) -> Self {
        let ours = KernelAddress {
            bytes: [0; ROOM_BYTES],
            len: 0,
        };
        Self {
            ours,
            kernel_len: ROOM_BYTES as socklen_t,
            theirs,
            room,
        }
    }

    /// Room for the kernel's answer, and its length; made anew for each try.
    pub(crate) fn place(&mut self) -> (*mut c_void, *mut socklen_t) {
        self.kernel_len = ROOM_BYTES as socklen_t;
        let nothing = (core::ptr::null_mut(), core::ptr::null_mut());
        match self.theirs.is_null() {
            true => nothing,
            false => (
                self.ours.bytes.as_mut_ptr().cast(),
                &raw mut self.kernel_len,
            ),
        }
    }

    /// For a call that says elsewhere how long the address is.
    pub(crate) fn written(&mut self, len: socklen_t) {
        self.kernel_len = len;
    }

    /// Gives the caller what the kernel has written: as much as fits, and the true length, which is
    /// returned.
    ///
    /// # Safety
    /// `theirs` is null or points to `room` writable bytes.
    pub(crate) unsafe fn give(mut self, turn: &mut Turn) -> socklen_t {
        if self.theirs.is_null() {
            return 0;
        }
        self.ours.len = (self.kernel_len as usize).min(ROOM_BYTES);
        self.ours.untag(turn);
        let count = self.ours.len.min(self.room as usize);
        // SAFETY: the caller promises the room; the bytes are our own.
        unsafe {
            let to = self.theirs.cast::<u8>();
            to.copy_from_nonoverlapping(self.ours.bytes.as_ptr(), count);
        }
        self.ours.len()
    }
}
