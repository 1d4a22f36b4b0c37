//! mppx pays mppx: that the chain is one the deployed client and server can do without change.

use std::time::Duration;

use farebox_live_tests::{
    Chain, Mppx, PAYER, PAYER_KEY, Problem, SELLER,
    sessions::{ALPHA_USD, PRICE, RESERVE, Words, channel, read},
    text,
};
use farebox_sandbox_tempo::ChainConfig;
use serde_json::{Value, json};

use crate::{Test, ensure};

pub(crate) const TESTS: [(&str, Test); 8] = [
    ("mppx_streams_from_mppx", streams),
    ("mppx_settles_while_it_streams", settles),
    ("mppx_sponsors_a_channel", sponsors),
    ("mppx_signs_with_p256", signs_with_p256),
    ("mppx_signs_with_a_passkey", signs_with_a_passkey),
    ("mppx_signs_with_an_access_key", signs_with_an_access_key),
    ("mppx_asks_the_sponsor", asks_the_sponsor),
    ("viem_takes_its_money_back", takes_its_money_back),
];

/// Who pays for the sandbox's fee service: the last of the usual development accounts.
const SERVICE: &str = "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720";
/// A sponsor: the sixth of the usual development accounts.
const SPONSOR_KEY: &str = "0x8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba";

/// Whose pathUSD went where: into the reserve, and out of it.
#[derive(Debug)]
struct Books {
    deposited: u128,
    earned: u128,
    refunded: u128,
}

impl Books {
    fn of(chain: &Chain, payer: &str) -> Result<Self, Problem> {
        Ok(Self {
            deposited: chain.moved(payer, RESERVE)?,
            earned: chain.moved(RESERVE, SELLER)?,
            refunded: chain.moved(RESERVE, payer)?,
        })
    }

    /// What was paid in has been paid out, and the seller has the price of `words`.
    fn balance(&self, chain: &Chain, words: u128) -> Result<(), Problem> {
        let Self {
            deposited,
            earned,
            refunded,
        } = self;
        ensure(*earned == words * PRICE, || {
            format!("the seller got {earned} base units for {words} words")
        })?;
        ensure(*deposited == earned + refunded, || {
            format!("{deposited} went in, {earned} and {refunded} came out")
        })?;
        let left = chain.balance(RESERVE)?;
        ensure(left == 0, || format!("{left} stay in the reserve"))
    }
}

fn sent(said: &Value, action: &str) -> u64 {
    said["sent"][action].as_u64().unwrap_or_default()
}

/// Open, a hundred vouchers, a top-up when the deposit is used up, close, refund.
fn streams() -> Result<(), Problem> {
    let chain = Chain::sandbox(Default::default())?;
    let terms = json!({ "suggestedDeposit": "0.05", "feeToken": ALPHA_USD });
    let words = Words::serve(&chain, &terms)?;
    let (payer, seller) = (chain.balance(PAYER)?, chain.balance(SELLER)?);
    let wallet = json!({ "maxDeposit": "1", "topUpAmount": "0.1" });
    let urls = [format!("{}/120", words.url)];
    let said = read(&chain, PAYER_KEY, &wallet, &urls)?;
    ensure(said["words"] == 120, || format!("too few words: {said}"))?;
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
    let books = Books::of(&chain, PAYER)?;
    ensure(
        books.deposited == 150_000 && books.refunded == 30_000,
        || format!("{} in, {} back", books.deposited, books.refunded),
    )?;
    books.balance(&chain, 120)?;
    let (paid, got) = (
        payer - chain.balance(PAYER)?,
        chain.balance(SELLER)? - seller,
    );
    ensure(paid == 120_000 && got == 120_000, || {
        format!("the payer paid {paid}, the seller got {got}")
    })
}

/// Two streams on one channel, and every twenty words a voucher is cashed.
fn settles() -> Result<(), Problem> {
    let chain = Chain::sandbox(Default::default())?;
    let terms = json!({
        "suggestedDeposit": "0.2",
        "feeToken": ALPHA_USD,
        "settlementSchedule": { "units": 20 },
    });
    let words = Words::serve(&chain, &terms)?;
    let urls = [format!("{}/30", words.url), format!("{}/35", words.url)];
    let said = read(&chain, PAYER_KEY, &json!({ "maxDeposit": "1" }), &urls)?;
    ensure(said["words"] == 65 && sent(&said, "open") == 1, || {
        format!("not one channel for both: {said}")
    })?;
    let payments = chain.transfers(RESERVE, SELLER)?;
    ensure(payments.len() >= 3, || {
        format!("nothing settled before the close: {payments:?}")
    })?;
    Books::of(&chain, PAYER)?.balance(&chain, 65)
}

