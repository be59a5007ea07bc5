//! The processes of a server as `/proc` shows them.
//!
//! All functions have to be called inside the container.

use crate::container::{FIRST_PID, set_last_pid};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;

/// The memory that CRIU uses inside of processes that it dumps.
const CRIU_MEMORY: &str = "memfd:CRIUMFD";

/// Lists the server's processes.
pub(super) fn processes() -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    pids.retain(|pid| *pid >= FIRST_PID.cast_unsigned());
    Ok(pids)
}

/// Returns the mappings of a process; nothing if it has ended since it was listed.
pub(super) fn maps_of(pid: u32) -> io::Result<String> {
    match fs::read_to_string(format!("/proc/{pid}/maps")) {
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(libc::ESRCH) =>
        {
            Ok(String::new())
        }
        other => other,
    }
}

/// Returns whether CRIU has left its memory in a process of the server.
pub(super) fn has_criu_memory() -> bool {
    let has = |pid: &u32| {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"));
        maps.is_ok_and(|maps| maps.contains(CRIU_MEMORY))
    };
    processes().is_ok_and(|pids| pids.iter().any(has))
}

/// Lets new processes get numbers above those of all existing ones, as in the container that was
/// dumped: CRIU needs the low ones.
pub(super) fn keep_low_numbers_free() -> io::Result<()> {
    let highest = processes()?.into_iter().max().unwrap_or(0);
    set_last_pid(highest)
}

/// Lists the files with a shared writable mapping, by their path inside. Writes through such a
/// mapping need not change the file's times.
pub(super) fn writably_mapped_files() -> io::Result<HashSet<PathBuf>> {
    let mut found = HashSet::new();
    for pid in processes()? {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let lines = maps.lines().filter(|line| {
            let rights = line.split_ascii_whitespace().nth(1).unwrap_or("");
            rights.contains('w') && rights.ends_with('s')
        });
        found.extend(lines.filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..]))));
    }
    Ok(found)
}
