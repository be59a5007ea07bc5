//! The processes of a server as `/proc` shows them.
//!
//! Everything here has to be done inside the container.

use crate::container::last_number;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;

/// Process numbers below this one are not the server's.
const FIRST_PID: u32 = crate::container::FIRST_PID.cast_unsigned();

/// What CRIU works with inside of processes that it dumps.
const CRIUS_MEMORY: &str = "memfd:CRIUMFD";
/// The server's processes.
pub(super) fn processes() -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    pids.retain(|pid| *pid >= FIRST_PID);
    Ok(pids)
}

/// What is mapped in a process; nothing if it has ended since it was listed.
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

/// CRIU has left its memory in a process of the server.
pub(super) fn is_soiled() -> bool {
    let soiled = |pid: &u32| {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"));
        maps.is_ok_and(|maps| maps.contains(CRIUS_MEMORY))
    };
    processes().is_ok_and(|pids| pids.iter().any(soiled))
}

/// What is started from now on gets higher numbers than all that is there, as in the container that was
/// dumped: CRIU needs the low ones.
pub(super) fn keep_low_numbers_free() -> io::Result<()> {
    let highest = processes()?.into_iter().max().unwrap_or(0);
    last_number(highest)
}

/// Files that are mapped to be written to, by their path inside: changes through an old mapping do
/// not show.
pub(super) fn restless_files() -> io::Result<HashSet<PathBuf>> {
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
