//! `streaming CONFIG`, where CONFIG has a realm, secrets, a store and `[rails.tempo]` or
//! `[rails.lightning]`, such as `farebox sandbox --config CONFIG` writes.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's output is its purpose"
)]

use std::{error::Error, net::SocketAddr, process::ExitCode};

use farebox::{config::Config, prelude::*};
use tokio::net::TcpListener;

/// What a token costs: a hundredth of a cent, or a satoshi.
const PRICES: [(&str, &str); 2] = [("tempo/session", "0.0001"), ("lightning/session", "1")];

async fn serve(path: &str) -> Result<(), Box<dyn Error>> {
    let config = Config::service(&std::fs::read_to_string(path)?)?;
    config.server.connect().await?;
    let offered = PRICES
        .into_iter()
        .filter(|(rail, _)| config.server.method(rail).is_some())
        .map(|(rail, price)| OfferSpec::new(rail, price).with("unit", "token"));
    let paid = config.paid("GET /chat", offered)?;
    let listener = TcpListener::bind(config.listen).await?;
    println!("http://{}/chat", listener.local_addr()?);
    let engine = config.server.engine().clone();
    // Settles what is spent, closes what is idle, and finishes what a crash left open.
    let _reconciler = engine.spawn_reconciler(config.reconcile);
    // Peers' addresses tell the proxies that the file trusts from anybody else.
    let app = streaming::app(paid).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            // Without a signal handler there is no graceful end, but there is an end. Streams end
            // with a receipt.
            let _ = tokio::signal::ctrl_c().await;
            let _left = engine.drained(config.shutdown).await;
        })
        .await?;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: streaming CONFIG");
        return ExitCode::from(2);
    };
    match serve(&path).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
