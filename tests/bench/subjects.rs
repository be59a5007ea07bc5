//! What is measured: servers with the loads that the field measures them with.

use super::load::Outcome;
use super::loads;
use super::systems::{self, System, free_port};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The longest that a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server under a load.
pub struct Subject {
    /// Name in the table.
    pub name: &'static str,
    /// Puts what the server starts with into a directory; `port` is its port.
    prepare: fn(dir: &Path, port: u16),
    /// The server's command line.
    command: fn(port: u16) -> Vec<String>,
    /// Runs the load for a while.
    pub load: fn(SocketAddr, Duration) -> Outcome,
}

/// All of them.
pub fn all() -> Vec<Subject> {
    let mut all = vec![
        Subject {
            name: "memcached -t 4, get",
            prepare: |_, _| {},
            command: memcached,
            load: loads::memcached_get,
        },
        Subject {
            name: "memcached -t 4, set",
            prepare: |_, _| {},
            command: memcached,
            load: loads::memcached_set,
        },
    ];
    all.extend(web_servers());
    all.push(Subject {
        name: "MariaDB read_write, 8 threads",
        prepare: prepare_mariadb,
        command: |_| words("mariadbd --defaults-file=my.cnf --skip-name-resolve"),
        load: loads::sysbench,
    });
    all.extend([
        Subject {
            name: "clamd scan of a file",
            prepare: prepare_clamd,
            command: |_| words("clamd --config-file=clamd.conf"),
            load: loads::scan_file,
        },
        Subject {
            name: "clamd scan of a stream",
            prepare: prepare_clamd,
            command: |_| words("clamd --config-file=clamd.conf"),
            load: loads::scan_stream,
        },
    ]);
    all
}

fn web_servers() -> [Subject; 3] {
    let nginx = Subject {
        name: "nginx 1 KiB",
        prepare: |dir, port| {
            copy_recipe("nginx", dir, port);
            // The client counts bytes; a connection that ends in between is not its business.
            let more = "sendfile on; keepalive_requests 100000000;";
            edit(&dir.join("nginx.conf"), |text| {
                text.replace("sendfile on;", more)
            });
            fs::write(dir.join("html/1k"), [b'x'; 1024]).expect("a file");
        },
        command: |_| words("nginx -p . -c nginx.conf -e error.log"),
        load: |address, time| loads::file("/1k", 64, address, time),
    };
    let civetweb = Subject {
        name: "civetweb 1 KiB",
        prepare: |dir, port| {
            copy_recipe("civetweb", dir, port);
            // Natively each reply would wait for a delayed acknowledgement.
            edit(&dir.join("civetweb.conf"), |text| text + "tcp_nodelay 1\n");
            fs::write(dir.join("www/1k"), [b'x'; 1024]).expect("a file");
        },
        command: |_| words("civetweb civetweb.conf"),
        load: |address, time| loads::file("/1k", 8, address, time),
    };
    let apache = Subject {
        name: "Apache page of 70 ms",
        prepare: |dir, port| {
            copy_recipe("apache", dir, port);
            let more = "MaxKeepAliveRequests 0\n";
            edit(&dir.join("apache.conf"), |text| text + more);
        },
        command: |_| words("apache2 -d . -f apache.conf -DFOREGROUND"),
        load: |address, time| loads::page("/cgi/page.php?1", 8, address, time),
    };
    [nginx, civetweb, apache]
}

fn edit(path: &Path, change: impl Fn(String) -> String) {
    let text = fs::read_to_string(path).expect("a file of the recipe");
    fs::write(path, change(text)).expect("a file of the recipe");
}

/// Turns caching off: a clean file would not be scanned again.
fn prepare_clamd(dir: &Path, port: u16) {
    copy_recipe("clamd", dir, port);
    edit(&dir.join("clamd.conf"), |text| text + "DisableCache yes\n");
}

