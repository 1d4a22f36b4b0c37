//! Farebox and mppx pay each other on a real Tempo chain.

#![allow(clippy::print_stderr, reason = "a skipped test is reported by name")]

use farebox_live_tests::{
    Chain, LOCALNET, MAINNET, Mppx, PAYER_KEY, Problem, SELLER, Server, farebox, mcp, missing,
    output, text,
};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;

type Test = fn() -> Result<(), Problem>;

fn main() {
    let missing = missing();
    let required = std::env::var_os("FAREBOX_REQUIRE_LIVE").is_some();
    let tests: [(&str, Test); 7] = [
        ("mppx_pays_farebox_exactly_the_price", mppx_pays_farebox),
        ("farebox_pays_mppx_exactly_the_price", farebox_pays_mppx),
        ("mppx_validates_farebox", mppx_validates_farebox),
        ("mppx_validates_every_rail", mppx_validates_every_rail),
        ("farebox_validates_mppx", farebox_validates_mppx),
        ("mppx_pays_a_tool_of_farebox", mppx_pays_a_tool),
        ("farebox_pays_a_tool_of_mppx", farebox_pays_a_tool),
    ];
    let trials = tests.map(|(name, test)| {
        let missing = missing.clone();
        let ignored = missing.is_some() && !required;
        Trial::test(name, move || match missing {
            Some(why) => Err(Failed::from(why)),
            None => test().map_err(|problem| Failed::from(problem.to_string())),
        })
        .with_ignored_flag(ignored)
    });
    if let (Some(why), false) = (&missing, required) {
        eprintln!("skipped: {}: {why}", tests.map(|(name, _)| name).join(", "));
    }
    // The chain and node are heavy, and the tests compare balances.
    let arguments = Arguments {
        test_threads: Some(1),
        ..Arguments::from_args()
    };
    libtest_mimic::run(&arguments, trials.into()).exit();
}

fn ensure(condition: bool, message: impl FnOnce() -> String) -> Result<(), Problem> {
    if condition {
        Ok(())
    } else {
        Err(message().into())
    }
}

/// The deployed client pays our server: 200, a receipt, and the seller has exactly the price more.
fn mppx_pays_farebox() -> Result<(), Problem> {
    let chain = Chain::start(LOCALNET)?;
    let server = Server::start(&chain, "0.01")?;
    let before = chain.balance(SELLER)?;
    let run = Mppx::run(&chain, &[&server.url, "--rpc-url", &chain.url, "-i", "-v"])?;
    let said = format!("{}{}", text(&run.stdout), text(&run.stderr));
    ensure(run.status.success(), || said.clone())?;
    let said_lower = said.to_lowercase();
    ensure(said_lower.contains("http/1.1 200"), || {
        format!("no 200: {said}")
    })?;
    ensure(said_lower.contains("payment-receipt:"), || {
        format!("no receipt: {said}")
    })?;
    ensure(said.contains("a joke worth its price"), || {
        format!("no body: {said}")
    })?;
    let moved = chain.balance(SELLER)? - before;
    ensure(moved == 10_000, || {
        format!("the seller got {moved} base units, not 10000")
    })
}

/// Our client pays the deployed server: the body, exit code 0, and exactly the price.
fn farebox_pays_mppx() -> Result<(), Problem> {
    let chain = Chain::start(LOCALNET)?;
    let server = Mppx::serve(&chain)?;
    let before = chain.balance(SELLER)?;
    let mut command = farebox()?;
    command
        .args(["pay", &server.url, "--rail", "tempo", "--max", "0.05"])
        .env("FAREBOX_TEMPO_PRIVATE_KEY", PAYER_KEY)
        .env("FAREBOX_TEMPO_RPC_URL", &chain.url)
        .env("FAREBOX_TEMPO_CHAIN_ID", chain.id.to_string());
    let run = output(command)?;
    ensure(run.status.success(), || text(&run.stderr))?;
    let body = text(&run.stdout);
    ensure(body.trim_end() == "a joke from the other side", || {
        format!("the body was {body:?}")
    })?;
    let moved = chain.balance(SELLER)? - before;
    ensure(moved == 20_000, || {
        format!("the seller got {moved} base units, not 20000")
    })
}

