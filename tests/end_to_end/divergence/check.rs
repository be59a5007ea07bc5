//! `brolga check`: a deterministic server passes, one that is not is caught and told where, and
//! what cannot be checked is refused in words.

use crate::fixture::cluster::say;
use crate::harness::{finish, free_port, refused, store};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const PYTHON: &str = "/usr/bin/python3";
/// Sets and counts in the store, one request after the other.
const STORE_CLIENT: &str = r#"
exec 3<>/dev/tcp/$1/$2
for number in $(seq 40); do
    printf '*3\r\n$3\r\nSET\r\n$1\r\n%s\r\n$2\r\n%02d\r\n' "$3" "$number" >&3
    read -r -u 3 reply && [ "$reply" = $'+OK\r' ] || exit 1
    printf '*2\r\n$4\r\nINCR\r\n$6\r\nshared\r\n' >&3
    read -r -u 3 reply && [ "${reply:0:1}" = : ] || exit 1
done
"#;
/// Asks a server three times; what it answers is of no interest.
const CLIENT: &str = r#"
exec 3<>/dev/tcp/$1/$2
for number in 1 2 3; do
    echo "question $number" >&3
    read -r -n 4 -t 20 -u 3 reply
done
true
"#;

/// A directory with a script for a load, and the words that run it.
fn script(text: &str) -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.sh");
    fs::write(&path, text).unwrap();
    let words = format!("bash {} {{address}} {{port}} {{client}}", path.display());
    (dir, words)
}

#[test]
fn a_deterministic_server_passes() {
    let name = "a_deterministic_server_passes";
    let (_dir, load) = script(STORE_CLIENT);
    let server = store(free_port());
    let mut words = vec![
        "check",
        "--load",
        &load,
        "--clients",
        "3",
        "--runs",
        "2",
        "--",
    ];
    words.extend(server.iter().map(String::as_str));
    let checked = finish(&words);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let verdict = checked.stdout.strip_prefix("no divergence in ");
    let slots = verdict.and_then(|it| it.split(' ').next()?.parse::<u64>().ok());
    // Each client waits for 80 answers, one after the other.
    assert!(slots.is_some_and(|slots| slots > 160), "{checked:?}");
    let found = "(3 replicas, 2 runs, 2 replays, ";
    assert!(checked.stdout.contains(found), "{checked:?}");
    say(&format!("{name}: {}", checked.stdout.trim_end()));
}

/// A check of a server whose file `switch` changes at replica 2, behind its back; what is printed.
fn tampered(name: &str, word: &str) -> Option<(String, PathBuf, TempDir)> {
    if !Path::new(PYTHON).exists() {
        say(&format!(
            "{name}: SKIPPED, {PYTHON} is not installed (tests/setup.sh)"
        ));
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let (genesis, data) = (dir.path().join("genesis"), dir.path().join("data"));
    fs::create_dir(&genesis).unwrap();
    fs::write(genesis.join("switch"), "open").unwrap();
    let switch = data.join("run-1/node-2/work/switch");
    let text = format!("echo -n {word} > {}\n{CLIENT}", switch.display());
    let (_scripts, load) = script(&text);
    let server = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/servers/python/switch.py"
    );
    let port = free_port().to_string();
    let (genesis, data) = (genesis.to_str().unwrap(), data.to_str().unwrap());
    let options = [
        "check",
        "--load",
        &load,
        "--genesis",
        genesis,
        "--data",
        data,
    ];
    let command = ["--", PYTHON, server, &port];
    let checked = finish(&[&options[..], &command].concat());
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(checked.stderr.contains("replicas differ"), "{checked:?}");
    assert!(checked.stderr.contains(data), "{checked:?}");
    say(&format!("{name}: {}", checked.stdout.replace('\n', " / ")));
    Some((checked.stdout, data.into(), dir))
}

#[test]
fn another_answer_is_named_with_both_values() {
    let name = "another_answer_is_named_with_both_values";
    let Some((told, data, _dir)) = tampered(name, "shut") else {
        return;
    };
    for words in [
        "run 1: divergence at slot ",
        "connection 1 of replica 1, output byte 0\n",
        "replica 2, thread ",
        ": writes \"open\"\n",
        ": writes \"shut\"\n",
        "bytes of connection 1 of replica 1\n",
    ] {
        assert!(told.contains(words), "`{words}` is not in: {told}");
    }
    assert!(data.join("run-1/node-2/trace-1").exists());
}

/// All answers are the same, only the schedules are not.
#[test]
fn another_operation_is_named_with_its_thread() {
    let name = "another_operation_is_named_with_its_thread";
    let Some((told, ..)) = tampered(name, "lock") else {
        return;
    };
    let deeds: Vec<&str> = told
        .lines()
        .filter_map(|line| line.split_once(": goes on with a "))
        .map(|(_, deed)| deed.split(';').next().unwrap())
        .collect();
    let [one, other] = deeds[..] else {
        panic!("not two deeds: {told}");
    };
    assert_ne!(one, other, "{told}");
    for words in [
        "run 1: divergence at slot ",
        "  replica 2, thread ",
        "  after the same ",
    ] {
        assert!(told.contains(words), "`{words}` is not in: {told}");
    }
    assert!(is_alone(&told, 2), "{told}");
}

/// True if none of the other replicas is in the group of this one. Its second start may be in
/// either: the switch may be turned before or after that.
fn is_alone(told: &str, replica: usize) -> bool {
    let prefix = "  alike as far as they go: ";
    let groups = told.lines().find_map(|line| line.strip_prefix(prefix));
    let first_starts = |group: &str| {
        let starts = group.trim().split(", ").map(str::trim);
        starts
            .filter(|it| !it.contains('('))
            .map(String::from)
            .collect::<Vec<_>>()
    };
    let groups: Vec<_> = groups
        .into_iter()
        .flat_map(|it| it.split('|'))
        .map(first_starts)
        .collect();
    groups.len() == 2 && groups.contains(&vec![format!("replica {replica}")])
}

#[test]
fn what_cannot_be_checked_is_refused() {
    refused(&["check", "--", "no-such-server"], &["no-such-server"]);
    refused(
        &["check", "--replicas", "0", "--", "true"],
        &["--replicas 0"],
    );
    let told = |arguments: &[&str], words: &[&str]| {
        let finished = finish(arguments);
        assert_eq!(finished.code, Some(1), "{finished:?}");
        for word in words {
            assert!(finished.stderr.contains(word), "{word}: {finished:?}");
        }
    };
    told(
        &["check", "--", "true"],
        &["the server ended before it listened"],
    );
    let server = store(free_port());
    let mut words = vec!["check", "--load", "echo too late; exit 7", "--"];
    words.extend(server.iter().map(String::as_str));
    told(
        &words,
        &["client 1 of the load failed (exit status: 7)", "too late"],
    );
}
