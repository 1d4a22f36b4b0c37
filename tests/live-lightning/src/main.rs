//! The `farebox` command with a Lightning node inside.

use std::process::ExitCode;

fn main() -> ExitCode {
    farebox_cli::main()
}
