//! `brolga demo`.

use super::run::Stops;
use super::{Failure, Outcome, runtime};
use crate::demo;
use anyhow::bail;

pub fn main() -> Outcome {
    let outcome = runtime()?.block_on(async {
        let mut stops = Stops::new()?;
        tokio::select! {
            outcome = demo::run() => outcome,
            () = stops.next() => bail!("stopped"),
        }
    });
    outcome.map_err(Failure::from)
}
