//! Turns: how the scheduler's decisions become sleeping and running threads, and how entries are
//! admitted.
//!
//! Rules of this file: it runs on the server's own threads, inside its calls; raw system calls only,
//! no allocation, no panic but on a broken contract.
//!
//! [`Turn`] is the proof that its thread has the turn, and the only way to the shared memory. In policy
//! `serial` a running thread of the schedule *has* it, so a hook only proves that its thread is in the
//! schedule; in policy `parallel` the first proof of a hook takes it and gives it back at its end, see
//! [`round`]. In the middle a thread gives the turn away only in [`Turn::switch`], and is back in it when
//! that returns.
//!
//! There is no helper thread: the last thread to block admits the next entry, sleeping on the tape's
//! futex if there is none, and hands the turn on, perhaps to itself.

use crate::hooks;
use crate::mapping;
use crate::restore;
use crate::shared::{DyingThread, Shared};
use crate::signal_delivery::Delivered;
use crate::sys::{self, sys};
use crate::tls;
use brolga_dmt::{ANY, Key, Pick, Scheduler, ThreadIx, Wakeup};
use brolga_tape::entry::{Entry, Event};
use brolga_tape::handover::DOORBELL_FD;
use brolga_tape::record::{NO_DEADLINE, Record};
use brolga_tape::renumber::{Table, mapping_word};
use brolga_tape::ring::Tape;
use brolga_tape::unix::Paths;
use brolga_vnet::{WaitOn, World};
use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

mod round;
mod stall;

pub use round::let_go;

/// Key spaces. Objects private to a process carry its slot in the upper bits.
pub mod space {
    pub const MUTEX: u64 = 1;
    pub const CONDITION: u64 = 2;
    pub const RWLOCK: u64 = 3;
    pub const SEMAPHORE: u64 = 4;
    pub const BARRIER: u64 = 5;
    pub const ONCE: u64 = 6;
    pub const FUTEX: u64 = 7;
    pub const JOIN: u64 = 8;
    pub const READABLE: u64 = 9;
    pub const WRITABLE: u64 = 10;
    pub const EPOLL: u64 = 11;
    pub const ANY_SOCKET: u64 = 12;
    pub const REAL: u64 = 13;
    pub const CHILD: u64 = 14;
    pub const SLEEP: u64 = 15;
    pub const SIGNAL: u64 = 16;
    pub const ROBUST: u64 = 17;
    pub const SPIN: u64 = 18;
    pub const SEMAPHORE_SET: u64 = 19;
    pub const MESSAGES: u64 = 20;
    pub const FILE_LOCK: u64 = 21;
}

/// Marks keys of objects that processes share.
const IS_SHARED: u64 = 1 << 63;
/// Such keys have the space in these bits and the mapping above.
const SPACE_BITS: u32 = 8;

/// The key that takes the place of `key` after a restore.
pub fn rekeyed(key: Key, table: &Table<'_>) -> Key {
    if key.space & IS_SHARED == 0 {
        return key;
    }
    let mapping = (key.space & !IS_SHARED) >> SPACE_BITS;
    let space = key.space & ((1 << SPACE_BITS) - 1);
    Key {
        space: IS_SHARED | table.mapping(mapping) << SPACE_BITS | space,
        id: key.id,
    }
}

/// Waits that end when something real may have changed.
pub const REAL: Key = Key {
    space: space::REAL,
    id: 0,
};

/// What a process keeps for itself.
pub struct Local {
    shared: *mut Shared,
    tape: Option<Tape>,
    /// Slot of this process.
    process: u16,
    pub keep_fsync: bool,
    /// Loopback addresses that nobody in the tree listens on are those of the nodes' machines.
    pub host_loopback: bool,
    pub cpus: u32,
    perturb_us: u32,
    /// The policy is `parallel`.
    parallel: bool,
    /// How often a thread looks whether it has the turn before it sleeps.
    patience: u32,
    backstop: bool,
    /// Every ordered operation is recorded.
    trace: bool,
    /// UNIX sockets that clients outside of the tree may use.
    pub unix: Paths,
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
    backstop: false,
    trace: false,
    unix: Paths::NONE,
}));
static ENDING: AtomicBool = AtomicBool::new(false);
/// State of [`chance`].
static CHANCE: AtomicU64 = AtomicU64::new(1);

