//! `longjmp` and its family, which set the mask.

use crate::libc_symbols::libc_own;
use crate::turn::{self, Turn};
use brolga_vsignal::Set;
use core::ffi::c_int;

/// A buffer that `sigsetjmp` has filled (`struct __jmp_buf_tag`).
#[repr(C)]
pub struct JumpBuffer {
    registers: [u64; 8],
    mask_was_saved: c_int,
    mask: [u64; 16],
}

/// Our copy of the mask follows the kernel's, which libc's function is about to set.
///
/// # Safety
/// `sigsetjmp` has filled the buffer.
unsafe fn restore_mask(buffer: *const JumpBuffer) {
    let Some(mut turn) = Turn::have() else { return };
    // Out of the handler of a signal, perhaps, and so out of the call that it interrupted.
    turn.set_caught(false);
    // SAFETY: the caller promises a buffer that sigsetjmp has filled.
    let (saved, mask) = unsafe { ((*buffer).mask_was_saved, (*buffer).mask[0]) };
    if saved != 0 {
        let me = turn.me();
        turn.shared().signals.set_mask(me, Set(mask));
        if turn.signal_due() {
            turn.scheduler().demand_attention();
        }
    }
}

macro_rules! jumps {
    ($($name:ident)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(buffer: *const JumpBuffer, value: c_int) -> ! {
            // SAFETY: the caller's promise.
            unsafe { restore_mask(buffer) };
            turn::let_go();
            libc_own!($name(buffer: *const JumpBuffer, value: c_int) -> !)
        }
    )* };
}

jumps! { siglongjmp longjmp _longjmp __longjmp_chk }
