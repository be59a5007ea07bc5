//! redis, as the others are tested. What is special about it has tests of its own.

use crate::clients::resp::Client;
use crate::servers::recipe::{Load, LoadControl, Recipe, Target, stock};
use crate::servers::scenario::{come_back, survive, survive_in};
use std::process::Command;
use std::sync::Mutex;

const CLIENTS: usize = 4;

#[test]
fn redis_comes_back_from_a_checkpoint() {
    come_back("redis_comes_back_from_a_checkpoint", |_| Redis::default());
}

#[test]
fn redis_survives_its_leader() {
    survive("redis_survives_its_leader", |_| Redis::default());
}

#[test]
fn redis_survives_its_leader_in_policy_parallel() {
    let test = "redis_survives_its_leader_in_policy_parallel";
    survive_in("parallel", test, |_| Redis::default());
}

/// The number that each client has counted up to.
#[derive(Debug, Default)]
pub struct Redis {
    counted: Mutex<Vec<(usize, u64)>>,
}

impl Redis {
    /// Counts, and changes things at random, which is the same everywhere.
    fn count(&self, number: usize, at: &Target, control: &LoadControl) {
        let mut client = Client::connect(at.address(0));
        let (own, many) = (format!("own{number}"), format!("many{number}"));
        let mut count = 0u64;
        loop {
            count += 1;
            client.exchange(&["INCR", &own], &format!(":{count}\r\n"));
            client.exchange(&["SADD", &many, &format!("{count}")], ":1\r\n");
            if count.is_multiple_of(3) {
                let gone = client.ask(&["SPOP", &many]).number();
                assert!((1..=count).contains(&gone));
            }
            client.ask(&["SET", "last", &own, "PX", "100000"]);
            if !control.step() {
                break;
            }
        }
        self.counted.lock().unwrap().push((number, count));
    }
}

/// A stock client, again and again.
fn bench(at: &Target, control: &LoadControl) {
    let (host, port) = (at.host(), at.port());
    loop {
        let size = ["-n", "200", "-c", "8", "-P", "4", "-r", "50", "-q"];
        let mut command = Command::new("redis-benchmark");
        command.args(["-h", &host, "-p", &port]).args(size);
        let said = stock(command.args(["-t", "set,get,lpush,spop,zadd"]));
        assert!(!said.contains("rror"), "{said}");
        if !control.step() {
            return;
        }
    }
}

impl Recipe for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn needs(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("redis-server", "redis-server"),
            ("redis-benchmark", "redis-tools"),
        ]
    }

    fn version(&self) -> Command {
        let mut command = Command::new("redis-server");
        command.arg("--version");
        command
    }

    fn ports(&self) -> &'static [u16] {
        &[6379]
    }

    fn load(&self) -> Vec<Load<'_>> {
        let counts = (0..CLIENTS).map(|number| -> Load<'_> {
            Box::new(move |at, control| self.count(number, at, control))
        });
        counts.chain([Box::new(bench) as Load<'_>]).collect()
    }

    /// Every key with its serialised value.
    fn dump(&self, at: &Target) -> String {
        let mut client = Client::connect(at.address(0));
        for (number, count) in self.counted.lock().unwrap().iter() {
            let counted = client.ask(&["GET", &format!("own{number}")]).number();
            assert_eq!(counted, *count, "client {number}");
        }
        let keys = client.ask(&["KEYS", "*"]);
        let mut keys: Vec<String> = keys.array().iter().map(|key| key.text()).collect();
        keys.sort();
        let digest = client.ask(&["DEBUG", "DIGEST"]).text();
        let dumps = keys.iter().map(|key| {
            let value = client.ask(&["DUMP", key]);
            format!("{key} {value:?}\n")
        });
        dumps.collect::<String>() + &digest
    }
}
