//! Traces: all output of a server, in files, so that runs can be compared operation by
//! operation.
//!
//! With `trace` set, a server also puts a [`brolga_tape::record::Record::Step`] on its tape for
//! each ordered operation, and its node copies the tape's output to `trace-1`, `trace-2` … in its
//! data directory, one file for each start of the server. Two runs of a deterministic server write
//! the same bytes; one that was killed writes a beginning of them.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Bytes of one file at most; what comes after is not recorded.
const FILE_BYTES_MAX: u64 = 2 << 30;

fn name(start: u32) -> String {
    format!("trace-{start}")
}

/// The files of a node, in the order of its server's starts.
#[must_use]
pub fn traces(data_dir: &Path) -> Vec<PathBuf> {
    (1..)
        .map(|start| data_dir.join(name(start)))
        .take_while(|path| path.exists())
        .collect()
}

/// The writing side, of one start of a server.
#[derive(Debug)]
pub(crate) struct TraceFile {
    file: Option<File>,
    written: u64,
}

impl TraceFile {
    /// Begins the next file.
    ///
    /// # Errors
    /// The file cannot be made.
    pub(crate) fn create(data_dir: &Path) -> io::Result<Self> {
        let start = u32::try_from(traces(data_dir).len() + 1).map_err(io::Error::other)?;
        let file = File::create_new(data_dir.join(name(start)))?;
        Ok(Self {
            file: Some(file),
            written: 0,
        })
    }

    /// Whole records.
    pub(crate) fn append(&mut self, records: &[u8]) {
        let Some(file) = &mut self.file else {
            return;
        };
        self.written += records.len() as u64;
        let outcome = match self.written > FILE_BYTES_MAX {
            true => Err(io::Error::other("it is long enough")),
            false => file.write_all(records),
        };
        if let Err(error) = outcome {
            tracing::warn!("the trace ends here: {error}");
            self.file = None;
        }
    }
}
