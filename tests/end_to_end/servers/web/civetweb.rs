//! civetweb, which is what became of CRANE's Mongoose: a pool of threads, static files and a listing.

use crate::servers::recipe::{Load, Recipe, Target};
use crate::servers::scenario::{come_back, survive};
use crate::servers::web::http::Files;
use fastrand::Rng;
use std::path::Path;
use std::process::Command;

#[test]
fn civetweb_comes_back_from_a_checkpoint() {
    come_back("civetweb_comes_back_from_a_checkpoint", Civetweb::new);
}

#[test]
fn civetweb_survives_its_leader() {
    survive("civetweb_survives_its_leader", Civetweb::new);
}

#[derive(Debug)]
pub struct Civetweb(Files);

impl Civetweb {
    pub fn new(rng: &mut Rng) -> Self {
        Self(Files::new(rng, &[20_000, 0, 100, 700_000]))
    }
}

impl Recipe for Civetweb {
    fn name(&self) -> &'static str {
        "civetweb"
    }

    fn needs(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("civetweb", "civetweb"),
            ("ab", "apache2-utils"),
            ("curl", "curl"),
        ]
    }

    fn version(&self) -> Command {
        let mut command = Command::new("civetweb");
        command.arg("-I");
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
        at.read("access.log")
    }
}
