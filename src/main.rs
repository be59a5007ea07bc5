//! The `brolga` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    brolga::cli::main()
}
