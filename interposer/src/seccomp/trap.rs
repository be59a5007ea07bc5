//! The handler of SIGSYS: executes the trapped call, and stores the result where the kernel would
//! have put it.
//!
//! It runs on the stack of the calling thread, as a hook does, and may be interrupted by itself (by
//! calls that libc makes on behalf of hooks). The thread's mask must never contain SIGSYS: the
//! kernel would end the process. The mask with which the thread continues is computed here, since
//! the kernel restores the one that it has saved.

use super::sites;
use crate::hooks;
use crate::sys::{self, sys};
use crate::tls;
use crate::turn::{Turn, fault};
use brolga_filter::{Rule, rule};
use core::arch::global_asm;
use core::ffi::{c_int, c_void};

/// Signals that must come through: the filter's and readings of the time stamp counter.
const OURS: u64 = 1 << (libc::SIGSYS - 1) | 1 << (libc::SIGSEGV - 1);

// Unwinders know a signal's frame by these very bytes.
global_asm!(
    ".pushsection .text.brolga_return,\"ax\",@progbits",
    ".hidden brolga_return",
    ".globl brolga_return",
    ".type brolga_return, @function",
    "nop",
    "brolga_return:",
    "mov rax, 15", // rt_sigreturn
    "syscall",
    ".size brolga_return, . - brolga_return",
    ".popsection",
);

unsafe extern "C" {
    fn brolga_return();
}

/// The kernel's `struct sigaction`.
#[repr(C)]
struct Action {
    handler: extern "C" fn(c_int, *const Info, *mut libc::ucontext_t),
    flags: usize,
    restorer: unsafe extern "C" fn(),
    mask: u64,
}

/// `siginfo_t` of a caught call.
#[repr(C)]
struct Info {
    signal: c_int,
    errno: c_int,
    code: c_int,
    padding: c_int,
    place: usize,
    number: c_int,
    architecture: u32,
}

/// Makes the handler this process's.
pub fn arm() {
    const RESTORER: usize = 0x0400_0000;
    let flags = libc::SA_SIGINFO as usize | libc::SA_NODEFER as usize | RESTORER;
    let action = Action {
        handler: trapped,
        flags,
        restorer: brolga_return,
        mask: 0,
    };
    // A mask is inherited by programs that are executed.
    let ours = OURS;
    // SAFETY: a whole action and a whole set; nothing wanted back.
    unsafe {
        sys!(
            libc::SYS_rt_sigaction,
            libc::SIGSYS,
            &raw const action,
            0,
            8
        );
        sys!(
            libc::SYS_rt_sigprocmask,
            libc::SIG_UNBLOCK,
            &raw const ours,
            0,
            8
        );
    }
}

extern "C" fn trapped(signal: c_int, info: *const Info, context: *mut libc::ucontext_t) {
    const BY_FILTER: c_int = 1;
    // SAFETY: the kernel's arguments; nobody else has this frame.
    let (info, context) = unsafe { (&*info, &mut *context) };
    if info.code != BY_FILTER {
        hooks::die_of(signal);
    }
    let errno = sys::errno();
    let registers = &context.uc_mcontext.gregs;
    let argument = |register: c_int| registers[register as usize] as usize;
    let arguments = [
        argument(libc::REG_RDI),
        argument(libc::REG_RSI),
        argument(libc::REG_RDX),
        argument(libc::REG_R10),
        argument(libc::REG_R8),
        argument(libc::REG_R9),
    ];
    let result = if is_outside() {
        pass(info, arguments, context)
    } else {
        take(info, arguments, context)
    };
    context.uc_mcontext.gregs[libc::REG_RAX as usize] = result as i64;
    sys::set_errno(errno);
}

/// Returns whether the calls of this thread are none of the schedule's now.
fn is_outside() -> bool {
    tls::thread_ix() == 0 || tls::calls_are_real() || hooks::is_being_made()
}

/// The kernel may have it.
fn pass(info: &Info, arguments: [usize; 6], context: &mut libc::ucontext_t) -> isize {
    match i64::from(info.number) {
        libc::SYS_rt_sigprocmask => change_mask(arguments, context),
        // The child would go on in the middle of our frame while the parent does.
        // SAFETY: no arguments.
        libc::SYS_vfork => unsafe { sys!(libc::SYS_fork) },
        libc::SYS_clone | libc::SYS_pidfd_open => -(libc::ENOSYS as isize),
        // SAFETY: the caller's arguments, passed on.
        number => unsafe { sys::syscall6(number, arguments) },
    }
}

/// The mask of the thread when it goes on.
fn mask_of(context: &mut libc::ucontext_t) -> &mut u64 {
    // SAFETY: the first word of a set holds all 64 signals.
    unsafe { &mut *(&raw mut context.uc_sigmask).cast::<u64>() }
}

fn change_mask(arguments: [usize; 6], context: &mut libc::ucontext_t) -> isize {
    let [how, new, old, ..] = arguments;
    let mask = mask_of(context);
    let before = *mask;
    if new != 0 {
        // SAFETY: the caller promises null or a set of eight bytes.
        let set = unsafe { (new as *const u64).read_unaligned() };
        *mask = match how as c_int {
            libc::SIG_BLOCK => before | set,
            libc::SIG_UNBLOCK => before & !set,
            libc::SIG_SETMASK => set,
            _ => return -(libc::EINVAL as isize),
        } & !OURS;
    }
    if old != 0 {
        // SAFETY: the caller promises null or room for eight bytes.
        unsafe { (old as *mut u64).write_unaligned(before) };
    }
    0
}

/// The call as an ordered operation.
fn take(info: &Info, arguments: [usize; 6], context: &mut libc::ucontext_t) -> isize {
    const X86_64: u32 = 0xC000_003E;
    let number = i64::from(info.number);
    let Some(mut turn) = Turn::have() else {
        return -(libc::ENOSYS as isize);
    };
    sites::count(&mut turn, info.place, info.number.cast_unsigned());
    let before = turn.set_caught(true);
    let known = info.architecture == X86_64 && rule(info.number.cast_unsigned()) == Rule::Caught;
    let result = known
        // SAFETY: the caller's arguments, passed on.
        .then(|| unsafe { hooks::dispatch(number, arguments) })
        .flatten();
    let Some(result) = result else {
        refuse(info);
    };
    // After a fork this is another thread.
    turn.refresh_me();
    turn.set_caught(before);
    // SAFETY: nothing is set; room for eight bytes.
    unsafe {
        let mask: *mut u64 = mask_of(context);
        sys!(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, 0, mask, 8);
    }
    result
}

/// Stops the server: the call's effect on replicas is unknown.
fn refuse(info: &Info) -> ! {
    let number = sys::Decimal::new(info.number.cast_unsigned().into());
    let site = sites::find(info.place);
    let (name, offset) = site.parts();
    // SAFETY: no arguments.
    let pid = sys::Decimal::new(unsafe { sys!(sys::SYS_getpid) } as u64);
    fault(&[
        b"system call ",
        number.bytes(),
        b" at ",
        name,
        b"+0x",
        sites::Hexadecimal::new(offset).bytes(),
        b" in process ",
        pid.bytes(),
        b" is not supported",
    ])
}

const _: () = assert!(size_of::<Action>() == 32 && size_of::<*mut c_void>() == 8);
