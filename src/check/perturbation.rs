//! Perturbations of a replica that a server must not notice.
//!
//! Each replica gets a different one: random delays of different size in its server and its node, a wall
//! clock that is off by up to an hour, another processor, and a node process with another environment,
//! time zone, working directory and umask, started at another moment.

use crate::cluster::supervisor::ProcessEnvironment;
use anyhow::Context;
use brolga_config::{NodeConfig, Policy};
use fastrand::Rng;
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

/// Picks an element of `some`, which is not empty.
fn pick<T: Copy>(rng: &mut Rng, some: &[T]) -> T {
    some[rng.usize(..some.len())]
}

/// The perturbation of one replica.
#[derive(Clone, Debug)]
pub struct Perturbation {
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

impl Perturbation {
    /// Chooses a perturbation at random.
    ///
    /// # Errors
    /// The directory that its node is to work in cannot be made.
    pub fn new(rng: &mut Rng, data: &Path, node: u64) -> anyhow::Result<Self> {
        let cwd = data.join(format!("somewhere-{node}-{}", rng.u64(..1000)));
        fs::create_dir_all(&cwd).with_context(|| format!("cannot create {}", cwd.display()))?;
        // The first replica has its fastest life, so that the others can be late.
        let slow = if node == 1 { 1 } else { DELAYS_US.len() };
        let skew = rng.u64(..2 * CLOCK_SKEW_MS_MAX).cast_signed();
        Ok(Self {
            perturb_us: pick(rng, &DELAYS_US[..slow]),
            clock_skew_ms: skew - CLOCK_SKEW_MS_MAX.cast_signed(),
            processor: rng.u64(..64),
            delay: Duration::from_millis(rng.u64(..START_DELAY_MS_MAX)),
            zone: pick(rng, &ZONES),
            locale: pick(rng, &LOCALES),
            umask: pick(rng, &UMASKS),
            cwd,
            padding: rng.u64(..PADDING_BYTES_MAX) as usize,
        })
    }

    /// Puts what belongs there into the node's configuration.
    pub fn configure(&self, config: &mut NodeConfig) {
        config.trace = true;
        config.perturb_us = self.perturb_us;
        config.clock_skew_ms = self.clock_skew_ms;
        let processors = brolga_os::sys::allowed_processors();
        let at = self.processor as usize % (processors.len() + 1);
        if config.policy == Policy::Serial {
            config.pin_cpu = processors.get(at).copied();
        }
    }

    /// The environment that the node's process is started in.
    #[must_use]
    pub fn environment(&self) -> ProcessEnvironment {
        ProcessEnvironment {
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

impl fmt::Display for Perturbation {
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
            let mut rng = Rng::with_seed(seed);
            let one = |node| Perturbation::new(&mut rng, dir.path(), node).unwrap();
            let all: Vec<String> = [1, 2, 3].map(one).iter().map(ToString::to_string).collect();
            all.join("\n")
        };
        assert_eq!(some(7), some(7));
        assert_ne!(some(7), some(8));
        assert!(some(7).starts_with("delays up to 0 us"), "{}", some(7));
    }
}
