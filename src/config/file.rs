//! Reading TOML files, with one-line errors that name the place.

use serde::de::DeserializeOwned;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Keys that were renamed so that they say their unit and meaning: the old name and the new one.
const RENAMED: [(&str, &str); 9] = [
    ("n_clock", "clocks_per_event"),
    ("w_timeout_us", "bubble_wait_us"),
    ("quantum", "quantum_ticks"),
    ("backstop", "syscall_filter"),
    ("unix", "unix_sockets"),
    ("checkpoint_log_mb", "checkpoint_log_mib"),
    ("checkpoint_transfer_mb_s", "checkpoint_transfer_mib_s"),
    ("segment_bytes", "log_segment_bytes"),
    ("descriptors", "descriptors_max"),
];

/// A configuration that cannot be used. One line, with the place in the file when there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Not TOML, an unknown key, a value of the wrong type.
    #[error("{path}:{line}: {what}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The complaint.
        what: String,
    },
    /// Well-formed values that cannot work.
    #[error("{path}: {what}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The complaint and what to do.
        what: String,
    },
}

/// Reads a TOML file into anything, with one-line errors.
///
/// # Errors
/// [`ConfigError::Unreadable`] or [`ConfigError::Syntax`].
pub fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    toml::from_str(&text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_of(&text, error.span()),
        what: complaint(error.message()),
    })
}

fn line_of(text: &str, span: Option<Range<usize>>) -> usize {
    let start = span.map_or(0, |span| span.start.min(text.len()));
    text.bytes()
        .take(start)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1
}

/// The parser's complaint on one line. A key that was renamed is answered with its new name.
fn complaint(message: &str) -> String {
    let unknown = message
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.split_once('`'));
    let renamed = unknown.and_then(|(key, _)| RENAMED.iter().find(|(old, _)| *old == key));
    match renamed {
        Some((old, new)) => format!("`{old}` is called `{new}` now: rename the key"),
        None => message.replace('\n', " "),
    }
}
