//! What the kernel has of a cluster: processes below a node, and what dead ones may have left.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// All processes below one, however deep, by their numbers outside.
pub fn below(pid: u64) -> Vec<u64> {
    let mut found = children(pid);
    let mut at = 0;
    while let Some(next) = found.get(at) {
        found.extend(children(*next));
        at += 1;
    }
    found
}

/// Those of them that are CRIU at one of its actions, or what it is bringing back.
pub fn criu_below(pid: u64, action: &str) -> Vec<u64> {
    let mut found = below(pid);
    found.retain(|pid| is_criu(*pid, action));
    found
}

/// Those of them that are the server.
pub fn servers_below(pid: u64) -> Vec<u64> {
    let mut found = below(pid);
    found.retain(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim_end() != "brolga-init" && !is_criu(*pid, "")
    });
    found
}

fn is_criu(pid: u64, action: &str) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command);
    let mut words = command.split('\0');
    let program = words.next().unwrap_or_default();
    program.ends_with("criu") && words.next().is_some_and(|word| word.starts_with(action))
}

fn children(pid: u64) -> Vec<u64> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for thread in threads.flatten() {
        let listed = fs::read_to_string(thread.path().join("children"));
        let listed = listed.unwrap_or_default();
        let numbers = listed.split_ascii_whitespace().map(str::parse::<u64>);
        found.extend(numbers.map_while(Result::ok));
    }
    found
}

/// Every mount namespace of any thread in which something of `directory` is mounted.
pub fn mount_namespaces(directory: &Path) -> BTreeSet<PathBuf> {
    let words = directory.to_str().expect("it is UTF-8");
    let mut found = BTreeSet::new();
    for process in numbered(Path::new("/proc")) {
        for thread in numbered(&process.join("task")) {
            // It may have ended since.
            let Ok(namespace) = fs::read_link(thread.join("ns/mnt")) else {
                continue;
            };
            let mounts = fs::read_to_string(thread.join("mountinfo")).unwrap_or_default();
            if mounts.contains(words) {
                found.insert(namespace);
            }
        }
    }
    found
}

/// Every process that has something to do with `directory`: its command line, its working
/// directory, an open file or a mount.
pub fn users(directory: &Path) -> Vec<String> {
    let words = directory.to_str().expect("it is UTF-8");
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for process in numbered(Path::new("/proc")) {
        if process.ends_with(&own) {
            continue;
        }
        let read = |name: &str| fs::read(process.join(name)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let mounts = String::from_utf8_lossy(&read("mountinfo")).into_owned();
        let open = fs::read_dir(process.join("fd"));
        let open = open.into_iter().flatten().flatten();
        let mut links = open.map(|it| it.path()).chain([process.join("cwd")]);
        let uses = command.contains(words)
            || mounts.contains(words)
            || links.any(|it| fs::read_link(it).is_ok_and(|it| it.starts_with(directory)));
        if uses {
            found.push(format!("{}: {command}", process.display()));
        }
    }
    found
}

fn numbered(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let paths = entries.map(|it| it.path());
    let is_number = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    };
    paths.filter(is_number).collect()
}

/// True if something of CRIU's is left in a process.
pub fn is_soiled(pid: u64) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"));
    maps.is_ok_and(|maps| maps.contains("CRIUMFD"))
}
