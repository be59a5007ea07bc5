//! The state of one process: its mappings, and the settings that the node has handed over.

use crate::shared::Shared;
use brolga_tape::ring::{Parameters, Tape};
use brolga_tape::unix::Paths;
use core::cell::UnsafeCell;
use core::ffi::c_int;

/// The mappings and settings of a process.
pub struct Local {
    /// The tree's memory.
    pub shared: *mut Shared,
    pub tape: Option<Tape>,
    /// Slot of this process.
    pub process: u16,
    pub keep_fsync: bool,
    /// Loopback addresses that nobody in the tree listens on are those of the nodes' machines.
    pub host_loopback: bool,
    pub cpus: u32,
    /// The longest random delay, in microseconds; 0: none.
    pub perturb_us: u32,
    /// The policy is `parallel`.
    pub parallel: bool,
    /// The number of looks at the baton before a thread sleeps.
    pub patience: u32,
    /// System calls that go round the hooks are to be caught.
    pub syscall_filter: bool,
    /// Every ordered operation is recorded.
    pub trace: bool,
    /// UNIX sockets that clients outside of the tree may use.
    pub unix: Paths,
    /// Ends the calling process of a signal. (A pointer, since the hooks stand above.)
    pub die_of: fn(c_int) -> !,
}

struct Cell(UnsafeCell<Local>);
// SAFETY: written while the process has one thread (constructor, child of a fork), read-only after.
unsafe impl Sync for Cell {}

static LOCAL: Cell = Cell(UnsafeCell::new(Local {
    shared: core::ptr::null_mut(),
    tape: None,
    process: 0,
    keep_fsync: false,
    host_loopback: false,
    cpus: 1,
    perturb_us: 0,
    parallel: false,
    patience: 0,
    syscall_filter: false,
    trace: false,
    unix: Paths::NONE,
    die_of: not_installed,
}));

/// No signal is delivered where there is no schedule.
fn not_installed(_: c_int) -> ! {
    unreachable!("a signal is delivered only in a schedule")
}

/// The mappings and settings of this process.
#[inline]
pub fn local() -> &'static Local {
    // SAFETY: see Cell.
    unsafe { &*LOCAL.0.get() }
}

/// Sets up this process, once.
///
/// # Safety
/// The process has one thread; `shared` and `tape` are mappings that stay.
pub unsafe fn install(
    shared: *mut Shared,
    tape: Tape,
    parameters: &Parameters,
    patience: u32,
    die_of: fn(c_int) -> !,
) {
    // SAFETY: the caller promises that nobody else runs.
    let local = unsafe { &mut *LOCAL.0.get() };
    local.shared = shared;
    local.tape = Some(tape);
    local.keep_fsync = parameters.keep_fsync != 0;
    local.host_loopback = parameters.host_loopback != 0;
    local.cpus = parameters.cpus.max(1);
    local.perturb_us = parameters.perturb_us;
    local.parallel = parameters.parallel != 0;
    local.patience = patience;
    local.syscall_filter = parameters.syscall_filter != 0;
    local.trace = parameters.trace != 0;
    local.unix = parameters.unix;
    local.die_of = die_of;
}

/// Names this process's slot.
///
/// # Safety
/// The process has one thread.
pub unsafe fn set_process(process: u16) {
    // SAFETY: the caller promises that nobody else runs.
    unsafe { (*LOCAL.0.get()).process = process }
}

/// The tree's memory.
#[inline]
pub fn memory() -> *mut Shared {
    local().shared
}

/// Returns whether system calls that go round us are to be caught.
pub fn wants_syscall_filter() -> bool {
    local().syscall_filter
}

/// True in a process of a wrapped server; elsewhere every hook does what libc does.
#[inline]
pub fn is_active() -> bool {
    !local().shared.is_null()
}
