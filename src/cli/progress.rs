//! How far something is that takes its time: a bar on a terminal, otherwise a line now and then.
//!
//! All of it goes to standard error. What is done within [`LINE_EVERY`] says nothing where there is no
//! terminal.

use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

/// Between two lines.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// See the module's description.
#[derive(Debug)]
pub(super) struct Progress {
    what: String,
    bytes: u64,
    done: u64,
    started: Instant,
    said: Instant,
    /// On a terminal.
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn new(what: impl Into<String>, bytes: u64) -> Self {
        let (what, now) = (what.into(), Instant::now());
        let bar = stderr().is_terminal().then(|| bar(&what, bytes));
        Self {
            what,
            bytes,
            done: 0,
            started: now,
            said: now,
            bar,
        }
    }

    /// So many bytes more were dealt with.
    pub(super) fn add(&mut self, more: u64) {
        self.set(self.done + more);
    }

    /// So many bytes were dealt with.
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
        let left = self.bytes.saturating_sub(self.done) as f64 / per_second.max(1.0);
        format!(
            "{}: {} of {}, {}/s, {} left",
            self.what,
            HumanBytes(self.done),
            HumanBytes(self.bytes),
            HumanBytes(per_second as u64),
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

fn bar(what: &str, bytes: u64) -> ProgressBar {
    let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let bar = ProgressBar::new(bytes).with_message(what.to_owned());
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
    }
}
