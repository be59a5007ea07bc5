//! The `brolga-store` program: options in, [`brolga_store::run`], one line out if it fails.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use brolga_store::Options;
use clap::Parser;

/// An ordinary single-node key-value store that speaks the Redis protocol.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    match brolga_store::run(Cli::parse().options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("brolga-store: error: {error}");
            ExitCode::FAILURE
        }
    }
}
