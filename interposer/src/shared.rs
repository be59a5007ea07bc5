//! Memory that the whole process tree shares: the scheduler, the virtual sockets, processes.
//!
//! It is a memfd at a fixed descriptor, so that it survives `exec`, and a shared mapping, so that
//! it survives `fork`. Only the thread that has the turn accesses it; the exceptions are the
//! batons, which are atomic.

use crate::seccomp::call_sites::Sites;
use crate::sys::{self, SYS_close, SYS_dup3, SYS_ftruncate, SYS_memfd_create, SYS_mmap, sys};
use crate::tsc::counter::Counter;
use brolga_dmt::{Scheduler, THREADS_MAX, ThreadIx};
use brolga_tape::handover::SCHEDULER_FD;
use brolga_vfile::inodes::InodeNumbers;
use brolga_vfile::times::Time;
use brolga_vipc::Objects;
use brolga_vnet::{Net, PROCESSES_MAX, SocketIx};
use brolga_vsignal::Signals;
use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::sync::atomic::AtomicU32;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

/// Virtual process and thread ids count up from here.
const FIRST_ID: i32 = 1000;

/// Slot of the process that the node has started.
pub const FIRST: u16 = 0;
/// Parent of a process whose own has ended, and of the first one: not in the tree, reaps at once.
pub const INIT: u16 = u16::MAX;
/// The parent's id that such a process sees.
pub const INIT_PID: i32 = 1;

/// A process of the tree.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Process {
    /// The kernel's id; 0: the slot is free.
    pub real_pid: i32,
    /// The id that the server sees.
    pub pid: i32,
    /// Slot of the parent, or [`INIT`].
    pub parent: u16,
    /// Process group and session, as the server sees them.
    pub group: i32,
    pub session: i32,
    /// Executed a program since it was forked.
    pub executed: bool,
    /// Ended logically, and waits to be reaped.
    pub ended: bool,
    /// Ended, and no call will wait for it.
    pub discarded: bool,
    /// The parent waits until it executes its program.
    pub spawning: bool,
    /// The errno with which that failed.
    pub spawn_error: i32,
    /// Slot of the process that is its parent for the kernel.
    pub collector: u16,
    /// As `waitpid` gives it.
    pub status: i32,
}

impl Process {
    /// The server can still see it.
    pub fn is_there(&self) -> bool {
        self.real_pid != 0 && !self.discarded
    }
}

/// A thread's state of cancellation.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Cancel {
    pub requested: bool,
    pub disabled: bool,
    pub asynchronous: bool,
    /// The thread ends already.
    pub exiting: bool,
    /// The thread is in a call that the filter has caught: inside libc, where nothing is prepared
    /// for an end.
    pub caught: bool,
}

impl Cancel {
    pub const NONE: Self = Self {
        requested: false,
        disabled: false,
        asynchronous: false,
        exiting: false,
        caught: false,
    };
}

/// A thread's scheduling policy and priority.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Priority {
    pub policy: c_int,
    pub priority: c_int,
}

impl Priority {
    /// The policy and priority of a thread that has asked for none.
    pub const NORMAL: Self = Self {
        policy: libc::SCHED_OTHER,
        priority: 0,
    };
}

/// A thread, beyond what the scheduler keeps of it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ThreadInfo {
    /// The id that the server sees.
    pub tid: i32,
    /// glibc's handle.
    pub handle: u64,
    /// The start routine and its argument.
    pub start: usize,
    pub argument: usize,
    /// The start routine is one of C11's, which returns an int.
    pub c11: bool,
    pub detached: bool,
    /// The thread that waits for its end in `pthread_join`, or 0.
    pub joiner: ThreadIx,
    pub cancel: Cancel,
    pub priority: Priority,
}

impl ThreadInfo {
    /// A thread that did not begin with a start routine.
    pub const fn new(tid: i32, handle: u64) -> Self {
        Self {
            tid,
            handle,
            start: 0,
            argument: 0,
            c11: false,
            detached: false,
            joiner: 0,
            cancel: Cancel::NONE,
            priority: Priority::NORMAL,
        }
    }
}

