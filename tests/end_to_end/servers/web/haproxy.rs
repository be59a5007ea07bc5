//! HAProxy in front of servers that are not wrapped: pages over HTTP from two, lines over TCP from
//! one.

use crate::fixture::outside::{Numberer, Outside};
use crate::fixture::settings::random_bytes;
use crate::servers::recipe::{Load, LoadControl, Recipe, Target};
use crate::servers::scenario::{come_back, survive};
use crate::servers::web::http::{bench, curl, fetch};
use fastrand::Rng;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, OnceLock};

#[test]
fn haproxy_comes_back_from_a_checkpoint() {
    come_back("haproxy_comes_back_from_a_checkpoint", HaProxy::new);
}

#[test]
fn haproxy_survives_its_leader() {
    survive("haproxy_survives_its_leader", HaProxy::new);
}

#[derive(Debug)]
struct HaProxy {
    files: Vec<(String, Vec<u8>)>,
    outside: OnceLock<Vec<Outside>>,
    numberers: Mutex<Vec<Numberer>>,
}

impl HaProxy {
    /// A body that fits one buffer comes in one piece or not at all, so that it can be asked for
    /// again.
    fn new(rng: &mut Rng) -> Self {
        let sizes = [8000, 0, 100];
        let file = |size: usize| (format!("files/{size}"), random_bytes(rng, size));
        Self {
            files: sizes.map(file).into(),
            outside: OnceLock::new(),
            numberers: Mutex::default(),
        }
    }

    /// Whoever has a TCP connection to a server outside loses it with the leader, and makes
    /// another.
    fn number(&self, name: &'static str, at: &Target, control: &LoadControl) {
        let mut numberer = Numberer::new(name, at.address(1));
        while {
            numberer.ask();
            control.step()
        } {}
        assert!(numberer.breaks <= 3, "{numberer:?}");
        self.numberers.lock().unwrap().push(numberer);
    }
}

impl Recipe for HaProxy {
    fn name(&self) -> &'static str {
        "haproxy"
    }

    fn needs(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("haproxy", "haproxy"),
            ("ab", "apache2-utils"),
            ("curl", "curl"),
        ]
    }

    fn version(&self) -> Command {
        let mut command = Command::new("/usr/sbin/haproxy");
        command.arg("-v");
        command
    }

    fn ports(&self) -> &'static [u16] {
        &[8080, 8081, 8001, 8002, 8003]
    }

    /// Starts the servers that the configuration names.
    fn prepare(&self, genesis: &Path) {
        let configuration = fs::read_to_string(genesis.join("haproxy.cfg")).unwrap();
        let named = configuration.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("server")).then(|| words.nth(1).expect("an address"))
        });
        let named: Vec<SocketAddr> = named.map(|it| it.parse().unwrap()).collect();
        let outside = vec![
            Outside::pages_at(named[0], self.files.clone()),
            Outside::pages_at(named[1], self.files.clone()),
            Outside::lines_at(named[2]),
        ];
        self.outside.set(outside).expect("prepared once");
    }

    fn load(&self) -> Vec<Load<'_>> {
        let (path, bytes) = &self.files[0];
        let files = &self.files;
        vec![
            Box::new(|at, control| curl(path, bytes, at, control)),
            Box::new(|at, control| bench(path, at, control)),
            Box::new(|at, control| fetch(files, 0, at, control)),
            Box::new(|at, control| fetch(files, 1, at, control)),
            Box::new(|at, control| self.number("a", at, control)),
            Box::new(|at, control| self.number("b", at, control)),
        ]
    }

    /// The access log.
    fn dump(&self, at: &Target) -> String {
        let outside = self.outside.get().expect("prepared");
        let served: Vec<usize> = outside.iter().map(Outside::connections).collect();
        assert!(served.iter().all(|count| *count > 0), "{served:?}");
        outside[2].check_lines(&self.numberers.lock().unwrap());
        at.read("../server.out")
    }
}
