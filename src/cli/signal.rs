//! `brolga signal`: sends the server a signal through the log.

use super::{Outcome, runtime};
use crate::admin::Client;
use crate::cluster::{self, ClusterFile, node_dir};
use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// The time for which a leader is looked for.
const PATIENCE: Duration = Duration::from_secs(10);
const ASK_EVERY: Duration = Duration::from_millis(50);
const FIRST_REALTIME: u32 = 34;
const LAST: u32 = 64;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Directory of the cluster.
    #[arg(long, value_name = "DIR", default_value = "brolga-data")]
    data: PathBuf,
    /// HUP, USR1, TERM …, or a number.
    #[arg(value_name = "NAME|NUMBER", value_parser = parse)]
    signal: u32,
}

pub fn main(options: &Options) -> Outcome {
    let file = cluster::read(&options.data)?;
    let slot = runtime()?.block_on(order(&options.data, &file, options.signal))?;
    let name = name(options.signal);
    println!("{name} ordered at slot {slot}");
    Ok(())
}

async fn order(data: &Path, file: &ClusterFile, signal: u32) -> anyhow::Result<u64> {
    let ids: Vec<u64> = file.members.iter().map(|member| member.id).collect();
    let started = Instant::now();
    let mut at = 0;
    let mut hint = None;
    loop {
        let node = hint.take().unwrap_or(ids[at % ids.len()]);
        let socket = node_dir(data, node).join("admin.sock");
        if let Ok(mut client) = Client::connect(&socket).await {
            let ordered = client.signal(signal).await.with_context(|| {
                format!(
                    "replica {node} did not report the outcome; the signal may still be delivered"
                )
            })?;
            match ordered {
                Ok(slot) => return Ok(slot),
                Err(leader) => hint = leader.filter(|leader| *leader != node),
            }
        }
        if hint.is_none() {
            at += 1;
            sleep(ASK_EVERY).await;
        }
        if started.elapsed() > PATIENCE {
            bail!("no replica leads: the signal was not sent");
        }
    }
}

/// A number, or a name with or without `SIG`.
fn parse(text: &str) -> Result<u32, String> {
    let signal = match text.parse() {
        Ok(number) => number,
        Err(_) => number_of(text).ok_or_else(|| format!("`{text}` is not a signal"))?,
    };
    match signal {
        9 | 19 => Err(format!(
            "{} is for processes, not for a replicated server: stop `brolga run` or `brolga node`, or \
             send TERM, which ends the server for good",
            name(signal)
        )),
        1..=LAST => Ok(signal),
        _ => Err(format!(
            "{signal} is not the number of a signal (1 to {LAST})"
        )),
    }
}

fn number_of(text: &str) -> Option<u32> {
    let upper = text.to_ascii_uppercase();
    let plain = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = plain.strip_prefix("RTMIN") {
        let offset = match offset.strip_prefix('+') {
            Some(offset) => offset.parse().ok()?,
            None if offset.is_empty() => 0,
            None => return None,
        };
        return FIRST_REALTIME.checked_add(offset);
    }
    let signal = Signal::from_str(&format!("SIG{plain}")).ok()?;
    u32::try_from(signal as i32).ok()
}

fn name(signal: u32) -> String {
    let number = i32::try_from(signal).ok();
    let known = number.and_then(|number| Signal::try_from(number).ok());
    known.map_or_else(|| format!("signal {signal}"), |it| it.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [("HUP", 1), ("sigusr1", 10), ("15", 15), ("RTMIN+2", 36)] {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
        for text in ["KILL", "STOP", "0", "65", "HOP", "RTMIN-1", ""] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!((name(1), name(36)), ("SIGHUP".into(), "signal 36".into()));
    }
}