/// The kernel's ids of a thread.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct DyingThread {
    pub pid: i32,
    /// 0: none.
    pub tid: i32,
}

/// The purpose of an alarm of the scheduler.
#[derive(Clone, Copy)]
#[repr(C)]
pub enum Purpose {
    /// Nothing: it only runs down.
    None,
    /// A timer descriptor counts.
    Descriptor(SocketIx),
    /// An interval timer of a process.
    Interval(i32),
    /// A POSIX timer that sends a signal, to one thread unless that is 0.
    Signal {
        signal: u8,
        value: u64,
        thread: ThreadIx,
    },
}

/// An alarm, beyond what the scheduler keeps of it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Alarm {
    pub purpose: Purpose,
    /// 0: it goes off once.
    pub interval_ns: u64,
    /// Expirations missed before the last signal.
    pub overrun: i32,
    pub clock: i32,
}

impl Alarm {
    pub const NONE: Self = Self {
        purpose: Purpose::None,
        interval_ns: 0,
        overrun: 0,
        clock: 0,
    };
}

/// A wait for a System V semaphore.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Sleeper {
    pub number: u16,
    /// Waits for zero.
    pub zero: bool,
}

/// Everything.
#[repr(C)]
pub struct Shared {
    /// Input bytes taken from the tape. Here and not on the tape, because a checkpoint must roll it
    /// back with the process.
    pub input_cursor: u64,
    /// Kernel id of the process that last slept for input, on behalf of all.
    pub taker: i32,
    /// Which start or restore of the server this is, as the tape says.
    pub generation: u64,
    /// Counts operations that may have changed a real object inside the tree.
    pub real_changes: u64,
    /// Kernel ids of a thread or process that has ended logically but perhaps not yet really; the
    /// next one to take the turn waits until it is gone, so that its stack and descriptors are.
    pub dying_thread: DyingThread,
    pub dying_pid: i32,
    /// Status of the first process if it has ended and others go on.
    pub first_status: i32,
    /// Kernel id of the last process, once the tree is over; a root that keeps its place sleeps on
    /// it.
    pub last_pid: AtomicU32,
    next_id: i32,
    /// Tells this tree from others on the machine. The server never sees it.
    pub tag: u64,
    /// Names of UNIX sockets that were left to us.
    pub automatic_names: u32,
    random: MaybeUninit<ChaCha20Rng>,
    pub processes: [Process; PROCESSES_MAX],
    pub threads: [ThreadInfo; THREADS_MAX],
    pub alarms: [Alarm; THREADS_MAX],
    pub signals: Signals,
    /// Inode numbers.
    pub inodes: InodeNumbers,
    /// When the tree was started, by the kernel's clock: files changed later were changed by it.
    pub launched: Time,
    /// The virtual time stamp counter.
    pub tsc: Counter,
    /// System V IPC.
    pub objects: Objects,
    /// Whose record lock a thread waits for: the slot of a process plus 1, or 0.
    pub lock_holders: [u16; THREADS_MAX],
    pub sleepers: [Sleeper; THREADS_MAX],
    /// Call sites that the filter has caught.
    pub sites: Sites,
    pub scheduler: Scheduler,
    pub net: Net,
}

impl Shared {
    /// A fresh virtual id.
    pub fn take_id(&mut self) -> i32 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// The server's source of randomness: the same bytes on every replica.
    pub fn random(&mut self) -> &mut ChaCha20Rng {
        // SAFETY: `start` wrote it before any thread could get here.
        unsafe { self.random.assume_init_mut() }
    }

    /// The entry of an alarm.
    pub fn alarm(&mut self, ix: ThreadIx) -> &mut Alarm {
        &mut self.alarms[usize::from(ix) - 1]
    }

    /// The process that operators' signals are for: the first one, or, once that has left a daemon
    /// behind, the oldest.
    pub fn root_process(&self) -> u16 {
        let living = self.processes.iter().enumerate();
        let oldest = living
            .filter(|(_, process)| process.is_there() && !process.ended)
            .min_by_key(|(_, process)| process.pid);
        oldest.map_or(FIRST, |(at, _)| at as u16)
    }

