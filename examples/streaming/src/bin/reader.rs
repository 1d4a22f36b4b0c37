//! `reader WALLETS URL…`, where WALLETS is a file with `[wallets.<rail>]` tables, such as
//! `farebox sandbox --wallet WALLETS` writes.
//!
//! Reads each stream to its end and pays for it by the token: over server-sent events, or over a
//! WebSocket where the URL begins with `ws`. Its channels are kept in `channels.json` beside WALLETS,
//! so that a reader that is killed loses no deposit, and are closed when all has been read.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's output is its purpose"
)]

use std::{
    error::Error,
    io::{Write as _, stdout},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use farebox::{
    client::session::{DepositLimit, FileStore},
    config::Wallets,
    http::SessionClient,
    prelude::*,
};

/// Half a dollar or five hundred sats at a time, and a dollar or a thousand sats in all.
const LIMITS: [(&str, u128); 2] = [
    ("0x20c0000000000000000000000000000000000000", 500_000),
    ("sat", 500),
];

fn client(wallets: &Path) -> Result<SessionClient, Box<dyn Error>> {
    let text = std::fs::read_to_string(wallets)?;
    let channels = FileStore::new(wallets.with_file_name("channels.json"));
    let limit = |(currency, most): (&str, u128)| {
        Limit::per_request(currency, Amount::new(most)).total(Amount::new(2 * most))
    };
    let wallets = Wallets::from_toml(&text, &farebox::registry()?)?;
    let mut sessions = wallets.sessions_with(Budget::new(LIMITS.map(limit)), Arc::new(channels));
    for (currency, most) in LIMITS {
        sessions = sessions.limit(DepositLimit::new(currency, Amount::new(most)));
    }
    Ok(SessionClient::new(reqwest::Client::new(), sessions))
}

async fn read(client: &SessionClient, url: &str) -> Result<u64, Box<dyn Error>> {
    let mut tokens = 0;
    let mut say = |token: &str| {
        tokens += 1;
        print!("{token} ");
        stdout().flush()
    };
    if url.starts_with("ws") {
        let mut socket = client.socket(url.parse()?).await?;
        while let Some(message) = socket.recv().await {
            say(&message?)?;
        }
    } else {
        let request = client.http().get(url).build()?;
        let mut stream = client.events(request).await?;
        while let Some(event) = stream.recv().await {
            say(&event?.data)?;
        }
    }
    println!();
    Ok(tokens)
}

async fn run(wallets: &Path, urls: Vec<String>) -> Result<(), Box<dyn Error>> {
    let client = client(wallets)?;
    for url in urls {
        let tokens = read(&client, &url).await?;
        println!("{tokens} tokens");
    }
    for closed in client.close_all().await? {
        println!("{} spent, {} back", closed.spent, closed.refunded);
    }
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(wallets) = args.next() else {
        eprintln!("usage: reader WALLETS URL…");
        return ExitCode::from(2);
    };
    match run(Path::new(&wallets), args.collect()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
