//! The adapter by which the cross-SDK conformance suite drives Farebox.
//!
//! One JSON request on stdin, one JSON response on stdout, logs on stderr. The exit status is 0
//! whatever the response says; anything else means that the adapter itself failed.
//!
//! Every operation calls the functions that users call. There is no parser here but for the
//! suite's own envelope.

mod codec;
mod flow;
mod protocol;
mod server;
mod stripe;
mod tempo;

use std::io::{self, Read as _, Write as _};

use serde_json::Value;
use tracing_subscriber::EnvFilter;

use protocol::{Answer, Failure, Kind, Request, response};

fn main() -> io::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let answer = match Request::read(&text) {
        Ok(request) => runtime.block_on(answer(request)),
        Err(failure) => Err(failure),
    };
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, &response(answer))?;
    stdout.write_all(b"\n")
}

async fn answer(request: Request) -> Answer {
    let input: &Value = &request.input;
    match request.op.as_str() {
        "challenge.parse" => codec::parse_challenge(input),
        "challenge.format" => codec::format_challenge(input),
        "challenge.id" => codec::challenge_id(input),
        "credential.parse" => codec::parse_credential(input),
        "credential.format" => codec::format_credential(input),
        "receipt.parse" => codec::parse_receipt(input),
        "receipt.format" => codec::format_receipt(input),
        "base64url.encode" => codec::encode(input),
        "base64url.decode" => codec::decode(input),
        "server.verify" => server::verify(input),
        "stripe.external_id_binding" => stripe::external_id_binding(input),
        // Two names of one operation.
        "tempo.receipt.verify" | "tempo.transaction.verify" => tempo::verify_receipt(input),
        "tempo.fee_payer.cosign" => tempo::cosign(input).await,
        "http.payment_request" => flow::payment_request(input, request.timeout).await,
        other => Err(Failure::new(
            Kind::UnsupportedOperation,
            format!("there is no operation {other:?}"),
        )),
    }
}
