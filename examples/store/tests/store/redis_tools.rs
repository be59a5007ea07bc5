//! Stock redis-cli and redis-benchmark. Skipped, loudly, where they are not installed.

use std::process::{Command, Stdio};

use crate::harness::Store;

/// Runs a tool against `store`; `None` if it is not installed.
fn tool(name: &str, store: &Store, arguments: &[&str]) -> Option<String> {
    let port = store.address.port().to_string();
    let mut command = Command::new(name);
    command
        .args(["-h", "127.0.0.1", "-p", &port])
        .args(arguments)
        .stdin(Stdio::null());
    match command.output() {
        Err(error) => {
            eprintln!("SKIPPED: {name} is not installed: {error}");
            None
        }
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name} {arguments:?}: {errors}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
    }
}

#[test]
fn redis_cli_works() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::start(directory.path());
    for (arguments, expected) in [
        (vec!["SET", "a key", "a value"], "OK\n"),
        (vec!["GET", "a key"], "a value\n"),
        (vec!["CAS", "a key", "a value", "5"], "1\n"),
        (vec!["INCR", "a key"], "6\n"),
        (vec!["KEYS", "a*"], "a key\n"),
        (vec!["-n", "0", "DBSIZE"], "1\n"),
        (vec!["-r", "3", "PING"], "PONG\nPONG\nPONG\n"),
    ] {
        let Some(printed) = tool("redis-cli", &store, &arguments) else {
            return;
        };
        assert_eq!(printed, expected, "{arguments:?}");
    }
    let info = tool("redis-cli", &store, &["INFO"]).unwrap();
    assert!(info.contains("# Keyspace"), "{info}");
}

#[test]
fn redis_benchmark_works() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::start_with(directory.path(), &["--sync", "none"]);
    let tests = "ping_inline,ping_mbulk,set,get,incr";
    for pipeline in ["1", "16"] {
        let arguments = [
            "-n", "2000", "-c", "20", "-r", "100", "-P", pipeline, "-t", tests, "-q",
        ];
        let Some(printed) = tool("redis-benchmark", &store, &arguments) else {
            return;
        };
        for test in ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR"] {
            assert!(printed.contains(&format!("{test}: ")), "{printed}");
        }
        assert!(
            !printed.contains("ERR") && !printed.contains("WARN"),
            "{printed}"
        );
    }
}
