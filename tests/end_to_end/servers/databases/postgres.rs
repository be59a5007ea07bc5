//! PostgreSQL: pgbench, and clients that know what they must see.

use crate::servers::databases::client::Client;
use crate::servers::databases::counters::Counters;
use crate::servers::recipe::{Load, LoadControl, Recipe, Target, stock};
use crate::servers::scenario::{come_back, survive};
use std::path::Path;
use std::process::Command;

const CLIENTS: usize = 3;
const INITDB: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/examples/recipes/postgres/initdb.sh"
);

#[test]
fn postgres_comes_back_from_a_checkpoint() {
    come_back("postgres_comes_back_from_a_checkpoint", |_| {
        Postgres::default()
    });
}

#[test]
fn postgres_survives_its_leader() {
    survive("postgres_survives_its_leader", |_| Postgres::default());
}

/// The state that the clients expect.
#[derive(Debug, Default)]
pub struct Postgres(Counters);

/// A client program of PostgreSQL.
fn tool(program: &str, at: &Target) -> Command {
    let mut command = Command::new(program);
    command.args(["-h", &at.host(), "-p", &at.port(), "-U", "postgres"]);
    command
}

/// Makes its tables, then transactions with eight clients, until the load is over.
fn bench(at: &Target, control: &LoadControl) {
    stock(tool("createdb", at).arg("bench"));
    stock(tool("pgbench", at).args(["--initialize", "--quiet", "bench"]));
    loop {
        let run = ["-c", "8", "-j", "2", "-t", "8", "--no-vacuum", "bench"];
        let said = stock(tool("pgbench", at).args(run));
        assert!(
            said.contains("transactions actually processed: 64/64")
                && said.contains("failed transactions: 0 "),
            "{said}"
        );
        if !control.step() {
            return;
        }
    }
}

/// `psql` with a connection that is kept.
fn connect(at: &Target) -> Client {
    let mut command = tool("psql", at);
    command
        .args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"])
        .args(["--set", "ON_ERROR_STOP=1", "postgres"]);
    Client::start(command)
}

impl Postgres {
    /// Counts in everybody's row and in its own, in one transaction.
    fn count(&self, client: usize, at: &Target, control: &LoadControl) {
        let mut connection = connect(at);
        let id = client + 1;
        connection.ask(&format!(
            "set client_min_messages = error; \
             insert into counters values ({id}, 0) on conflict do nothing; select 1"
        ));
        let mut count = 0;
        loop {
            let shared =
                connection.ask("begin; update counters set n = n + 1 where id = 0 returning n");
            let own = connection.ask(&format!(
                "update counters set n = n + 1 where id = {id} returning n; commit"
            ));
            count += 1;
            assert_eq!(own, count.to_string());
            self.0.was_given(&shared);
            // Chance and time are the same everywhere too, or the hashes would differ.
            connection.ask(
                "select random(), gen_random_uuid(), clock_timestamp(), pg_backend_pid(), \
                 txid_current()",
            );
            if !control.step() {
                break;
            }
        }
        connection.end();
        self.0.counted(client, count);
    }
}

/// A database as `pg_dump` has it, but for the random key that guards the text.
fn dump_of(database: &str, at: &Target) -> String {
    let said = stock(tool("pg_dump", at).arg(database));
    let kept = |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
    said.lines()
        .filter(kept)
        .flat_map(|line| [line, "\n"])
        .collect()
}

impl Recipe for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn needs(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("/usr/lib/postgresql/15/bin/postgres", "postgresql"),
            ("psql", "postgresql-client"),
            ("pgbench", "postgresql-contrib"),
        ]
    }

    fn version(&self) -> Command {
        let mut command = Command::new("/usr/lib/postgresql/15/bin/postgres");
        command.arg("--version");
        command
    }

    fn ports(&self) -> &'static [u16] {
        &[5432]
    }

    fn prepare(&self, genesis: &Path) {
        stock(Command::new("sh").arg(INITDB).arg(genesis));
    }

    /// Also makes the table, which is there at once for all clients.
    fn ready(&self, at: &Target) -> bool {
        let made = tool("psql", at)
            .args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "-c"])
            .arg(
                "set client_min_messages = error; \
                 create table if not exists counters (id int primary key, n bigint); \
                 insert into counters values (0, 0) on conflict do nothing",
            )
            .arg("postgres")
            .output();
        made.is_ok_and(|output| output.status.success())
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
            let found =
                connection.ask(&format!("select n from counters where id = {}", client + 1));
            assert_eq!(found, count.to_string());
        }
        // By several processes, who send each other what they find.
        let everywhere = connection.ask(
            "set parallel_setup_cost = 0; set min_parallel_table_scan_size = 0; \
             set force_parallel_mode = on; select count(*) from counters",
        );
        assert_eq!(everywhere, (CLIENTS + 1).to_string());
        connection.end();
        let sums = stock(tool("psql", at).args(["-At", "bench", "-c"]).arg(
            "select (select sum(abalance) from pgbench_accounts) = sum(delta), \
             (select sum(tbalance) from pgbench_tellers) = sum(delta), \
             (select sum(bbalance) from pgbench_branches) = sum(delta) from pgbench_history",
        ));
        assert_eq!(sums, "t|t|t\n");
        [dump_of("postgres", at), dump_of("bench", at)].concat()
    }
}