/// An independent conformance check of our server finds nothing wrong.
fn mppx_validates_farebox() -> Result<(), Problem> {
    let chain = Chain::start(MAINNET)?;
    let server = Server::start(&chain, "0.01")?;
    let (report, said) = mppx_validates(&chain, &server)?;
    // A payment that was only skipped would prove nothing.
    ensure(report["summary"]["skipped"] == 0, || said)
}

/// Nor on a route with every rail. It pays on Tempo, and on Stripe and Lightning it could not.
fn mppx_validates_every_rail() -> Result<(), Problem> {
    let chain = Chain::start(MAINNET)?;
    let server = Server::on_every_rail(&chain)?;
    let (_, said) = mppx_validates(&chain, &server)?;
    let named = |rail: &str| said.contains(&format!("{rail}/charge"));
    ensure(
        ["tempo", "stripe", "lightning"].into_iter().all(named),
        || said,
    )
}

/// Its report, without failures and warnings and with a payment, and all it said.
fn mppx_validates(chain: &Chain, server: &Server) -> Result<(Value, String), Problem> {
    let base = server.url.trim_end_matches("/joke");
    let run = Mppx::run(chain, &["validate", base, "-e", "GET:/joke", "-j", "-y"])?;
    let said = text(&run.stdout);
    ensure(run.status.success(), || {
        format!("{said}{}", text(&run.stderr))
    })?;
    let start = said.find('{').ok_or_else(|| format!("no JSON: {said}"))?;
    let report: Value = serde_json::from_str(&said[start..])?;
    let summary = &report["summary"];
    let clean = summary["failed"] == 0 && summary["warnings"] == 0;
    ensure(clean && said.contains("Payment: successful"), || {
        said.clone()
    })?;
    Ok((report, said))
}

/// Our check of servers finds nothing wrong with the deployed one, a payment included: it asks for
/// what the drafts ask, and not for what we happen to do.
fn farebox_validates_mppx() -> Result<(), Problem> {
    let chain = Chain::start(LOCALNET)?;
    let server = Mppx::serve(&chain)?;
    let mut command = farebox()?;
    command
        .args([
            "validate",
            &server.url,
            "--pay",
            "--rail",
            "tempo",
            "--json",
        ])
        .env("FAREBOX_TEMPO_PRIVATE_KEY", PAYER_KEY)
        .env("FAREBOX_TEMPO_RPC_URL", &chain.url)
        .env("FAREBOX_TEMPO_CHAIN_ID", chain.id.to_string());
    let run = output(command)?;
    let said = text(&run.stdout);
    ensure(run.status.success(), || {
        format!("{said}{}", text(&run.stderr))
    })?;
    let last: Value = serde_json::from_str(said.lines().last().unwrap_or_default())?;
    ensure(last["paid"]["amount"] == "20000", || said)
}

/// The deployed MCP client, on the official TypeScript SDK, pays for a tool of ours, on the Rust
/// one: the result, a receipt, and exactly the price.
fn mppx_pays_a_tool() -> Result<(), Problem> {
    let chain = Chain::start(LOCALNET)?;
    let before = chain.balance(SELLER)?;
    let said = mcp::mppx_calls(&chain, "joke")?;
    let receipt = &said["receipt"];
    ensure(
        receipt["status"] == "success" && receipt["challengeId"].is_string(),
        || format!("no receipt: {said}"),
    )?;
    let text = said["content"][0]["text"].as_str().unwrap_or_default();
    ensure(text.starts_with("a joke, paid as 0x"), || {
        format!("no joke: {said}")
    })?;
    let moved = chain.balance(SELLER)? - before;
    ensure(moved == 10_000, || {
        format!("the seller got {moved} base units, not 10000")
    })
}

/// Our MCP client pays for a tool of the deployed server.
fn farebox_pays_a_tool() -> Result<(), Problem> {
    let chain = Chain::start(LOCALNET)?;
    let before = chain.balance(SELLER)?;
    let said = mcp::farebox_calls(&chain, "joke")?;
    ensure(
        said.contains("a joke from the other side") && said.contains("tempo 0x"),
        || format!("it said {said:?}"),
    )?;
    let moved = chain.balance(SELLER)? - before;
    ensure(moved == 20_000, || {
        format!("the seller got {moved} base units, not 20000")
    })
}
