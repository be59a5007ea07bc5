//! Mutexes, condition variables, read-write locks, semaphores, barriers, spin locks, once.
//!
//! The objects' own memory holds their state, in a layout of ours that is compatible with glibc's
//! static initialisers. Since only the thread that has the turn runs, plain loads and stores do, but in
//! cells: others change an object while its holder waits. Who must wait waits in the scheduler, first
//! come first served.
//!
//! A thread of a wrapped server that is outside the schedule (it has ended logically) locks and unlocks
//! without waiting. In any other process libc's own functions do the work.

mod barrier;
mod condition;
mod mutex;
mod rwlock;
mod semaphore;

use crate::turn::Turn;

/// Thread ids for owners where there is no schedule.
const OUTSIDE: i32 = -1;

fn id(turn: Option<&mut Turn>) -> i32 {
    match turn {
        Some(turn) => {
            let me = turn.me();
            turn.shared().thread(me).tid
        }
        None => OUTSIDE,
    }
}