fn local() -> &'static Local {
    // SAFETY: see Cell.
    unsafe { &*LOCAL.0.get() }
}

/// Sets up this process, once.
///
/// # Safety
/// The process has one thread; `shared` and `tape` are mappings that stay.
pub unsafe fn install(shared: *mut Shared, tape: Tape, parameters: &brolga_tape::ring::Parameters) {
    // SAFETY: the caller promises that nobody else runs.
    let local = unsafe { &mut *LOCAL.0.get() };
    local.shared = shared;
    local.tape = Some(tape);
    local.keep_fsync = parameters.keep_fsync != 0;
    local.host_loopback = parameters.host_loopback != 0;
    local.cpus = parameters.cpus.max(1);
    local.perturb_us = parameters.perturb_us;
    local.parallel = parameters.parallel != 0;
    local.patience = round::most_patience(local.parallel);
    local.backstop = parameters.backstop != 0;
    local.trace = parameters.trace != 0;
    local.unix = parameters.unix;
    if local.perturb_us != 0 {
        seed_chance();
    }
}

/// The tree's memory.
pub fn memory() -> *mut Shared {
    local().shared
}

/// Whether system calls that go round us are to be caught.
pub fn wants_backstop() -> bool {
    local().backstop
}

/// Tells the node something that is no part of the output.
pub fn report(record: &Record<'_>) {
    debug_assert!(record.is_about_watching());
    emit(tls::thread_ix(), record);
}

/// A number that differs on every replica and has no logical effect (xorshift; Marsaglia 2003).
fn chance() -> u64 {
    let mut value = CHANCE.load(Ordering::Relaxed);
    value ^= value << 13;
    value ^= value >> 7;
    value ^= value << 17;
    CHANCE.store(value, Ordering::Relaxed);
    value
}

fn seed_chance() {
    let mut seed = 0u64;
    // SAFETY: room for eight bytes.
    unsafe { sys!(libc::SYS_getrandom, &raw mut seed, size_of::<u64>(), 0) };
    CHANCE.store(seed | 1, Ordering::Relaxed);
}

/// Names this process's slot.
///
/// # Safety
/// The process has one thread.
pub unsafe fn set_process(process: u16) {
    // SAFETY: the caller promises that nobody else runs.
    unsafe { (*LOCAL.0.get()).process = process }
}

/// True in a process of a wrapped server; elsewhere every hook does what libc does.
pub fn is_active() -> bool {
    !local().shared.is_null()
}

/// Proof that the calling thread has the turn.
#[must_use]
pub struct Turn {
    me: ThreadIx,
    /// The turn was taken for this value and is given back at its end.
    gives_back: bool,
    not_send: PhantomData<*mut ()>,
}

impl Turn {
    /// Proof without an ordered operation. `None`: the thread is not in the schedule, its calls go
    /// straight to the kernel.
    #[inline]
    pub fn have() -> Option<Self> {
        match tls::running() {
            Some(me) => Some(Self::nested(me)),
            None => Self::acquire(),
        }
    }

    /// Whether the calling thread is in the schedule, without taking the turn.
    #[inline]
    pub fn is_scheduled() -> bool {
        tls::thread_ix() != 0
    }

    /// Whether threads run beside each other.
    pub fn is_parallel() -> bool {
        local().parallel
    }

    /// The id that the server sees of the calling thread, which never changes.
    pub fn thread_id() -> Option<i32> {
        let me = usize::from(tls::thread_ix());
        // SAFETY: the mapping stays; the thread's own entry, which is written before it runs.
        (me != 0).then(|| unsafe { (&raw const (*local().shared).threads[me - 1].tid).read() })
    }

    /// The id that the server sees of the calling thread's process, which never changes.
    pub fn process_id() -> Option<i32> {
        let process = usize::from(local().process);
        // SAFETY: the mapping stays; the process's own entry, which is written before it runs.
        Self::is_scheduled()
            .then(|| unsafe { (&raw const (*local().shared).processes[process].pid).read() })
    }

    /// Counts one ordered operation, then proof.
    #[inline]
    pub fn take(operation: u16) -> Option<Self> {
        let mut turn = Self::have()?;
        let due = turn.scheduler().tick(operation);
        #[cfg(feature = "trace")]
        crate::trace::operation(turn.scheduler(), operation);
        if due {
            turn.attend(operation);
        }
        Some(turn)
    }

