//! Farebox and mppx pay each other by Stripe, on the stand-in for Stripe's API.

#![allow(clippy::print_stderr, reason = "a skipped test is reported by name")]

use std::{
    io::{BufRead as _, BufReader},
    net::TcpStream,
    process::{Child, ChildStdout, Command, Stdio},
};

use farebox_live_tests::{Problem, farebox, missing, output, text, wait_for};
use farebox_test_services::free_port;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;

type Test = fn() -> Result<(), Problem>;

fn main() {
    let missing = missing();
    let required = std::env::var_os("FAREBOX_REQUIRE_LIVE").is_some();
    let tests: [(&str, Test); 2] = [
        ("mppx_pays_farebox_by_stripe", mppx_pays_farebox),
        ("farebox_pays_mppx_by_stripe", farebox_pays_mppx),
    ];
    if let (Some(why), false) = (&missing, required) {
        eprintln!("skipped: {}: {why}", tests.map(|(name, _)| name).join(", "));
    }
    let trials = tests.map(|(name, test)| {
        let missing = missing.clone();
        let ignored = missing.is_some() && !required;
        Trial::test(name, move || match missing {
            Some(why) => Err(Failed::from(why)),
            None => test().map_err(|problem| Failed::from(problem.to_string())),
        })
        .with_ignored_flag(ignored)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

fn ensure(condition: bool, message: impl FnOnce() -> String) -> Result<(), Problem> {
    if condition {
        Ok(())
    } else {
        Err(message().into())
    }
}

/// A child process that ends with its handle.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself, and there is nobody left to tell.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Peer {
    /// Starts `command` and reads the line of JSON that says that it is ready.
    fn ready(mut command: Command) -> Result<(Self, Value), Problem> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let stdout: Option<ChildStdout> = child.stdout.take();
        let peer = Self(child);
        let mut line = String::new();
        BufReader::new(stdout.ok_or("no standard output")?).read_line(&mut line)?;
        Ok((peer, serde_json::from_str(&line)?))
    }
}

/// Stripe's stand-in, with the configurations that use it.
struct Stripe {
    _process: Peer,
    config: Value,
    wallet: Value,
    runtime: tokio::runtime::Runtime,
}

impl Stripe {
    fn start() -> Result<Self, Problem> {
        let mut command = farebox()?;
        command.args(["sandbox", "--json"]);
        let (process, mut said) = Peer::ready(command)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            _process: process,
            config: said["config"].take(),
            wallet: said["wallet"].take(),
            runtime,
        })
    }

    fn rail(&self, key: &str) -> String {
        let value = &self.config["rails"]["stripe"][key];
        value.as_str().unwrap_or_default().to_owned()
    }

    /// mppx's part of `stripe.mjs`.
    fn mppx(&self, mode: &str, argument: &str) -> Command {
        let mut command = Command::new("node");
        command.current_dir("peers").args([
            "stripe.mjs",
            mode,
            &self.rail("api_base"),
            &self.rail("secret_key"),
            argument,
        ]);
        command
    }

    /// What has been charged: amount, currency and status of each PaymentIntent, and its id.
    fn charged(&self) -> Result<Vec<(u64, String, String, String)>, Problem> {
        let url = format!("{}/v1/payment_intents", self.rail("api_base"));
        let key = self.rail("secret_key");
        let list: Value = self.runtime.block_on(async {
            let request = reqwest::Client::new()
                .get(url)
                .basic_auth(key, None::<&str>)
                .header("stripe-version", "2026-07-29.preview");
            request.send().await?.json().await
        })?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let intents = list["data"].as_array().ok_or("no list")?;
        Ok(intents
            .iter()
            .map(|intent| {
                (
                    intent["amount_received"].as_u64().unwrap_or_default(),
                    text(&intent["currency"]),
                    text(&intent["status"]),
                    text(&intent["id"]),
                )
            })
            .collect())
    }

    /// Exactly one charge of `cents`, and its id.
    fn charged_once(&self, cents: u64) -> Result<String, Problem> {
        let charged = self.charged()?;
        let [(amount, currency, status, id)] = charged.as_slice() else {
            return Err(format!("charged {charged:?}").into());
        };
        let fits = (*amount, currency.as_str(), status.as_str()) == (cents, "usd", "succeeded");
        ensure(fits, || format!("charged {charged:?}"))?;
        Ok(id.clone())
    }
}

/// The deployed client pays our server with a token: the body, a receipt that names the
/// PaymentIntent, and one charge of exactly the price.
fn mppx_pays_farebox() -> Result<(), Problem> {
    let stripe = Stripe::start()?;
    let port = free_port();
    let mut config = stripe.config.clone();
    config["listen"] = format!("127.0.0.1:{port}").into();
    if let Some(offers) = config["routes"][0]["offers"].as_array_mut() {
        offers.retain(|offer| offer["rail"] == "stripe/charge");
    }
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("farebox.toml");
    std::fs::write(&path, toml::to_string(&config)?)?;
    let mut command = farebox()?;
    command.arg("serve").arg("--config").arg(&path);
    let _server = Peer(command.stdout(Stdio::null()).spawn()?);
    wait_for("farebox serve", || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    })?;

    let url = format!("http://127.0.0.1:{port}/joke");
    let run = output(stripe.mppx("pay", &url))?;
    ensure(run.status.success(), || text(&run.stderr))?;
    let said: Value = serde_json::from_slice(&run.stdout)?;
    ensure(said["status"] == 200, || said.to_string())?;
    ensure(said["body"] == "a joke worth its price\n", || {
        said.to_string()
    })?;
    let id = stripe.charged_once(50)?;
    let receipt = said["receipt"].as_str().unwrap_or_default();
    ensure(receipt_names(receipt, &id)?, || {
        format!("the receipt {receipt} does not name {id}")
    })
}

fn receipt_names(receipt: &str, id: &str) -> Result<bool, Problem> {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let receipt: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(receipt)?)?;
    Ok(receipt["reference"] == id && receipt["method"] == "stripe")
}

/// Our client pays the deployed server with a token of a test card: the body, and one charge of
/// exactly the price.
fn farebox_pays_mppx() -> Result<(), Problem> {
    let stripe = Stripe::start()?;
    let network = stripe.rail("network_id");
    let (_server, said) = Peer::ready(stripe.mppx("serve", &network))?;
    let url = said["url"].as_str().ok_or("no url")?;
    let directory = tempfile::tempdir()?;
    let wallet = directory.path().join("wallet.toml");
    std::fs::write(&wallet, toml::to_string(&stripe.wallet)?)?;
    let mut command = farebox()?;
    command
        .args(["pay", url, "--rail", "stripe", "--max", "0.75usd"])
        .arg("--wallet")
        .arg(&wallet);
    let run = output(command)?;
    ensure(run.status.success(), || text(&run.stderr))?;
    let body = text(&run.stdout);
    ensure(body.trim_end() == "a joke from the other side", || {
        format!("the body was {body:?}")
    })?;
    stripe.charged_once(75).map(drop)
}
