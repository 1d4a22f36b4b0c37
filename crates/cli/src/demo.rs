//! `farebox demo`: every rail of this binary, for real, without leaving the machine.
//!
//! One endpoint offers every rail. For each, a client asks, pays one challenge with that rail's
//! wallet, presents the credential over HTTP and gets a receipt; then the same credential is sent
//! again and must be refused.

use std::time::Instant;

use axum::{Router, routing::get};
use comfy_table::{Table, presets};
use farebox::{
    Server,
    client::{Origin, Purse},
    config::Wallets,
    http::{PayExt as _, PayOptions, ReceiptExt as _},
    wire::Receipt,
};
use http::{StatusCode, header};
use reqwest::Client;
use serde_json::json;
use tokio::net::TcpListener;

use crate::{
    failure::Failure,
    request::{budget, challenges, client},
    sandbox::{Sandboxes, offers, secret},
};

const HOST: &str = "127.0.0.1";

/// What became of one rail.
struct Line {
    offer: &'static str,
    status: StatusCode,
    receipt: Option<Receipt>,
    replay: StatusCode,
    ms: u128,
}

impl Line {
    fn holds(&self) -> bool {
        self.status == StatusCode::OK
            && self.receipt.is_some()
            && self.replay == StatusCode::FORBIDDEN
    }

    fn reference(&self) -> &str {
        self.receipt
            .as_ref()
            .map_or("", |receipt| &receipt.reference)
    }
}

pub(crate) async fn run(as_json: bool) -> Result<(), Failure> {
    let sandboxes = Sandboxes::start().await?;
    let port = serve(&sandboxes).await?;
    let registry = farebox::registry().map_err(Failure::general)?;
    let wallets = Wallets::from_tables(sandboxes.wallets(), &registry)
        .map_err(|invalid| Failure::invalid("the demo's wallets", &invalid))?;
    let client = client()?;
    let (mut lines, mut failed) = (Vec::new(), false);
    // A session is opened, used and closed; that is no single payment.
    let single = |plugin: &&'static farebox::core::Plugin| plugin.wallet.is_some();
    for plugin in registry.plugins().filter(single) {
        let line = match pay(&client, port, &wallets, plugin.name).await {
            Ok(line) => line,
            Err(failure) => {
                failed = true;
                let message = failure.message;
                if as_json {
                    println!("{}", json!({ "offer": plugin.name, "error": message }));
                } else {
                    eprintln!("{}: {message}", plugin.name);
                }
                continue;
            }
        };
        failed |= !line.holds();
        if as_json {
            println!(
                "{}",
                json!({
                    "offer": line.offer,
                    "status": line.status.as_u16(),
                    "reference": line.reference(),
                    "receipt": line.receipt,
                    "replay": line.replay.as_u16(),
                    "ms": line.ms,
                })
            );
        }
        lines.push(line);
    }
    if !as_json {
        println!("{}", table(&lines));
    }
    if failed || lines.is_empty() {
        return Err(Failure::general(
            "not every rail was paid once and only once",
        ));
    }
    Ok(())
}

/// The seller: one route, one offer for each rail.
async fn serve(sandboxes: &Sandboxes) -> Result<u16, Failure> {
    let invalid = |invalid| Failure::invalid("the demo", &invalid);
    let builder = Server::builder(HOST).secret(secret()?).store("memory:");
    let rails = sandboxes.rails().into_iter();
    let server = rails.fold(builder, |builder, (rail, config)| {
        builder.rail(rail, config)
    });
    let server = server.build().map_err(invalid)?;
    server.connect().await.map_err(Failure::general)?;
    let paid = server.paid("GET /joke", offers()).map_err(invalid)?;
    let app = Router::new().route(
        "/joke",
        get(|| async { "a joke worth its price\n" }).route_layer(paid),
    );
    let listener = TcpListener::bind((HOST, 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(port)
}

/// The buyer, with the wallet of one rail.
async fn pay(
    client: &Client,
    port: u16,
    wallets: &Wallets,
    rail: &'static str,
) -> Result<Line, Failure> {
    let started = Instant::now();
    let url = format!("http://{HOST}:{port}/joke");
    let asked = client.get(&url).send().await.map_err(Failure::general)?;
    if asked.status() != StatusCode::PAYMENT_REQUIRED {
        return Err(Failure::general(format!(
            "no payment was asked for: {}",
            asked.status()
        )));
    }
    let found = challenges(asked.headers());
    let purse = wallets
        .iter()
        .filter(|(name, _)| *name == rail)
        .fold(Purse::new(budget(&found, &[])?), |purse, (_, payer)| {
            purse.payer(payer.clone())
        });
    let origin = Origin::new("http", HOST, port);
    let payment = purse.pay(&found, &origin).await.map_err(Failure::general)?;
    let credential = payment.credential().to_header().map_err(Failure::general)?;
    let paid = client
        .get(&url)
        .present(payment, PayOptions::default())
        .await;
    let paid = paid.map_err(Failure::general)?;
    let (status, receipt) = (paid.status(), paid.receipt());
    let ms = started.elapsed().as_millis();
    let replay = client
        .get(&url)
        .header(header::AUTHORIZATION, credential)
        .send()
        .await;
    let replay = replay.map_err(Failure::general)?.status();
    Ok(Line {
        offer: rail,
        status,
        receipt,
        replay,
        ms,
    })
}

fn table(lines: &[Line]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "offer",
        "status",
        "receipt's reference",
        "same credential again",
        "ms",
    ]);
    for line in lines {
        table.add_row([
            line.offer.to_owned(),
            line.status.as_u16().to_string(),
            line.reference().to_owned(),
            format!("{} refused", line.replay.as_u16()),
            line.ms.to_string(),
        ]);
    }
    table
}
