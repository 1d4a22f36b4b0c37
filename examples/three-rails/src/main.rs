//! One route, three rails. `three-rails CONFIG`, where CONFIG has a realm, secrets, a store and
//! `[rails.tempo]`, `[rails.stripe]` and `[rails.lightning]`, such as `farebox sandbox --config
//! CONFIG` writes.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's output is its purpose"
)]

use std::{error::Error, net::SocketAddr, process::ExitCode};

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
    let paid = config.paid(
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
    let engine = config.server.engine().clone();
    let _reconciler = engine.spawn_reconciler(config.reconcile);
    // Peers' addresses tell the proxies that the file trusts from anybody else.
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            // Without a signal handler there is no graceful end, but there is an end.
            let _ = tokio::signal::ctrl_c().await;
            let _left = engine.drained(config.shutdown).await;
        })
        .await?;
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
