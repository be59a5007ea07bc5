//! lighttpd: static files and a listing.

use crate::servers::recipe::{Load, Recipe, Target};
use crate::servers::scenario::{come_back, survive};
use crate::servers::web::http::Files;
use fastrand::Rng;
use std::path::Path;
use std::process::Command;

#[test]
fn lighttpd_comes_back_from_a_checkpoint() {
    come_back("lighttpd_comes_back_from_a_checkpoint", Lighttpd::new);
}

#[test]
fn lighttpd_survives_its_leader() {
    survive("lighttpd_survives_its_leader", Lighttpd::new);
}

#[derive(Debug)]
pub struct Lighttpd(Files);

impl Lighttpd {
    pub fn new(rng: &mut Rng) -> Self {
        Self(Files::new(rng, &[20_000, 0, 100, 700_000]))
    }
}

impl Recipe for Lighttpd {
    fn name(&self) -> &'static str {
        "lighttpd"
    }

    fn needs(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("lighttpd", "lighttpd"),
            ("ab", "apache2-utils"),
            ("curl", "curl"),
        ]
    }

    fn version(&self) -> Command {
        let mut command = Command::new("/usr/sbin/lighttpd");
        command.arg("-v");
        command
    }

    fn ports(&self) -> &'static [u16] {
        &[8080]
    }

    fn prepare(&self, genesis: &Path) {
        self.0.write(&genesis.join("www"));
    }

    fn load(&self) -> Vec<Load<'_>> {
        let mut load = self.0.load(3);
        load.push(Box::new(|at, control| self.0.list(at, control)));
        load
    }

    /// Who was served, and when: asking the server for more would change it.
    fn dump(&self, at: &Target) -> String {
        at.read("access.log") + &at.read("error.log")
    }
}
