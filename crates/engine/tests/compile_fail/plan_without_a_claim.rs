//! There is no plan without a proof key: a rail cannot forget replay protection.
use farebox_core::prelude::*;

fn verify() -> Plan<Once, Never> {
    Plan::paid("reference")
}

fn main() {}
