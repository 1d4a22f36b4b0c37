//! What only Stripe can do to a server, over HTTP from end to end.

mod faults;
mod refunds;
mod replays;
mod webhooks;

use std::{
    path::PathBuf,
    process::Output,
    sync::Arc,
    time::{Duration, Instant},
};

use farebox::{
    client::{Budget, Limit, Payment, Purse},
    core::Store,
    http::{PayError, PayExt as _, PayOptions, ReceiptExt as _},
    wire::{Amount, Challenge},
};
use farebox_crash_tests::{Node, NodeConfig, World};
use farebox_sandbox_stripe::{Stripe as Sandbox, StripeConfig};
use http::{
    HeaderValue, StatusCode,
    header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{BINARY, PATIENCE};

/// How far the sandbox's search lags behind: what is only to be found there stays unknown.
pub(crate) const LAG: Duration = Duration::from_secs(1800);

/// One server that sells on Stripe, and a client of it.
pub(crate) struct Shop {
    pub(crate) world: World,
    pub(crate) node: Node,
    pub(crate) store: String,
    client: reqwest::Client,
    purse: Purse,
    _folder: TempDir,
}

/// What a client gets to see.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub(crate) enum Seen {
    Served,
    /// 402: the problem's type, and what it says.
    Refused(String, String),
    /// Neither: to be presented again.
    Unknown(Payment),
    /// Not served and not refused with a challenge: 403.
    Spent,
}

impl Shop {
    /// A server that leaves what is unknown to [`reconcile`](Self::reconcile).
    pub(crate) async fn open() -> Self {
        Self::with(|_| {}).await
    }

    /// The same with another configuration.
    pub(crate) async fn with(change: impl FnOnce(&mut Value)) -> Self {
        Self::timed(unhurried(), change).await
    }

    /// The same with another timing.
    pub(crate) async fn timed(timing: Value, change: impl FnOnce(&mut Value)) -> Self {
        let stripe = StripeConfig::default().search_lag(LAG);
        let world = World::with(stripe).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = format!("sqlite://{}", folder.path().join("farebox.db").display());
        let config = NodeConfig {
            binary: PathBuf::from(BINARY),
            folder: folder.path().to_owned(),
            name: "shop".to_owned(),
            store: store.clone(),
            timing: timing.clone(),
        };
        let text = |port| {
            let mut text = world.config(port, &store, timing)?;
            change(&mut text);
            Ok(text)
        };
        let mut node = Node::of(&config, text).unwrap();
        node.start("").await.unwrap();
        let purse = purse(&world);
        Self {
            world,
            node,
            store,
            client: reqwest::Client::new(),
            purse,
            _folder: folder,
        }
    }

    pub(crate) fn sandbox(&self) -> &Sandbox {
        &self.world.stripe
    }

    fn request(&self) -> reqwest::RequestBuilder {
        let url = format!("http://{}/stripe", self.node.address());
        self.client.get(url).timeout(Duration::from_secs(60))
    }

    /// Buys once, presenting the credential once.
    pub(crate) async fn buy(&self) -> Seen {
        let options = PayOptions::default().attempts(1);
        seen(self.request().pay_with(&self.purse, options).await).await
    }

    /// Presents what was paid before, as a client that did not hear what became of it.
    pub(crate) async fn present(&self, payment: Payment) -> Seen {
        let options = PayOptions::default().max_wait(Duration::from_secs(1));
        seen(self.request().present(payment, options).await).await
    }

    /// The challenges of a request without a credential.
    pub(crate) async fn challenges(&self) -> Vec<Challenge> {
        let asked = self.request().send().await.unwrap();
        assert_eq!(asked.status(), StatusCode::PAYMENT_REQUIRED);
        let headers = asked.headers().get_all(WWW_AUTHENTICATE);
        Challenge::parse_all(headers.iter().map(HeaderValue::as_bytes))
            .into_iter()
            .flatten()
            .collect()
    }

    /// A token for one of `challenges`, minted by a purse of its own.
    pub(crate) async fn pay(&self, challenges: &[Challenge]) -> Payment {
        let port = self.node.address().rsplit(':').next().unwrap().parse();
        let origin = farebox::client::Origin::new("http", "127.0.0.1", port.unwrap());
        purse(&self.world).pay(challenges, &origin).await.unwrap()
    }

    /// Presents a credential by hand, and says what the answer is: its status, and whether it comes
    /// with a challenge.
    pub(crate) async fn answer(&self, payment: &Payment) -> (StatusCode, bool) {
        let header = payment.credential().to_header().unwrap();
        let request = self.request().header(AUTHORIZATION, header);
        let response = request.send().await.unwrap();
        let challenged = response.headers().contains_key(WWW_AUTHENTICATE);
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            assert!(response.headers().contains_key(RETRY_AFTER));
        }
        (response.status(), challenged)
    }

    /// Runs another subcommand, to die as `fail_points` say. The sandbox goes on meanwhile.
    pub(crate) fn command(&self, subcommand: &[&str], fail_points: &str) -> Output {
        let run = || self.node.command_dying(subcommand, fail_points);
        tokio::task::block_in_place(run).unwrap()
    }

    /// Runs the reconciler until nothing is unknown any more.
    pub(crate) async fn reconcile(&self, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.command(&["reconcile", "--json"], "");
            let found: Value = serde_json::from_slice(&output.stdout).unwrap();
            if found["unknown"] == 0 {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{what}: {found}: {:?}",
                self.books()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The server's books, one payment per line.
    pub(crate) fn books(&self) -> Vec<Value> {
        let output = self.command(&["books", "--json"], "");
        let lines = String::from_utf8(output.stdout).unwrap();
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The store, beside the server.
    pub(crate) async fn store(&self) -> Arc<dyn Store> {
        let stores = farebox::stores().unwrap();
        let opener = (stores.get("sqlite").unwrap().read)(&self.store).unwrap();
        opener.open().await.unwrap()
    }
}

/// What is unknown stays unknown. Callers wait for what is looked up at once, on a busy machine too.
pub(crate) fn unhurried() -> Value {
    json!({
        "settle": "20s", "settle_at_most": "20s", "slack": "1s", "store": "20s", "reconcile": "1h",
    })
}

fn purse(world: &World) -> Purse {
    let budget = Budget::new([Limit::per_request("usd".to_owned(), Amount::new(50))]);
    let stripe = world
        .wallets()
        .iter()
        .filter(|(n, _)| *n == "stripe/charge");
    stripe.fold(Purse::new(budget), |purse, (_, payer)| {
        purse.payer(payer.clone())
    })
}

async fn seen(result: Result<reqwest::Response, PayError>) -> Seen {
    match result {
        Ok(response) if response.status() == StatusCode::OK => {
            let receipt = response.receipt().unwrap();
            assert!(receipt.reference.starts_with("pi_"), "{receipt:?}");
            Seen::Served
        }
        Ok(response) if response.status() == StatusCode::FORBIDDEN => {
            assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
            Seen::Spent
        }
        Err(PayError::NotAccepted(refused)) => {
            let problem = refused.problem.unwrap();
            Seen::Refused(problem.problem_type, problem.detail)
        }
        Err(PayError::OutcomeUnknown(unknown)) => Seen::Unknown(unknown.payment),
        other => panic!("{other:?}"),
    }
}
