//! Farebox pays mppx: its session client against the deployed session server.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use farebox_client::{
    Budget, Limit,
    session::{ChannelInfo, Closed, DepositLimit, FileStore, SessionPayer, Sessions, Store},
};
use farebox_core::{
    Adopted, Approved, Cost, Draft, Fault, Funded, Held, OpenChannel, Paid, PayError, Paying,
    SessionPrice, Spending, Standing, TypedSessionPayer,
    wire::{Amount, OfferId, Payload},
};
use farebox_http::SessionClient;
use farebox_live_tests::{
    Chain, LOCALNET, PATH_USD, PAYER, PAYER_KEY, Problem, SELLER,
    sessions::{ALPHA_USD, PRICE, RESERVE, Words},
};
use farebox_tempo::{TempoSessionWallet, WalletConfig};
use serde_json::{Value, json};

use crate::{Test, ensure};

pub(crate) const TESTS: [(&str, Test); 2] = [
    ("farebox_streams_from_mppx", streams),
    ("farebox_resumes_with_mppx_in_another_process", resumes),
];

/// What a wallet was asked for, in order.
type Asked = Arc<Mutex<Vec<&'static str>>>;

/// Tempo's wallet, with a list of what it was asked for.
struct Counting {
    wallet: TypedSessionPayer<TempoSessionWallet>,
    asked: Asked,
}

impl Counting {
    fn note(&self, what: &'static str) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push(what);
    }
}

#[async_trait]
impl SessionPayer for Counting {
    fn offer(&self) -> OfferId {
        self.wallet.offer()
    }

    fn spending(&self) -> Spending {
        self.wallet.spending()
    }

    fn price(&self, cx: &Paying<'_>) -> Result<SessionPrice, PayError> {
        self.wallet.price(cx)
    }

    async fn funded(&self, cost: &Cost) -> bool {
        self.wallet.funded(cost).await
    }

    async fn draft_open(&self, cx: &Paying<'_>, deposit: Amount) -> Result<Draft, PayError> {
        self.wallet.draft_open(cx, deposit).await
    }

    async fn open(
        &self,
        cx: &Paying<'_>,
        draft: &Draft,
        cumulative: Amount,
        approved: Approved,
    ) -> Result<Funded<Payload>, PayError> {
        self.note("open");
        self.wallet.open(cx, draft, cumulative, approved).await
    }

    async fn voucher(
        &self,
        cx: &Paying<'_>,
        channel: &OpenChannel,
        cumulative: Amount,
    ) -> Result<Paid<Payload>, PayError> {
        self.note("voucher");
        self.wallet.voucher(cx, channel, cumulative).await
    }

    async fn draft_top_up(
        &self,
        cx: &Paying<'_>,
        channel: &OpenChannel,
        additional: Amount,
    ) -> Result<Draft, PayError> {
        self.wallet.draft_top_up(cx, channel, additional).await
    }

    async fn top_up(
        &self,
        cx: &Paying<'_>,
        draft: &Draft,
        approved: Approved,
    ) -> Result<Funded<Payload>, PayError> {
        self.note("topUp");
        self.wallet.top_up(cx, draft, approved).await
    }

    async fn close(
        &self,
        cx: &Paying<'_>,
        channel: &OpenChannel,
        cumulative: Amount,
    ) -> Result<Paid<Payload>, PayError> {
        self.note("close");
        self.wallet.close(cx, channel, cumulative).await
    }

    async fn standing(&self, held: &Held) -> Result<Standing, Fault> {
        self.wallet.standing(held).await
    }

    async fn adopt(&self, cx: &Paying<'_>, snapshot: Option<&Value>) -> Result<Adopted, PayError> {
        self.wallet.adopt(cx, snapshot).await
    }
}

/// A client whose channels are in a file, and may hold one dollar each.
struct Payer {
    client: SessionClient,
    asked: Asked,
}

impl Payer {
    fn new(chain: &Chain, channels: &Path) -> Result<Self, Problem> {
        let config: WalletConfig = serde_json::from_value(json!({
            "private_key": PAYER_KEY,
            "rpc_url": chain.url,
            "chain_id": LOCALNET,
            "fee_token": ALPHA_USD,
        }))?;
        let asked = Asked::default();
        let wallet = Counting {
            wallet: TypedSessionPayer::new(TempoSessionWallet::new(config)?),
            asked: asked.clone(),
        };
        let dollar = Amount::new(1_000_000);
        let budget = Budget::new([Limit::per_request(PATH_USD, dollar).total(dollar)]);
        let store: Arc<dyn Store> = Arc::new(FileStore::new(channels));
        let limit = DepositLimit::new(PATH_USD, dollar).top_up(Amount::new(100_000));
        let sessions = Sessions::new(budget, store)
            .payer(Arc::new(wallet))
            .limit(limit);
        let http = reqwest::Client::builder().no_proxy().build()?;
        let client = SessionClient::new(http, sessions);
        Ok(Self { client, asked })
    }