    /// The entry of a thread.
    pub fn thread(&mut self, ix: ThreadIx) -> &mut ThreadInfo {
        &mut self.threads[usize::from(ix) - 1]
    }

    /// Prepares fresh memory for the first process; returns its thread.
    pub fn start(&mut self, quantum: u32, seed: [u8; 32], real_pid: i32) -> ThreadIx {
        self.next_id = FIRST_ID;
        self.tag = tag();
        self.random.write(ChaCha20Rng::from_seed(seed));
        let ix = self.scheduler.start(quantum);
        let id = self.take_id();
        self.processes[0] = Process {
            real_pid,
            pid: id,
            parent: INIT,
            // The launcher has made a session.
            group: id,
            session: id,
            executed: true,
            ended: false,
            discarded: false,
            spawning: false,
            spawn_error: 0,
            collector: INIT,
            status: 0,
        };
        *self.thread(ix) = ThreadInfo::new(id, 0);
        ix
    }

    /// The id that the server sees of a process that the kernel has named; 0 for one outside the
    /// tree, as the kernel does across namespaces.
    pub fn virtual_pid(&self, real_pid: i32) -> i32 {
        let known = self.process_of(real_pid).filter(|_| real_pid != 0);
        known.map_or(0, |at| self.processes[usize::from(at)].pid)
    }

    /// The kernel's id of a process that the server has named; others are left as they are, for the
    /// kernel to refuse.
    pub fn real_pid(&self, pid: i32) -> i32 {
        let known = self.process_by_id(pid);
        known.map_or(pid, |at| self.processes[usize::from(at)].real_pid)
    }

    /// The process slot of a virtual id.
    pub fn process_by_id(&self, pid: i32) -> Option<u16> {
        let there = |process: &Process| process.is_there() && process.pid == pid;
        let at = self.processes.iter().position(there)?;
        u16::try_from(at).ok()
    }

    /// The process slot of a kernel id.
    pub fn process_of(&self, real_pid: i32) -> Option<u16> {
        let at = self
            .processes
            .iter()
            .position(|process| process.real_pid == real_pid)?;
        u16::try_from(at).ok()
    }
}

/// The number of the memory file that the tree shares, which no other living tree has.
fn tag() -> u64 {
    let mut status = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the kernel fills the structure in; if it could not, the zeroes are a valid one.
    unsafe {
        sys!(libc::SYS_fstat, SCHEDULER_FD, status.as_mut_ptr());
        status.assume_init().st_ino
    }
}

/// The memory that [`map`] found.
pub enum Mapped {
    /// New, zeroed memory: this is the first process.
    Fresh(*mut Shared),
    /// The tree's memory, after an `exec`.
    Inherited(*mut Shared),
}

fn map_fd(fd: i32) -> Option<*mut Shared> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at = unsafe {
        sys!(
            SYS_mmap,
            0,
            size_of::<Shared>(),
            protection,
            flags | libc::MAP_NORESERVE,
            fd,
            0
        )
    };
    (at > 0).then_some(at as *mut Shared)
}

/// Maps the tree's memory, making it if need be.
pub fn map() -> Option<Mapped> {
    // SAFETY: F_GETFD takes no pointer.
    let there = unsafe { sys!(sys::SYS_fcntl, SCHEDULER_FD, libc::F_GETFD) } >= 0;
    if there {
        return map_fd(SCHEDULER_FD).map(Mapped::Inherited);
    }
    // SAFETY: a NUL-terminated name, then plain descriptors and a length.
    unsafe {
        let fd = sys!(SYS_memfd_create, c"brolga-scheduler".as_ptr(), 0);
        if fd < 0 || sys!(SYS_ftruncate, fd, size_of::<Shared>()) < 0 {
            return None;
        }
        sys!(SYS_dup3, fd, SCHEDULER_FD, 0);
        sys!(SYS_close, fd);
    }
    map_fd(SCHEDULER_FD).map(Mapped::Fresh)
}
