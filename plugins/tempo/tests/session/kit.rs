//! A seller behind a gate, a payer's wallet, and the chain between them.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use std::time::Duration;

use alloy::primitives::{Address, address, hex};
use farebox_core::{
    Budget, Draft, Limit, Offer, OpenChannel, Paying, SessionPayer, Standing, Typed,
    TypedSessionPayer, compose,
    prelude::*,
    wire::{Credential, Payload},
};
use farebox_engine::{Admission, Clock, Engine, Gate, Inbound, MemoryStore, Refused};
use farebox_sandbox_tempo::{ALPHA_USD, Chain, ChainConfig, PATH_USD, dev_account};
use farebox_tempo::{Config, TempoSession, TempoSessionWallet, WalletConfig};
use farebox_testkit::test_secrets;
use serde_json::{Value, json};

pub(crate) const RECIPIENT: Address = address!("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC");
pub(crate) const REALM: &str = "api.example.com";

/// Development accounts by their part.
pub(crate) const PAYER: usize = 1;
pub(crate) const OPERATOR: usize = 3;
pub(crate) const STRANGER: usize = 4;
pub(crate) const FEE_PAYER: usize = 5;

pub(crate) fn secret(account: usize) -> String {
    let (_, key) = dev_account(account).unwrap();
    hex::encode(key.to_bytes())
}

pub(crate) fn config(url: &str) -> Value {
    json!({
        "rpc_url": url, "chain_id": 1337, "currency": PATH_USD, "recipient": RECIPIENT,
        "session": { "operator_key": secret(OPERATOR), "fee_token": ALPHA_USD },
    })
}

pub(crate) fn wallet(url: &str, account: usize) -> TempoSessionWallet {
    wallet_with(url, account, json!({}))
}

pub(crate) fn wallet_with(url: &str, account: usize, session: Value) -> TempoSessionWallet {
    let config = json!({
        "rpc_url": url, "chain_id": 1337, "private_key": secret(account), "session": session,
        // Fees out of another pocket, so that balances say what was paid.
        "fee_token": ALPHA_USD,
    });
    TempoSessionWallet::new(serde_json::from_value::<WalletConfig>(config).unwrap()).unwrap()
}

/// One of everything.
pub(crate) struct Shop {
    pub(crate) chain: Chain,
    pub(crate) engine: Engine,
    pub(crate) gate: Gate,
    /// The same rail on another route, with other terms.
    pub(crate) other: Gate,
    pub(crate) payer: Arc<dyn SessionPayer>,
    ahead: Arc<AtomicI64>,
}

impl Shop {
    pub(crate) async fn open() -> Self {
        Self::with(json!({}), json!({})).await
    }

    /// With further keys of the rail's table, and of its `session`.
    pub(crate) async fn with(rail: Value, session: Value) -> Self {
        let chain = Chain::start(ChainConfig::default()).await.unwrap();
        let mut table = config(&chain.url());
        extend(&mut table, rail);
        extend(&mut table["session"], session);
        Self::on(chain, table).await
    }

    /// On a chain where a close by force takes no longer than this.
    pub(crate) async fn with_grace(close_grace: Duration) -> Self {
        let setting = ChainConfig {
            close_grace,
            ..ChainConfig::default()
        };
        let chain = Chain::start(setting).await.unwrap();
        let table = config(&chain.url());
        Self::on(chain, table).await
    }

