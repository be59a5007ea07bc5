//! lighttpd: static files and a listing.

use super::http::{Client, bench, curl, fetch};
use super::recipe::{Load, Recipe, Target};
use super::scenario::survive;
use crate::chance::Chance;
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn lighttpd_survives_its_leader() {
    survive("lighttpd_survives_its_leader", Lighttpd::new);
}

#[derive(Debug)]
struct Lighttpd {
    files: Vec<(String, Vec<u8>)>,
}

impl Lighttpd {
    fn new(chance: &mut Chance) -> Self {
        let sizes = [
            ("empty", 0),
            ("small", 100),
            ("page.html", 20_000),
            ("big", 700_000),
        ];
        let files = sizes.map(|(name, size)| (name.to_owned(), chance.bytes(size)));
        Self {
            files: files.into(),
        }
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
        let folder = genesis.join("www/files");
        fs::create_dir(&folder).unwrap();
        for (path, bytes) in &self.files {
            fs::write(folder.join(path), bytes).unwrap();
        }
    }

    fn load(&self) -> Vec<Load<'_>> {
        let below: Vec<_> = (self.files.iter())
            .map(|(path, bytes)| (format!("files/{path}"), bytes.clone()))
            .collect();
        let (page, bytes) = below[2].clone();
        let stock_page = page.clone();
        let mut load: Vec<Load<'_>> = vec![
            Box::new(move |at, stage| curl(&page, &bytes, at, stage)),
            Box::new(move |at, stage| bench(&stock_page, at, stage)),
        ];
        for first in 0..3 {
            let below = below.clone();
            load.push(Box::new(move |at, stage| fetch(&below, first, at, stage)));
        }
        load
    }

    fn dump(&self, at: &Target) -> String {
        let mut client = Client::connect(at);
        let listing = client.get("/files/");
        assert_eq!(listing.status, 200);
        for (path, _) in &self.files {
            assert!(listing.text().contains(path), "{path} is not listed");
        }
        listing.text() + &at.read("error.log")
    }
}