/// The seller's sponsor pays the fees of opening and topping up; the channel is the payer's.
fn sponsors() -> Result<(), Problem> {
    let chain = Chain::sandbox(Default::default())?;
    let terms = json!({ "suggestedDeposit": "0.02", "feePayer": SPONSOR_KEY });
    let words = Words::serve(&chain, &terms)?;
    let payer = chain.balance(PAYER)?;
    let wallet = json!({ "maxDeposit": "1" });
    let urls = [format!("{}/30", words.url)];
    let said = read(&chain, PAYER_KEY, &wallet, &urls)?;
    ensure(said["words"] == 30 && sent(&said, "topUp") >= 1, || {
        format!("{said}")
    })?;
    // The payer's fees would have been in pathUSD.
    let paid = payer - chain.balance(PAYER)?;
    ensure(paid == 30 * PRICE, || {
        format!("the payer paid {paid} for 30 words")
    })?;
    Books::of(&chain, PAYER)?.balance(&chain, 30)
}

/// A charge whose fee a service pays: asked over the wire, it signs what mppx will broadcast.
fn asks_the_sponsor() -> Result<(), Problem> {
    let chain = Chain::sandbox(Default::default())?;
    let server = Mppx::offering(
        &chain,
        &json!({ "feePayer": format!("{}/sponsor", chain.url) }),
    )?;
    let before = [PAYER, SELLER, SERVICE].map(|account| chain.balance(account));
    let run = Mppx::run(&chain, &[&server.url, "--rpc-url", &chain.url])?;
    let said = format!("{}{}", text(&run.stdout), text(&run.stderr));
    ensure(said.contains("a joke from the other side"), || said)?;
    let after = [PAYER, SELLER, SERVICE].map(|account| chain.balance(account));
    let [payer, seller, service] = before;
    let [payer_after, seller_after, service_after] = after;
    let (paid, got) = (payer? - payer_after?, seller_after? - seller?);
    ensure(paid == 20_000 && got == 20_000, || {
        format!("the payer paid {paid}, the seller got {got}")
    })?;
    ensure(service_after? < service?, || {
        "the service paid no fee".into()
    })
}

/// A payer that gets its deposit back without the payee, by viem's own calls; viem knows each of the
/// chain's refusals by name.
fn takes_its_money_back() -> Result<(), Problem> {
    let chain = Chain::sandbox(ChainConfig {
        close_grace: Duration::from_secs(2),
        ..ChainConfig::default()
    })?;
    let said = channel(&chain)?;
    for (step, error) in [
        ("stranger", "NotPayeeOrOperator"),
        ("tooMuch", "AmountExceedsDeposit"),
        ("again", "AmountNotIncreasing"),
        ("early", "CloseNotReady"),
        ("gone", "ChannelNotFound"),
    ] {
        ensure(said[step]["refused"] == error, || {
            format!("{step} is not refused by {error}: {said}")
        })?;
    }
    let state = [
        (&said["settled"]["newSettled"], "400"),
        (&said["topUp"]["newDeposit"], "1500"),
        (&said["withdrawn"]["settledToPayee"], "400"),
        (&said["withdrawn"]["refundedToPayer"], "1100"),
    ];
    for (value, expected) in state {
        ensure(value == expected, || {
            format!("{value}, not {expected}: {said}")
        })?;
    }
    ensure(said["pending"] == false, || {
        format!("the top-up did not cancel the request: {said}")
    })?;
    let books = Books::of(&chain, PAYER)?;
    ensure(
        (books.deposited, books.earned, books.refunded) == (1_500, 400, 1_100),
        || format!("{books:?}"),
    )
}

fn signs_with_p256() -> Result<(), Problem> {
    signs_with("p256")
}

fn signs_with_a_passkey() -> Result<(), Problem> {
    signs_with("webAuthn")
}

/// A key that may spend so much for an account opens a channel for it and signs its vouchers.
fn signs_with_an_access_key() -> Result<(), Problem> {
    let chain = Chain::sandbox(Default::default())?;
    let words = Words::serve(&chain, &json!({ "suggestedDeposit": "0.005" }))?;
    let wallet = json!({ "maxDeposit": "0.1", "keyType": "accessKey" });
    let urls = [format!("{}/10", words.url)];
    let said = read(&chain, PAYER_KEY, &wallet, &urls)?;
    ensure(said["words"] == 10 && sent(&said, "topUp") >= 1, || {
        format!("{said}")
    })?;
    let payer = said["payer"].as_str().unwrap_or_default();
    ensure(payer.eq_ignore_ascii_case(PAYER), || {
        format!("not for the account: {said}")
    })?;
    Books::of(&chain, PAYER)?.balance(&chain, 10)
}

/// Vouchers of other keys than Ethereum's are cashed by the chain too.
fn signs_with(kind: &str) -> Result<(), Problem> {
    let chain = Chain::sandbox(Default::default())?;
    let words = Words::serve(&chain, &json!({ "suggestedDeposit": "0.05" }))?;
    let wallet = json!({ "maxDeposit": "1", "keyType": kind });
    let urls = [format!("{}/10", words.url)];
    let said = read(&chain, PAYER_KEY, &wallet, &urls)?;
    ensure(said["words"] == 10, || format!("too few words: {said}"))?;
    let payer = said["payer"].as_str().unwrap_or_default();
    ensure(!payer.eq_ignore_ascii_case(PAYER), || {
        format!("not another key: {said}")
    })?;
    Books::of(&chain, payer)?.balance(&chain, 10)
}
