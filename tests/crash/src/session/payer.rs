//! A payer that keeps its channels and goes on, whatever happens to the server.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use farebox::{
    client::{
        Budget, Limit,
        session::{ChannelInfo, DepositLimit, FileStore, SessionError, Sessions},
    },
    http::{SessionCallError, SessionClient},
    wire::Amount,
};

use super::{MAX_DEPOSIT, SessionRail, SessionWorld};
use crate::Problem;

/// How long a payer keeps trying, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long it waits for an answer. A request that hangs longer is one whose reply was lost.
const ANSWER: Duration = Duration::from_secs(30);

/// How long it waits between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// One payer of one rail, whose channels are in a file.
#[derive(Debug)]
pub struct SessionPayer {
    client: SessionClient,
    rail: SessionRail,
    address: String,
    tally: Tally,
}

/// What a payer got, in units, and what may have got lost on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Units that arrived.
    pub received: u64,
    /// Paid requests without an answer, each of which may have cost its unit.
    pub lost: u64,
    /// Streams that broke off after so many units.
    pub broken: Vec<u64>,
    /// What came back by the client's own account, base units.
    pub refunded: u128,
    /// What it spent, likewise.
    pub spent: u128,
    /// Channels that were closed.
    pub closed: usize,
    /// How often it had to try again, for whatever reason.
    pub again: u64,
}

impl Tally {
    /// Adds what another payer got.
    pub fn add(&mut self, other: Self) {
        self.received += other.received;
        self.lost += other.lost;
        self.broken.extend(other.broken);
        self.refunded += other.refunded;
        self.spent += other.spent;
        self.closed += other.closed;
        self.again += other.again;
    }
}

impl SessionPayer {
    /// A payer at `address`, with its channels in the file `channels`.
    pub fn new(world: &SessionWorld, address: &str, channels: &Path) -> Result<Self, Problem> {
        let rail = world.rail();
        let most = Amount::new(u128::from(MAX_DEPOSIT) * rail.price());
        let budget = Budget::new([Limit::per_request(rail.currency(), most)]);
        let mut sessions = Sessions::new(budget, Arc::new(FileStore::new(channels)))
            .limit(DepositLimit::new(rail.currency(), most));
        for (_, payer) in world.wallets()?.sessions() {
            sessions = sessions.payer(payer.clone());
        }
        let http = reqwest::Client::builder()
            .timeout(ANSWER)
            .no_proxy()
            .build()?;
        Ok(Self {
            client: SessionClient::new(http, sessions),
            rail,
            address: address.to_owned(),
            tally: Tally::default(),
        })
    }

