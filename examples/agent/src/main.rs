//! A client with a budget that picks a rail. `agent WALLETS URL…`, where WALLETS is a file with
//! `[wallets.<rail>]` tables, such as `farebox sandbox --wallet WALLETS` writes.
//!
//! It would rather pay in sats than by card: fees are lower. Sixty sats a day are all it has;
//! after that it pays by card, up to two dollars.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's output is its purpose"
)]

use std::{error::Error, process::ExitCode};

use farebox::{config::Wallets, prelude::*, wire::AcceptPayment};

fn purse(path: &str) -> Result<Purse, Box<dyn Error>> {
    let wallets = Wallets::from_toml(&std::fs::read_to_string(path)?, &farebox::registry()?)?;
    let budget = Budget::new([
        Limit::per_request("sat", Amount::new(30)).per_day(Amount::new(60)),
        Limit::per_request("usd", Amount::new(100)).total(Amount::new(200)),
    ]);
    let preference = AcceptPayment::parse("lightning/*;q=1, */*;q=0.5")?;
    Ok(wallets.purse(budget).prefer(preference))
}

async fn shop(path: &str, urls: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let (purse, client) = (purse(path)?, reqwest::Client::new());
    for url in urls {
        let response = client.get(&url).pay(&purse).await?;
        let status = response.status();
        match response.receipt() {
            Some(receipt) => println!("{status} {} {}", receipt.method, receipt.reference),
            None => println!("{status} free"),
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(wallets) = args.next() else {
        eprintln!("usage: agent WALLETS URL…");
        return ExitCode::from(2);
    };
    match shop(&wallets, args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
