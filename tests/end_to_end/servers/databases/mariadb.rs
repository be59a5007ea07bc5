//! MariaDB with InnoDB: sysbench, and clients that know what they must see.

use crate::servers::databases::client::Client;
use crate::servers::databases::counters::Counters;
use crate::servers::recipe::{Load, LoadControl, Recipe, Target, stock};
use crate::servers::scenario::{come_back, survive};
use std::fs;
use std::path::Path;
use std::process::Command;

const CLIENTS: usize = 3;
const TABLES: &str = "--tables=2";

#[test]
fn mariadb_comes_back_from_a_checkpoint() {
    come_back("mariadb_comes_back_from_a_checkpoint", |_| {
        Mariadb::default()
    });
}

#[test]
fn mariadb_survives_its_leader() {
    survive("mariadb_survives_its_leader", |_| Mariadb::default());
}

/// The state that the clients expect.
#[derive(Debug, Default)]
pub struct Mariadb(Counters);

/// A client program of MariaDB.
fn tool(program: &str, at: &Target) -> Command {
    let mut command = Command::new(program);
    let (host, port) = (at.host(), at.port());
    command.args([
        "--no-defaults",
        "--user=root",
        "--host",
        &host,
        "--port",
        &port,
    ]);
    command
}

/// The stock benchmark, with eight threads.
fn sysbench(at: &Target, arguments: &[&str]) -> String {
    let mut command = Command::new("sysbench");
    command.args(["oltp_read_write", "--db-driver=mysql", "--mysql-user=root"]);
    command.args([
        "--mysql-db=bench",
        TABLES,
        "--table-size=500",
        "--threads=8",
    ]);
    command.arg(format!("--mysql-host={}", at.host()));
    command.arg(format!("--mysql-port={}", at.port()));
    stock(command.args(arguments))
}

/// Makes its tables, then transactions, until the load is over.
fn bench(at: &Target, control: &LoadControl) {
    stock(tool("mariadb", at).args(["-e", "create database bench"]));
    sysbench(at, &["prepare"]);
    loop {
        let said = sysbench(at, &["--time=0", "--events=64", "run"]);
        assert!(
            said.contains("total number of events:              64"),
            "{said}"
        );
        if !control.step() {
            return;
        }
    }
}

/// `mariadb` with a connection that is kept.
fn connect(at: &Target) -> Client {
    let mut command = tool("mariadb", at);
    command.args([
        "--batch",
        "--unbuffered",
        "--skip-column-names",
        "--skip-reconnect",
    ]);
    Client::start(command)
}

impl Mariadb {
    /// Counts in its own row and in everybody's, in one transaction each.
    fn count(&self, client: usize, at: &Target, control: &LoadControl) {
        let mut connection = connect(at);
        connection.ask(
            "create database if not exists own; use own; \
             create table if not exists counters (id int primary key, n bigint); \
             insert ignore into counters values (0, 0); select 1",
        );
        connection.ask(&format!(
            "insert into counters values ({}, 0); select 1",
            client + 1
        ));
        let mut count = 0;
        loop {
            let shared = connection.ask(
                "begin; update counters set n = n + 1 where id = 0; \
                 select n from counters where id = 0",
            );
            let own = connection.ask(&format!(
                "update counters set n = n + 1 where id = {id}; \
                 select n from counters where id = {id}; commit",
                id = client + 1
            ));
            count += 1;
            assert_eq!(own, count.to_string());
            self.0.was_given(&shared);
            // Chance and time are the same everywhere too, or the hashes would differ.
            connection.ask("select rand(), uuid(), now(6), connection_id()");
            if !control.step() {
                break;
            }
        }
        connection.end();
        self.0.counted(client, count);
    }
}

impl Recipe for Mariadb {
    fn name(&self) -> &'static str {
        "mariadb"
    }

    fn needs(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("mariadbd", "mariadb-server"),
            ("mariadb-install-db", "mariadb-server"),
            ("mariadb", "mariadb-client"),
            ("sysbench", "sysbench"),
        ]
    }

    fn version(&self) -> Command {
        let mut command = Command::new("mariadbd");
        command.arg("--version");
        command
    }

    fn ports(&self) -> &'static [u16] {
        &[3306]
    }

    fn prepare(&self, genesis: &Path) {
        let data = genesis.join("data");
        // Somebody may have followed the recipe.
        let _ = fs::remove_dir_all(&data);
        // Root's files are to stay root's; nobody else can choose.
        let user = nix::unistd::geteuid().is_root().then_some("--user=root");
        stock(
            Command::new("mariadb-install-db")
                .args(["--no-defaults", "--auth-root-authentication-method=normal"])
                .arg("--skip-test-db")
                .args(user)
                .arg(format!("--datadir={}", data.display())),
        );
    }

    fn ready(&self, at: &Target) -> bool {
        let ping = tool("mariadb-admin", at).arg("ping").output();
        ping.is_ok_and(|output| output.status.success())
    }

    fn load(&self) -> Vec<Load<'_>> {
        let own = (0..CLIENTS).map(|client| -> Load<'_> {
            Box::new(move |at, control| self.count(client, at, control))
        });
        let bench: Load<'_> = Box::new(bench);
        own.chain([bench]).collect()
    }

    fn dump(&self, at: &Target) -> String {
        let counts = self.0.complete();
        let mut connection = connect(at);
        for (client, count) in counts {
            let found = connection.ask(&format!(
                "select n from own.counters where id = {}",
                client + 1
            ));
            assert_eq!(found, count.to_string());
        }
        connection.end();
        let dump = ["--skip-comments", "--databases", "own", "bench"];
        stock(tool("mariadb-dump", at).args(dump))
    }
}