    /// Asks until it is so; a minute at most.
    pub(crate) async fn until(&self, mut so: impl AsyncFnMut() -> bool) {
        let end = tokio::time::Instant::now() + Duration::from_secs(60);
        while !so().await {
            assert!(tokio::time::Instant::now() < end, "it does not come to be");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn on(chain: Chain, table: Value) -> Self {
        let config: Config = serde_json::from_value(table).unwrap();
        let rail = TempoSession::new(config).unwrap();
        rail.connect().await.unwrap();
        let ahead = Arc::new(AtomicI64::new(0));
        let offset = Arc::clone(&ahead);
        let clock =
            Clock::from_fn(move || Timestamp::now().unix_millis() + offset.load(Ordering::Relaxed));
        let engine = Engine::builder(REALM, test_secrets(), Arc::new(MemoryStore::new()))
            .clock(clock)
            .build()
            .unwrap();
        let method: Arc<dyn farebox_core::Method> = Arc::new(Typed::<_, Session>::new(rail));
        let gate = |route: &str, amount: &str| {
            let terms = json!({ "amount": amount, "unit": "token", "suggested_deposit": "1" });
            let offer = Offer::from_value(method.clone(), terms).unwrap();
            engine.gate(route, compose([offer]).unwrap()).unwrap()
        };
        let payer = TypedSessionPayer::new(wallet(&chain.url(), PAYER));
        Self {
            gate: gate("GET /stream", "0.001"),
            other: gate("GET /other", "0.002"),
            payer: Arc::new(payer),
            chain,
            engine,
            ahead,
        }
    }

    /// Only the server's clock moves: the chain's stays that of the wallets.
    pub(crate) fn later(&self, span: Duration) {
        let millis = i64::try_from(span.as_millis()).unwrap();
        self.ahead.fetch_add(millis, Ordering::Relaxed);
    }

    pub(crate) async fn challenge(&self) -> Challenge {
        challenge(&self.gate).await
    }

    /// An open channel with this deposit, and its first voucher spent.
    pub(crate) async fn channel(&self, deposit: u128) -> OpenChannel {
        let (credential, channel) = self.opening(deposit, 1_000).await;
        self.serve(&self.gate, credential).await.unwrap();
        channel
    }

    /// What opens a channel, not presented yet.
    pub(crate) async fn opening(&self, deposit: u128, first: u128) -> (Credential, OpenChannel) {
        let challenge = self.challenge().await;
        self.opening_for(challenge, deposit, first).await
    }

    pub(crate) async fn opening_for(
        &self,
        challenge: Challenge,
        deposit: u128,
        first: u128,
    ) -> (Credential, OpenChannel) {
        let cx = Paying::new(&challenge, Some(REALM));
        let deposit = Amount::new(deposit);
        let draft = self.payer.draft_open(&cx, deposit).await.unwrap();
        let approved = approve(&*self.payer, &cx, &draft);
        let first = Amount::new(first);
        let funded = self.payer.open(&cx, &draft, first, approved).await.unwrap();
        let channel = OpenChannel {
            id: draft.channel,
            deposit,
            held: funded.held,
        };
        (credential(challenge, funded.paid), channel)
    }

    pub(crate) async fn voucher(&self, channel: &OpenChannel, cumulative: u128) -> Credential {
        let challenge = self.challenge().await;
        let cx = Paying::new(&challenge, Some(REALM));
        let paid = self.payer.voucher(&cx, channel, Amount::new(cumulative));
        let paid = paid.await.unwrap();
        credential(challenge, paid)
    }

    pub(crate) async fn topping_up(
        &self,
        channel: &OpenChannel,
        more: u128,
    ) -> (Credential, OpenChannel) {
        let challenge = self.challenge().await;
        let cx = Paying::new(&challenge, Some(REALM));
        let more = Amount::new(more);
        let draft = self.payer.draft_top_up(&cx, channel, more).await.unwrap();
        let approved = approve(&*self.payer, &cx, &draft);
        let funded = self.payer.top_up(&cx, &draft, approved).await.unwrap();
        let channel = OpenChannel {
            id: channel.id.clone(),
            deposit: channel.deposit.checked_add(more).unwrap(),
            held: funded.held,
        };
        (credential(challenge, funded.paid), channel)
    }

    pub(crate) async fn closing(&self, channel: &OpenChannel, cumulative: u128) -> Credential {
        let challenge = self.challenge().await;
        let cx = Paying::new(&challenge, Some(REALM));
        let paid = self.payer.close(&cx, channel, Amount::new(cumulative));
        let paid = paid.await.unwrap();
        credential(challenge, paid)
    }

    /// Presents it and serves one unit, if it asks for service.
    pub(crate) async fn serve(
        &self,
        gate: &Gate,
        credential: Credential,
    ) -> Result<Value, Refused> {
        match gate.present(credential, &Inbound::default()).await? {
            Admission::Serve(mut serving) => {
                serving.reserve(1).await.map_err(Refused::from)?;
                let answered = serving.delivered(None).await.unwrap();
                let mut receipt = serde_json::to_value(&answered.receipt).unwrap();
                receipt["attached"] = answered
                    .attachments
                    .iter()
                    .map(|attachment| json!([attachment.name, attachment.value]))
                    .collect();
                Ok(receipt)
            }
            Admission::Managed(managed) => Ok(serde_json::to_value(&managed.receipt).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn present(&self, credential: Credential) -> Result<Value, Refused> {
        self.serve(&self.gate, credential).await
    }

    pub(crate) async fn state(&self, channel: &OpenChannel) -> ChannelState {
        let meter = self.engine.meter(ChannelId::of("tempo", &channel.id));
        meter.state().await.unwrap()
    }

    pub(crate) fn balance(&self, of: Address) -> u128 {
        self.chain.balance(PATH_USD, of)
    }

    pub(crate) async fn standing(&self, channel: &OpenChannel) -> Standing {
        self.payer.standing(&channel.held).await.unwrap()
    }
}

fn extend(table: &mut Value, more: Value) {
    let (Value::Object(table), Value::Object(more)) = (table, more) else {
        panic!("no table");
    };
    table.extend(more);
}

pub(crate) async fn challenge(gate: &Gate) -> Challenge {
    gate.challenges(&Inbound::default())
        .await
        .unwrap()
        .remove(0)
}

pub(crate) fn approve(
    payer: &dyn SessionPayer,
    cx: &Paying<'_>,
    draft: &Draft,
) -> farebox_core::Approved {
    let cost = Cost {
        amount: draft.amount,
        ..payer.price(cx).unwrap().unit
    };
    let limit = Limit::per_request(cost.currency.clone(), cost.amount);
    let (approved, reservation) = Budget::new([limit]).approve(cost).unwrap();
    reservation.commit();
    approved
}

fn credential(challenge: Challenge, paid: Paid<Payload>) -> Credential {
    Credential {
        challenge,
        payload: paid.payload,
        source: paid.source,
    }
}

/// The payload as JSON, to be tampered with.
pub(crate) fn tampered(credential: &Credential, change: impl FnOnce(&mut Value)) -> Credential {
    let mut payload: Value = credential.payload.decode().unwrap();
    change(&mut payload);
    Credential {
        payload: Payload::from_value(&payload).unwrap(),
        ..credential.clone()
    }
}

/// The problem's slug and the text of a refusal that is the payer's fault.
pub(crate) fn problem(result: Result<Value, Refused>) -> (String, String) {
    match result {
        Err(
            Refused::Payment(rejection) | Refused::Spent(rejection) | Refused::Request(rejection),
        ) => {
            let url = rejection.problem.type_uri();
            let slug = url.rsplit_once("/problems/").map_or("", |(_, slug)| slug);
            (slug.to_owned(), rejection.detail)
        }
        other => panic!("{other:?}"),
    }
}

impl Shop {
    /// A voucher that no careful wallet would sign: the wallet believes in a larger deposit.
    pub(crate) async fn voucher_past(&self, channel: &OpenChannel, cumulative: u128) -> Credential {
        let believed = OpenChannel {
            deposit: Amount::new(cumulative),
            ..channel.clone()
        };
        self.voucher(&believed, cumulative).await
    }

    fn held(channel: &OpenChannel) -> farebox_tempo::session::SessionHeld {
        serde_json::from_value(serde_json::to_value(&channel.held).unwrap()).unwrap()
    }

    /// The payer asks the chain for the money back.
    pub(crate) async fn force_close(&self, channel: &OpenChannel) {
        let wallet = wallet(&self.chain.url(), PAYER);
        wallet.request_close(&Self::held(channel)).await.unwrap();
    }

    pub(crate) async fn withdraw(&self, channel: &OpenChannel) -> Result<(), PayError> {
        let wallet = wallet(&self.chain.url(), PAYER);
        wallet.withdraw(&Self::held(channel)).await.map(drop)
    }

    /// The channel's record, if there is one.
    pub(crate) async fn engine_knows(&self, channel: &OpenChannel) -> Option<ChannelState> {
        let meter = self.engine.meter(ChannelId::of("tempo", &channel.id));
        meter.state().await.ok()
    }
}
