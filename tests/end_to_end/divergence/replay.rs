//! A recorded log is run again by `brolga replay`: with and without the cluster, up to a slot, under a
//! debugger, and with a recording that says something else.

use crate::clients::resp::Client;
use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::settings::random;
use crate::harness::{Finished, finish, refused};
use std::fs;
use std::path::Path;
use std::process::Command;

const WRITES: usize = 200;
/// Of one slot in the file of recorded hashes: slot, output hash, schedule hash.
const RECORD_BYTES: usize = 24;

/// A store with something in its log, and the last slot of that.
fn recorded(name: &str) -> (Cluster, u64) {
    let mut rng = random(name);
    let cluster = Cluster::start(Setup::store());
    let mut client = Client::connect(cluster.address(2));
    for number in 0..WRITES {
        let value = rng.u64(..1_000_000).to_string();
        client.exchange(&["SET", &format!("key{number}"), &value], "+OK\r\n");
    }
    drop(client);
    let last = cluster.settle().last_entry();
    (cluster, last)
}

fn replay(data: &Path, arguments: &[&str]) -> Finished {
    let data = data.to_str().unwrap();
    finish(&[&["replay", "--data", data], arguments].concat())
}

#[track_caller]
fn equal(finished: &Finished) {
    let Finished { code, stdout, .. } = finished;
    assert_eq!(*code, Some(0), "{finished:?}");
    assert!(stdout.contains("slots per second"), "{finished:?}");
    assert!(stdout.contains("as recorded"), "{finished:?}");
}

fn files_below(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let names = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
    let files = names.filter(|path| path.is_file());
    let mut files: Vec<(String, Vec<u8>)> = files
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_log_is_replayed_beside_its_cluster_and_after_it() {
    let name = "a_log_is_replayed_beside_its_cluster_and_after_it";
    let (cluster, last) = recorded(name);
    equal(&replay(&cluster.data(), &["--node", "2"]));
    let scratch = tempfile::tempdir().unwrap();
    let into = scratch.path().join("into");
    let into_text = into.to_str().unwrap();
    equal(&replay(
        &cluster.data(),
        &["--until", "20", "--into", into_text],
    ));
    assert!(into.join("work/store").is_dir());
    // The cluster has not noticed.
    assert_eq!(cluster.settle().last_entry(), last);
    let dir = cluster.stop_and_keep();
    let data = dir.path().join("data");
    let before = files_below(&data.join("node-1/log"));
    let whole = replay(&data, &["--perturb-us", "50"]);
    equal(&whole);
    let end = format!("slot {last}: output hash");
    assert!(whole.stdout.contains(&end), "{last}: {whole:?}");
    assert!(whole.stdout.contains("all hashes are"), "{whole:?}");
    assert!(before == files_below(&data.join("node-1/log")));
    say(&format!("{name}: {}", whole.stdout.replace('\n', ", ")));
    let data = data.to_str().unwrap();
    let too_far = (last + 1000).to_string();
    refused(
        &["replay", "--data", data, "--until", &too_far],
        &["the log ends at slot"],
    );
    refused(
        &["replay", "--data", data, "--node", "7"],
        &["node-7/config.toml"],
    );
}

#[test]
fn the_first_slot_that_is_not_as_recorded_is_named() {
    let (cluster, last) = recorded("the_first_slot_that_is_not_as_recorded_is_named");
    let dir = cluster.stop_and_keep();
    let data = dir.path().join("data");
    let path = data.join("node-3/hashes");
    let mut hashes = fs::read(&path).unwrap();
    let (at, wrong) = hashes
        .chunks(RECORD_BYTES)
        .map(|record| u64::from_le_bytes(record[..8].try_into().unwrap()))
        .enumerate()
        .find(|(_, slot)| *slot >= last / 2)
        .unwrap();
    hashes[at * RECORD_BYTES + 8] ^= 1;
    fs::write(&path, hashes).unwrap();
    let data = data.to_str().unwrap();
    let found = finish(&["replay", "--data", data, "--node", "3"]);
    assert_eq!(found.code, Some(1), "{found:?}");
    let named = format!("slot {wrong} is the first that differs from the recording: output hash");
    assert!(found.stderr.contains(&named), "{wrong}: {found:?}");
    equal(&replay(Path::new(data), &["--node", "1"]));
}

#[test]
fn a_debugger_sits_on_the_server_of_a_replay() {
    let name = "a_debugger_sits_on_the_server_of_a_replay";
    if Command::new("gdb").arg("--version").output().is_err() {
        say(&format!(
            "{name}: SKIPPED, gdb is not installed (tests/setup.sh)"
        ));
        return;
    }
    let (cluster, last) = recorded(name);
    let dir = cluster.stop_and_keep();
    let data = dir.path().join("data");
    let script = [
        "--",
        "gdb",
        "-batch",
        "-ex",
        "handle SIGSEGV nostop noprint pass",
        "-ex",
        "handle SIGSYS nostop noprint pass",
        "-ex",
        "tbreak brolga_store::run",
        "-ex",
        "continue",
        "-ex",
        "continue",
        "-ex",
        "kill",
    ];
    let debugged = replay(&data, &script);
    equal(&debugged);
    let stdout = &debugged.stdout;
    assert!(
        stdout.contains("Temporary breakpoint 1, brolga_store::run"),
        "{debugged:?}"
    );
    assert!(stdout.contains("received signal SIGTRAP"), "{debugged:?}");
    let end = format!("slot {last}: output hash");
    assert!(stdout.contains(&end), "{last}: {debugged:?}");
    let data = data.to_str().unwrap();
    refused(
        &["replay", "--data", data, "--", "no-such-debugger"],
        &["cannot start the debugger: no-such-debugger"],
    );
}
