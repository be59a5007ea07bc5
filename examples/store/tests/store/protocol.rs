//! What clients send, and what they get.

use std::thread;
use std::time::Duration;

use crate::harness::{Client, Store, request};

fn store() -> (Store, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (Store::start(directory.path()), directory)
}

#[test]
fn every_command_answers() {
    let (store, _directory) = store();
    let mut client = store.connect();
    for (line, reply) in [
        ("PING", "+PONG"),
        ("PING hi", "hi"),
        ("ECHO hi", "hi"),
        ("GET a", "nil"),
        ("SET a 1", "+OK"),
        ("SET a 2 NX", "nil"),
        ("SET b 2 XX", "nil"),
        ("SET a 2 XX", "+OK"),
        ("GET a", "2"),
        ("INCR a", ":3"),
        ("INCR n", ":1"),
        ("CAS a 3 x", ":1"),
        ("CAS a 3 y", ":0"),
        ("CAS c 3 y", "nil"),
        ("INCR a", "-ERR value is not an integer or out of range"),
        ("KEYS *", "[a n]"),
        ("KEYS n", "[n]"),
        ("EXISTS a a b", ":2"),
        ("DBSIZE", ":2"),
        ("DEL a b", ":1"),
        ("DBSIZE", ":1"),
        (
            "SET a 1 EX 10",
            "-ERR expiry is not supported: keys do not expire",
        ),
        ("SELECT 0", "+OK"),
        ("SELECT 1", "-ERR DB index is out of range"),
        ("CONFIG GET save", "[save ]"),
        ("CONFIG GET none", "[]"),
        ("COMMAND DOCS", "[]"),
        ("CLIENT SETNAME me", "+OK"),
        ("CLIENT ID", ":1"),
        ("HELLO 3", "-NOPROTO unsupported protocol version"),
        ("NONSENSE", "-ERR unknown command 'NONSENSE'"),
        ("GET", "-ERR wrong number of arguments for 'get' command"),
        ("QUIT", "+OK"),
    ] {
        assert_eq!(client.ask(line), reply, "{line}");
    }
    assert_eq!(client.try_reply(), None);
}

#[test]
fn info_and_time_tell_about_this_run() {
    let (store, _directory) = store();
    let mut client = store.connect();
    let info = client.ask("INFO");
    let port = format!("tcp_port:{}\r\n", store.address.port());
    for field in [
        "connected_clients:1\r\n",
        "sync:full\r\n",
        "keys:0\r\n",
        &port,
    ] {
        assert!(info.contains(field), "{info}");
    }
    let run_id = info
        .split("run_id:")
        .nth(1)
        .unwrap()
        .split("\r\n")
        .next()
        .unwrap();
    assert_eq!(run_id.len(), 40);
    assert!(client.ask("TIME").len() > "[1700000000 0]".len() - 1);
    assert!(client.ask("HELLO").contains("server brolga-store version"));
}

#[test]
fn inline_commands_work_and_mix_with_arrays() {
    let (store, _directory) = store();
    let mut client = store.connect();
    client.send(b"set a  1\r\n\r\n*1\r\n$4\r\nPING\r\nget a\n");
    let replies: Vec<_> = (0..3).map(|_| client.reply()).collect();
    assert_eq!(replies, ["+OK", "+PONG", "1"]);
}

#[test]
fn a_request_in_single_bytes_is_a_request() {
    let (store, _directory) = store();
    let mut client = store.connect();
    client.stream.get_mut().set_nodelay(true).unwrap();
    for byte in request("SET key value") {
        client.send(&[byte]);
        thread::sleep(Duration::from_micros(200));
    }
    assert_eq!(client.reply(), "+OK");
}

#[test]
fn ten_thousand_pipelined_requests_are_answered_in_order() {
    let (store, _directory) = store();
    let mut client = store.connect();
    let mut requests = Vec::new();
    for number in 0..10_000 {
        requests.extend(request(&format!("SET k{} {number}", number % 7)));
        requests.extend(request(&format!("GET k{}", number % 7)));
    }
    let mut writer = client.stream.get_ref().try_clone().unwrap();
    let writing = thread::spawn(move || std::io::Write::write_all(&mut writer, &requests).unwrap());
    for number in 0..10_000 {
        assert_eq!(client.reply(), "+OK");
        assert_eq!(client.reply(), number.to_string());
    }
    writing.join().unwrap();
}

#[test]
fn large_values_and_replies_far_larger_than_a_run_come_through() {
    let (store, _directory) = store();
    let mut client = store.connect();
    let value = "v".repeat(8 << 20);
    assert_eq!(client.ask(&format!("SET big {value}")), "+OK");
    client.send(&request("GET big").repeat(10));
    client.send(b"PING\r\n");
    for _ in 0..10 {
        assert!(client.reply() == value);
    }
    assert_eq!(client.reply(), "+PONG");
    let refused = client.ask(&format!("SET big {value}v"));
    assert_eq!(refused, "-ERR value is longer than 8388608 bytes");
    assert_eq!(client.ask("PING"), "+PONG");
}

#[test]
fn malformed_input_is_answered_after_what_came_before_it_and_ends_the_connection() {
    let (store, _directory) = store();
    for malformed in ["*x\r\n", "*1\r\n:5\r\n", "*1\r\n$99999999\r\n", "a 'b'\r\n"] {
        let mut client = store.connect();
        client.send(b"SET a 1\r\nGET a\r\n");
        client.send(malformed.as_bytes());
        client.send(b"SET a 2\r\n");
        assert_eq!(client.reply(), "+OK");
        assert_eq!(client.reply(), "1");
        let error = client.reply();
        assert!(error.starts_with("-ERR Protocol error: "), "{error}");
        assert_eq!(client.try_reply(), None);
    }
    assert_eq!(store.connect().ask("GET a"), "1");
}

#[test]
fn connections_over_the_limit_are_refused_and_others_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::start_with(directory.path(), &["--max-connections", "2"]);
    let mut clients = [store.connect(), store.connect()];
    assert!(
        clients
            .iter_mut()
            .all(|client| client.ask("PING") == "+PONG")
    );
    let refused = store.connect().try_reply();
    assert_eq!(
        refused.as_deref(),
        Some("-ERR max number of clients reached")
    );

    let [mut first, second] = clients;
    drop(second);
    let admitted = || Client::new(store.address).try_reply_to("PING");
    while admitted().as_deref() != Some("+PONG") {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(first.ask("PING"), "+PONG");
}

impl Client {
    /// The connection may be refused and closed at any moment of this.
    fn try_reply_to(mut self, line: &str) -> Option<String> {
        if self.try_send(&request(line)) {
            self.try_reply()
        } else {
            None
        }
    }
}

#[test]
fn compare_and_swap_from_many_connections_loses_nothing() {
    let (store, _directory) = store();
    store.connect().ask("SET n 0");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = store.connect();
                for _ in 0..25 {
                    add_one(&mut client);
                }
            });
        }
    });
    assert_eq!(store.connect().ask("GET n"), "100");
}

fn add_one(client: &mut Client) {
    loop {
        let current = client.ask("GET n");
        let next = current.parse::<u64>().unwrap() + 1;
        if client.ask(&format!("CAS n {current} {next}")) == ":1" {
            return;
        }
    }
}
