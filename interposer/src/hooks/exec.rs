//! Executing programs. They start before we are in them, so the time stamp counter must not fault then
//! ([`cycles`]); libc does the rest.

use super::machine::libc_own;
use crate::cycles;
use crate::turn::is_active;
use core::ffi::{c_char, c_int, c_void};

type Words = *const *const c_char;

/// While it lives, programs may be executed.
struct Pause;

impl Pause {
    fn new() -> Option<Self> {
        is_active().then(|| {
            cycles::pause();
            Self
        })
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        cycles::arm();
    }
}

macro_rules! executing {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> $result {
            let _pause = Pause::new();
            libc_own!($name($($argument: $type),*) -> $result)
        }
    )* };
}
executing! {
    execve(path: *const c_char, arguments: Words, environment: Words) -> c_int;
    execv(path: *const c_char, arguments: Words) -> c_int;
    execvp(file: *const c_char, arguments: Words) -> c_int;
    execvpe(file: *const c_char, arguments: Words, environment: Words) -> c_int;
    fexecve(fd: c_int, arguments: Words, environment: Words) -> c_int;
    execveat(
        at: c_int, path: *const c_char, arguments: Words, environment: Words, flags: c_int
    ) -> c_int;
    posix_spawn(
        pid: *mut c_int, path: *const c_char, actions: *const c_void, attributes: *const c_void,
        arguments: Words, environment: Words
    ) -> c_int;
    posix_spawnp(
        pid: *mut c_int, file: *const c_char, actions: *const c_void, attributes: *const c_void,
        arguments: Words, environment: Words
    ) -> c_int;
    system(command: *const c_char) -> c_int;
    popen(command: *const c_char, kind: *const c_char) -> *mut c_void;
}

extern "C" fn before_list() {
    if is_active() {
        cycles::pause();
    }
}

/// Those with `...`, which libc itself makes an array of. One that fails leaves the counter as it is
/// natively until the next attempt that does not: its caller is about to end.
macro_rules! executing_list {
    ($($name:ident = $own:ident, $symbol:literal;)*) => { $(
        static $own: super::machine::Real = super::machine::Real::new($symbol);

        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name(path: *const c_char, first: *const c_char) -> c_int {
            unsafe extern "C" fn own() -> *mut c_void {
                before_list();
                $own.get()
            }
            core::arch::naked_asm!(
                "push rdi",
                "push rsi",
                "push rdx",
                "push rcx",
                "push r8",
                "push r9",
                "push rax",
                "call {own}",
                "mov r11, rax",
                "pop rax",
                "pop r9",
                "pop r8",
                "pop rcx",
                "pop rdx",
                "pop rsi",
                "pop rdi",
                "jmp r11",
                own = sym own,
            )
        }
    )* };
}
executing_list! {
    execl = EXECL, c"execl";
    execlp = EXECLP, c"execlp";
    execle = EXECLE, c"execle";
}