    /// Reads a stream to its end: how many words there were.
    async fn read(&self, url: &str) -> Result<u128, Problem> {
        let request = self.client.http().get(url).build()?;
        let mut stream = self.client.events(request).await?;
        let mut words = 0;
        while let Some(event) = stream.recv().await {
            words += 1;
            let expected = format!("word {words}");
            let data = event?.data;
            ensure(data == expected, || format!("{data} is not {expected}"))?;
        }
        ensure(stream.receipt().is_some(), || "no last receipt".to_owned())?;
        Ok(words)
    }

    fn asked(&self, what: &str) -> usize {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|asked| **asked == what).count()
    }

    async fn only_channel(&self) -> Result<ChannelInfo, Problem> {
        let channels = self.client.sessions().channels().await?;
        ensure(channels.len() == 1, || format!("not one: {channels:?}"))?;
        channels.into_iter().next().ok_or_else(|| "none".into())
    }

    /// Closes the only channel, which the chain confirms, and holds the chain's books against it.
    async fn close(&self, chain: &Chain, words: u128) -> Result<Closed, Problem> {
        let channel = self.only_channel().await?;
        let closed = self.client.close(&channel).await?;
        ensure(closed.confirmed, || format!("not confirmed: {closed:?}"))?;
        let (deposited, earned, refunded) = tokio::task::block_in_place(|| {
            let moved = |from, to| chain.moved(from, to);
            let (paid_in, earned) = (moved(PAYER, RESERVE)?, moved(RESERVE, SELLER)?);
            Ok::<_, Problem>((paid_in, earned, moved(RESERVE, PAYER)?))
        })?;
        ensure(earned == words * PRICE, || {
            format!("the seller got {earned} base units for {words} words")
        })?;
        ensure(closed.spent.get() == earned, || format!("{closed:?}"))?;
        ensure(closed.refunded.get() == refunded, || format!("{closed:?}"))?;
        ensure(deposited == earned + refunded, || {
            format!("{deposited} went in, {earned} and {refunded} came out")
        })?;
        let counted = self.client.sessions().budget().spent(PATH_USD);
        ensure(counted <= Amount::new(earned), || {
            format!("the budget counts {counted}")
        })?;
        let left = self.client.sessions().channels().await?;
        ensure(left.is_empty(), || format!("still on record: {left:?}"))?;
        Ok(closed)
    }
}

fn on_a_runtime(test: impl Future<Output = Result<(), Problem>>) -> Result<(), Problem> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(test)
}

fn sell(chain: &Chain) -> Result<Words, Problem> {
    let terms = json!({ "suggestedDeposit": "0.05", "feeToken": ALPHA_USD });
    Words::serve(chain, &terms)
}

/// Open, more than a hundred vouchers, a top-up when the deposit is used up, close, refund.
fn streams() -> Result<(), Problem> {
    let chain = Chain::sandbox(Default::default())?;
    let words = sell(&chain)?;
    let folder = tempfile::tempdir()?;
    on_a_runtime(async {
        let payer = Payer::new(&chain, &folder.path().join("channels.json"))?;
        let read = payer.read(&format!("{}/120", words.url)).await?;
        ensure(read == 120, || format!("{read} words"))?;
        let channel = payer.only_channel().await?;
        ensure(channel.signed.get() == 120 * PRICE, || {
            format!("signed for more or less than 120 words: {channel:?}")
        })?;
        ensure(payer.asked("voucher") >= 100, || {
            format!("{} vouchers", payer.asked("voucher"))
        })?;
        let closed = payer.close(&chain, 120).await?;
        for once in ["open", "topUp", "close"] {
            let asked = payer.asked(once);
            ensure(asked == 1, || format!("{asked} times {once}"))?;
        }
        ensure(closed.refunded == Amount::new(30_000), || {
            format!("{closed:?}")
        })?;
        let counted = payer.client.sessions().budget().spent(PATH_USD);
        ensure(counted == closed.spent, || {
            format!("the budget counts {counted}")
        })
    })
}

/// A second process finds the channel in the file, spends on and closes it.
fn resumes() -> Result<(), Problem> {
    let chain = Chain::sandbox(Default::default())?;
    let words = sell(&chain)?;
    let folder = tempfile::tempdir()?;
    let channels = folder.path().join("channels.json");
    on_a_runtime(async {
        let first = Payer::new(&chain, &channels)?;
        first.read(&format!("{}/10", words.url)).await?;
        let channel = first.only_channel().await?.channel;
        drop(first);
        let second = Payer::new(&chain, &channels)?;
        second.read(&format!("{}/15", words.url)).await?;
        let found = second.only_channel().await?.channel;
        ensure(found == channel && second.asked("open") == 0, || {
            format!("{found} was opened beside {channel}")
        })?;
        second.close(&chain, 25).await.map(drop)
    })
}
