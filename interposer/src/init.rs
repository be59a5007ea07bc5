//! Start: maps the tape, finds or makes the tree's memory, waits for the first entry.

use crate::hooks;
use crate::seccomp;
use crate::shared::{self, Mapped, Shared};
use crate::sys::{self, sys};
use crate::tsc;
use crate::turn::{self, Turn};
use brolga_tape::handover::{SCHEDULER_FD, TAPE_FD};
use brolga_tape::ring::{HEADER_BYTES, Parameters, Tape};
use core::ffi::{c_char, c_int};

type Words = *const *const c_char;

/// First thing that runs in the process: `-z initfirst`.
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn(c_int, Words, Words) = start;

/// The loader passes on what `main` will get.
extern "C" fn start(_: c_int, _: Words, environment: Words) {
    // SAFETY: F_GETFD takes no pointer.
    if unsafe { sys!(sys::SYS_fcntl, TAPE_FD, libc::F_GETFD) } < 0 {
        return; // Not a wrapped server.
    }
    // The filter is there already in a program that was executed: from here on it has its handler.
    seccomp::arm();
    let Some((tape, parameters)) = map_tape() else {
        sys::complain(&[b"brolga: the tape handed over by the node can't be mapped\n"]);
        sys::die(70);
    };
    // SAFETY: no pointers.
    let real_pid = unsafe { sys!(sys::SYS_getpid) } as i32;
    match shared::map() {
        Some(Mapped::Fresh(memory)) => first_process(memory, tape, &parameters, real_pid),
        Some(Mapped::Inherited(memory)) => {
            next_program(memory, tape, &parameters, real_pid, environment);
        }
        None => {
            sys::complain(&[b"brolga: no memory for the scheduler\n"]);
            sys::die(70);
        }
    }
}

fn map(at: usize, len: u64, fd: i32, offset: u64) -> Option<*mut u8> {
    let fixed = if at == 0 { 0 } else { libc::MAP_FIXED };
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: either anywhere, or within the range that map_tape has reserved.
    let got = unsafe {
        sys!(
            sys::SYS_mmap,
            at,
            len,
            protection,
            libc::MAP_SHARED | fixed,
            fd,
            offset
        )
    };
    (got > 0).then_some(got as *mut u8)
}

fn map_tape() -> Option<(Tape, Parameters)> {
    let header = map(0, HEADER_BYTES as u64, TAPE_FD, 0)?;
    // SAFETY: a whole page was mapped.
    let parameters = unsafe { Tape::parameters(header) }?;
    let (input, output) = (parameters.input_bytes, parameters.output_bytes);
    let whole = HEADER_BYTES as u64 + 2 * input + 2 * output;
    let reserve = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh reservation without access.
    let base = unsafe {
        sys!(
            sys::SYS_mmap,
            0,
            whole,
            libc::PROT_NONE,
            reserve,
            usize::MAX,
            0
        )
    };
    if base <= 0 {
        return None;
    }
    let base = base as usize;
    let first = HEADER_BYTES as u64;
    map(base, first + input, TAPE_FD, 0)?;
    map(base + (first + input) as usize, input, TAPE_FD, first)?;
    map(
        base + (first + 2 * input) as usize,
        output,
        TAPE_FD,
        first + input,
    )?;
    map(
        base + (first + 2 * input + output) as usize,
        output,
        TAPE_FD,
        first + input,
    )?;
    // SAFETY: mapped just now in the layout that the tape's module describes; never unmapped.
    let tape = unsafe { Tape::from_raw(base as *mut u8, &parameters) };
    Some((tape, parameters))
}

fn first_process(memory: *mut Shared, tape: Tape, parameters: &Parameters, real_pid: i32) {
    // In policy `parallel` the turn is handed on anyway.
    let quantum = match parameters.parallel {
        0 => parameters.quantum,
        _ => u32::MAX,
    };
    // SAFETY: fresh, zeroed memory of the right size that nobody else has; all-zero bytes are a
    // valid Shared but for `random`, which start writes.
    let me = unsafe { (*memory).start(quantum, parameters.seed, real_pid) };
    // SAFETY: as above.
    unsafe { (*memory).generation = tape.generation() };
    // SAFETY: constructors run before there is a second thread.
    unsafe { turn::install(memory, tape, parameters, hooks::die_of) };
    // Orphans stay below the root, where the node finds them.
    // SAFETY: plain integers.
    unsafe { sys!(sys::SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1) };
    hooks::resolve();
    tsc::control::arm();
    let mut turn = Turn::begin(me);
    seccomp::begin(&mut turn);
    hooks::note_launch(&mut turn);
}

/// A program that a process of the tree has executed: takes over the process's place.
fn next_program(
    memory: *mut Shared,
    tape: Tape,
    parameters: &Parameters,
    real_pid: i32,
    environment: Words,
) {
    // SAFETY: the mapping is the tree's memory; this process has the turn if it is in the tree,
    // since only a running thread can call exec.
    let shared = unsafe { &mut *memory };
    let Some(process) = shared.process_of(real_pid) else {
        // A helper made by libc itself (posix_spawn, system): it runs while its maker has the turn.
        // SAFETY: no pointer.
        unsafe { sys!(sys::SYS_close, SCHEDULER_FD) };
        return;
    };
    let me = shared.scheduler.current();
    // SAFETY: constructors run before there is a second thread.
    unsafe {
        turn::install(memory, tape, parameters, hooks::die_of);
        turn::set_process(process);
    }
    hooks::resolve();
    tsc::control::arm();
    let mut turn = Turn::resume(me);
    // SAFETY: nobody could change it yet.
    unsafe { seccomp::take_away(&mut turn, environment) };
    hooks::after_exec(&mut turn);
}
