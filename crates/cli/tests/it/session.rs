//! `farebox pay` out of channels, and `farebox session`, against `farebox serve`.

use std::{
    convert::Infallible,
    process::{Command, Output},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Path,
    http::header::CONTENT_TYPE,
    response::Response,
    routing::get,
};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::common::{Market, Running, farebox, output, stderr, stdout};

/// Something that streams so many tokens, one after the other.
struct Model {
    base: String,
    _runtime: tokio::runtime::Runtime,
}

async fn tokens(Path(count): Path<usize>) -> Response {
    let tokens = stream::iter(0..count).then(|n| async move {
        tokio::time::sleep(Duration::from_millis(2)).await;
        Ok::<_, Infallible>(Bytes::from(format!("data: token {n}\n\n")))
    });
    let mut response = Response::new(Body::from_stream(tokens));
    let events = "text/event-stream".parse().unwrap();
    response.headers_mut().insert(CONTENT_TYPE, events);
    response
}

impl Model {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let app = Router::new().route("/tokens/{count}", get(tokens));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self {
            base,
            _runtime: runtime,
        }
    }
}

/// A seller of jokes and of a model's tokens, who takes sessions of one rail.
struct Seller {
    market: Market,
    _model: Model,
}

/// What a rail's session costs a unit, and what it is opened with, both in base units.
const RAILS: [(&str, u64, u64); 2] = [("tempo", 1_000, 20_000), ("lightning", 1, 20)];

impl Seller {
    fn open(rail: &str) -> Self {
        let model = Model::start();
        let offer = match rail {
            "tempo" => json!({
                "rail": "tempo/session", "amount": "0.001", "unit": "token",
                "suggested_deposit": "0.02",
            }),
            _ => json!({
                "rail": "lightning/session", "amount": "1", "unit": "token",
                "suggested_deposit": "20",
            }),
        };
        let market = Market::of(|config| {
            let routes = config["routes"].as_array_mut().unwrap();
            for route in routes.iter_mut() {
                route["offers"].as_array_mut().unwrap().retain(|offer| {
                    let offered = offer["rail"].as_str().unwrap();
                    offered.starts_with(rail)
                });
            }
            routes.push(json!({
                "path": "/tokens/{count}", "upstream": model.base, "offers": [offer],
            }));
        });
        Self {
            market,
            _model: model,
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = farebox(args);
        command.env(
            "FAREBOX_CHANNELS",
            self.market.dir.path().join("channels.json"),
        );
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        output(&mut self.command(args))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.market.base)
    }

    fn pay(&self, path: &str, more: &[&str]) -> Output {
        let url = self.url(path);
        let mut args = vec!["pay", "--wallet", &self.market.wallet, &url];
        args.extend(more);
        self.run(&args)
    }

    /// The only channel on record.
    fn channel(&self) -> Value {
        let listed = self.run(&["session", "list", "--json"]);
        assert!(listed.status.success(), "{}", stderr(&listed));
        let listed = stdout(&listed);
        assert_eq!(listed.lines().count(), 1, "{listed}");
        serde_json::from_str(&listed).unwrap()
    }
}

