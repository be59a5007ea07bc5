//! `brolga status`: the state of a cluster, for people or for programs.

use super::{Outcome, runtime};
use crate::cluster;
use crate::survey::Survey;
use anyhow::anyhow;
use std::io::Write;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Directory of the cluster.
    #[arg(long, value_name = "DIR", default_value = "brolga-data")]
    data: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn main(options: &Options) -> Outcome {
    let file = cluster::read(&options.data)?;
    let survey = runtime()?.block_on(Survey::take(&options.data, &file));
    let text = if options.json {
        serde_json::to_string_pretty(&survey)? + "\n"
    } else {
        survey.to_string()
    };
    std::io::stdout().write_all(text.as_bytes())?;
    // Replicas that are down are a state to be shown; replicas that differ are an error.
    if survey.differs() {
        let warning = survey.warning.unwrap_or_default();
        return Err(anyhow!("{warning}: keep the data directory and report it").into());
    }
    Ok(())
}
