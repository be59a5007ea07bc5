//! `setuid`, `setgid` and their family. The kernel then forgets that the process is to die with its
//! parent, by which a server dies with its node; it is told again.

use crate::libc_symbols::libc_own;
use crate::sys::{self, sys};
use crate::tls::really;
use crate::turn::Turn;
use core::ffi::c_int;
use libc::{gid_t, uid_t};

/// Runs a change, and renews the tie to the parent that it cuts.
fn tied(change: impl FnOnce() -> c_int) -> c_int {
    let Some(turn) = Turn::have() else {
        return change();
    };
    let (tie, parent) = (tie(), parent());
    let result = change();
    // Any thread of the tree's first process may be the one that changes; the tie is a thread's
    // own.
    if tie != 0 || turn.process() == 0 {
        // SAFETY: plain integers.
        unsafe { sys!(sys::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        if self::parent() != parent {
            // It died in between.
            sys::die(1);
        }
    }
    result
}

/// The signal that this thread gets when its parent dies.
fn tie() -> c_int {
    let mut signal: c_int = 0;
    // SAFETY: room for an int.
    unsafe { sys!(sys::SYS_prctl, libc::PR_GET_PDEATHSIG, &raw mut signal) };
    signal
}

fn parent() -> isize {
    // SAFETY: no arguments.
    unsafe { sys!(sys::SYS_getppid) }
}

macro_rules! changes {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> c_int {
            // libc's own: it changes all threads, which it sends signals and waits for.
            tied(|| really(|| libc_own!($name($($argument: $type),*) -> c_int)))
        }
    )* };
}

changes! {
    setuid(user: uid_t);
    seteuid(user: uid_t);
    setreuid(real: uid_t, effective: uid_t);
    setresuid(real: uid_t, effective: uid_t, saved: uid_t);
    setgid(group: gid_t);
    setegid(group: gid_t);
    setregid(real: gid_t, effective: gid_t);
    setresgid(real: gid_t, effective: gid_t, saved: gid_t);
}
