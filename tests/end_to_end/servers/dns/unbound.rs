//! unbound with two threads: local data, which change while it serves, and a zone for which it asks a
//! server outside.

use crate::servers::dns::client::{Elsewhere, Hosts, dig};
use crate::servers::recipe::{Load, LoadControl, Recipe, Target, stock};
use crate::servers::scenario::{come_back, survive};
use fastrand::Rng;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, OnceLock};

/// Names that are changed again and again.
const CHANGING: usize = 20;

#[test]
fn unbound_comes_back_from_a_checkpoint() {
    come_back("unbound_comes_back_from_a_checkpoint", Unbound::new);
}

#[test]
fn unbound_survives_its_leader() {
    survive("unbound_survives_its_leader", Unbound::new);
}

#[derive(Debug)]
struct Unbound {
    hosts: Hosts,
    rng: Mutex<Rng>,
    elsewhere: OnceLock<Elsewhere>,
}

impl Unbound {
    fn new(rng: &mut Rng) -> Self {
        Self {
            hosts: Hosts::new(rng),
            rng: Mutex::new(rng.clone()),
            elsewhere: OnceLock::new(),
        }
    }

    /// Changes data with the stock program; what was changed is served at once.
    fn change(at: &Target, control: &LoadControl) {
        for round in 0.. {
            let name = format!("changing{}.example.test", round % CHANGING);
            let address = format!("198.51.100.{}", round % 251);
            stock(&mut control_tool(at, &["local_data_remove", &name]));
            assert_eq!(stock(&mut dig(at, &["+short", &name, "A"])).trim(), "");
            let added = ["local_data", &name, "60", "IN", "A", &address];
            assert_eq!(stock(&mut control_tool(at, &added)).trim(), "ok");
            assert_eq!(stock(&mut dig(at, &["+short", &name, "A"])).trim(), address);
            if !control.step() {
                return;
            }
        }
    }
}

fn control_tool(at: &Target, words: &[&str]) -> Command {
    let mut command = Command::new("/usr/sbin/unbound-control");
    command
        .current_dir(&at.work)
        .args(["-c", "unbound.conf", "-s"]);
    let place = at.address(1);
    command.arg(format!("{}@{}", place.ip(), place.port()));
    command.args(words);
    command
}

impl Recipe for Unbound {
    fn name(&self) -> &'static str {
        "unbound"
    }

    fn needs(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("unbound", "unbound"),
            ("dig", "bind9-dnsutils"),
            ("dnsperf", "dnsperf"),
        ]
    }

    fn version(&self) -> Command {
        let mut command = Command::new("/usr/sbin/unbound");
        command.arg("-V");
        command
    }

    fn ports(&self) -> &'static [u16] {
        &[5301, 8953, 5302]
    }

    fn prepare(&self, genesis: &Path) {
        let quoted = |record: &String| format!("local-data: '{record}'\n");
        let data: String = self.hosts.records().iter().map(quoted).collect();
        fs::write(genesis.join("hosts.data"), data).unwrap();
        let configuration = fs::read_to_string(genesis.join("unbound.conf")).unwrap();
        let forward = configuration.split("forward-addr: ").nth(1).unwrap();
        let address = forward.lines().next().unwrap().replace('@', ":");
        let elsewhere = Elsewhere::start(address.parse().unwrap());
        self.elsewhere.set(elsewhere).expect("prepared once");
    }

    fn load(&self) -> Vec<Load<'_>> {
        let rng = &mut self.rng.lock().unwrap();
        let mut load = self.hosts.load(rng);
        load.push(Box::new(Self::change));
        let seeded = Rng::with_seed(rng.u64(..));
        load.push(Box::new(|at, control| Elsewhere::load(seeded, at, control)));
        load
    }

    /// All data, and how many questions each thread was asked.
    fn dump(&self, at: &Target) -> String {
        let asked = self.elsewhere.get().expect("prepared").asked();
        assert!(asked > 0, "nobody was asked");
        let data = stock(&mut control_tool(at, &["list_local_data"]));
        assert!(data.lines().count() > 400, "{data}");
        let statistics = stock(&mut control_tool(at, &["stats_noreset"]));
        // Without times, which go on between one replica's dump and the next one's.
        let counts = statistics.lines().filter(|line| line.contains(".num."));
        data + &counts.collect::<Vec<_>>().join("\n") + &at.read("unbound.log")
    }
}
