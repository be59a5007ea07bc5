//! The kernel's actions: those of signals that the program's own instructions raise.

use crate::libc_symbols::libc_own;
use crate::tls::really;
use brolga_vsignal::{self as vsignal};
use core::ffi::c_int;

/// As `struct sigaction` lies in memory.
#[repr(C)]
pub struct Sigaction {
    pub(super) handler: usize,
    pub(super) mask: [u64; 16],
    pub(super) flags: c_int,
    pub(super) restorer: usize,
}

impl Sigaction {
    /// The default action.
    pub(crate) const DEFAULT: Self = Self::with_handler(vsignal::DEFAULT);

    /// A handler without mask or flags.
    pub(crate) const fn with_handler(handler: usize) -> Self {
        Self {
            handler,
            mask: [0; 16],
            flags: 0,
            restorer: 0,
        }
    }

    /// A handler with mask and flags.
    pub(crate) fn new(handler: usize, mask: u64, flags: c_int) -> Self {
        let mut action = Self::with_handler(handler);
        action.mask[0] = mask;
        action.flags = flags;
        action
    }

    /// The handler's address, `SIG_DFL` or `SIG_IGN`.
    pub(crate) fn handler(&self) -> usize {
        self.handler
    }

    /// Handler, mask, flags.
    pub(crate) fn parts(&self) -> (usize, u64, c_int) {
        (self.handler, self.mask[0], self.flags)
    }
}

const _: () = assert!(size_of::<Sigaction>() == size_of::<libc::sigaction>());

/// libc's own, for what the kernel is to know.
pub(crate) fn real_sigaction(signal: c_int, new: *const Sigaction, old: *mut Sigaction) -> c_int {
    really(
        || libc_own!(sigaction(signal: c_int, new: *const Sigaction, old: *mut Sigaction) -> c_int),
    )
}

/// Sets what the kernel is to do.
pub(crate) fn set_for_real(signal: c_int, handler: usize, flags: c_int) -> c_int {
    let new = Sigaction {
        handler,
        mask: [0; 16],
        flags,
        restorer: 0,
    };
    real_sigaction(signal, &raw const new, core::ptr::null_mut())
}
