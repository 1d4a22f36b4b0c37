//! An MCP server with a paid tool, and a client that pays for it, over stdio.
//!
//! `mcp serve CONFIG` serves `joke` for 0.01 and `menu` for nothing; CONFIG has a realm, secrets, a
//! store and `[rails.tempo]`. `mcp call WALLETS TOOL COMMAND…` starts a server (`mcp serve CONFIG`,
//! or any other) and calls one of its tools; WALLETS has `[wallets.tempo]`. `farebox sandbox --config
//! CONFIG --wallet WALLETS` writes both.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's output is its purpose"
)]

use std::{
    error::Error,
    process::{ExitCode, Stdio},
};

use farebox::{
    config::{Config, Wallets},
    jsonrpc::{
        client::Caller,
        mcp::{Paid, PayPeerExt as _},
        server::{Payment, Tariff},
    },
    prelude::*,
};
use rmcp::{
    ServerHandler, ServiceExt as _,
    handler::server::tool::Extension,
    model::{CallToolRequestParams, CallToolResponse, ContentBlock},
    tool, tool_handler, tool_router,
    transport::stdio,
};

struct Jokes;

#[tool_router]
impl Jokes {
    #[tool(description = "A joke, for 0.01")]
    fn joke(&self, Extension(payment): Extension<Payment>) -> String {
        format!("a joke, paid as {}", payment.receipt.reference)
    }

    #[tool(description = "What there is, for nothing")]
    fn menu(&self) -> String {
        "joke: 0.01".to_owned()
    }
}

#[tool_handler]
impl ServerHandler for Jokes {}

async fn serve(path: &str) -> Result<(), Box<dyn Error>> {
    let config = Config::service(&std::fs::read_to_string(path)?)?;
    let server = &config.server;
    server.connect().await?;
    // A line for each tool that has a price.
    let tariff =
        Tariff::new([server.gate("tools/call joke", [OfferSpec::new("tempo/charge", "0.01")])?])?;
    // Finishes what a crash or a lost answer left open.
    let _reconciler = server.engine().spawn_reconciler(config.reconcile);
    let running = Paid::new(Jokes, tariff).serve(stdio()).await?;
    running.waiting().await?;
    Ok(())
}

async fn call(wallets: &str, tool: String, command: &[String]) -> Result<(), Box<dyn Error>> {
    let wallets = Wallets::from_toml(&std::fs::read_to_string(wallets)?, &farebox::registry()?)?;
    // pathUSD, six decimals: at most 0.05 for one call.
    let currency = "0x20c0000000000000000000000000000000000000";
    let budget = Budget::new([Limit::per_request(currency, Amount::new(50_000))]);
    let purse = wallets.purse(budget);
    let (program, arguments) = command.split_first().ok_or("no server to start")?;
    let mut server = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let pipes = server.stdout.take().zip(server.stdin.take());
    let client = ().serve(pipes.ok_or("the server has no pipes")?).await?;
    let params = CallToolRequestParams::new(tool);
    let answer = client.call_tool_paid(&Caller::local(purse), params).await?;
    if let CallToolResponse::Complete(result) = &answer.result {
        for block in &result.content {
            if let ContentBlock::Text(text) = block {
                println!("{}", text.text);
            }
        }
    }
    match &answer.receipt {
        Some(receipt) => println!("{} {}", receipt.method, receipt.reference),
        None => println!("free"),
    }
    client.cancel().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["serve", config] => serve(config).await,
        ["call", wallets, tool, ..] => {
            call(
                wallets,
                (*tool).to_owned(),
                args.get(3..).unwrap_or_default(),
            )
            .await
        }
        _ => Err("usage: mcp serve CONFIG | mcp call WALLETS TOOL COMMAND…".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
