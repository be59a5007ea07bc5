//! Progress of a long operation in bytes or slots: a bar on a terminal, otherwise a line now and then.
//!
//! It goes to standard error. An operation shorter than [`LINE_EVERY`] prints no line.

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

/// The time between two lines.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// The unit of progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Bytes,
    Slots,
}

impl Unit {
    fn shown(self, count: u64) -> String {
        match self {
            Self::Bytes => HumanBytes(count).to_string(),
            Self::Slots => format!("{} slots", HumanCount(count)),
        }
    }
}

/// The progress of one operation.
#[derive(Debug)]
pub(super) struct Progress {
    what: String,
    unit: Unit,
    all: u64,
    done: u64,
    started: Instant,
    said: Instant,
    /// The bar, on a terminal.
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Starts the progress of an operation over `bytes` bytes.
    pub(super) fn new(what: impl Into<String>, bytes: u64) -> Self {
        Self::of(Unit::Bytes, what.into(), bytes)
    }

    /// Starts the progress of an operation over `slots` slots.
    pub(super) fn of_slots(what: impl Into<String>, slots: u64) -> Self {
        Self::of(Unit::Slots, what.into(), slots)
    }

    fn of(unit: Unit, what: String, all: u64) -> Self {
        let now = Instant::now();
        let bar = stderr().is_terminal().then(|| bar(unit, &what, all));
        Self {
            what,
            unit,
            all,
            done: 0,
            started: now,
            said: now,
            bar,
        }
    }

    /// Adds `more` to what is done.
    pub(super) fn add(&mut self, more: u64) {
        self.set(self.done + more);
    }

    /// Sets what is done.
    pub(super) fn set(&mut self, done: u64) {
        self.done = done;
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None => self.say(Instant::now()),
        }
    }

    fn say(&mut self, now: Instant) {
        if now.duration_since(self.said) >= LINE_EVERY {
            self.said = now;
            eprintln!("{}", self.line(now.duration_since(self.started)));
        }
    }

    fn line(&self, took: Duration) -> String {
        let per_second = self.done as f64 / took.as_secs_f64().max(0.001);
        let left = self.all.saturating_sub(self.done) as f64 / per_second.max(1.0);
        format!(
            "{}: {} of {}, {}/s, {} left",
            self.what,
            self.unit.shown(self.done),
            self.unit.shown(self.all),
            self.unit.shown(per_second as u64),
            HumanDuration(Duration::from_secs_f64(left.min(1e9)))
        )
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(unit: Unit, what: &str, all: u64) -> ProgressBar {
    let style = match unit {
        Unit::Bytes => "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        Unit::Slots => "{msg} {wide_bar} {human_pos}/{human_len} slots {per_sec} {eta}",
    };
    let bar = ProgressBar::new(all).with_message(what.to_owned());
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_rate_and_remaining_time() {
        let mut progress = Progress::new("reading", 300 << 20);
        progress.add(100 << 20);
        assert_eq!(
            progress.line(Duration::from_secs(2)),
            "reading: 100.00 MiB of 300.00 MiB, 50.00 MiB/s, 4 seconds left"
        );
        progress.set(300 << 20);
        assert!(progress.line(Duration::ZERO).ends_with("0 seconds left"));
        let mut progress = Progress::of_slots("replaying", 3000);
        progress.set(1000);
        assert_eq!(
            progress.line(Duration::from_secs(1)),
            "replaying: 1,000 slots of 3,000 slots, 1,000 slots/s, 2 seconds left"
        );
    }
}