    /// This thread.
    pub fn me(&self) -> ThreadIx {
        self.me
    }

    /// This process's slot.
    #[inline]
    pub fn process(&self) -> u16 {
        local().process
    }

    /// Settings of this process.
    pub fn local(&self) -> &'static Local {
        local()
    }

    /// The tree's memory.
    #[inline]
    pub fn shared(&mut self) -> &mut Shared {
        // SAFETY: only the thread that has the turn gets here, and `&mut self` keeps it to one
        // borrow at a time within it.
        unsafe { &mut *local().shared }
    }

    /// The scheduler.
    #[inline]
    pub fn scheduler(&mut self) -> &mut Scheduler {
        &mut self.shared().scheduler
    }

    /// The virtual sockets and what they need of the world.
    #[inline]
    pub fn net(&mut self) -> (&mut brolga_vnet::Net, Outside<'_>) {
        let shared = self.shared();
        (
            &mut shared.net,
            Outside {
                scheduler: &mut shared.scheduler,
            },
        )
    }

    /// Virtual time.
    pub fn now_ns(&mut self) -> u64 {
        self.scheduler().now_ns()
    }

    /// A key for an object of this process at `address`.
    #[inline]
    pub fn private_key(&self, space: u64, address: usize) -> Key {
        Key {
            space: space | (u64::from(self.process()) + 1) << 32,
            id: address as u64,
        }
    }

    /// A key for an object at `address` that processes share, wherever each has mapped it.
    #[cold]
    pub fn shared_key(&self, space: u64, address: usize) -> Key {
        let Some(place) = mapping::place_of(address) else {
            return self.private_key(space, address);
        };
        Key {
            space: IS_SHARED | mapping_word(place.device, place.inode) << SPACE_BITS | space,
            id: place.offset,
        }
    }

    /// The quantum or the budget may be used up.
    #[cold]
    fn attend(&mut self, operation: u16) {
        self.trace(operation);
        self.perturb();
        let quantum_used = self.scheduler().quantum_used();
        self.scheduler().open_soft_barriers();
        while self.scheduler().admission_due() {
            self.admit_next();
        }
        if quantum_used {
            self.yield_now();
        }
        self.scheduler().refresh_limit();
        if self.signal_due() {
            self.deliver();
        }
        self.cancel_at(operation);
    }

    /// Records the operation, when all are to be.
    fn trace(&mut self, operation: u16) {
        if !local().trace || operation == 0 {
            return;
        }
        let me = self.me;
        let scheduler = self.scheduler();
        let record = Record::Step {
            operation,
            clock: scheduler.clock(),
            schedule_hash: scheduler.schedule_hash(),
            noted: scheduler.noted(),
        };
        emit(me, &record);
    }

    /// Now and then a random real delay, for tests of determinism.
    fn perturb(&mut self) {
        let most = local().perturb_us;
        if most == 0 {
            return;
        }
        let chance = chance();
        if chance >> 58 == 0 {
            sys::real_delay((chance >> 20) as u32 % most);
        }
    }

    /// Lets the other runnable threads go first.
    pub fn yield_now(&mut self) {
        if local().parallel {
            return; // They do at the end of the operation.
        }
        self.scheduler().yield_turn();
        self.switch();
    }

    /// Blocks until the key is signalled, the deadline (virtual time) has passed, or a handler of a
    /// signal has run. A call that must not be ended by a signal waits again.
    ///
    /// For calls that are cancellation points: for a thread that is to end they end with `EINTR`, see
    /// [`hooks::after_interruption`].
    pub fn block(&mut self, key: Key, deadline_ns: Option<u64>) -> Wakeup {
        if self.cancel_due() {
            return Wakeup::Interrupted;
        }
        match self.block_regardless(key, deadline_ns) {
            Wakeup::Spurious | Wakeup::Restart if self.cancel_due() => Wakeup::Interrupted,
            other => other,
        }
    }

    /// As [`Turn::block`], for calls that are no cancellation points.
    pub fn block_regardless(&mut self, key: Key, deadline_ns: Option<u64>) -> Wakeup {
        self.block_bits(key, ANY, deadline_ns)
    }

    /// As [`Turn::block_regardless`], but only a wake-up with one of `bits` is for this thread.
    pub fn block_bits(&mut self, key: Key, bits: u32, deadline_ns: Option<u64>) -> Wakeup {
        self.scheduler().block_bits(key, bits, deadline_ns);
        self.switch();
        let woken = self.scheduler().wakeup();
        if self.cancel_due() {
            // At the next cancellation point, wherever that is.
            self.scheduler().demand_attention();
        }
        let delivered = if self.signal_due() {
            self.deliver()
        } else {
            Delivered::Nothing
        };
        match (woken, delivered) {
            // Somebody else took the signal.
            (Wakeup::Interrupted, Delivered::Nothing) => Wakeup::Spurious,
            (Wakeup::Interrupted, Delivered::Restart) => Wakeup::Restart,
            (woken, _) => woken,
        }
    }

    /// After a handler, which may have forked: this may be another thread.
    pub fn refresh_me(&mut self) {
        self.me = tls::thread_ix();
    }

    /// Signals a key.
    #[inline]
    pub fn wake(&mut self, key: Key, count: usize) -> usize {
        self.scheduler().wake(key, count)
    }

    /// A real object of the tree may have changed: whoever waits for one looks again.
    pub fn real_changed(&mut self) {
        let shared = self.shared();
        shared.real_changes += 1;
        shared.scheduler.wake(REAL, usize::MAX);
        let mut outside = Outside {
            scheduler: &mut shared.scheduler,
        };
        shared.net.wake_real(&mut outside);
    }

    /// Goes on with whoever is next, and returns when this thread has the turn again.
    fn switch(&mut self) {
        if let Some(next) = self.choose() {
            ring_doorbell();
            self.hand_to(next);
            self.sleep();
        }
    }

    /// Admits entries until somebody can run; `None` when that is this thread.
    fn choose(&mut self) -> Option<ThreadIx> {
        self.perturb();
        loop {
            self.scheduler().open_soft_barriers();
            while self.scheduler().admission_due() {
                self.admit_next();
            }
            match self.scheduler().pick() {
                Pick::Run(next) => return (next != self.me).then_some(next),
                Pick::Idle => {}
            }
        }
    }

    /// Waits until the thread or process that ended before us is really gone.
    fn bury(&mut self) {
        let shared = self.shared();
        let thread = core::mem::take(&mut shared.dying_thread);
        let pid = core::mem::take(&mut shared.dying_pid);
        if thread.tid != 0 {
            wait_for_end_of_thread(thread);
        }
        if pid != 0 {
            wait_for_end(pid);
        }
    }

    /// First sleep of a new thread, which is in the schedule since its creator put it there.
    pub fn arrive(me: ThreadIx) -> Self {
        let mut turn = Self::nested(me);
        turn.sleep();
        Self::enter(me, true)
    }

    /// As [`Turn::arrive`], of a child that goes on in the hook in which its parent has forked: that gives
    /// the turn back.
    pub fn arrive_forked(me: ThreadIx) -> Self {
        let mut turn = Self::nested(me);
        turn.sleep();
        Self::enter(me, false)
    }

    /// First admission of the tree's first thread.
    pub fn begin(me: ThreadIx) -> Self {
        let mut turn = Self::enter(me, true);
        let attentive = local().perturb_us != 0 || local().parallel || local().trace;
        turn.scheduler().set_attentive(attentive);
        turn.attend(0);
        turn
    }

    /// A thread that has executed another program still has the turn.
    pub fn resume(me: ThreadIx) -> Self {
        Self::enter(me, true)
    }

    /// Hands the turn on for good: the thread ends, or its process does.
    pub fn leave(mut self) {
        tls::set_thread_ix(0);
        if let Some(next) = self.choose() {
            self.hand_to(next);
        }
    }

    /// Reports the end of the last entry, takes the next one (sleeping if there is none) and applies
    /// it.
    fn admit_next(&mut self) {
        let shared = self.shared();
        shared.net.publish_ports(&mut Outside {
            scheduler: &mut shared.scheduler,
        });
        if shared.scheduler.take_report() {
            let scheduler = &shared.scheduler;
            let record = Record::Done {
                slot: scheduler.slot(),
                schedule_hash: scheduler.schedule_hash(),
                deadline_ns: scheduler.deadline_ns().unwrap_or(NO_DEADLINE),
                clock: scheduler.clock(),
                idle: !scheduler.can_run(),
                operation: scheduler.last_operation(),
            };
            emit(scheduler.last_thread(), &record);
        }
        ring_doorbell();
        let tape = tape();
        let (slot, bytes, cursor) = wait_for_entry(tape, shared);
        let Ok(entry) = Entry::parse(bytes) else {
            fault(&[b"an entry on the tape is cut short"])
        };
        shared.scheduler.admit(slot, entry.time_ns, entry.clocks);
        shared.cycles.update(&shared.scheduler);
        let mut outside = Outside {
            scheduler: &mut shared.scheduler,
        };
        let mut operators = 0u64;
        for event in entry.events() {
            match event {
                Ok(Event::Signal { signal }) => operators |= 1 << (signal - 1),
                Ok(event) => shared.net.apply(&event, &mut outside),
                Err(_) => fault(&[b"an entry on the tape has an event that makes no sense"]),
            }
        }
        shared.input_cursor = cursor;
        tape.release_input(cursor);
        hooks::after_admission(self, operators);
    }
}

