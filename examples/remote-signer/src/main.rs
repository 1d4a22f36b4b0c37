//! Pays for URLs with a key that a custodian holds. `remote-signer URL…`; the environment says where
//! the custodian and the chain are:
//!
//! `CUSTODIAN_URL`, `CUSTODIAN_WALLET`, `CUSTODIAN_APP`, `CUSTODIAN_SECRET`, `ADDRESS`, `TEMPO_RPC`,
//! `CHAIN_ID`, and `CURRENCY` for the token, of which up to a dollar is spent.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's output is its purpose"
)]

use std::{env, error::Error, process::ExitCode};

use farebox::{
    core::Secret,
    prelude::*,
    rails::tempo::{TempoWallet, WalletConfig},
};
use remote_signer::{Access, Custodian};

fn var(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set"))
}

fn purse() -> Result<Purse, Box<dyn Error>> {
    let custodian = Custodian::new(Access {
        base: var("CUSTODIAN_URL")?,
        wallet: var("CUSTODIAN_WALLET")?,
        app: var("CUSTODIAN_APP")?,
        secret: Secret::new(var("CUSTODIAN_SECRET")?),
        address: var("ADDRESS")?.parse()?,
    })?;
    let currency = var("CURRENCY")?.to_ascii_lowercase();
    let config = WalletConfig {
        rpc_url: Some(var("TEMPO_RPC")?.into()),
        chain_id: Some(var("CHAIN_ID")?.parse()?),
        currency: Some(currency.clone()),
        ..WalletConfig::default()
    };
    let limit = Limit::per_request(currency, Amount::new(100_000)).total(Amount::new(1_000_000));
    let wallet = TempoWallet::signing(config, custodian)?;
    Ok(Purse::new(Budget::new([limit])).wallet(wallet))
}

async fn pay(urls: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let (purse, client) = (purse()?, reqwest::Client::new());
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
    let mut urls = env::args().skip(1).peekable();
    if urls.peek().is_none() {
        eprintln!(
            "usage: remote-signer URL…, with CUSTODIAN_URL, CUSTODIAN_WALLET, CUSTODIAN_APP, \
             CUSTODIAN_SECRET, ADDRESS, TEMPO_RPC, CHAIN_ID and CURRENCY set"
        );
        return ExitCode::from(2);
    }
    match pay(urls).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
