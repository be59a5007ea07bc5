//! Taking the turn and giving it back.
//!
//! In policy `serial` a running thread has the turn; it only sleeps until the turn is handed over.
//! In policy `parallel` a thread has it inside a hook only: the first [`Turn`] of a hook waits
//! until the thread is at the head of the run queue, and with its end the thread goes to the tail.
//! In between the thread computes beside the others, keeps its place in the queue and counts as
//! runnable, so the order never depends on speed.
//!
//! A [`Turn`] made while the thread already has the turn gives nothing back: hooks call each other,
//! and a child of `fork` goes on in the frames of its parent. Where a frame with a [`Turn`] is left
//! without its end (`pthread_exit`, `longjmp`), the turn is given back by [`Turn::lend`] or
//! [`let_go`].

use super::proof::Turn;
use super::stall::Watch;
use crate::local::local;
use crate::output::fault;
use crate::restore;
use crate::sys::{self, sys};
use crate::tls;
use brolga_dmt::{Baton, ThreadIx};
use core::marker::PhantomData;

/// Most looks at the baton before a thread sleeps: some microseconds, about what a sleep costs.
const PATIENCE_MAX: u32 = 512;
/// Fewest, so that a thread notices when spinning pays again.
const PATIENCE_MIN: u32 = 8;

/// The most looks of a thread that spins for its turn: none where it would keep a processor from
/// the thread that it waits for.
pub(super) fn most_patience(parallel: bool) -> u32 {
    if parallel && processors() > 1 {
        PATIENCE_MAX
    } else {
        0
    }
}

/// Processors that this process may run on.
fn processors() -> u32 {
    let mut set = [0u64; 128];
    // SAFETY: room for as many bytes.
    let bytes = unsafe {
        sys!(
            libc::SYS_sched_getaffinity,
            0,
            size_of_val(&set),
            set.as_mut_ptr()
        )
    };
    if bytes < 0 {
        return 1;
    }
    set.iter().map(|word| word.count_ones()).sum()
}

/// Spins, then sleeps, until the baton is given; takes it.
fn await_baton(me: ThreadIx, baton: &Baton) {
    if !spin(baton) {
        let mut watch = Watch::new(me);
        while !baton.is_given() {
            if baton.mark_asleep() {
                watch.sleep(baton.futex(), Baton::ASLEEP);
            }
        }
        watch.end();
    }
    baton.take();
}

/// Looks at the baton for a while. Threads get patient when that helps, and impatient when those
/// before them compute for longer.
fn spin(baton: &Baton) -> bool {
    let most = local().patience;
    if most == 0 {
        return baton.is_given();
    }
    let patience = tls::patience().clamp(PATIENCE_MIN, most);
    for look in 0..patience {
        if baton.is_given() {
            if look > 0 {
                tls::set_patience((2 * patience).min(most));
            }
            return true;
        }
        core::hint::spin_loop();
    }
    tls::set_patience(patience / 2);
    false
}

impl Turn {
    /// Proof in a thread that has the turn already.
    pub(super) fn nested(me: ThreadIx) -> Self {
        Self {
            me,
            gives_back: false,
            not_send: PhantomData,
        }
    }

    /// Puts the calling thread, which has the turn, into the schedule.
    pub(super) fn enter(me: ThreadIx, gives_back: bool) -> Self {
        let parallel = local().parallel;
        if parallel {
            tls::set_parallel_thread_ix(me);
        } else {
            tls::set_thread_ix(me);
        }
        Self {
            gives_back: gives_back && parallel,
            ..Self::nested(me)
        }
    }

    /// The start of a hook in policy `parallel`; `None` for a thread that is not in the schedule.
    #[cold]
    pub(super) fn acquire() -> Option<Self> {
        let me = tls::thread_ix();
        if me == 0 {
            return None;
        }
        let mut turn = Self::nested(me);
        if tls::lacks_turn() {
            turn.wait_for_turn();
            turn.gives_back = true;
        }
        Some(turn)
    }

    fn wait_for_turn(&mut self) {
        if tls::has_locks() {
            // The thread that has the turn may be waiting for that mutex.
            fault(&[
                b"a thread makes an ordered operation while it has a mutex that it has locked in a ",
                b"performance-critical section",
            ]);
        }
        self.perturb();
        self.sleep();
        tls::set_holds_turn(true);
    }

    /// Sleeps until this thread is handed the turn.
    pub(super) fn sleep(&mut self) {
        // SAFETY: the baton is atomic and the mapping stays; no reference to anything else in the
        // shared memory is held while others have the turn.
        let baton = unsafe { &(*local().shared).scheduler.thread(self.me).baton };
        tls::really(|| await_baton(self.me, baton));
        restore::attend(self.shared());
        self.reap();
    }

    /// Gives the baton to a thread.
    pub(super) fn hand_to(&mut self, next: ThreadIx) {
        let baton = &self.scheduler().thread(next).baton;
        if baton.give() {
            sys::futex_wake(baton.futex());
        }
    }

    /// Gives the turn to the next in the round, perhaps to this thread itself.
    #[cold]
    fn give_back(&mut self) {
        // This may be another thread than the one that took it: a child of `fork`.
        let me = tls::thread_ix();
        tls::set_holds_turn(false);
        let next = self.scheduler().pass_on();
        if next == me {
            self.scheduler().thread(me).baton.keep();
        } else {
            self.hand_to(next);
        }
    }

    /// Gives the turn back before the end of the hook: the program's own code runs, or the hook's
    /// frames are left for good. Without effect in policy `serial`.
    pub fn lend(&mut self) {
        if tls::holds_turn() {
            self.give_back();
        }
    }

    /// Takes the turn again after [`Turn::lend`].
    pub fn take_back(&mut self) {
        self.refresh_me();
        if tls::lacks_turn() {
            self.wait_for_turn();
        }
    }
}

impl Drop for Turn {
    #[inline]
    fn drop(&mut self) {
        // It has none any more if it left the schedule.
        if self.gives_back && tls::holds_turn() {
            self.give_back();
        }
    }
}

/// Gives back whatever turn the calling thread has: it leaves all hooks that it is in.
pub fn let_go() {
    let me = tls::thread_ix();
    if me != 0 {
        Turn::nested(me).lend();
    }
}
