//! Prints the rails of this binary, one per line: what the registry holds, by either door.
//!
//! It names no rail. Whatever is missing here is missing in every server that trusts the facade.
#![allow(clippy::print_stdout)]

fn main() {
    match farebox::registry() {
        Ok(registry) => registry
            .plugins()
            .for_each(|plugin| println!("{}", plugin.name)),
        Err(error) => println!("error: {error}"),
    }
}
