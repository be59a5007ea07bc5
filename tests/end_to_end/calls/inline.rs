//! System calls that no symbol of libc is asked for: inline ones, and those that libc makes inside.
//! They do what they do natively and the same on every replica, are counted, and those that nobody
//! knows end the server.

use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::native::{Native, ask, build};
use crate::harness::{eventually, finish};
use brolga_node::{FilterState, ServerState};
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;

const LETTERS: &str = "trfcesixh";
/// `getppid`, which the letter `h` calls so often.
const GETPPID: u32 = 110;
const HOT: u64 = 5000;

/// The part that is the same natively: all before `=` in each line.
fn common(answer: &str) -> String {
    let lines = answer
        .lines()
        .map(|line| line.split('=').next().unwrap_or(""));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The output for people.
fn table(cluster: &Cluster) -> String {
    finish(&["status", "--data", cluster.data().to_str().unwrap()]).stdout
}

fn setup(program: &Path) -> Setup {
    Setup::new(|port| vec![program.to_str().unwrap().to_owned(), port.to_string()])
}

#[test]
fn inline_calls_do_what_they_do_natively() {
    let program = build("inline");
    let folder = tempfile::tempdir().unwrap();
    let native = Native::start_in(&program, &[], folder.path());
    let cluster = Cluster::start(setup(&program).perturbed(300));
    let homes = cluster.settle().followers();
    for letter in LETTERS.chars() {
        let request = format!("{letter}\n");
        let expected = ask(native.address, &request);
        let wrapped = ask(cluster.address(homes[0]), &request);
        assert_eq!(common(&wrapped), common(&expected), "{letter}: {wrapped}");
        match letter {
            // In the order of their names, as no file system has them.
            'i' => assert!(
                wrapped.contains("= tree a0 a30 b77 c27 c57 d7 "),
                "{wrapped}"
            ),
            'x' => assert!(wrapped.contains("= vdso 0, "), "{wrapped}"),
            _ => {}
        }
    }
    // What differs from a native run is in the outputs, so equal hashes say that it is equal.
    let hashes = cluster.settle().hashes();
    let counted = eventually(|| {
        let view = cluster.any_view();
        let all = view.all();
        all.is_some_and(|all| {
            all.iter().all(|status| {
                let mut sites = status.backstop.caught.iter();
                status.backstop.filter == FilterState::On
                    && sites.any(|site| {
                        site.object == "inline"
                            && site.number == GETPPID
                            && site.count * 2 > HOT
                            && site.count <= HOT
                    })
            })
        })
    });
    assert!(counted, "{:#?}", cluster.any_view());
    let table = table(&cluster);
    assert!(table.contains("of call 110 at inline+0x"), "{table}");
    say(&format!("inline calls: as native, {hashes}"));
    cluster.stop();
}

#[test]
fn a_call_that_nobody_knows_ends_the_server_with_a_line() {
    let program = build("inline");
    let cluster = Cluster::start(setup(&program));
    let homes = cluster.settle().followers();
    let mut stream = TcpStream::connect(cluster.address(homes[0])).unwrap();
    stream.write_all(b"u\n").unwrap();
    let ended = eventually(|| {
        let view = cluster.any_view();
        let all = view.all();
        all.is_some_and(|all| {
            all.iter().all(|status| match &status.server {
                ServerState::Faulted { message } => {
                    message.starts_with("system call 500 at inline+0x")
                        && message.contains(" in process ")
                        && message.ends_with(" is not supported")
                }
                _ => false,
            })
        })
    });
    assert!(ended, "{:#?}", cluster.any_view());
    cluster.stop();
}

/// Without a filter nothing is caught, and everybody can see that.
#[test]
fn the_filter_can_be_switched_off() {
    let cluster = Cluster::start(Setup::store().flag("--no-syscall-filter"));
    let view = cluster.settle();
    for status in view.all().unwrap() {
        assert_eq!(status.backstop.filter, FilterState::Off);
        assert!(status.backstop.caught.is_empty());
    }
    let table = table(&cluster);
    assert!(
        table.contains("system call filter off on replica 1"),
        "{table}"
    );
    cluster.stop();
}
