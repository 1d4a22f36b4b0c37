//! A metered route on the sandbox's two nodes, and a payer's hand at it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use farebox_core::{
    Answer, Approved, Budget, Cost, Draft, Funded, Limit, Method, Offer, OpenChannel, PayError,
    Paying, Session, SessionPayer, SessionTerms, Typed, TypedSessionPayer, compose,
    wire::{Amount, Challenge, Credential, Payload, Timestamp},
};
use farebox_engine::{
    Admission, Clock, Engine, Gate, Inbound, Managed, MemoryStore, Refused, Serving,
};
use farebox_grpc::Pem;
use farebox_lightning::{LightningSession, LightningSessionWallet, LightningWallet, lnd::Lnd};
use farebox_lnd::connect::{Connector, Macaroon};
use farebox_sandbox_lightning::{Lightning, LightningConfig, NodeHandle};
use farebox_testkit::test_secrets;
use serde_json::Value;

/// A connection that is allowed everything.
pub(crate) fn connector(node: &NodeHandle) -> Connector {
    let pin = Pem::file(node.tls_cert_path());
    let macaroon = Macaroon::new(node.admin_macaroon_hex().as_bytes()).unwrap();
    Connector::new(&node.endpoint(), pin, macaroon, Duration::from_secs(30)).unwrap()
}

pub(crate) fn lnd(node: &NodeHandle) -> Arc<Lnd> {
    let network = farebox_lightning::Network::Regtest;
    Arc::new(Lnd::new(connector(node), network))
}

/// What each payment costs its payer on top, sats.
pub(crate) const FEE: u64 = 1;

pub(crate) struct Shop {
    pub(crate) sandbox: Lightning,
    pub(crate) engine: Engine,
    pub(crate) gate: Gate,
    pub(crate) payer: Arc<dyn SessionPayer>,
    ahead: Arc<AtomicI64>,
}

pub(crate) fn terms(amount: &str, deposit: Option<&str>) -> SessionTerms {
    SessionTerms {
        amount: amount.to_owned(),
        unit: "token".to_owned(),
        suggested_deposit: deposit.map(str::to_owned),
        ..SessionTerms::default()
    }
}

impl Shop {
    /// Two sats a token, deposits of 100.
    pub(crate) async fn open() -> Self {
        Self::with(Duration::from_secs(300), 1_000).await
    }

    pub(crate) async fn closing_after(idle: Duration) -> Self {
        Self::with(idle, 1_000).await
    }

    /// Whose node has nothing but what it is paid.
    pub(crate) async fn poor() -> Self {
        Self::with(Duration::from_secs(300), 0).await
    }

    async fn with(idle: Duration, seller_sats: u64) -> Self {
        let mut nodes = LightningConfig::default();
        // A refund's routing fee is the seller's.
        nodes.seller_balance_sat = seller_sats;
        nodes.routing_fee_msat = FEE * 1_000;
        let sandbox = Lightning::start(nodes).await.unwrap();
        let rail = LightningSession::on(lnd(sandbox.seller())).idle_timeout(idle);
        let method: Arc<dyn Method> = Arc::new(Typed::<_, Session>::new(rail));
        let store = Arc::new(MemoryStore::new());
        let ahead = Arc::new(AtomicI64::new(0));
        let offset = Arc::clone(&ahead);
        let clock =
            Clock::from_fn(move || Timestamp::now().unix_millis() + offset.load(Ordering::Relaxed));
        let engine = Engine::builder("test.example", test_secrets(), store)
            .clock(clock)
            .build()
            .unwrap();
        let offer = Offer::new::<Session>(method, terms("2", Some("100"))).unwrap();
        let gate = engine
            .gate("GET /stream", compose([offer]).unwrap())
            .unwrap();
        let wallet = LightningWallet::on(lnd(sandbox.agent()));
        let payer = Arc::new(TypedSessionPayer::new(LightningSessionWallet::within(
            wallet,
        )));
        Self {
            sandbox,
            engine,
            gate,
            payer,
            ahead,
        }
    }

    /// The server's clock moves; that of the nodes does not.
    pub(crate) fn later(&self, span: Duration) {
        let millis = i64::try_from(span.as_millis()).unwrap();
        self.ahead.fetch_add(millis, Ordering::Relaxed);
    }

    pub(crate) async fn challenge(&self) -> Challenge {
        let mut found = self.gate.challenges(&Inbound::default()).await.unwrap();
        found.remove(0)
    }

    pub(crate) async fn present(
        &self,
        challenge: &Challenge,
        payload: Payload,
    ) -> Result<Admission, Refused> {
        let credential = Credential {
            challenge: challenge.clone(),
            source: None,
            payload,
        };
        self.gate.present(credential, &Inbound::default()).await
    }

