//! What is done to a replica that a server must not notice.
//!
//! Each replica gets something else: random delays of different size in its server and its node, a wall
//! clock that is wrong by up to an hour, another processor, and a node process with another environment,
//! time zone, working directory and umask, started at another moment.

use crate::config::{NodeConfig, Policy};
use crate::run::Surroundings;
use anyhow::Context;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Upper bounds of the random delays, microseconds; most operations get none.
const DELAYS_US: [u32; 5] = [0, 20, 100, 300, 1000];
const CLOCK_SKEW_MS_MAX: u64 = 3_600_000;
const START_DELAY_MS_MAX: u64 = 400;
const PADDING_BYTES_MAX: u64 = 4000;
const ZONES: [&str; 4] = ["UTC", "Asia/Kolkata", "America/St_Johns", "Pacific/Apia"];
const LOCALES: [&str; 3] = ["C", "C.UTF-8", "de_DE.UTF-8"];
const UMASKS: [u32; 3] = [0o022, 0o077, 0o002];

/// Random numbers that a seed repeats (splitmix64; Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The numbers of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn of<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.below(some.len() as u64) as usize]
    }
}

/// What is done to one replica.
#[derive(Clone, Debug)]
pub struct Disturbance {
    perturb_us: u32,
    clock_skew_ms: i64,
    processor: u64,
    delay: Duration,
    zone: &'static str,
    locale: &'static str,
    umask: u32,
    cwd: PathBuf,
    padding: usize,
}

impl Disturbance {
    /// Chooses what is done to a replica.
    ///
    /// # Errors
    /// The directory that its node is to work in cannot be made.
    pub fn new(chance: &mut Chance, data: &Path, node: u64) -> anyhow::Result<Self> {
        let cwd = data.join(format!("somewhere-{node}-{}", chance.below(1000)));
        fs::create_dir_all(&cwd).with_context(|| format!("cannot create {}", cwd.display()))?;
        // The first replica has its fastest life, so that the others can be late.
        let slow = if node == 1 { 1 } else { DELAYS_US.len() };
        let skew = chance.below(2 * CLOCK_SKEW_MS_MAX).cast_signed();
        Ok(Self {
            perturb_us: chance.of(&DELAYS_US[..slow]),
            clock_skew_ms: skew - CLOCK_SKEW_MS_MAX.cast_signed(),
            processor: chance.below(64),
            delay: Duration::from_millis(chance.below(START_DELAY_MS_MAX)),
            zone: chance.of(&ZONES),
            locale: chance.of(&LOCALES),
            umask: chance.of(&UMASKS),
            cwd,
            padding: chance.below(PADDING_BYTES_MAX) as usize,
        })
    }

    /// Puts what belongs there into the node's configuration.
    pub fn configure(&self, config: &mut NodeConfig) {
        config.trace = true;
        config.perturb_us = self.perturb_us;
        config.clock_skew_ms = self.clock_skew_ms;
        let processors = crate::cluster::allowed_processors();
        let at = self.processor as usize % (processors.len() + 1);
        if config.policy == Policy::Serial {
            config.pin_cpu = processors.get(at).copied();
        }
    }

    /// What the node's process is started in.
    #[must_use]
    pub fn surroundings(&self) -> Surroundings {
        Surroundings {
            env: vec![
                ("TZ".into(), self.zone.into()),
                ("LANG".into(), self.locale.into()),
                ("LC_ALL".into(), self.locale.into()),
                ("BROLGA_CHECK_PADDING".into(), "x".repeat(self.padding)),
            ],
            umask: Some(self.umask),
            cwd: Some(self.cwd.clone()),
            delay: self.delay,
        }
    }
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            perturb_us,
            clock_skew_ms,
            delay,
            zone,
            locale,
            umask,
            ..
        } = self;
        write!(
            f,
            "delays up to {perturb_us} us, clock {:+} s, started {} ms late, {zone}, {locale}, umask \
             {umask:03o}",
            clock_skew_ms / 1000,
            delay.as_millis()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_disturbances() {
        let dir = tempfile::tempdir().unwrap();
        let some = |seed| {
            let mut chance = Chance::new(seed);
            let one = |node| Disturbance::new(&mut chance, dir.path(), node).unwrap();
            let all: Vec<String> = [1, 2, 3].map(one).iter().map(ToString::to_string).collect();
            all.join("\n")
        };
        assert_eq!(some(7), some(7));
        assert_ne!(some(7), some(8));
        assert!(some(7).starts_with("delays up to 0 us"), "{}", some(7));
    }
}
