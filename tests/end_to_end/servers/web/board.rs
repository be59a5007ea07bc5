//! Message boards in Python and in JavaScript: languages' own HTTP servers, times, tokens.

use crate::servers::recipe::{Load, LoadControl, Recipe, Target, stock};
use crate::servers::scenario::{come_back, survive};
use crate::servers::web::http::Client;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;

const CLIENTS: usize = 4;

#[test]
fn python_comes_back_from_a_checkpoint() {
    come_back("python_comes_back_from_a_checkpoint", |_| Board::python());
}

#[test]
fn nodejs_comes_back_from_a_checkpoint() {
    come_back("nodejs_comes_back_from_a_checkpoint", |_| Board::nodejs());
}

#[test]
fn python_survives_its_leader() {
    survive("python_survives_its_leader", |_| Board::python());
}

#[test]
fn nodejs_survives_its_leader() {
    survive("nodejs_survives_its_leader", |_| Board::nodejs());
}

/// A board in one of the languages.
#[derive(Debug)]
pub struct Board {
    name: &'static str,
    needs: &'static [(&'static str, &'static str)],
    /// The posts, under the numbers that they got.
    posted: Mutex<BTreeMap<u64, String>>,
}

/// A message, as far as clients know what it must be.
#[derive(Debug, Deserialize)]
struct Message {
    number: u64,
    text: String,
}

impl Board {
    fn of(name: &'static str, needs: &'static [(&'static str, &'static str)]) -> Self {
        Self {
            name,
            needs,
            posted: Mutex::default(),
        }
    }

    pub fn nodejs() -> Self {
        Self::of("nodejs", &[("node", "nodejs"), ("curl", "curl")])
    }

    pub fn python() -> Self {
        Self::of(
            "python",
            &[("/usr/bin/python3", "python3"), ("curl", "curl")],
        )
    }

    #[track_caller]
    fn note(&self, answer: &str, text: String) {
        let message: Message = serde_json::from_str(answer).unwrap();
        assert_eq!(message.text, text);
        let before = self.posted.lock().unwrap().insert(message.number, text);
        assert_eq!(before, None, "a number was given out twice");
    }

    /// Over a connection that is kept.
    fn post(&self, client: usize, at: &Target, control: &LoadControl) {
        let mut connection = Client::connect(at);
        for round in 0.. {
            let text = format!("{client}/{round};").repeat(1 + round * 17 % 500);
            let reply = connection.ask("POST", "/messages", text.as_bytes());
            assert_eq!(reply.status, 201);
            self.note(&reply.text(), text);
            if !control.step() {
                return;
            }
        }
    }

    fn curl(&self, at: &Target, control: &LoadControl) {
        let url = format!("http://{}/messages", at.address(0));
        for round in 0.. {
            let text = format!("curl/{round}");
            let mut command = Command::new("curl");
            let said = stock(command.args(["--silent", "--fail", "--data", &text, &url]));
            self.note(&said, text);
            if !control.step() {
                return;
            }
        }
    }
}

impl Recipe for Board {
    fn name(&self) -> &'static str {
        self.name
    }

    fn needs(&self) -> &'static [(&'static str, &'static str)] {
        self.needs
    }

    fn version(&self) -> Command {
        let mut command = Command::new(self.needs[0].0);
        command.arg("--version");
        command
    }

    fn ports(&self) -> &'static [u16] {
        &[8000]
    }

    fn load(&self) -> Vec<Load<'_>> {
        let kept = (0..CLIENTS).map(|number| -> Load<'_> {
            Box::new(move |at, control| self.post(number, at, control))
        });
        let stock: Load<'_> = Box::new(|at, control| self.curl(at, control));
        kept.chain([stock]).collect()
    }

    fn dump(&self, at: &Target) -> String {
        let dump = String::from_utf8(Client::connect(at).body("/messages")).unwrap();
        let messages = dump.lines().map(|line| serde_json::from_str(line).unwrap());
        let there: BTreeMap<u64, String> = messages
            .map(|message: Message| (message.number, message.text))
            .collect();
        assert!(there == *self.posted.lock().unwrap(), "not what was posted");
        dump
    }
}
