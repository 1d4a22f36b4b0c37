//! The `farebox` command; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    farebox_cli::main()
}
