//! `farebox books` and `farebox reconcile`: what the store says about money, and finishing what a
//! crash left open.

use std::{io::Write as _, path::Path, time::Duration};

use comfy_table::{Table, presets};
use farebox::{
    config::Config,
    core::Durability,
    engine::{ChannelEntry, Entry},
};
use serde_json::json;

use crate::{
    args::{Books, Reconcile},
    check,
    failure::{Failure, printable},
    refund,
};

/// Prints payments in the order they were presented, and the balances of channels.
pub(crate) async fn run(args: Books) -> Result<(), Failure> {
    let config = durable(&args.config)?;
    let engine = config.server.engine();
    let older = args.older_than.unwrap_or(Duration::ZERO);
    let wanted = |entry: &Entry| {
        let state = args.state.is_empty() || args.state.iter().any(|s| s == entry.state.as_str());
        state && entry.age >= older
    };
    let payments = engine.books().await.map_err(Failure::general)?;
    let payments: Vec<Entry> = payments.into_iter().filter(wanted).collect();
    // A channel is in none of the states, and has no age; nor has a refund.
    let channels = match args.state.is_empty() && args.older_than.is_none() {
        true => engine.channels().await.map_err(Failure::general)?,
        false => Vec::new(),
    };
    let refunds = match args.state.is_empty() && args.older_than.is_none() {
        true => engine.refunds().await.map_err(Failure::general)?,
        false => Vec::new(),
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        for entry in &payments {
            writeln!(out, "{}", json!(entry))?;
        }
        for channel in &channels {
            writeln!(out, "{}", json!({ "channel": channel }))?;
        }
        for refunded in &refunds {
            writeln!(out, "{}", json!({ "refunded": refunded }))?;
        }
        return Ok(());
    }
    writeln!(out, "{}", payments_table(&payments))?;
    if !channels.is_empty() {
        writeln!(out, "{}", channels_table(&channels))?;
    }
    if !refunds.is_empty() {
        writeln!(out, "{}", refund::table(&refunds))?;
    }
    writeln!(out, "{}", counts(&payments))?;
    Ok(())
}

/// One run of the reconciler over the store.
pub(crate) async fn reconcile(args: Reconcile) -> Result<(), Failure> {
    let config = durable(&args.config)?;
    // A rail that cannot be reached leaves its payments unknown, and no other's.
    if let Err(error) = config.server.connect().await {
        eprintln!("farebox: {}", printable(&error.to_string()));
    }
    let engine = config.server.engine();
    let found = engine.reconcile().await.map_err(Failure::general)?;
    let refunds = engine.reconcile_refunds().await.map_err(Failure::general)?;
    let channels = engine.upkeep().await.map_err(Failure::general)?;
    if args.json {
        let mut line = json!(found);
        line["refunds"] = json!(refunds);
        line["channels"] = json!(channels);
        println!("{line}");
        return Ok(());
    }
    let later = match found.unknown {
        0 => "",
        _ => " (under way, or the rail cannot say yet: run again later)",
    };
    println!(
        "{} looked at: {} settled, {} declined, {} freed, {} unknown{later}",
        found.looked_at, found.settled, found.declined, found.freed, found.unknown
    );
    if refunds.looked_at > 0 {
        println!(
            "{} refunds: {} done, {} refused, {} unknown",
            refunds.looked_at, refunds.done, refunds.refused, refunds.unknown
        );
    }
    if channels.asked > 0 {
        println!(
            "{} channels: {} settled, {} closed, {} refunded, {} open",
            channels.asked, channels.settled, channels.closed, channels.refunded, channels.open
        );
    }
    Ok(())
}

/// The configuration of a server whose payments another process can see.
pub(crate) fn durable(path: &Path) -> Result<Config, Failure> {
    let config = check::read(path)?;
    match config.server.engine().store().durability() {
        Durability::Durable => Ok(config),
        _ => Err(Failure::usage(
            "the store is `memory:`, which only the serving process sees",
        )),
    }
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table
}

fn payments_table(payments: &[Entry]) -> Table {
    let mut table = table([
        "state",
        "method",
        "amount",
        "currency",
        "reference",
        "external id",
        "age",
        "id",
    ]);
    for entry in payments {
        // Some of it came from strangers: no control characters.
        let text = |text: &Option<String>| printable(text.as_deref().unwrap_or("-"));
        table.add_row([
            entry.state.to_string(),
            printable(&entry.method),
            text(&entry.amount),
            text(&entry.currency),
            text(&entry.reference),
            text(&entry.external_id),
            age(entry.age),
            printable(&entry.id),
        ]);
    }
    table
}

fn channels_table(channels: &[ChannelEntry]) -> Table {
    let mut table = table([
        "channel",
        "rail",
        "deposit",
        "authorized",
        "spent",
        "held",
        "settled",
        "refunded",
        "owed",
        "open",
    ]);
    for channel in channels {
        let open = match (channel.closed, channel.closing) {
            (true, _) => "closed",
            (_, true) => "closing",
            _ if channel.close_requested => "close requested",
            _ => "open",
        };
        table.add_row([
            printable(&channel.id),
            printable(&channel.rail),
            channel.deposit.to_string(),
            channel.authorized.to_string(),
            channel.spent.to_string(),
            channel.held.to_string(),
            channel.settled.to_string(),
            channel.refunded.to_string(),
            channel.owed.to_string(),
            open.to_owned(),
        ]);
    }
    table
}

/// `3 payments: 2 delivered, 1 paid`.
fn counts(payments: &[Entry]) -> String {
    let mut states: Vec<_> = payments.iter().map(|entry| entry.state).collect();
    states.sort_unstable();
    let groups = states.chunk_by(|a, b| a == b);
    let groups: Vec<String> = groups
        .map(|group| format!("{} {}", group.len(), group[0]))
        .collect();
    let list = groups.join(", ");
    match payments {
        [] => "no payments".to_owned(),
        [_] => format!("1 payment: {list}"),
        payments => format!("{} payments: {list}", payments.len()),
    }
}

/// The two largest units are enough to know what to do.
fn age(age: Duration) -> String {
    let rounded = match age.as_secs() {
        seconds if seconds >= 86_400 => seconds - seconds % 3_600,
        seconds if seconds >= 3_600 => seconds - seconds % 60,
        seconds => seconds,
    };
    humantime::format_duration(Duration::from_secs(rounded)).to_string()
}
