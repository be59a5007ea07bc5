//! slapd, OpenLDAP's server, with its database in a shared map.

use crate::servers::databases::client::Client;
use crate::servers::recipe::{Load, LoadControl, Recipe, Target, stock};
use crate::servers::scenario::{come_back, survive};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

const SUFFIX: &str = "dc=example,dc=com";
const CLIENTS: usize = 3;
const FIRST_NUMBER: usize = 1000;

#[test]
fn slapd_comes_back_from_a_checkpoint() {
    come_back("slapd_comes_back_from_a_checkpoint", |_| Slapd::default());
}

#[test]
fn slapd_survives_its_leader() {
    survive("slapd_survives_its_leader", |_| Slapd::default());
}

#[derive(Debug, Default)]
pub struct Slapd {
    /// The last number of each client's entry.
    numbers: Mutex<Vec<(usize, usize)>>,
}

/// A client program of OpenLDAP.
fn tool(program: &str, at: &Target) -> Command {
    let mut command = Command::new(program);
    command.args(["-x", "-H", &format!("ldap://{}", at.address(0))]);
    command.args(["-D", &format!("cn=admin,{SUFFIX}"), "-w", "secret"]);
    command
}

/// `ldapmodify` with a connection that is kept. Its output is told line by line.
fn modifier(at: &Target) -> Client {
    let modify = tool("ldapmodify", at);
    let mut command = Command::new("stdbuf");
    command.arg("-oL").arg(modify.get_program());
    command.args(modify.get_args());
    Client::start(command)
}

/// The program names the entry before it asks the server, and then says an empty line.
#[track_caller]
fn ask(modifier: &mut Client, change: &str) {
    modifier.send(change);
    while !modifier.line().is_empty() {}
}

impl Slapd {
    /// Adds an entry and counts in it.
    fn count(&self, client: usize, at: &Target, control: &LoadControl) {
        let name = format!("uid=client{client},{SUFFIX}");
        let mut modifier = modifier(at);
        ask(
            &mut modifier,
            &format!(
                "dn: {name}\nchangetype: add\nobjectClass: inetOrgPerson\nobjectClass: posixAccount\n\
             uid: client{client}\ncn: Client\nsn: {client}\nuidNumber: {FIRST_NUMBER}\n\
             gidNumber: 1\nhomeDirectory: /\n\n"
            ),
        );
        let mut number = FIRST_NUMBER;
        loop {
            ask(
                &mut modifier,
                &format!("dn: {name}\nchangetype: modify\nincrement: uidNumber\nuidNumber: 1\n\n"),
            );
            number += 1;
            if number.is_multiple_of(10) {
                assert_eq!(number_of(client, at), number);
            }
            if !control.step() {
                break;
            }
        }
        modifier.end();
        self.numbers.lock().unwrap().push((client, number));
    }
}

/// The number that `ldapsearch` finds in a client's entry.
fn number_of(client: usize, at: &Target) -> usize {
    let filter = format!("(uid=client{client})");
    let mut search = tool("ldapsearch", at);
    let said = stock(search.args(["-LLL", "-b", SUFFIX, &filter, "uidNumber"]));
    let number = said
        .lines()
        .find_map(|line| line.strip_prefix("uidNumber: "));
    let number = number.and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no number in {said}"))
}

/// Adds entries and deletes every other of them, a connection each.
fn come_and_go(at: &Target, control: &LoadControl) {
    for round in 0.. {
        let name = format!("ou=unit{round},{SUFFIX}");
        let mut modifier = modifier(at);
        ask(
            &mut modifier,
            &format!(
                "dn: {name}\nchangetype: add\nobjectClass: organizationalUnit\nou: unit{round}\n\n"
            ),
        );
        modifier.end();
        if round % 2 == 0 {
            stock(tool("ldapdelete", at).arg(&name));
        }
        if !control.step() {
            return;
        }
    }
}

impl Recipe for Slapd {
    fn name(&self) -> &'static str {
        "slapd"
    }

    fn needs(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("slapd", "slapd"),
            ("slapcat", "slapd"),
            ("ldapmodify", "ldap-utils"),
        ]
    }

    fn version(&self) -> Command {
        let mut command = Command::new("/usr/sbin/slapd");
        command.arg("-VV");
        command
    }

    fn ports(&self) -> &'static [u16] {
        &[3389]
    }

    /// The top of the tree, added by the tool for that.
    fn prepare(&self, genesis: &Path) {
        let top = format!(
            "dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\no: Example\n\
             dc: example\n"
        );
        fs::write(genesis.join("top.ldif"), top).unwrap();
        let mut add = Command::new("/usr/sbin/slapadd");
        stock(
            add.args(["-f", "slapd.conf", "-l", "top.ldif"])
                .current_dir(genesis),
        );
    }

    fn load(&self) -> Vec<Load<'_>> {
        let counts = (0..CLIENTS).map(|client| -> Load<'_> {
            Box::new(move |at, control| self.count(client, at, control))
        });
        counts.chain([Box::new(come_and_go) as Load<'_>]).collect()
    }

    /// From a copy: `slapcat` would be one more reader of the server's own.
    fn dump(&self, at: &Target) -> String {
        for (client, number) in self.numbers.lock().unwrap().iter() {
            assert_eq!(number_of(*client, at), *number, "client {client}");
        }
        let copy = tempfile::tempdir().unwrap();
        fs::create_dir(copy.path().join("db")).unwrap();
        for file in ["slapd.conf", "db/data.mdb"] {
            fs::copy(at.work.join(file), copy.path().join(file)).unwrap();
        }
        let mut slapcat = Command::new("/usr/sbin/slapcat");
        stock(slapcat.args(["-f", "slapd.conf"]).current_dir(copy.path()))
    }
}
