//! nsd with two serving processes, and new ones for every zone that is added.

use crate::harness::eventually;
use crate::servers::dns::client::{Hosts, dig};
use crate::servers::recipe::{Load, LoadControl, Recipe, Target, stock};
use crate::servers::scenario::{come_back, survive};
use fastrand::Rng;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

#[test]
fn nsd_comes_back_from_a_checkpoint() {
    come_back("nsd_comes_back_from_a_checkpoint", |rng| {
        Nsd::new(rng, true)
    });
}

#[test]
fn nsd_survives_its_leader() {
    survive("nsd_survives_its_leader", |rng| Nsd::new(rng, false));
}

#[test]
fn nsd_that_changes_survives_its_leader() {
    let test = "nsd_that_changes_survives_its_leader";
    survive(test, |rng| Nsd::new(rng, true));
}

#[derive(Debug)]
struct Nsd {
    hosts: Hosts,
    rng: Mutex<Rng>,
    /// Zones are added meanwhile. The serving processes that go then reset their connections, also
    /// without us.
    changes: bool,
    /// Zones that were added.
    added: Mutex<Vec<String>>,
}

impl Nsd {
    fn new(rng: &mut Rng, changes: bool) -> Self {
        Self {
            hosts: Hosts::new(rng),
            rng: Mutex::new(rng.clone()),
            changes,
            added: Mutex::default(),
        }
    }

    /// Adds zones with the stock program, over TLS. Each must be served soon.
    fn add(&self, at: &Target, control: &LoadControl) {
        for number in 0.. {
            let zone = format!("zone{number}.test");
            let said = stock(&mut control_tool(at, &["addzone", &zone, "added"]));
            assert!(said.contains("ok"), "{said}");
            let name = format!("www.{zone}");
            let served = eventually(|| {
                let said = stock(&mut dig(at, &["+notcp", "+short", &name, "A"]));
                said.trim() == "192.0.2.3"
            });
            assert!(served, "{zone} is not served");
            self.added.lock().unwrap().push(zone);
            if !control.step() {
                return;
            }
        }
    }
}

fn control_tool(at: &Target, words: &[&str]) -> Command {
    let mut command = Command::new("/usr/sbin/nsd-control");
    command.current_dir(&at.work).args(["-c", "nsd.conf", "-s"]);
    let place = at.address(1);
    command.arg(format!("{}@{}", place.ip(), place.port()));
    command.args(words);
    command
}

impl Recipe for Nsd {
    fn name(&self) -> &'static str {
        "nsd"
    }

    fn needs(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("nsd", "nsd"),
            ("dig", "bind9-dnsutils"),
            ("dnsperf", "dnsperf"),
            ("openssl", "openssl"),
        ]
    }

    fn version(&self) -> Command {
        let mut command = Command::new("/usr/sbin/nsd");
        command.arg("-v");
        command
    }

    fn ports(&self) -> &'static [u16] {
        &[5300, 8952]
    }

    fn prepare(&self, genesis: &Path) {
        let zone = genesis.join("example.test.zone");
        let mut text = fs::read_to_string(&zone).unwrap();
        text += &self.hosts.records().join("\n");
        fs::write(&zone, text + "\n").unwrap();
        stock(
            Command::new("/usr/sbin/nsd-control-setup")
                .arg("-d")
                .arg(genesis),
        );
        for file in fs::read_dir(genesis).unwrap() {
            readable(&file.unwrap().path());
        }
    }

    fn load(&self) -> Vec<Load<'_>> {
        let rng = &mut self.rng.lock().unwrap();
        if !self.changes {
            return self.hosts.load(rng);
        }
        let mut load = self.hosts.load_udp(rng);
        load.push(Box::new(|at, control| self.add(at, control)));
        load
    }

    /// All zones, by transfer, and the list of those that were added.
    fn dump(&self, at: &Target) -> String {
        let mut zones = self.added.lock().unwrap().clone();
        zones.push("example.test".into());
        let mut dump = at.read("nsd.log");
        if self.changes {
            dump += &at.read("zone.list");
        }
        for zone in zones {
            let transfer = ["+nocmd", "+nostats", "+nocomments", &zone, "AXFR"];
            let records = stock(&mut dig(at, &transfer));
            assert!(records.contains("SOA"), "{zone}: {records}");
            dump += &records;
        }
        assert!(dump.lines().count() > 400, "{dump}");
        dump
    }
}

/// Keys are made for their owner alone.
fn readable(path: &PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}