    /// What it got so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Its channels. None holds, and none was signed for, more than it may.
    pub async fn channels(&self) -> Result<Vec<ChannelInfo>, Problem> {
        let channels = self.client.sessions().channels().await?;
        let most = Amount::new(u128::from(MAX_DEPOSIT) * self.rail.price());
        for channel in &channels {
            if channel.signed > most || channel.deposit > most || channel.signed > channel.deposit {
                return Err(format!("signed or deposited too much: {channel:?}").into());
            }
        }
        Ok(channels)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Asks for one word until it is there.
    pub async fn word(&mut self) -> Result<(), Problem> {
        let started = Instant::now();
        loop {
            let step = self.try_word().await?;
            if self.is_done(step, started).await? {
                return Ok(());
            }
        }
    }

    async fn try_word(&mut self) -> Result<Step, Problem> {
        let request = self.client.http().get(self.url("/word")).build()?;
        let response = match self.client.send(request).await {
            Ok(response) => response,
            Err(error) => return self.failed(error),
        };
        if !response.status().is_success() {
            return Ok(Step::Again(response.status().to_string()));
        }
        match response.text().await {
            Ok(word) if word == "word" => {
                self.tally.received += 1;
                Ok(Step::Done)
            }
            Ok(other) => Err(format!("another word was served: {other}").into()),
            // It was answered, and the answer broke off.
            Err(error) => {
                self.tally.lost += 1;
                Ok(Step::Again(error.to_string()))
            }
        }
    }

    /// Streams until `count` tokens are there, in as many streams as it takes.
    pub async fn tokens(&mut self, count: u64) -> Result<(), Problem> {
        let started = Instant::now();
        let mut came = 0;
        while came < count {
            let step = self.try_tokens(count, &mut came).await?;
            self.is_done(step, started).await?;
        }
        Ok(())
    }

    /// One stream of what is left of `count`.
    async fn try_tokens(&mut self, count: u64, came: &mut u64) -> Result<Step, Problem> {
        let left = count - *came;
        let url = self.url(&format!("/tokens?count={left}"));
        let request = self.client.http().get(url).build()?;
        let mut stream = match self.client.events(request).await {
            Ok(stream) => stream,
            Err(SessionCallError::NotEvents(other)) => {
                return Ok(Step::Again(other.status().to_string()));
            }
            Err(error) => return self.failed(error),
        };
        let (mut here, mut why) = (0, None);
        while let Some(event) = stream.recv().await {
            match event {
                // The mark of the end, which some rails send, costs nothing.
                Ok(event) if event.data == "[DONE]" => {}
                Ok(_) => here += 1,
                Err(error) => {
                    honest(&error)?;
                    why = Some(error.to_string());
                }
            }
        }
        *came += here;
        self.tally.received += here;
        match why {
            None if here == left => Ok(Step::Done),
            why => {
                self.tally.broken.push(here);
                Ok(Step::Again(why.unwrap_or_default()))
            }
        }
    }

    /// Closes all its channels, until the rail confirms it.
    pub async fn close(&mut self) -> Result<(), Problem> {
        let started = Instant::now();
        loop {
            let step = self.try_close().await?;
            if self.is_done(step, started).await? {
                return Ok(());
            }
        }
    }

    async fn try_close(&mut self) -> Result<Step, Problem> {
        match self.client.close_all().await {
            Ok(closed) => {
                for closed in closed.iter().filter(|closed| closed.confirmed) {
                    self.tally.closed += 1;
                    self.tally.spent += closed.spent.get();
                    self.tally.refunded += closed.refunded.get();
                }
            }
            Err(error) => return self.failed(error.into()),
        }
        match self.channels().await?.first() {
            None => Ok(Step::Done),
            Some(left) => Ok(Step::Again(format!("not closed yet: {left:?}"))),
        }
    }

    /// What a failure means for who comes again.
    fn failed(&mut self, error: SessionCallError) -> Result<Step, Problem> {
        honest(&error)?;
        if matches!(error, SessionCallError::Lost(_))
            || matches!(
                error,
                SessionCallError::Session(SessionError::OutcomeUnknown { .. })
            )
        {
            self.tally.lost += 1;
        }
        Ok(Step::Again(error.to_string()))
    }

    /// After a step: whether that is all, or after a pause another follows.
    async fn is_done(&mut self, step: Step, started: Instant) -> Result<bool, Problem> {
        self.channels().await?;
        match step {
            Step::Done => Ok(true),
            Step::Again(why) if started.elapsed() > PATIENCE => {
                Err(format!("gave up: {why}; {:?}", self.tally).into())
            }
            Step::Again(_) => {
                self.tally.again += 1;
                tokio::time::sleep(PAUSE).await;
                Ok(false)
            }
        }
    }
}

enum Step {
    Done,
    Again(String),
}

/// A server that dies is no reason to lie. That it asks for more than was delivered may be: what a dead
/// stream held counts as spent until its lease has lapsed.
fn honest(error: &SessionCallError) -> Result<(), Problem> {
    match error {
        SessionCallError::Session(
            SessionError::FalseReceipt { .. }
            | SessionError::OtherChannel(_)
            | SessionError::NoProgress
            | SessionError::MaxDeposit { .. }
            | SessionError::OverBudget(_),
        )
        | SessionCallError::Unreadable => Err(format!("cheated: {error}").into()),
        _ => Ok(()),
    }
}