/// Waits, for the few instructions it takes, until a thread has ended that was about to.
fn wait_for_end_of_thread(thread: DyingThread) {
    let is_there = || {
        if thread.pid == thread.tid {
            return !is_remains(thread.pid);
        }
        // SAFETY: signal 0 only asks whether the thread exists; no pointers.
        unsafe { sys!(sys::SYS_tgkill, thread.pid, thread.tid, 0) == 0 }
    };
    while is_there() {
        // SAFETY: no arguments.
        unsafe { sys!(sys::SYS_sched_yield) };
    }
}

/// Whether the first thread of a process has ended: the kernel keeps its remains until all have.
fn is_remains(pid: i32) -> bool {
    let digits = sys::Decimal::new(u64::from(pid.cast_unsigned()));
    let mut path = [0u8; 40];
    let mut len = 0;
    for part in [
        b"/proc/",
        digits.bytes(),
        b"/task/",
        digits.bytes(),
        b"/stat",
    ] {
        path[len..len + part.len()].copy_from_slice(part);
        len += part.len();
    }
    let mut stat = [0u8; 64];
    // SAFETY: a path with a NUL at its end, and room for what is read.
    let read = unsafe {
        let fd = sys!(sys::SYS_openat, libc::AT_FDCWD, path.as_ptr(), 0, 0);
        if fd < 0 {
            return true;
        }
        let read = sys!(sys::SYS_read, fd, stat.as_mut_ptr(), stat.len());
        sys!(sys::SYS_close, fd);
        read
    };
    // The state comes after the name, which is in parentheses and may have some in it.
    let stat = &stat[..usize::try_from(read).unwrap_or(0)];
    let name_end = stat.iter().rposition(|byte| *byte == b')');
    let state = name_end.and_then(|at| stat.get(at + 2));
    matches!(state, None | Some(b'Z' | b'X'))
}

