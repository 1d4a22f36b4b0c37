//! One route, three rails. `three-rails CONFIG`, where CONFIG has a realm, secrets, a store and
//! `[rails.tempo]`, `[rails.stripe]` and `[rails.lightning]`; `farebox sandbox` prints one.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's output is its purpose"
)]

use std::{error::Error, process::ExitCode, time::Duration};

use axum::{Router, routing::get};
use farebox::{config::Config, http::Payment, prelude::*};
use tokio::net::TcpListener;

async fn joke(payment: Payment) -> String {
    let receipt = &payment.receipt;
    format!(
        "a joke, paid by {} as {}\n",
        receipt.method, receipt.reference
    )
}

async fn serve(path: &str) -> Result<(), Box<dyn Error>> {
    let config = Config::service(&std::fs::read_to_string(path)?)?;
    config.server.connect().await?;
    let paid = config.server.paid(
        "GET /joke",
        [
            OfferSpec::new("tempo/charge", "0.01"),
            OfferSpec::new("stripe/charge", "0.50").currency("usd"),
            OfferSpec::new("lightning/charge", "21"),
        ],
    )?;
    let app = Router::new().route("/joke", get(joke).route_layer(paid));
    let listener = TcpListener::bind(config.listen).await?;
    println!("http://{}/joke", listener.local_addr()?);
    // Finishes what a crash or a lost answer left open.
    let _reconciler = config
        .server
        .engine()
        .spawn_reconciler(Duration::from_secs(10));
    axum::serve(listener, app).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: three-rails CONFIG");
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
