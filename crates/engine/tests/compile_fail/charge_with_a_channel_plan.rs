//! A charge is single use: its rail cannot answer with a channel's plan.
use farebox_core::prelude::*;

fn verify(channel: ChannelId) -> Plan<Once, Never> {
    Plan::advance(channel, Voucher::bearer())
}

fn main() {}
