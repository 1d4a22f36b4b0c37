//! One payment of one party to another, and everything that has to be true of it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use farebox_live_tests::{
    AUTHOR, Chain, Exchange, FEE_PAYER, LOCALNET, Mode, Moved, PATH_USD, PAYER, PLATFORM, Party,
    Problem, Recorder, SELLER, Shop, text, wait_for,
};
use serde_json::{Value, json};

use crate::table::Found;

/// The chain's contract that takes network fees.
const FEE_MANAGER: &str = "0xfeec000000000000000000000000000000000000";

/// Who pays whom, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) client: Party,
    pub(crate) server: Party,
    pub(crate) mode: Mode,
}

/// The chain, and the server whose turn it is.
#[derive(Default)]
pub(crate) struct Market {
    // It ends before the chain.
    stall: Option<Stall>,
    chain: Option<Chain>,
}

/// A server between two recorders.
struct Stall {
    of: (Party, Mode),
    shop: Shop,
    /// What clients ask it.
    payments: Recorder,
    /// What it asks its node.
    calls: Recorder,
}

impl Market {
    fn stall(&mut self, server: Party, mode: Mode) -> Result<(&Stall, &Chain), Problem> {
        let chain = match &mut self.chain {
            Some(chain) => chain,
            none => none.insert(Chain::start(LOCALNET)?),
        };
        if self.stall.as_ref().map(|stall| stall.of) != Some((server, mode)) {
            self.stall = None;
            let calls = Recorder::in_front_of(&chain.url)?;
            let shop = server.serve(mode, chain, &calls.origin)?;
            self.stall = Some(Stall {
                of: (server, mode),
                payments: Recorder::in_front_of(&shop.origin)?,
                shop,
                calls,
            });
        }
        Ok((self.stall.as_ref().ok_or("no server")?, chain))
    }
}

/// Balances that a payment may change, base units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Balances {
    seller: u128,
    author: u128,
    platform: u128,
    payer: u128,
    sponsor: u128,
}

impl Balances {
    fn read(chain: &Chain) -> Result<Self, Problem> {
        Ok(Self {
            seller: chain.balance(SELLER)?,
            author: chain.balance(AUTHOR)?,
            platform: chain.balance(PLATFORM)?,
            payer: chain.balance(PAYER)?,
            sponsor: chain.balance(FEE_PAYER)?,
        })
    }
}

/// Why a peer cannot be in a cell.
struct Lack {
    /// Where its public interface shows that.
    why: &'static str,
    /// What it says when it is tried.
    says: &'static str,
}

impl Cell {
    pub(crate) fn name(self) -> String {
        let Self {
            client,
            server,
            mode,
        } = self;
        format!("{client}_pays_{server}_{mode}")
    }

    fn lack(self) -> Option<Lack> {
        (self.client == Party::Mpp && self.mode == Mode::Push).then_some(Lack {
            why: "not offered by mpp's client: mpp::client::tempo::charge::TempoCharge::from_challenge \
                  takes no challenge without pull mode, and it answers with a signed transaction",
            says: "does not support pull mode",
        })
    }

    /// Protects: a payment moves exactly its price and no more, whoever makes and takes it.
    pub(crate) fn check(self, market: &mut Market) -> Result<Found, Problem> {
        let (stall, chain) = market.stall(self.server, self.mode)?;
        stall.payments.take();
        stall.calls.take();
        let before = Balances::read(chain)?;
        let url = format!("{}/joke", stall.payments.origin);
        let run = self.client.pay(&url, chain)?;
        let said = format!("{}{}", text(&run.stdout), text(&run.stderr));
        if let Some(lack) = self.lack() {
            let refused = !run.status.success() && said.contains(lack.says);
            ensure(refused, || format!("it is offered after all: {said}"))?;
            unchanged(chain, before)?;
            return Ok(Found::NotOffered(lack.why));
        }
        ensure(run.status.success() && said.contains("a joke"), || said)?;
        let paid = Paid::read(self.mode, chain, &stall.payments.take())?;
        self.moved(before, Balances::read(chain)?, paid.fee)?;
        let calls = self.calls(&stall.calls.take())?;
        self.again(stall, chain, &paid.credential)?;
        Ok(Found::Paid { calls })
    }

    /// Protects: the price, its parts, and who pays the network fee.
    fn moved(self, before: Balances, after: Balances, fee: Option<Fee>) -> Result<(), Problem> {
        let moved = Moved {
            seller: after.seller - before.seller,
            author: after.author - before.author,
            platform: after.platform - before.platform,
        };
        ensure(moved == self.mode.moves(), || format!("moved: {moved:?}"))?;
        let sponsored = fee.map(|fee| fee.sponsored);
        let expected = match self.mode {
            Mode::Proof => None,
            Mode::Sponsored => Some(true),
            Mode::Pull | Mode::Push | Mode::Splits => Some(false),
        };
        ensure(sponsored == expected, || format!("the fee: {fee:?}"))?;
        let fees = fee.map_or((0, 0), |fee| match fee.sponsored {
            true => (0, fee.path_usd),
            false => (fee.path_usd, 0),
        });
        let price = moved.seller + moved.author + moved.platform;
        let spent = (before.payer - after.payer, before.sponsor - after.sponsor);
        ensure(spent == (price + fees.0, fees.1), || {
            format!("payer and sponsor spent {spent:?}, the fee was {fee:?}")
        })
    }

