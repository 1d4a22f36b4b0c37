//! A voucher may be presented any number of times, so it must not be able to add to a balance.
use farebox_core::prelude::*;

fn verify(channel: ChannelId) -> Plan<Channel, Never> {
    Plan::advance(channel, Change::prepaid(Amount::new(100)))
}

fn main() {}
