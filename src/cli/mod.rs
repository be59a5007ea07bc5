//! The command line.
//!
//! Every error ends here as one line on standard error, `brolga: …`, that says what to do. Exit
//! codes: 0 for success, 1 for errors, 2 for a command line that cannot be understood (clap), 78 for
//! a node that has explained why it cannot work (see [`crate::cluster::supervisor::EXPLAINED`]).

mod check;
mod checkpoint;
mod demo;
mod frontend;
mod node;
mod progress;
mod recorded_log;
mod renamed;
mod replay;
mod restore;
mod run;
mod signal;
mod status;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Replicates an unmodified server: run it on three replicas and lose nothing when one fails.
#[derive(Debug, Parser)]
#[command(name = "brolga", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a whole cluster on this machine.
    ///
    /// Each replica publishes the server's ports on an address of its own: 127.0.0.1, .2, .3 …
    Run(run::Options),
    /// Run one replica.
    Node(node::Options),
    /// Run a stand-alone frontend on the clients' machine: connections survive the failure of any node.
    Frontend(frontend::Options),
    /// Show the status of a cluster.
    Status(status::Options),
    /// Send the server a signal, ordered through the log: at the same point on all replicas.
    Signal(signal::Options),
    /// Take, list, verify, export, import and remove checkpoints.
    Checkpoint(checkpoint::Options),
    /// Restore a node from a checkpoint, or the server's files as of a slot.
    ///
    /// Without --into, the node must be stopped; the command prints which checkpoint it will start from.
    /// With --into, the server's files as of a slot are written to another directory, and nothing else is
    /// touched.
    Restore(restore::Options),
    /// Check a server for determinism: perturb its replicas and report the first divergence.
    Check(check::Options),
    /// Replay a recorded log, optionally under a debugger; the cluster may keep running.
    Replay(replay::Options),
    /// Watch a leader fail and nothing be lost: three replicas of a small store, one minute at most.
    ///
    /// If the machine allows it (root, CRIU), the failed node restores from a checkpoint.
    Demo,
    /// Run the bundled store, an ordinary server without any replication in it.
    #[command(hide = true)]
    Store(StoreOptions),
}

#[derive(Debug, clap::Args)]
struct StoreOptions {
    #[command(flatten)]
    options: brolga_store::Options,
}

/// An error on its way to the user, and the exit code that goes with it.
#[derive(Debug)]
pub(crate) struct Failure {
    error: anyhow::Error,
    code: u8,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            error: error.into(),
            code: 1,
        }
    }
}

type Outcome = Result<(), Failure>;

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(options) => run::main(options),
        Command::Node(options) => node::main(&options),
        Command::Frontend(options) => frontend::main(&options),
        Command::Status(options) => status::main(&options),
        Command::Signal(options) => signal::main(&options),
        Command::Checkpoint(options) => checkpoint::main(&options),
        Command::Restore(options) => restore::main(&options),
        Command::Check(options) => check::main(options),
        Command::Replay(options) => replay::main(&options),
        Command::Demo => demo::main(),
        Command::Store(store) => brolga_store::run(store.options).map_err(Failure::from),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("brolga: {}", one_line(&failure.error));
            ExitCode::from(failure.code)
        }
    }
}

/// The runtime of everything that supervises or asks. One thread, the main one: it must outlive
/// the processes it starts, because the kernel kills them when it ends.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// An error with its causes. Typed errors name their cause themselves, so a cause that has been
/// said already is left out.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_cause_is_said_once() {
        let inner = std::io::Error::other("disk on fire");
        let twice = anyhow::Error::new(inner).context("cannot write: disk on fire");
        assert_eq!(one_line(&twice), "cannot write: disk on fire");
        assert_eq!(
            one_line(&twice.context("demo")),
            "demo: cannot write: disk on fire"
        );
    }

    #[test]
    fn a_renamed_flag_is_answered_with_its_new_name() {
        for (old, new) in [
            ("--checkpoint-log-mb=8", "--checkpoint-log-mib"),
            ("--checkpoint-transfer=8", "--checkpoint-transfer-mib-s"),
            ("--no-backstop", "--no-syscall-filter"),
        ] {
            let error = Cli::try_parse_from(["brolga", "run", old, "--", "true"]).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(&format!("called {new} now")), "{text}");
        }
    }
}
