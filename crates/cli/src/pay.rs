//! `farebox pay`: curl that pays.

use std::io::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use farebox::{
    client::{ClientError, Purse},
    http::{PayError, PayExt as _, PayOptions, ReceiptExt as _},
    wire::Challenge,
};
use reqwest::Response;
use serde_json::{Value, json};

use crate::{
    args::Pay,
    failure::{Failure, printable},
    request::{Max, Prepared, budget, challenges, client, decimals, wallets},
};

// Documented in `farebox pay --help`.
const NOT_SERVED: u8 = 3;
const NOT_PAID: u8 = 4;
const PAID_NOT_SERVED: u8 = 5;
const UNKNOWN: u8 = 6;

pub(crate) async fn run(args: Pay) -> Result<(), Failure> {
    match pay(&args).await {
        Err(failure) if args.json => {
            println!(
                "{}",
                json!({ "error": failure.message, "code": failure.code })
            );
            Err(Failure::new(failure.code, ""))
        }
        done => done,
    }
}

/// What was spent, for the user.
#[derive(Default)]
struct Spent(Vec<(String, farebox::Amount)>);

impl Spent {
    fn of(purse: &Purse, challenges: &[Challenge]) -> Self {
        let mut spent: Vec<(String, farebox::Amount)> = Vec::new();
        for challenge in challenges {
            let request = challenge.request.value();
            let Some(currency) = request["currency"].as_str() else {
                continue;
            };
            let amount = purse.budget().spent(currency);
            if !amount.is_zero() && spent.iter().all(|(known, _)| known != currency) {
                spent.push((currency.to_owned(), amount));
            }
        }
        Self(spent)
    }

    fn to_json(&self) -> Value {
        self.0
            .iter()
            .map(|(currency, amount)| json!({ "amount": amount, "currency": currency }))
            .collect()
    }

    fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.0
            .iter()
            .map(|(currency, amount)| match decimals(currency) {
                Some(decimals) => format!("{} {currency}", amount.to_decimal(decimals)),
                None => format!("{amount} base units of {currency}"),
            })
    }
}

async fn pay(args: &Pay) -> Result<(), Failure> {
    let max = Max::all(&args.wallet.max)?;
    let request = Prepared::new(&args.request)?;
    let wallets = wallets(args.wallet.wallet.as_deref(), args.wallet.rail.as_deref())?;
    let client = client()?;
    let note = |text: String| {
        if args.verbose {
            eprintln!("* {}", printable(&text));
        }
    };
    // Asked without a purse first: limits are per currency, and only the server knows which.
    let asked = request.on(&client).send().await.map_err(Failure::general)?;
    let found = challenges(asked.headers());
    if asked.status() != http::StatusCode::PAYMENT_REQUIRED || found.is_empty() {
        return finish(args, asked, &Spent::default()).await;
    }
    drop(asked);
    for challenge in &found {
        note(format!(
            "asked for {}: {}",
            challenge.offer(),
            challenge.request.json()
        ));
    }
    if wallets.is_empty() {
        let offers: Vec<String> = found.iter().map(|c| c.offer().to_string()).collect();
        return Err(Failure::new(
            NOT_PAID,
            format!(
                "nothing was paid: no wallet for {}; see `farebox pay --help`",
                offers.join(", ")
            ),
        ));
    }
    let purse = wallets
        .iter()
        .fold(Purse::new(budget(&found, &max)?), |purse, (_, payer)| {
            purse.payer(payer.clone())
        });
    let options = PayOptions::default().client_follows_no_redirects();
    let response = request.on(&client).pay_with(&purse, options).await;
    let spent = Spent::of(&purse, &found);
    for line in spent.lines() {
        note(format!("counted as spent: {line}"));
    }
    finish(args, response.map_err(failed)?, &spent).await
}

/// What an error says about the money.
fn failed(error: PayError) -> Failure {
    let code = match &error {
        PayError::Request(_) => 1,
        PayError::NotAccepted(_) => PAID_NOT_SERVED,
        PayError::OutcomeUnknown(_) | PayError::Client(ClientError::OutcomeUnknown { .. }) => {
            UNKNOWN
        }
        _ => NOT_PAID,
    };
    let hint = match &error {
        PayError::Client(error) if error.over_budget().is_some() => "; --max allows more",
        _ => "",
    };
    Failure::new(code, format!("{error}{hint}"))
}

/// Shows the response and decides how to end.
async fn finish(args: &Pay, mut response: Response, spent: &Spent) -> Result<(), Failure> {
    let status = response.status();
    let receipt = response.receipt();
    if args.include || args.verbose {
        eprintln!("{:?} {status}", response.version());
        for (name, value) in response.headers() {
            eprintln!(
                "{name}: {}",
                printable(&String::from_utf8_lossy(value.as_bytes()))
            );
        }
        eprintln!();
    }
    if let (true, Some(receipt)) = (args.verbose, &receipt) {
        let line = format!("receipt of {}: {}", receipt.method, receipt.reference);
        eprintln!("* {}", printable(&line));
    }
    if args.json {
        let body = response.bytes().await.map_err(Failure::general)?;
        let (key, body) = match std::str::from_utf8(&body) {
            Ok(text) => ("body", text.to_owned()),
            Err(_) => ("body_base64", STANDARD.encode(&body)),
        };
        println!(
            "{}",
            json!({
                "status": status.as_u16(),
                "spent": spent.to_json(),
                "receipt": receipt,
                key: body,
            })
        );
    } else {
        let mut out = std::io::stdout();
        while let Some(chunk) = response.chunk().await.map_err(Failure::general)? {
            out.write_all(&chunk)?;
        }
        out.flush()?;
    }
    if status.is_success() || status.is_redirection() {
        return Ok(());
    }
    let message = if args.json {
        String::new()
    } else {
        format!("the server answered {status}")
    };
    let code = if spent.0.is_empty() {
        NOT_SERVED
    } else {
        PAID_NOT_SERVED
    };
    // With --json the object above is all there is to say.
    Err(Failure::new(code, message))
}
