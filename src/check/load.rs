//! The load of a check: the user's command, once for each client, repeated.
//!
//! A client finds its replica in its environment, and by words in braces in the command. Client 1
//! has the first replica, client 2 the second and so on, so that clients of different replicas race.
//!
//! | in the command | in the environment | is |
//! |---|---|---|
//! | `{address}` | `BROLGA_ADDRESS` | the IP address of the client's replica |
//! | `{port}` | `BROLGA_PORT` | the server's first port |
//! | `{ports}` | `BROLGA_PORTS` | all its ports, separated by spaces |
//! | `{addresses}` | `BROLGA_ADDRESSES` | the IP addresses of all replicas, separated by spaces |
//! | `{client}` | `BROLGA_CLIENT` | the number of the client, from 1 |

use crate::cluster::status::ClusterStatus;
use anyhow::{Context, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::time::sleep;

/// Lines of a failed client's output that are shown.
const LINES_SHOWN: usize = 5;

/// The load of a check.
#[derive(Clone, Debug)]
pub struct Load {
    /// The shell command; `None`: the server is only watched.
    pub command: Option<String>,
    /// The number of concurrent clients.
    pub clients: u32,
    /// The time for which clients are started again; they end by themselves.
    pub most: Duration,
}

/// Whom a client talks to.
#[derive(Clone, Debug)]
pub struct Target {
    address: IpAddr,
    ports: Vec<u16>,
    addresses: Vec<IpAddr>,
}

impl Target {
    /// All replicas.
    #[must_use]
    pub fn all(cluster_status: &ClusterStatus) -> Vec<Self> {
        let addresses: Vec<IpAddr> = cluster_status
            .replicas
            .iter()
            .map(|it| it.address)
            .collect();
        let target = |replica: &crate::cluster::status::Replica| {
            let status = replica.status.as_ref();
            let listeners = status.map(|it| it.listeners.iter().chain(&it.datagram_ports));
            let mut ports: Vec<u16> = Vec::new();
            for port in listeners.into_iter().flatten().map(|it| it.port()) {
                if !ports.contains(&port) {
                    ports.push(port);
                }
            }
            Self {
                address: replica.address,
                ports,
                addresses: addresses.clone(),
            }
        };
        cluster_status.replicas.iter().map(target).collect()
    }

    fn words(&self, client: u32) -> [(&'static str, &'static str, String); 5] {
        let joined = |words: Vec<String>| words.join(" ");
        let ports = self.ports.iter().map(ToString::to_string).collect();
        let addresses = self.addresses.iter().map(ToString::to_string).collect();
        let port = self.ports.first().map(ToString::to_string);
        [
            ("address", "BROLGA_ADDRESS", self.address.to_string()),
            ("port", "BROLGA_PORT", port.unwrap_or_default()),
            ("ports", "BROLGA_PORTS", joined(ports)),
            ("addresses", "BROLGA_ADDRESSES", joined(addresses)),
            ("client", "BROLGA_CLIENT", client.to_string()),
        ]
    }
}

impl Load {
    /// Works until the time is over; says how often each client was run.
    ///
    /// # Errors
    /// A client failed.
    pub async fn drive(&self, targets: &[Target], output: &Path) -> anyhow::Result<u32> {
        let began = Instant::now();
        let Some(command) = &self.command else {
            sleep(self.most).await;
            return Ok(0);
        };
        fs::create_dir_all(output)
            .with_context(|| format!("cannot create {}", output.display()))?;
        let mut rounds = 0;
        while rounds == 0 || began.elapsed() < self.most {
            let mut clients = Vec::new();
            for number in 1..=self.clients {
                let target = &targets[(number as usize - 1) % targets.len()];
                let file = output.join(format!("client-{number}"));
                clients.push(Client::start(command, target, number, file)?);
            }
            for client in &mut clients {
                client.end().await?;
            }
            rounds += 1;
        }
        Ok(rounds)
    }

    /// Describes the progress in words.
    #[must_use]
    pub fn account(&self, rounds: u32) -> String {
        match (&self.command, self.clients) {
            (None, _) => format!("the server was watched for {} s", self.most.as_secs()),
            (Some(_), 1) => format!("the client was run {rounds} times"),
            (Some(_), clients) => format!("{clients} clients were run {rounds} times"),
        }
    }
}

/// A running client with all that it has started; killed when it is dropped.
struct Client {
    child: Child,
    group: Option<Pid>,
    number: u32,
    output: PathBuf,
}

impl Client {
    fn start(command: &str, target: &Target, number: u32, output: PathBuf) -> anyhow::Result<Self> {
        let mut text = command.to_owned();
        let words = target.words(number);
        for (word, _, value) in &words {
            text = text.replace(&format!("{{{word}}}"), value);
        }
        let file =
            File::create(&output).with_context(|| format!("cannot create {}", output.display()))?;
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", &text])
            .envs(words.iter().map(|(_, name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0);
        let child = shell.spawn().context("cannot start /bin/sh for the load")?;
        let group = child.id().map(|pid| Pid::from_raw(pid.cast_signed()));
        Ok(Self {
            child,
            group,
            number,
            output,
        })
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        let status = self.child.wait().await?;
        if status.success() {
            return Ok(());
        }
        let text = fs::read(&self.output).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
        let said = match last.is_empty() {
            true => "it said nothing".to_owned(),
            false => format!("it said: {}", last.join(" / ")),
        };
        bail!(
            "client {} of the load failed ({status}); {said}",
            self.number
        );
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // Nothing may be left of it, which is as well.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(last: u8) -> Target {
        let address = |last| IpAddr::from([127, 0, 0, last]);
        Target {
            address: address(last),
            ports: vec![80, 443],
            addresses: vec![address(1), address(2)],
        }
    }

    fn load(command: &str) -> Load {
        Load {
            command: Some(command.into()),
            clients: 2,
            most: Duration::ZERO,
        }
    }

    #[tokio::test]
    async fn clients_are_told_whom_to_talk_to() {
        let dir = tempfile::tempdir().unwrap();
        let load = load(
            "echo {address}:{port} {client}; echo $BROLGA_PORTS, $BROLGA_ADDRESSES, $BROLGA_CLIENT",
        );
        let targets = [target(1), target(2)];
        assert_eq!(load.drive(&targets, dir.path()).await.unwrap(), 1);
        let said =
            |client: u32| fs::read_to_string(dir.path().join(format!("client-{client}"))).unwrap();
        assert_eq!(said(1), "127.0.0.1:80 1\n80 443, 127.0.0.1 127.0.0.2, 1\n");
        assert_eq!(said(2), "127.0.0.2:80 2\n80 443, 127.0.0.1 127.0.0.2, 2\n");
    }

    #[tokio::test]
    async fn a_client_that_fails_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let load = load("echo one; echo two >&2; exit 3");
        let error = load.drive(&[target(1)], dir.path()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("exit status: 3"), "{text}");
        assert!(text.contains("it said: one / two"), "{text}");
    }
}
