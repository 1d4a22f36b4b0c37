//! `lightning/session` over any two nodes: a stream that is paid by the token, over HTTP.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{Router, extract::Query, response::IntoResponse, routing::get};
use farebox::client::session::{Closed, DepositLimit, Sessions, VolatileStore};
use farebox::core as farebox_core;
use farebox::http::{Event, EventStream, Metered, SessionClient};
use farebox::prelude::*;
use farebox::rails::lightning::{LightningSession, LightningSessionWallet, LightningWallet};
use farebox_core::{Method, Typed};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::{Pair, suite};

/// What one deposit is worth, sats; a token costs one.
const DEPOSIT: u64 = 40;

/// Everything below, on one pair.
pub async fn every_rule(pair: Arc<dyn Pair>) {
    // A refund needs something on the seller's side of the channel, its reserve apart.
    suite::give_the_seller(&*pair, 50_000).await;
    a_stream_outlasts_its_deposits_and_the_rest_comes_back(&pair).await;
}

async fn tokens(Query(ask): Query<Vec<(String, usize)>>, session: Metered) -> impl IntoResponse {
    let count = ask.first().map_or(0, |(_, count)| *count);
    let words = (1..=count).map(|n| Ok::<_, Infallible>(Event::new(format!("token {n}"))));
    session.events(futures_util::stream::iter(words))
}

/// A shop that sells tokens at a sat each, and its address.
async fn open(pair: &Arc<dyn Pair>) -> (Server, String) {
    let rail = LightningSession::on(pair.seller());
    let method: Arc<dyn Method> = Arc::new(Typed::<_, farebox_core::Session>::new(rail));
    let server = Server::builder("127.0.0.1")
        .secret("a secret of 32 bytes, only for tests")
        .store("memory:")
        .method(method)
        .build()
        .expect("a server");
    let offer = OfferSpec::new("lightning/session", "1")
        .with("unit", "token")
        .with("suggested_deposit", DEPOSIT.to_string());
    let paid = server.paid("GET /tokens", [offer]).expect("a paid route");
    let app = Router::new().route("/tokens", get(tokens).layer(paid));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/tokens", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (server, url)
}

fn client(pair: &Arc<dyn Pair>) -> SessionClient {
    let wallet = LightningSessionWallet::within(LightningWallet::on(pair.payer()));
    let budget = Budget::new([Limit::per_request("sat", Amount::new(1_000))]);
    let sessions = Sessions::new(budget, Arc::new(VolatileStore::default()))
        .wallet(wallet)
        .limit(DepositLimit::new("sat", Amount::new(400)));
    SessionClient::new(reqwest::Client::new(), sessions)
}

/// Reads a stream to its end: how many tokens came.
async fn read(client: &SessionClient, url: &str, count: usize) -> (usize, EventStream) {
    let request = client.http().get(format!("{url}?tokens={count}"));
    let stream = client.events(request.build().unwrap()).await;
    let mut stream = stream.expect("a stream");
    let mut came = 0;
    while let Some(event) = stream.recv().await {
        let event = event.expect("an event");
        if event.data == "[DONE]" {
            assert!(
                stream.recv().await.is_none(),
                "nothing follows the mark of the end"
            );
            break;
        }
        came += 1;
        assert_eq!(event.data, format!("token {came}"));
    }
    (came, stream)
}

async fn balance(pair: &Arc<dyn Pair>) -> u64 {
    pair.payer().balance_msat().await.expect("a balance")
}

/// The balance once nothing is under way any more: a payment that has just succeeded weighs on the channel
/// until both nodes have forgotten it.
async fn quiet_balance(pair: &Arc<dyn Pair>) -> u64 {
    let deadline = Instant::now() + suite::PATIENCE;
    let (mut last, mut same) = (balance(pair).await, 0);
    while same < 10 {
        assert!(Instant::now() < deadline, "the balance keeps moving");
        sleep(Duration::from_millis(100)).await;
        let now = balance(pair).await;
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    last
}

/// Deposit, stream, exhaust, top up, resume, close, refund received.
async fn a_stream_outlasts_its_deposits_and_the_rest_comes_back(pair: &Arc<dyn Pair>) {
    let (server, url) = open(pair).await;
    let client = client(pair);
    let before = quiet_balance(pair).await;
    // Three deposits are needed for it, so the stream waits for a top-up twice.
    let (came, stream) = read(&client, &url, 100).await;
    assert_eq!(came, 100);
    let receipt = stream.receipt().expect("the last word is a receipt");
    assert_eq!(receipt.method, "lightning");
    assert_eq!(receipt.extra["spent"], Value::from(100));
    assert_eq!(receipt.extra["units"], Value::from(100));
    let channel = farebox_core::ChannelId::of("lightning", &receipt.reference);
    let state = server.engine().meter(channel.clone()).state().await;
    let state = state.expect("a session");
    let deposited = u64::try_from(state.deposit.get()).unwrap();
    assert_eq!((deposited, state.spent.get()), (3 * DEPOSIT, 100));

    // The next call goes on with the same session.
    let (came, _) = read(&client, &url, 5).await;
    assert_eq!(came, 5);
    let closed = client.close_all().await.expect("closed");
    let [Closed { spent, .. }] = closed.as_slice() else {
        panic!("one session: {closed:?}");
    };
    assert_eq!(spent.get(), 105);
    let state = server
        .engine()
        .meter(channel)
        .state()
        .await
        .expect("it is kept");
    assert!(state.closed);
    assert_eq!(state.refunded.get(), u128::from(3 * DEPOSIT) - 105);
    assert!(
        state.unaccounted().is_zero(),
        "kept or given back: {state:?}"
    );

    // Real money: 105 sats and the fees of three deposits have left, and no more.
    let fees = 3 * pair.fee_msat();
    let due = before - 105_000 - fees;
    let deadline = Instant::now() + suite::PATIENCE;
    loop {
        let after = balance(pair).await;
        // A channel's own fees and reserves move a little with every payment.
        if after.abs_diff(due) < 10_000 {
            break;
        }
        assert!(Instant::now() < deadline, "{before} became {after} msat");
        sleep(Duration::from_millis(50)).await;
    }
}
