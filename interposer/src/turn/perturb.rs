//! Perturbation of real time, for tests of determinism: random delays without logical effect.

use super::proof::Turn;
use crate::local::local;
use crate::sys::{self, sys};
use core::sync::atomic::{AtomicU64, Ordering};

/// State of [`chance`].
static CHANCE: AtomicU64 = AtomicU64::new(1);

/// A number that differs on every replica and has no logical effect (xorshift; Marsaglia 2003).
fn chance() -> u64 {
    let mut value = CHANCE.load(Ordering::Relaxed);
    value ^= value << 13;
    value ^= value >> 7;
    value ^= value << 17;
    CHANCE.store(value, Ordering::Relaxed);
    value
}

/// Seeds the delays from the kernel.
pub fn seed_chance() {
    let mut seed = 0u64;
    // SAFETY: room for eight bytes.
    unsafe { sys!(libc::SYS_getrandom, &raw mut seed, size_of::<u64>(), 0) };
    CHANCE.store(seed | 1, Ordering::Relaxed);
}

impl Turn {
    /// Now and then a random real delay, for tests of determinism.
    pub(super) fn perturb(&mut self) {
        let most = local().perturb_us;
        if most == 0 {
            return;
        }
        let chance = chance();
        if chance >> 58 == 0 {
            sys::real_delay((chance >> 20) as u32 % most);
        }
    }
}