    /// Serves `units` and answers the receipt.
    pub(crate) async fn serve(
        &self,
        challenge: &Challenge,
        payload: Payload,
        units: u64,
    ) -> Result<Value, Refused> {
        let admission = self.present(challenge, payload).await?;
        let mut serving: Serving = admission.into_serving().expect("it asks for service");
        let held = serving.reserve(units).await;
        held.map_err(|error| serving.meter().unwrap().refused(error))?;
        let answered = serving.delivered(None).await?;
        Ok(serde_json::to_value(answered.receipt).unwrap())
    }

    /// A presentation that only manages its session, and its JSON answer.
    pub(crate) async fn manage(
        &self,
        challenge: &Challenge,
        payload: Payload,
    ) -> Result<(Value, Value), Refused> {
        match self.present(challenge, payload).await? {
            Admission::Managed(Managed {
                answer: Answer::Json(body),
                receipt,
                ..
            }) => Ok((body, serde_json::to_value(receipt).unwrap())),
            other => panic!("it should have been managed: {other:?}"),
        }
    }

    /// Pays the deposit of `challenge`: what to present, and the channel.
    pub(crate) async fn deposit(&self, challenge: &Challenge) -> (Payload, OpenChannel) {
        let cx = Paying::new(challenge, None);
        let draft = self.draft(challenge).await.unwrap();
        let approved = approve(&*self.payer, &cx, draft.amount);
        let opened = self.payer.open(&cx, &draft, Amount::new(2), approved).await;
        let Funded { paid, held } = opened.unwrap();
        let channel = OpenChannel {
            id: draft.channel,
            deposit: draft.amount,
            held,
        };
        (paid.payload, channel)
    }

    pub(crate) async fn draft(&self, challenge: &Challenge) -> Result<Draft, PayError> {
        let cx = Paying::new(challenge, None);
        self.payer.draft_open(&cx, Amount::new(100)).await
    }

    /// An open session of which nothing is spent.
    pub(crate) async fn session(&self) -> OpenChannel {
        let challenge = self.challenge().await;
        let (payload, channel) = self.deposit(&challenge).await;
        self.serve(&challenge, payload, 0).await.unwrap();
        channel
    }

    /// Serves `units` to whoever holds `channel`.
    pub(crate) async fn spend(&self, channel: &OpenChannel, units: u64) -> Result<Value, Refused> {
        let challenge = self.challenge().await;
        let cx = Paying::new(&challenge, None);
        let bearer = self.payer.voucher(&cx, channel, channel.deposit).await;
        self.serve(&challenge, bearer.unwrap().payload, units).await
    }

    pub(crate) async fn top_up(&self, channel: &OpenChannel) -> (Challenge, Payload, OpenChannel) {
        let challenge = self.challenge().await;
        let cx = Paying::new(&challenge, None);
        let drafted = self.payer.draft_top_up(&cx, channel, Amount::new(100));
        let draft = drafted.await.unwrap();
        let approved = approve(&*self.payer, &cx, draft.amount);
        let Funded { paid, held } = self.payer.top_up(&cx, &draft, approved).await.unwrap();
        let channel = OpenChannel {
            id: channel.id.clone(),
            deposit: Amount::new(channel.deposit.get() + 100),
            held,
        };
        (challenge, paid.payload, channel)
    }

    pub(crate) async fn close(&self, channel: &OpenChannel) -> (Challenge, Payload) {
        let challenge = self.challenge().await;
        let cx = Paying::new(&challenge, None);
        let closing = self.payer.close(&cx, channel, channel.deposit).await;
        (challenge, closing.unwrap().payload)
    }
}

pub(crate) fn approve(payer: &dyn SessionPayer, cx: &Paying<'_>, amount: Amount) -> Approved {
    let unit = payer.price(cx).unwrap().unit;
    let budget = Budget::new([Limit::per_request("sat", Amount::new(1_000_000))]);
    let (approved, reservation) = budget.approve(Cost { amount, ..unit }).unwrap();
    reservation.commit();
    approved
}

/// The slug of a refusal's problem type.
pub(crate) fn problem<T: std::fmt::Debug>(refused: Result<T, Refused>) -> String {
    match refused {
        Err(Refused::Payment(rejection)) => rejection.problem.type_uri().into_owned(),
        other => panic!("expected a rejection, got {other:?}"),
    }
}

impl Shop {
    /// The payer's wallet in another process: the same node, and nothing remembered.
    pub(crate) fn restarted(shop: &Self) -> TypedSessionPayer<LightningSessionWallet> {
        let wallet = LightningWallet::on(lnd(shop.sandbox.agent()));
        TypedSessionPayer::new(LightningSessionWallet::within(wallet))
    }
}
