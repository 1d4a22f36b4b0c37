//! `farebox pay`: curl that pays.

use std::io::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use farebox::{
    client::{ClientError, Purse},
    http::{PayError, PayExt as _, PayOptions, ReceiptExt as _},
    wire::{Challenge, Receipt},
};
use http::StatusCode;
use reqwest::Response;
use serde_json::{Value, json};

use crate::{
    args::Pay,
    failure::{Failure, UNKNOWN, printable},
    request::{Max, Prepared, budget, challenges, client, decimals, wallets},
    session,
};

// Documented in `farebox pay --help`.
const NOT_SERVED: u8 = 3;
pub(crate) const NOT_PAID: u8 = 4;
pub(crate) const PAID_NOT_SERVED: u8 = 5;

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
    if asked.status() != StatusCode::PAYMENT_REQUIRED || found.is_empty() {
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
    if let Some(offered) = session::chosen(args, &found, &wallets)? {
        return session::pay(args, client, &request, &offered, &wallets).await;
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
    let hint = match &error {
        PayError::Client(error) if error.over_budget().is_some() => "; --max allows more",
        _ => "",
    };
    Failure::new(code(&error), format!("{error}{hint}"))
}

/// The exit code of an error.
pub(crate) fn code(error: &PayError) -> u8 {
    match error {
        PayError::Request(_) => 1,
        PayError::NotAccepted(_) => PAID_NOT_SERVED,
        PayError::OutcomeUnknown(_) | PayError::Client(ClientError::OutcomeUnknown { .. }) => {
            UNKNOWN
        }
        _ => NOT_PAID,
    }
}

/// Shows the response and decides how to end.
async fn finish(args: &Pay, response: Response, spent: &Spent) -> Result<(), Failure> {
    let shown = show(args, response).await?;
    shown.end(args, spent.to_json(), !spent.0.is_empty(), None)
}

/// A response that is on standard output, unless it waits to be part of a JSON object.
pub(crate) struct Shown {
    status: StatusCode,
    receipt: Option<Receipt>,
    body: Option<(&'static str, String)>,
}

/// Shows the response.
pub(crate) async fn show(args: &Pay, mut response: Response) -> Result<Shown, Failure> {
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
    let body = match args.json {
        true => {
            let body = response.bytes().await.map_err(Failure::general)?;
            Some(match std::str::from_utf8(&body) {
                Ok(text) => ("body", text.to_owned()),
                Err(_) => ("body_base64", STANDARD.encode(&body)),
            })
        }
        false => {
            let mut out = std::io::stdout();
            while let Some(chunk) = response.chunk().await.map_err(Failure::general)? {
                out.write_all(&chunk)?;
            }
            out.flush()?;
            None
        }
    };
    Ok(Shown {
        status,
        receipt,
        body,
    })
}

impl Shown {
    /// An event stream that was written as it came.
    pub(crate) fn stream(receipt: Option<Receipt>) -> Self {
        Self {
            status: StatusCode::OK,
            receipt,
            body: None,
        }
    }

    /// The JSON object, where it is asked for, and how the command ends. `paid` is whether the payee
    /// has got anything.
    pub(crate) fn end(
        self,
        args: &Pay,
        spent: Value,
        paid: bool,
        session: Option<Value>,
    ) -> Result<(), Failure> {
        let status = self.status;
        if args.json {
            let mut object = json!({
                "status": status.as_u16(),
                "spent": spent,
                "receipt": self.receipt,
            });
            if let Some((key, body)) = self.body {
                object[key] = body.into();
            }
            if let Some(session) = session {
                object["session"] = session;
            }
            println!("{object}");
        }
        if status.is_success() || status.is_redirection() {
            return Ok(());
        }
        let message = if args.json {
            // The object above is all there is to say.
            String::new()
        } else {
            format!("the server answered {status}")
        };
        let code = if paid { PAID_NOT_SERVED } else { NOT_SERVED };
        Err(Failure::new(code, message))
    }
}
