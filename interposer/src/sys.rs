//! The operating system: raw system calls, errno, the few libc functions that are needed.
//!
//! Rules of this file: no libc wrapper that we export ourselves may be called, so everything goes
//! through a `syscall` instruction of ours ([`crate::trampoline`]); nothing allocates; all of it is
//! async-signal-safe.

/// A system call with six arguments; the result as the kernel gives it (`-errno` on failure).
///
/// # Safety
/// The arguments must be what the kernel expects for call `number`: pointers valid for what it
/// reads and writes.
#[inline]
pub unsafe fn syscall6(number: i64, arguments: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the x86-64 system call convention: number in rax, arguments in rdi, rsi, rdx, r10,
    // r8, r9; rcx and r11 are clobbered; the caller vouches for the arguments. The trampoline does
    // as the instruction does, with room on the stack.
    unsafe {
        asm!(
            "call qword ptr [rip + {trampoline}]",
            trampoline = sym crate::trampoline::brolga_trampoline,
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            in("r9") arguments[5],
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// `sys!(SYS_read, fd, buf, len)`: a raw system call with arguments cast to words.
macro_rules! sys {
    ($number:expr) => { $crate::sys::syscall6($number, [0; 6]) };
    ($number:expr, $a:expr) => { $crate::sys::syscall6($number, [$a as usize, 0, 0, 0, 0, 0]) };
    ($number:expr, $a:expr, $b:expr) => {
        $crate::sys::syscall6($number, [$a as usize, $b as usize, 0, 0, 0, 0])
    };
    ($number:expr, $a:expr, $b:expr, $c:expr) => {
        $crate::sys::syscall6($number, [$a as usize, $b as usize, $c as usize, 0, 0, 0])
    };
    ($number:expr, $a:expr, $b:expr, $c:expr, $d:expr) => {
        $crate::sys::syscall6($number, [$a as usize, $b as usize, $c as usize, $d as usize, 0, 0])
    };
    ($number:expr, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr) => {
        $crate::sys::syscall6(
            $number,
            [$a as usize, $b as usize, $c as usize, $d as usize, $e as usize, 0],
        )
    };
    ($number:expr, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr) => {
        $crate::sys::syscall6(
            $number,
            [$a as usize, $b as usize, $c as usize, $d as usize, $e as usize, $f as usize],
        )
    };
}

use core::arch::asm;
use core::ffi::c_int;
use core::sync::atomic::AtomicU32;
pub use libc::{
    SYS_accept4, SYS_bind, SYS_clock_nanosleep, SYS_close, SYS_close_range, SYS_connect, SYS_dup,
    SYS_dup2, SYS_dup3, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_wait, SYS_eventfd2,
    SYS_exit_group, SYS_fcntl, SYS_fdatasync, SYS_fsync, SYS_ftruncate, SYS_futex, SYS_getpid,
    SYS_getppid, SYS_gettid, SYS_ioctl, SYS_kill, SYS_listen, SYS_lseek, SYS_memfd_create,
    SYS_mmap, SYS_nanosleep, SYS_openat, SYS_pidfd_open, SYS_pipe2, SYS_poll, SYS_ppoll, SYS_prctl,
    SYS_pread64, SYS_pselect6, SYS_read, SYS_readv, SYS_recvfrom, SYS_recvmsg, SYS_sched_yield,
    SYS_sendmsg, SYS_sendto, SYS_setsockopt, SYS_shutdown, SYS_socket, SYS_socketpair, SYS_tgkill,
    SYS_uname, SYS_wait4, SYS_write, SYS_writev,
};
pub(crate) use sys;

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

/// Sets the caller's `errno`.
pub fn set_errno(errno: c_int) {
    // SAFETY: glibc gives a valid pointer to the calling thread's errno.
    unsafe { *__errno_location() = errno }
}

/// The caller's `errno`.
pub fn errno() -> c_int {
    // SAFETY: glibc gives a valid pointer to the calling thread's errno.
    unsafe { *__errno_location() }
}

/// Sleeps while `*word == value`. Spurious returns are possible.
pub fn futex_wait(word: &AtomicU32, value: u32) {
    // SAFETY: the word is a valid, aligned u32; no timeout. FUTEX_WAIT without the private flag
    // works across processes, which share the word.
    unsafe { sys!(SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, 0) };
}

/// Sleeps while `*word == value`, for so many seconds at most; true when they were over.
pub fn futex_wait_for(word: &AtomicU32, value: u32, seconds: u32) -> bool {
    let most = libc::timespec {
        tv_sec: seconds.into(),
        tv_nsec: 0,
    };
    // SAFETY: as above, and a valid timespec.
    let result = unsafe {
        sys!(
            SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            value,
            &raw const most
        )
    };
    result == -(libc::ETIMEDOUT as isize)
}

/// Wakes one sleeper.
pub fn futex_wake(word: &AtomicU32) {
    // SAFETY: the word is a valid, aligned u32.
    unsafe { sys!(SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}

/// Really sleeps, without any logical effect (for perturbed timing only).
pub fn real_delay(microseconds: u32) {
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: i64::from(microseconds) * 1000,
    };
    // SAFETY: a valid timespec, no remainder wanted.
    unsafe { sys!(SYS_nanosleep, &raw const time, 0) };
}

/// Writes to standard error, as far as that works.
pub fn complain(parts: &[&[u8]]) {
    for part in parts {
        // SAFETY: pointer and length of a valid slice.
        unsafe { sys!(SYS_write, 2, part.as_ptr(), part.len()) };
    }
}

/// Ends the process at once.
pub fn die(status: c_int) -> ! {
    loop {
        // SAFETY: exit_group takes no pointers.
        unsafe { sys!(SYS_exit_group, status) };
    }
}

/// Has the kernel reap this process's children, those that have ended and all later ones.
pub fn reap_all_children() {
    let ignore: [usize; 4] = [libc::SIG_IGN, 0, 0, 0];
    // SAFETY: a whole kernel `struct sigaction` (handler, flags, restorer, mask); then no pointers.
    unsafe {
        sys!(libc::SYS_rt_sigaction, libc::SIGCHLD, ignore.as_ptr(), 0, 8);
        while sys!(SYS_wait4, -1isize, 0, libc::WNOHANG, 0) > 0 {}
    }
}

/// A number in decimal, for messages without a heap.
pub struct Decimal {
    digits: [u8; 20],
    from: usize,
}

impl Decimal {
    /// Formats.
    pub fn new(mut value: u64) -> Self {
        let mut digits = [b'0'; 20];
        let mut from = 20;
        loop {
            from -= 1;
            digits[from] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                return Self { digits, from };
            }
        }
    }

    /// The digits.
    pub fn bytes(&self) -> &[u8] {
        &self.digits[self.from..]
    }
}
