//! Translation of ids, for calls that name a thread or a process and do something to it that is no
//! part of the schedule. The kernel is told its own id for the virtual one.

/// The kernel's id for one that the server knows; 0 is the calling thread. `None`: none of the
/// tree. (Threads of other processes, and other threads but the first of a process, have none that
/// we know.)
pub(crate) fn kernel_id(turn: &mut Turn, id: c_int) -> Option<c_int> {
    let me = turn.me();
    if id == 0 || turn.shared().thread(me).tid == id {
        return Some(0);
    }
    let process = turn.shared().process_by_id(id)?;
    Some(turn.shared().processes[usize::from(process)].real_pid)
}

/// Exports hooks whose first argument is an id, which is translated for the kernel:
/// `name(other arguments) = system call`.
macro_rules! translated {
    ($($name:ident($($argument:ident: $type:ty),*) = $number:expr;)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(id: c_int $(, $argument: $type)*) -> c_int {
            let Some(mut turn) = $crate::turn::Turn::have() else {
                return $crate::libc_symbols::libc_own!($name(id: c_int $(, $argument: $type)*) -> c_int);
            };
            $crate::hooks::result::finish(match $crate::hooks::tid::kernel_id(&mut turn, id) {
                // SAFETY: the caller's pointers, passed on.
                Some(id) => unsafe { $crate::sys::sys!($number, id $(, $argument)*) },
                None => $crate::hooks::result::error(libc::ESRCH),
            }) as c_int
        }
    )* };
}

use crate::turn::Turn;
use core::ffi::c_int;
pub(crate) use translated;