fn units(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

fn events(output: &Output) -> usize {
    let text = stdout(output);
    assert!(!text.contains("payment-"), "{text}");
    text.lines()
        .filter(|line| line.starts_with("data: token"))
        .count()
}

/// Protects: calls and streams share one channel from one process to the next, a stream tops it up,
/// a payer that is killed in mid-stream loses neither deposit nor channel, and closing brings back
/// what was not spent.
#[test]
fn a_channel_outlives_the_calls_that_it_pays() {
    for (rail, unit, deposit) in RAILS {
        let seller = Seller::open(rail);
        let first = seller.pay("/tokens/1", &[]);
        assert!(first.status.success(), "{rail}: {}", stderr(&first));
        assert_eq!(events(&first), 1);
        assert!(stderr(&first).contains("stays open"), "{}", stderr(&first));
        let opened = seller.channel();
        assert_eq!(units(&opened["deposit"]), deposit, "{opened}");
        assert_eq!(units(&opened["spent"]), unit, "{opened}");

        // A stream that is worth more than the deposit.
        let all = seller.pay("/tokens/50", &["--json"]);
        assert!(all.status.success(), "{rail}: {}", stdout(&all));
        let text = stdout(&all);
        assert_eq!(text.matches("\"token ").count(), 50, "{text}");
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(units(&last["spent"][0]["amount"]), 50 * unit, "{last}");
        let streamed = seller.channel();
        assert_eq!(streamed["channel"], opened["channel"]);
        assert_eq!(units(&streamed["spent"]), 51 * unit, "{streamed}");
        assert!(units(&streamed["deposit"]) >= 51 * unit, "{streamed}");

        killed_in_mid_stream(&seller);
        let killed = seller.channel();
        assert_eq!(killed["channel"], opened["channel"]);
        assert!(
            units(&killed["signed"]) <= units(&killed["deposit"]),
            "{killed}"
        );

        let again = seller.pay("/tokens/2", &["--close", "--json"]);
        assert!(again.status.success(), "{rail}: {}", stdout(&again));
        let text = stdout(&again);
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        let closed = &last["session"];
        assert_eq!(closed["channel"], opened["channel"], "{closed}");
        assert_eq!(closed["state"], "closed", "{closed}");
        let (spent, refunded) = (units(&closed["spent"]), units(&closed["refunded"]));
        assert_eq!(spent + refunded, units(&closed["deposit"]), "{closed}");
        assert!(spent >= 53 * unit, "{closed}");
        if rail == "tempo" {
            // What the server could burn before it saw that nobody read.
            let signed = units(&killed["signed"]) + 3 * unit;
            assert!(spent <= signed, "{closed}, {killed}");
        }
        let listed = seller.run(&["session", "list"]);
        assert!(
            stdout(&listed).contains("no channel"),
            "{}",
            stdout(&listed)
        );
    }
}

/// Reads a few tokens of many, and gives the payer no chance to tidy up.
fn killed_in_mid_stream(seller: &Seller) {
    let url = seller.url("/tokens/1000000");
    let args = [
        "pay",
        "--wallet",
        &seller.market.wallet,
        &url,
        "--max",
        "900:sat",
    ];
    let args = match seller.channel()["currency"] == "sat" {
        true => &args[..],
        false => &args[..4],
    };
    let mut payer = Running::of(&mut seller.command(args));
    payer.until("some tokens", |payer| {
        (payer.lines().len() >= 20).then_some(())
    });
    payer.child.kill().unwrap();
    payer.output();
}

/// Protects: a stream is not paid for beyond what a channel, or a call, may cost, and says which it was.
#[test]
fn nothing_is_signed_past_the_limits() {
    let seller = Seller::open("tempo");
    let short = seller.pay("/tokens/50", &["--max-deposit", "0.03"]);
    assert_eq!(short.status.code(), Some(5), "{}", stderr(&short));
    assert!(
        stderr(&short).contains("--max-deposit allows more"),
        "{}",
        stderr(&short)
    );
    assert!(events(&short) <= 30);
    let channel = seller.channel();
    assert_eq!(units(&channel["deposit"]), 30_000, "{channel}");
    assert!(units(&channel["signed"]) <= 30_000, "{channel}");
    let closed = seller.run(&[
        "session",
        "close",
        "--all",
        "--wallet",
        &seller.market.wallet,
    ]);
    assert!(closed.status.success(), "{}", stderr(&closed));

    let dear = seller.pay("/tokens/50", &["--max", "0.01", "--max-deposit", "0.03"]);
    assert_eq!(dear.status.code(), Some(5), "{}", stderr(&dear));
    assert!(
        stderr(&dear).contains("; --max allows more"),
        "{}",
        stderr(&dear)
    );
    assert!(events(&dear) <= 10);
    assert!(units(&seller.channel()["signed"]) <= 10_000);

    let none = Seller::open("tempo");
    let tiny = none.pay("/tokens/5", &["--max-deposit", "0.0001"]);
    assert_eq!(tiny.status.code(), Some(4), "{}", stderr(&tiny));
    let listed = none.run(&["session", "list"]);
    assert!(
        stdout(&listed).contains("no channel"),
        "{}",
        stdout(&listed)
    );
}

/// Protects: what the user chooses between a charge and a session, and how one asks for a channel that
/// there is not.
#[test]
fn a_session_is_paid_from_where_it_is_chosen() {
    let seller = Seller::open("tempo");
    let charge = seller.pay("/joke", &["--session"]);
    assert_eq!(charge.status.code(), Some(4), "{}", stderr(&charge));
    assert!(
        stderr(&charge).contains("no session is offered"),
        "{}",
        stderr(&charge)
    );
    let other = seller.pay("/jokes", &["--rail", "tempo/charge"]);
    assert_eq!(other.status.code(), Some(4), "{}", stderr(&other));

    let one = seller.pay("/jokes", &["--deposit", "0.004", "--json"]);
    assert!(one.status.success(), "{}", stderr(&one));
    let told: Value = serde_json::from_str(&stdout(&one)).unwrap();
    assert_eq!(told["body"], "one joke more\n");
    assert_eq!(told["session"]["deposit"], "4000", "{told}");
    assert_eq!(told["session"]["state"], "open", "{told}");
    assert_eq!(told["spent"][0]["amount"], "1000", "{told}");
    let wallet = &seller.market.wallet;
    let wrong = seller.run(&["session", "close", "0xnothing", "--wallet", wallet]);
    assert_eq!(wrong.status.code(), Some(2), "{}", stderr(&wrong));
    let id = seller.channel()["channel"].as_str().unwrap().to_owned();
    let closed = seller.run(&["session", "close", &id[..10], "--wallet", wallet, "--json"]);
    assert!(closed.status.success(), "{}", stderr(&closed));
    let told: Value = serde_json::from_str(&stdout(&closed)).unwrap();
    assert_eq!(
        (&told["spent"], &told["refunded"]),
        (&json!("1000"), &json!("3000"))
    );
}

/// Protects: a channel whose server is gone for good can be given up, by name and with a word about what
/// may be lost.
#[test]
fn a_channel_of_a_server_that_is_gone_is_given_up() {
    let mut seller = Seller::open("lightning");
    let one = seller.pay("/tokens/1", &[]);
    assert!(one.status.success(), "{}", stderr(&one));
    let id = seller.channel()["channel"].as_str().unwrap().to_owned();
    seller.market.serve.child.kill().unwrap();
    seller.market.serve.child.wait().unwrap();
    let wallet = seller.market.wallet.clone();
    let closed = seller.run(&["session", "close", "--all", "--wallet", &wallet]);
    assert_eq!(closed.status.code(), Some(1), "{}", stderr(&closed));
    let unnamed = seller.run(&["session", "forget"]);
    assert_eq!(unnamed.status.code(), Some(2), "{}", stderr(&unnamed));
    let forgotten = seller.run(&["session", "forget", &id[..12]]);
    assert!(forgotten.status.success(), "{}", stderr(&forgotten));
    let said = stdout(&forgotten);
    assert!(
        said.contains(&id) && said.contains("19 sat may be lost"),
        "{said}"
    );
    let listed = seller.run(&["session", "list"]);
    assert!(
        stdout(&listed).contains("no channel"),
        "{}",
        stdout(&listed)
    );
}