fn memcached(port: u16) -> Vec<String> {
    words(&format!(
        "memcached --listen 0.0.0.0 --port {port} --threads 4 --user nobody"
    ))
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Replicas of the wrapped systems.
const WRAPPED: [(&str, usize); 2] = [("brolga 1 replica", 1), ("brolga 3 replicas", 3)];

impl Subject {
    /// The systems, started and answering.
    pub fn systems(&self, dir: &Path) -> Vec<System> {
        let mut all = vec![
            self.native("native", &dir.join("native"), None),
            self.native("native on one CPU", &dir.join("pinned"), Some(0)),
        ];
        for (name, replicas) in WRAPPED {
            all.push(self.wrapped(name, replicas, dir));
        }
        for system in &all {
            // Warms up, and fills tables.
            (self.load)(system.address, Duration::from_millis(500));
        }
        all
    }

    fn native(&self, name: &'static str, dir: &Path, cpu: Option<usize>) -> System {
        fs::create_dir(dir).expect("a directory");
        let port = free_port();
        (self.prepare)(dir, port);
        own_paths(dir, dir);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let system = systems::unwrapped(name, dir, address, &(self.command)(port), cpu);
        systems::await_listener(address, PATIENCE);
        system
    }

    fn wrapped(&self, name: &'static str, replicas: usize, dir: &Path) -> System {
        let genesis = dir.join(format!("genesis-{replicas}"));
        fs::create_dir(&genesis).expect("a directory");
        let port = free_port();
        (self.prepare)(&genesis, port);
        let data = dir.join(format!("brolga-{replicas}"));
        let command = (self.command)(port);
        let system = systems::wrapped(name, &data, replicas, Some(&genesis), &command);
        systems::await_listener(system.address, PATIENCE);
        system
    }
}

/// Gives a native server its own paths, where the recipe's files name the ones that wrapped servers have.
fn own_paths(dir: &Path, top: &Path) {
    for entry in fs::read_dir(dir).expect("the server's files") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            own_paths(&path, top);
        } else if path.extension().is_some_and(|end| end == "conf") {
            let own = top.to_str().expect("a path in UTF-8");
            edit(&path, |text| text.replace("/proc/self/fd/1003", own));
        }
    }
}

/// Copies the recipe that users have, with another port.
fn copy_recipe(name: &str, to: &Path, port: u16) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/recipes")
        .join(name)
        .join("genesis");
    copy(&from, to, port);
}

fn copy(from: &Path, to: &Path, port: u16) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("the recipe") {
        let entry = entry.expect("an entry");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to, port);
            continue;
        }
        fs::copy(&from, &to).expect("a copy");
        if let Ok(text) = fs::read_to_string(&from) {
            let ports = ["8080", "3310", "3306"];
            let own = port.to_string();
            let text = (ports.iter()).fold(text, |text, port| text.replace(port, &own));
            fs::write(&to, text).expect("a copy");
        }
    }
}

/// A server with a user and a database for sysbench. What it starts with is made by itself, natively.
fn prepare_mariadb(dir: &Path, port: u16) {
    copy_recipe("mariadb", dir, port);
    let data = dir.join("data");
    let made = Command::new("mariadb-install-db")
        .args(["--no-defaults", "--auth-root-authentication-method=normal"])
        .arg("--skip-test-db")
        .arg(format!("--datadir={}", data.display()))
        .arg("--user=root")
        .output()
        .expect("mariadb-install-db runs (tests/setup.sh installs it)");
    assert!(made.status.success(), "mariadb-install-db failed: {made:?}");
    let statements =
        "CREATE DATABASE sbtest; CREATE USER bench@'%'; GRANT ALL ON *.* TO bench@'%';";
    let boot = dir.join("users.sql");
    fs::write(&boot, statements).expect("a file");
    let input = fs::File::open(&boot).expect("a file");
    let mut bootstrap = Command::new("mariadbd");
    bootstrap
        .args(["--no-defaults", "--bootstrap", "--user=root"])
        .arg(format!("--datadir={}", data.display()))
        .stdin(input);
    // Accounts can't be made before the tables of privileges are loaded.
    fs::write(
        &boot,
        format!("FLUSH PRIVILEGES; {statements}").replace("; ", ";\n"),
    )
    .expect("a file");
    let output = bootstrap.output().expect("mariadbd runs");
    assert!(output.status.success(), "bootstrap failed: {output:?}");
}
