//! Only a budget approves.
use farebox_core::prelude::*;

fn approve(cost: Cost) -> Approved {
    Approved { cost }
}

fn main() {}
