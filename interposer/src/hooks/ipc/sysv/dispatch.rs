//! The system calls of System V IPC by number, see
//! [`crate::hooks::dispatch`](mod@crate::hooks::dispatch).

use super::{memory, queue, semaphore};
use crate::hooks::fs::lock;
use crate::hooks::result::error;
use crate::sys;
use core::ffi::c_int;
use core::ptr::{with_exposed_provenance as at, with_exposed_provenance_mut as at_mut};

/// See [`crate::hooks::dispatch`](mod@crate::hooks::dispatch). `None`: not one of these.
///
/// # Safety
/// The arguments are what the kernel expects for that call.
pub unsafe fn call(number: i64, a: [usize; 6]) -> Option<isize> {
    let id = a[0] as c_int;
    // SAFETY: the caller promises that the arguments are what the kernel expects for that call.
    let result = unsafe {
        match number {
            libc::SYS_semget => semaphore::semget(id, a[1] as _, a[2] as _) as isize,
            libc::SYS_semop => semaphore::semop(id, at(a[1]), a[2]) as isize,
            libc::SYS_semtimedop => semaphore::semtimedop(id, at(a[1]), a[2], at(a[3])) as isize,
            libc::SYS_semctl => semaphore::semctl(id, a[1] as _, a[2] as _, a[3]) as isize,
            libc::SYS_msgget => queue::msgget(id, a[1] as _) as isize,
            libc::SYS_msgsnd => queue::msgsnd(id, at(a[1]), a[2], a[3] as _) as isize,
            libc::SYS_msgrcv => queue::msgrcv(id, at_mut(a[1]), a[2], a[3] as _, a[4] as _),
            libc::SYS_msgctl => queue::msgctl(id, a[1] as _, at_mut(a[2])) as isize,
            libc::SYS_shmget => memory::shmget(id, a[1], a[2] as _) as isize,
            libc::SYS_shmat => memory::shmat(id, at(a[1]), a[2] as _).addr().cast_signed(),
            libc::SYS_shmdt => memory::shmdt(at(a[0])) as isize,
            libc::SYS_shmctl => memory::shmctl(id, a[1] as _, at_mut(a[2])) as isize,
            libc::SYS_flock => lock::flock(id, a[1] as _) as isize,
            _ => return None,
        }
    };
    Some(if result == -1 {
        error(sys::errno())
    } else {
        result
    })
}
