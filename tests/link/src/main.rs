//! Prints the rails of this binary, one per line: what the registry holds, by either door.
//!
//! It names no rail of the facade. Whatever is missing here is missing in every server that trusts
//! the facade.
#![allow(clippy::print_stdout, reason = "a command's output is its purpose")]

use farebox_link_outside as _;

fn main() {
    match farebox::registry() {
        Ok(registry) => registry
            .plugins()
            .for_each(|plugin| println!("{}", plugin.name)),
        Err(error) => println!("error: {error}"),
    }
}
