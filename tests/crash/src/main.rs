//! The farebox command, built so that it can be made to die at any effect.

use std::process::ExitCode;

fn main() -> ExitCode {
    farebox_cli::main()
}
