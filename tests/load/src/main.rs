//! How many paid requests a second a server answers, on every store, with one process and with
//! three, as a ratio to the same handler without payment. `cargo run --release -p farebox-load`.
//!
//! The credentials are paid for beforehand, so a timed request is what the server does: check the
//! proof, settle on the stand-in chain (`tempo`) or nowhere (`proof`), record, serve. Everything
//! runs on this machine, client, chain and store included; only the ratios say much.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's output is its purpose"
)]

mod client;
mod server;
mod stores;

use std::{error::Error, process::ExitCode};

use farebox_sandbox_tempo::Chain;

use client::{Client, RAILS};
use server::Servers;

type Problem = Box<dyn Error + Send + Sync>;

/// Requests per measurement.
const REQUESTS: usize = 3_000;

async fn measure() -> Result<(), Problem> {
    let chain = Chain::start(Default::default()).await?;
    let client = Client::new(&chain)?;
    println!("| store | processes | rail | unpaid /s | 402 /s | paid /s | paid ÷ unpaid |");
    println!("|---|---|---|---|---|---|---|");
    for place in stores::all()? {
        for processes in [1, 3] {
            if processes > 1 && !place.is_shared() {
                continue;
            }
            let servers = Servers::start(&chain, &place, processes).await?;
            let free = client.requests(&servers, "/free", REQUESTS).await?;
            for rail in RAILS {
                let path = format!("/{rail}");
                let asked = client.requests(&servers, &path, REQUESTS).await?;
                let paid = client.paid(&servers, rail, REQUESTS).await?;
                println!(
                    "| {} | {processes} | {rail} | {free:.0} | {asked:.0} | {paid:.0} | {:.2} |",
                    place.name(),
                    paid / free
                );
            }
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match std::env::args().nth(1) {
        Some(config) => server::serve(&config).await,
        None => measure().await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
