//! Apache httpd: processes with threads, and a program that makes pages.

use crate::fixture::settings::random_bytes;
use crate::servers::recipe::{Load, LoadControl, Recipe, Target};
use crate::servers::scenario::{come_back, survive, survive_in};
use crate::servers::web::http::{Client, bench, curl, fetch};
use fastrand::Rng;
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn apache_comes_back_from_a_checkpoint() {
    come_back("apache_comes_back_from_a_checkpoint", Apache::new);
}

#[test]
fn apache_survives_its_leader() {
    survive("apache_survives_its_leader", Apache::new);
}

#[test]
fn apache_survives_its_leader_in_policy_parallel() {
    let test = "apache_survives_its_leader_in_policy_parallel";
    survive_in("parallel", test, Apache::new);
}

#[derive(Debug)]
struct Apache {
    files: Vec<(String, Vec<u8>)>,
}

impl Apache {
    fn new(rng: &mut Rng) -> Self {
        let sizes = [("small", 100), ("page.html", 20_000), ("big", 500_000)];
        let files = sizes.map(|(name, size)| (name.to_owned(), random_bytes(rng, size)));
        Self {
            files: files.into(),
        }
    }
}

/// The sum that `page.php` of the recipe computes, here by other means.
fn expected_sum() -> u64 {
    (0..4_000_000).fold(0, |sum, i| (sum * 31 + i) % 1_000_003)
}

/// Asks for a page that is computed, with another query each time.
fn compute(at: &Target, control: &LoadControl) {
    let mut client = Client::connect(at);
    let sum = expected_sum();
    for number in 0.. {
        let reply = client.get(&format!("/cgi/page.php?{number}"));
        assert_eq!(reply.text(), format!("query {number} sum {sum}\n"));
        let reply = client.get(&format!("/cgi/small.sh?{number}"));
        let start = format!("GET {number} from process ");
        assert!(reply.text().starts_with(&start), "{}", reply.text());
        if !control.step() {
            return;
        }
    }
}

impl Recipe for Apache {
    fn name(&self) -> &'static str {
        "apache"
    }

    fn needs(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("apache2", "apache2"),
            ("ab", "apache2-utils"),
            ("curl", "curl"),
            ("php", "php-cli"),
        ]
    }

    fn version(&self) -> Command {
        let mut command = Command::new("/usr/sbin/apache2");
        command.arg("-v");
        command
    }

    fn ports(&self) -> &'static [u16] {
        &[8080]
    }

    fn prepare(&self, genesis: &Path) {
        let folder = genesis.join("html/files");
        fs::create_dir(&folder).unwrap();
        for (path, bytes) in &self.files {
            fs::write(folder.join(path), bytes).unwrap();
        }
    }

    fn load(&self) -> Vec<Load<'_>> {
        let below: Vec<_> = (self.files.iter())
            .map(|(path, bytes)| (format!("files/{path}"), bytes.clone()))
            .collect();
        let (page, bytes) = below[1].clone();
        let stock_page = page.clone();
        vec![
            Box::new(move |at, control| curl(&page, &bytes, at, control)),
            Box::new(move |at, control| bench(&stock_page, at, control)),
            Box::new(move |at, control| fetch(&below, 0, at, control)),
            Box::new(compute),
        ]
    }

    /// Who served whom, and when: asking the server for more would change it.
    fn dump(&self, at: &Target) -> String {
        at.read("access.log") + &at.read("error.log")
    }
}
