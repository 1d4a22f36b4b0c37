//! `farebox inspect`: what a URL asks for.

use farebox::wire::{Challenge, CredentialHeader};
use serde_json::{Value, json};

use crate::{
    args::Inspect,
    failure::Failure,
    request::{Prepared, challenges, client, decimals},
};

/// The exit code where nothing is asked for.
const NOTHING_ASKED: u8 = 3;

pub(crate) async fn run(args: Inspect) -> Result<(), Failure> {
    let request = Prepared::new(&args.request)?;
    let response = request
        .on(&client()?)
        .send()
        .await
        .map_err(Failure::general)?;
    let status = response.status();
    let found = challenges(response.headers());
    if args.json {
        let challenges: Vec<Value> = found.iter().map(describe).collect();
        println!(
            "{}",
            json!({ "status": status.as_u16(), "challenges": challenges })
        );
    } else {
        println!("{} {} answers {status}", request.method, request.url);
        for challenge in &found {
            print_challenge(challenge);
        }
    }
    if found.is_empty() {
        return Err(Failure::new(NOTHING_ASKED, "no payment is asked for"));
    }
    Ok(())
}

/// A challenge with its request read.
fn describe(challenge: &Challenge) -> Value {
    json!({
        "offer": challenge.offer().to_string(),
        "id": challenge.id,
        "realm": challenge.realm,
        "expires": challenge.expires.as_ref().map(|at| at.as_str()),
        "description": challenge.description,
        "digest": challenge.digest.as_ref().map(|digest| digest.as_str()),
        "header": challenge.header.map(CredentialHeader::as_str),
        "request": challenge.request.value(),
    })
}

fn print_challenge(challenge: &Challenge) {
    println!("\n{}{}", challenge.offer(), price(challenge));
    let Value::Object(members) = describe(challenge) else {
        return;
    };
    for (key, value) in members {
        match value {
            Value::Null => {}
            _ if key == "offer" => {}
            Value::Object(request) => {
                for (key, value) in request {
                    println!("  {key}: {value}");
                }
            }
            // As JSON, whose quotes and escapes keep a server's text on its line.
            value => println!("  {key}: {value}"),
        }
    }
}

/// `, 0.01 usd`, where the number of decimals is known.
fn price(challenge: &Challenge) -> String {
    let request = challenge.request.value();
    let amount = request["amount"]
        .as_str()
        .and_then(|text| farebox::Amount::parse(text).ok());
    let currency = request["currency"].as_str();
    match (amount, currency, currency.and_then(decimals)) {
        (Some(amount), Some(currency), Some(decimals)) => {
            format!(", {} {currency}", amount.to_decimal(decimals))
        }
        _ => String::new(),
    }
}
