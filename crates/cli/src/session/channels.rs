//! `farebox session`.

use comfy_table::{Table, presets};
use farebox::{
    Amount,
    client::session::{ChannelInfo, DepositLimit, Sessions},
    http::{PayOptions, SessionClient},
};
use serde_json::{Value, json};

use super::{failed, no_budget, note, summary};
use crate::{
    args::{Channels, Close, Session},
    failure::{Failure, printable},
    request::{client_with, decimals, headers, wallets},
};

/// The exit code of a close that the rail has not confirmed.
const UNCONFIRMED: u8 = 6;

pub(crate) async fn run(command: Session) -> Result<(), Failure> {
    match command {
        Session::List { channels, json } => list(&channels, json).await,
        Session::Close(args) => close(&args).await,
        Session::Forget {
            channel,
            channels,
            json,
        } => forget(&channel, &channels, json).await,
    }
}

async fn list(channels: &Channels, json: bool) -> Result<(), Failure> {
    let sessions = Sessions::new(no_budget(), channels.store()?);
    let found = sessions.channels().await.map_err(failed)?;
    if json {
        for channel in &found {
            println!("{}", to_json(channel));
        }
        return Ok(());
    }
    if found.is_empty() {
        println!("no channel is open");
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "channel", "rail", "server", "deposit", "spent", "currency", "state",
    ]);
    for channel in &found {
        let units = |amount: Amount| match decimals(&channel.currency) {
            Some(decimals) => amount.to_decimal(decimals),
            None => amount.to_string(),
        };
        table.add_row([
            // Some of it came from servers: no control characters.
            printable(&channel.channel),
            printable(&channel.method),
            printable(&channel.origin),
            units(channel.deposit),
            units(channel.due),
            printable(&channel.currency),
            channel.phase.to_owned(),
        ]);
    }
    println!("{table}");
    Ok(())
}

fn to_json(channel: &ChannelInfo) -> Value {
    json!({
        "channel": channel.channel,
        "rail": channel.method,
        "origin": channel.origin,
        "resource": channel.resource,
        "currency": channel.currency,
        "deposit": channel.deposit,
        "topping_up": channel.topping_up,
        "signed": channel.signed,
        "spent": channel.due,
        "state": channel.phase,
    })
}

async fn close(args: &Close) -> Result<(), Failure> {
    let mut sessions = Sessions::new(no_budget(), args.channels.store()?);
    let known = sessions.channels().await.map_err(failed)?;
    let chosen = match args.all {
        true => known.iter().collect(),
        false => chosen(&args.channel, &known)?,
    };
    for (_, payer) in wallets(args.wallet.as_deref(), None)?.sessions() {
        sessions = sessions.payer(payer.clone());
    }
    for channel in &chosen {
        // Closing adds nothing.
        sessions = sessions.limit(DepositLimit::new(&channel.currency, channel.deposit));
    }
    let client = client_with(headers(&args.headers)?)?;
    let options = PayOptions::default().client_follows_no_redirects();
    let client = SessionClient::new(client, sessions).options(options);
    let mut worst = None;
    for channel in chosen {
        let code = match client.close(channel).await.map_err(failed) {
            Ok(closed) => {
                match args.json {
                    true => println!("{}", summary::closed_json(channel, &closed)),
                    false => println!("{}", printable(&summary::closed(channel, &closed))),
                }
                (!closed.confirmed).then_some(UNCONFIRMED)
            }
            Err(failure) => {
                note(&format!("{}: {}", channel.channel, failure.message));
                Some(failure.code)
            }
        };
        worst = worst.max(code);
    }
    match worst {
        None => Ok(()),
        Some(code) => Err(Failure::new(code, "")),
    }
}

async fn forget(names: &[String], channels: &Channels, json: bool) -> Result<(), Failure> {
    let sessions = Sessions::new(no_budget(), channels.store()?);
    let known = sessions.channels().await.map_err(failed)?;
    for channel in chosen(names, &known)? {
        let forgotten = sessions.forget(&channel.key).await.map_err(failed)?;
        match json {
            true => println!("{}", to_json(&forgotten)),
            false => println!("{}", printable(&summary::forgotten(&forgotten))),
        }
    }
    Ok(())
}

/// The channels that are meant, each once.
fn chosen<'a>(names: &[String], known: &'a [ChannelInfo]) -> Result<Vec<&'a ChannelInfo>, Failure> {
    let mut chosen: Vec<&ChannelInfo> = Vec::new();
    for name in names {
        let name = name.to_ascii_lowercase();
        let mut found = known
            .iter()
            .filter(|channel| channel.channel.to_ascii_lowercase().starts_with(&name));
        match (found.next(), found.next()) {
            (Some(channel), None) if chosen.iter().any(|known| known.key == channel.key) => {}
            (Some(channel), None) => chosen.push(channel),
            (None, _) => {
                let text = format!("no channel {name} is open; see `farebox session list`");
                return Err(Failure::usage(text));
            }
            (Some(_), Some(_)) => {
                let text = format!("more than one channel begins with {name}; give more of its id");
                return Err(Failure::usage(text));
            }
        }
    }
    Ok(chosen)
}
