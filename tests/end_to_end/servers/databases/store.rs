//! The bundled store, as the others are tested.

use crate::clients::resp::Client;
use crate::harness::brolga;
use crate::servers::recipe::{Load, LoadControl, Recipe, Target};
use crate::servers::scenario::come_back;
use std::process::Command;
use std::sync::Mutex;

const CLIENTS: usize = 4;
const KEYS: u64 = 50;

#[test]
fn the_store_comes_back_from_a_checkpoint() {
    come_back("the_store_comes_back_from_a_checkpoint", |_| {
        Store::default()
    });
}

/// The number that each client has counted up to.
#[derive(Debug, Default)]
pub struct Store {
    counted: Mutex<Vec<(usize, u64)>>,
}

impl Store {
    fn count(&self, number: usize, at: &Target, control: &LoadControl) {
        let mut client = Client::connect(at.address(0));
        let own = format!("own{number}");
        let mut count = 0u64;
        loop {
            count += 1;
            client.exchange(&["INCR", &own], &format!(":{count}\r\n"));
            let key = format!("key{}", count % KEYS);
            client.exchange(&["SET", &key, &own], "+OK\r\n");
            client.ask(&["INCR", "all"]);
            if count.is_multiple_of(5) {
                client.ask(&["DEL", &key]);
            }
            if !control.step() {
                break;
            }
        }
        self.counted.lock().unwrap().push((number, count));
    }
}

impl Recipe for Store {
    fn name(&self) -> &'static str {
        "store"
    }

    fn needs(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    fn version(&self) -> Command {
        let mut command = brolga();
        command.arg("--version");
        command
    }

    fn ports(&self) -> &'static [u16] {
        &[7379]
    }

    fn ready(&self, at: &Target) -> bool {
        std::net::TcpStream::connect(at.address(0)).is_ok()
    }

    fn load(&self) -> Vec<Load<'_>> {
        let client = |number| -> Load<'_> {
            Box::new(move |at: &Target, control: &LoadControl| self.count(number, at, control))
        };
        (0..CLIENTS).map(client).collect()
    }

    fn dump(&self, at: &Target) -> String {
        let mut client = Client::connect(at.address(0));
        let counted = self.counted.lock().unwrap();
        let mut all = 0;
        for (number, count) in counted.iter() {
            let reply = format!("${}\r\n{count}\r\n", count.to_string().len());
            client.exchange(&["GET", &format!("own{number}")], &reply);
            all += count;
        }
        let reply = format!("${}\r\n{all}\r\n", all.to_string().len());
        client.exchange(&["GET", "all"], &reply);
        let mut text = String::new();
        let keys = client.ask(&["KEYS", "*"]);
        let mut names: Vec<String> = keys.array().iter().map(|it| it.text()).collect();
        names.sort();
        for name in names {
            let value = client.ask(&["GET", &name]).text();
            text += &format!("{name} {value}\n");
        }
        text
    }
}
