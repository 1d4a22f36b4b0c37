//! mppx pays Farebox: the deployed session client against a stream that is sold here.

use std::{convert::Infallible, sync::Arc};

use axum::{Router, extract::Path, response::IntoResponse, routing::any};
use farebox_core::{Method, Offer, Session, Typed, compose, wire::SecretRing};
use farebox_engine::{Engine, MemoryStore};
use farebox_http::{Metered, PaymentLayer};
use farebox_live_tests::{
    Chain, FEE_PAYER_KEY, LOCALNET, PATH_USD, PAYER, PAYER_KEY, Problem, SELLER,
    sessions::{ALPHA_USD, PRICE, RESERVE, SELLER_KEY, read},
};
use farebox_tempo::TempoSession;
use serde_json::{Value, json};

use crate::{Test, ensure};

pub(crate) const TESTS: [(&str, Test); 4] = [
    ("mppx_streams_from_farebox", streams),
    ("mppx_signs_with_p256_for_farebox", signs_with_p256),
    (
        "mppx_signs_with_a_passkey_for_farebox",
        signs_with_a_passkey,
    ),
    ("farebox_sponsors_a_channel_of_mppx", sponsors),
];

/// A stream of words at [`PRICE`] each, sold by Farebox in this process.
struct Shop {
    _runtime: tokio::runtime::Runtime,
    /// Its address without the last segment, the number of words.
    url: String,
}

impl Shop {
    fn open(chain: &Chain, fee_payer: Option<&str>) -> Result<Self, Problem> {
        let mut config = json!({
            "rpc_url": chain.url, "chain_id": LOCALNET, "currency": PATH_USD, "recipient": SELLER,
            "session": { "operator_key": SELLER_KEY, "fee_token": ALPHA_USD },
        });
        if let Some(key) = fee_payer {
            config["fee_payer"] = json!({ "private_key": key });
        }
        let rail = TempoSession::new(serde_json::from_value(config)?)?;
        let rail: Arc<dyn Method> = Arc::new(Typed::<_, Session>::new(rail));
        let terms = json!({ "amount": "0.001", "unit": "word", "suggested_deposit": "0.05" });
        let offers = compose([Offer::from_value(rail, terms)?])?;
        let secrets = SecretRing::new(["a secret of 32 bytes, only for tests".to_owned().into()])?;
        let store = Arc::new(MemoryStore::new());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let _inside = runtime.enter();
        let engine = Engine::builder("127.0.0.1", secrets, store).build()?;
        let paid = PaymentLayer::new(engine.gate("/words", offers)?);
        let app = Router::new().route("/words/{count}", any(words).layer(paid));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        let url = format!("http://{}/words", listener.local_addr()?);
        runtime.spawn(async move { axum::serve(listener, app).await });
        drop(_inside);
        Ok(Self {
            _runtime: runtime,
            url,
        })
    }
}

async fn words(Path(count): Path<u32>, session: Metered) -> impl IntoResponse {
    let words = (1..=count).map(|n| Ok::<_, Infallible>(format!("word {n}")));
    session.events(futures_util::stream::iter(words))
}

fn sent(said: &Value, action: &str) -> u64 {
    said["sent"][action].as_u64().unwrap_or_default()
}

/// What was paid in has been paid out, and the seller has the price of `words`.
fn books(chain: &Chain, payer: &str, words: u128) -> Result<(), Problem> {
    let deposited = chain.moved(payer, RESERVE)?;
    let earned = chain.moved(RESERVE, SELLER)?;
    let refunded = chain.moved(RESERVE, payer)?;
    ensure(earned == words * PRICE, || {
        format!("the seller got {earned} base units for {words} words")
    })?;
    ensure(deposited == earned + refunded, || {
        format!("{deposited} went in, {earned} and {refunded} came out")
    })?;
    let left = chain.balance(RESERVE)?;
    ensure(left == 0, || format!("{left} stay in the reserve"))
}

/// Open, more than a hundred vouchers, a top-up when the deposit is used up, close, refund.
fn streams() -> Result<(), Problem> {
    let chain = Chain::sandbox(Default::default())?;
    let shop = Shop::open(&chain, None)?;
    let wallet = json!({ "maxDeposit": "1", "topUpAmount": "0.1" });
    let urls = [format!("{}/120", shop.url)];
    let said = read(&chain, PAYER_KEY, &wallet, &urls)?;
    ensure(said["words"] == 120, || format!("not every word: {said}"))?;
    ensure(sent(&said, "voucher") >= 100, || {
        format!("too few vouchers: {said}")
    })?;
    for once in ["open", "topUp", "close"] {
        ensure(sent(&said, once) == 1, || format!("not one {once}: {said}"))?;
    }
    let receipt = &said["receipt"];
    ensure(
        receipt["spent"] == "120000" && receipt["txHash"].is_string(),
        || format!("no receipt of the close: {said}"),
    )?;
    books(&chain, PAYER, 120)
}

/// An account with a P-256 key opens, signs vouchers and closes.
fn signs_with_p256() -> Result<(), Problem> {
    signs_with("p256")
}

/// The same with a passkey's envelopes.
fn signs_with_a_passkey() -> Result<(), Problem> {
    signs_with("webAuthn")
}

fn signs_with(kind: &str) -> Result<(), Problem> {
    let chain = Chain::sandbox(Default::default())?;
    let shop = Shop::open(&chain, None)?;
    let wallet = json!({ "maxDeposit": "1", "keyType": kind });
    let urls = [format!("{}/5", shop.url)];
    let said = read(&chain, PAYER_KEY, &wallet, &urls)?;
    ensure(said["words"] == 5, || format!("not every word: {said}"))?;
    let payer = said["payer"].as_str().ok_or("no payer")?;
    books(&chain, payer, 5)
}

/// The server's account pays for opening and topping up.
fn sponsors() -> Result<(), Problem> {
    let chain = Chain::sandbox(Default::default())?;
    let shop = Shop::open(&chain, Some(FEE_PAYER_KEY))?;
    let before = chain.balance(PAYER)?;
    let wallet = json!({ "maxDeposit": "1", "topUpAmount": "0.1" });
    let urls = [format!("{}/60", shop.url)];
    let said = read(&chain, PAYER_KEY, &wallet, &urls)?;
    ensure(said["words"] == 60, || format!("not every word: {said}"))?;
    books(&chain, PAYER, 60)?;
    let paid = before - chain.balance(PAYER)?;
    ensure(paid == 60 * PRICE, || {
        format!("the payer paid {paid}, fees included")
    })
}