/// Sleeps until a process has ended; it may be nobody's child of ours.
pub fn wait_for_end(pid: i32) {
    // SAFETY: plain integers, then one valid pollfd.
    unsafe {
        let fd = sys!(sys::SYS_pidfd_open, pid, 0);
        if fd < 0 {
            return; // Reaped already.
        }
        let mut poll = libc::pollfd {
            fd: fd as i32,
            events: libc::POLLIN,
            revents: 0,
        };
        while sys!(sys::SYS_ppoll, &raw mut poll, 1, 0, 0, 8) == -(libc::EINTR as isize) {}
        sys!(sys::SYS_close, fd);
    }
}

fn tape() -> &'static Tape {
    match &local().tape {
        Some(tape) => tape,
        None => unreachable!("a thread is in the schedule only where there is a tape"),
    }
}

fn wait_for_entry(tape: &'static Tape, shared: &mut Shared) -> (u64, &'static [u8], u64) {
    loop {
        // This is where a server sleeps when a checkpoint is taken, so where one that is restored
        // wakes up.
        if tape.generation() != shared.generation {
            restore::come_back(tape, shared);
        }
        let cursor = shared.input_cursor;
        if let Some(found) = tape.next_entry(cursor) {
            return found;
        }
        if tape.mark_asleep(cursor) {
            // SAFETY: no arguments.
            shared.taker = unsafe { sys!(sys::SYS_getpid) } as i32;
            sys::futex_wait(tape.input_futex(), 1);
        }
    }
}

