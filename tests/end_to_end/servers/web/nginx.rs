//! nginx: a master and two workers that share a listener.

use crate::fixture::settings::random_bytes;
use crate::servers::recipe::{Load, LoadControl, Recipe, Target};
use crate::servers::scenario::{come_back, survive, survive_in};
use crate::servers::web::http::{Client, bench, curl, fetch};
use fastrand::Rng;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

#[test]
fn nginx_comes_back_from_a_checkpoint() {
    come_back("nginx_comes_back_from_a_checkpoint", Nginx::new);
}

#[test]
fn nginx_survives_its_leader() {
    survive("nginx_survives_its_leader", Nginx::new);
}

#[test]
fn nginx_survives_its_leader_in_policy_parallel() {
    let test = "nginx_survives_its_leader_in_policy_parallel";
    survive_in("parallel", test, Nginx::new);
}

#[derive(Debug)]
pub struct Nginx {
    files: Vec<(String, Vec<u8>)>,
}

impl Nginx {
    pub fn new(rng: &mut Rng) -> Self {
        let sizes = [("small", 100), ("page.html", 20_000), ("big", 900_000)];
        let files = sizes.map(|(name, size)| (name.to_owned(), random_bytes(rng, size)));
        Self {
            files: files.into(),
        }
    }
}

/// Puts files, and reads them back with the times that the server gives them.
fn put(at: &Target, control: &LoadControl) {
    let mut client = Client::connect(at);
    for number in 0.. {
        let body = format!("content {number}").repeat(100);
        let path = format!("/put/{}", number % 10);
        let reply = client.ask("PUT", &path, body.as_bytes());
        assert!(
            [201, 204].contains(&reply.status),
            "{path}: {}",
            reply.status
        );
        let reply = client.get(&path);
        assert_eq!(reply.text(), body);
        assert!(reply.field("etag").is_some(), "{path} has no ETag");
        if !control.step() {
            return;
        }
    }
}

impl Recipe for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn needs(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("nginx", "nginx-light"),
            ("ab", "apache2-utils"),
            ("curl", "curl"),
        ]
    }

    fn version(&self) -> Command {
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-v");
        command
    }

    fn ports(&self) -> &'static [u16] {
        &[8080]
    }

    fn prepare(&self, genesis: &Path) {
        let folder = genesis.join("html/files");
        fs::create_dir(&folder).unwrap();
        // As root, the workers are somebody else.
        let put = genesis.join("html/put");
        fs::create_dir(&put).unwrap();
        fs::set_permissions(&put, fs::Permissions::from_mode(0o777)).unwrap();
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
        let mut load: Vec<Load<'_>> = vec![
            Box::new(move |at, control| curl(&page, &bytes, at, control)),
            Box::new(move |at, control| bench(&stock_page, at, control)),
        ];
        load.push(Box::new(put));
        for first in 0..3 {
            let below = below.clone();
            load.push(Box::new(move |at, control| {
                fetch(&below, first, at, control);
            }));
        }
        load
    }

    /// Who served whom, and when: asking the server for more would change it.
    fn dump(&self, at: &Target) -> String {
        at.read("access.log") + &at.read("error.log")
    }
}