    /// Protects: what a charge costs in calls of the node, 402 included.
    fn calls(self, exchanges: &[Exchange]) -> Result<Option<usize>, Problem> {
        if self.server != Party::Farebox {
            return Ok(None);
        }
        let calls: Vec<String> = exchanges.iter().flat_map(Exchange::methods).collect();
        let most = match self.mode {
            Mode::Proof => 0,
            Mode::Push => 1,
            Mode::Pull | Mode::Splits => 2,
            // What the fee payer holds is asked in the request that simulates.
            Mode::Sponsored => 3,
        };
        let fits = calls.len() <= most && exchanges.len() <= most.min(2);
        ensure(fits, || {
            format!("{} requests of the node: {calls:?}", exchanges.len())
        })?;
        Ok(Some(calls.len()))
    }

    /// Protects: a credential that is presented again moves nothing, and buys nothing of ours.
    fn again(self, stall: &Stall, chain: &Chain, credential: &str) -> Result<(), Problem> {
        let before = Balances::read(chain)?;
        let answer = chain.get(&format!("{}/joke", stall.shop.origin), credential)?;
        if self.server == Party::Farebox {
            let refused = answer.status == 403 && !answer.challenged();
            ensure(refused, || format!("the second time: {answer:?}"))?;
        }
        unchanged(chain, before)
    }
}

fn ensure(condition: bool, message: impl FnOnce() -> String) -> Result<(), Problem> {
    match condition {
        true => Ok(()),
        false => Err(message().into()),
    }
}

/// Nothing has moved when the next block is there.
fn unchanged(chain: &Chain, before: Balances) -> Result<(), Problem> {
    let number = || chain.call("eth_blockNumber", json!([])).ok();
    let now = number();
    wait_for("a block", || (number() != now).then_some(()))?;
    let after = Balances::read(chain)?;
    ensure(after == before, || format!("{before:?} became {after:?}"))
}

/// What a payment's one transaction cost beside the price.
#[derive(Clone, Copy, Debug)]
struct Fee {
    /// The fee payer paid it, and not the payer.
    sponsored: bool,
    /// Base units of pathUSD; 0 if it was paid in another token.
    path_usd: u128,
}

/// A payment that was served.
struct Paid {
    credential: String,
    fee: Option<Fee>,
}

impl Paid {
    /// One credential was presented, once, and answered with a receipt that refers to a transaction
    /// of the payer's.
    fn read(mode: Mode, chain: &Chain, exchanges: &[Exchange]) -> Result<Self, Problem> {
        let mut paid = exchanges.iter().filter(|e| e.authorization.is_some());
        let (Some(exchange), None) = (paid.next(), paid.next()) else {
            return Err(format!("not one credential: {exchanges:?}").into());
        };
        let header = exchange.headers.get("payment-receipt");
        let header = header.ok_or("no receipt")?.to_str()?;
        let receipt: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?;
        let good = receipt["status"] == "success" && receipt["method"] == "tempo";
        ensure(good && exchange.status == 200, || {
            format!("{exchange:?}: {receipt}")
        })?;
        let fee = match mode {
            Mode::Proof => None,
            _ => Some(fee(chain, &receipt["reference"])?),
        };
        let credential = exchange.authorization.clone();
        Ok(Self {
            credential: credential.ok_or("no credential")?,
            fee,
        })
    }
}

/// The fee of the payer's transaction with this hash: a transfer to the chain's fee manager, in a
/// token that need not be that of the payment.
fn fee(chain: &Chain, hash: &Value) -> Result<Fee, Problem> {
    let receipt = chain.call("eth_getTransactionReceipt", json!([hash]))?;
    let is = |value: &Value, text: &str| {
        let value = value.as_str().unwrap_or_default();
        // Topics are padded to 32 bytes.
        let value = value
            .get(value.len().saturating_sub(40)..)
            .unwrap_or_default();
        value.eq_ignore_ascii_case(text.trim_start_matches("0x"))
    };
    let good = receipt["status"] == "0x1" && is(&receipt["from"], PAYER);
    ensure(good, || format!("{hash} is {receipt}"))?;
    let logs = receipt["logs"].as_array().ok_or("no logs")?;
    let log = logs.iter().find(|log| is(&log["topics"][2], FEE_MANAGER));
    let log = log.ok_or_else(|| format!("no fee: {receipt}"))?;
    let payer = &log["topics"][1];
    let sponsored = is(payer, FEE_PAYER);
    ensure(sponsored || is(payer, PAYER), || {
        format!("somebody else paid the fee: {receipt}")
    })?;
    let amount = log["data"].as_str().unwrap_or_default();
    let amount = u128::from_str_radix(amount.trim_start_matches("0x"), 16)?;
    Ok(Fee {
        sponsored,
        path_usd: if is(&log["address"], PATH_USD) {
            amount
        } else {
            0
        },
    })
}