/// Wakes the node if it sleeps.
fn ring_doorbell() {
    if tape().take_doorbell() {
        let one = 1u64;
        // SAFETY: an eventfd takes eight bytes.
        unsafe { sys!(sys::SYS_write, DOORBELL_FD, &raw const one, 8) };
    }
}

/// Puts a record on the output ring, waiting for room if need be (without logical effect).
fn emit(thread: ThreadIx, record: &Record<'_>) {
    let tape = tape();
    while !tape.push_record_by(thread, record) {
        ring_doorbell();
        if tape.mark_full(record.room() as u64) {
            // The node may have fallen asleep since.
            ring_doorbell();
            sys::futex_wait(tape.output_full_futex(), 1);
        }
    }
}

/// Says that the first process of the tree is about to end.
pub fn announce_exit(status: i32) {
    if !ENDING.swap(true, Ordering::Relaxed) {
        emit(tls::thread_ix(), &Record::Exit { status });
        ring_doorbell();
    }
}

/// Lets a root that keeps its place end: the last process is about to.
pub fn end_tree(real_pid: i32, status: i32) {
    // SAFETY: the mapping stays; the caller has the turn, and only atomics are looked at by others.
    let shared = unsafe { &mut *local().shared };
    shared.first_status = status;
    shared
        .last_pid
        .store(real_pid.cast_unsigned(), Ordering::Release);
    sys::futex_wake(&shared.last_pid);
}

/// Keeps the place of the tree's root, which has ended for the tree, until all others have. The kernel
/// makes it the parent of whatever loses its own.
pub fn await_end_of_tree() -> ! {
    sys::reap_all_children();
    // SAFETY: the mapping stays; an atomic word.
    let last = unsafe { &(*local().shared).last_pid };
    while last.load(Ordering::Acquire) == 0 {
        sys::futex_wait(last, 0);
    }
    wait_for_end(last.load(Ordering::Acquire).cast_signed());
    // SAFETY: written before the word that was just seen, and not any more.
    let status = unsafe { (*local().shared).first_status };
    match status & 0x7F {
        0 => sys::die(status >> 8),
        signal => sys::die(128 + signal),
    }
}

/// The server did something that can't be replicated: says what, and stops it.
#[cold]
pub fn fault(parts: &[&[u8]]) -> ! {
    let mut line = [0u8; 256];
    let mut len = 0;
    for part in parts {
        let take = part.len().min(line.len() - len);
        line[len..len + take].copy_from_slice(&part[..take]);
        len += take;
    }
    sys::complain(&[b"brolga: ", &line[..len], b"\n"]);
    if tls::thread_ix() != 0 {
        let message = &line[..len];
        emit(tls::thread_ix(), &Record::Fault { message });
        ring_doorbell();
    }
    sys::die(70)
}

/// The scheduler and the output ring, as the virtual sockets see them.
pub struct Outside<'a> {
    scheduler: &'a mut Scheduler,
}

/// The scheduler's key for what a thread waits on.
#[inline]
pub fn key_of(on: WaitOn) -> Key {
    match on {
        WaitOn::Readable(ix) => Key {
            space: space::READABLE,
            id: u64::from(ix),
        },
        WaitOn::Writable(ix) => Key {
            space: space::WRITABLE,
            id: u64::from(ix),
        },
        WaitOn::Epoll(ix) => Key {
            space: space::EPOLL,
            id: u64::from(ix),
        },
        WaitOn::AnySocket => Key {
            space: space::ANY_SOCKET,
            id: 0,
        },
    }
}

impl World for Outside<'_> {
    #[inline]
    fn wake(&mut self, on: WaitOn, count: usize) -> usize {
        self.scheduler.wake(key_of(on), count)
    }

    fn emit(&mut self, record: &Record<'_>) {
        #[cfg(feature = "trace")]
        if let Record::Data { bytes, .. } = record {
            crate::trace::output(self.scheduler, bytes);
        }
        emit(self.scheduler.last_thread(), record);
    }

    fn alarm_gone(&mut self, alarm: u16) {
        self.scheduler.remove(alarm);
    }
}
