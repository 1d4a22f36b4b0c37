//! A rail for one intent: the typed trait that authors write and the object-safe one that the
//! engine holds.

use std::{future::Future, time::Duration};

use async_trait::async_trait;
use farebox_wire::{Challenge, Encoded, OfferId, Payload, Problem, Receipt, Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    ask::{Ask, Place},
    channel::{ChannelId, ChannelState, Channels, NoChannels, Observed},
    config::{self, Invalid},
    hook::{Delivery, Hint, Unheeded},
    intent::{Intent, IntentOf, IntentSpec},
    page::PagePart,
    plan::{self, AnyPlan, ChannelAction, Plan},
    quote::{NoQuote, Quote},
    refusal::{Fault, Refusal, Rejection},
    settle::{Settle, Settler},
    statement::{self, Answer, Event, Moment, Served, Statement},
    tally::Tally,
    upkeep::{self, AnyUpkeep, Due, Schedule, Together, Upkeep},
};

/// An authenticated presentation, without transport types.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Presented<'a> {
    /// The challenge, whose every bound member has been checked.
    pub challenge: &'a Challenge,
    /// Who the payer says it is. Not checked: a rail compares it with what it recovers.
    pub source: Option<&'a str>,
    /// The engine's clock at this presentation.
    pub now: &'a Timestamp,
    /// What [`Quote::private`] kept.
    pub private: Option<&'a Value>,
    channels: &'a dyn Channels,
}

impl<'a> Presented<'a> {
    /// A presentation of `challenge` at `now`.
    pub fn new(challenge: &'a Challenge, now: &'a Timestamp) -> Self {
        Self {
            challenge,
            source: None,
            now,
            private: None,
            channels: &NoChannels,
        }
    }

    /// By this payer.
    pub fn by(mut self, source: Option<&'a str>) -> Self {
        self.source = source;
        self
    }

    /// With what was kept for it.
    pub fn with_private(mut self, private: Option<&'a Value>) -> Self {
        self.private = private;
        self
    }

    /// With a view of the channels.
    pub fn with_channels(mut self, channels: &'a dyn Channels) -> Self {
        self.channels = channels;
        self
    }

    /// Where a channel stands.
    pub async fn channel(&self, channel: &ChannelId) -> Result<Option<ChannelState>, Fault> {
        self.channels.state(channel).await
    }

    /// Hands in what the rail saw of a channel outside. It is recorded even where the rail then
    /// refuses the presentation: a close that the payer forces ends service all the same.
    pub fn saw(&self, channel: &ChannelId, observed: Observed) {
        self.channels.saw(channel, observed);
    }
}

impl std::fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presented")
            .field("challenge", &self.challenge.id)
            .finish_non_exhaustive()
    }
}

/// A rail for the intent `I`. The typed trait that authors write.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a rail for `{I}`",
    note = "implement `Rail<{I}>`: METHOD, Details, Payload, Settler, quote, verify and settler"
)]
pub trait Rail<I: IntentSpec>: Send + Sync + 'static {
    /// The method's name on the wire: `tempo`.
    const METHOD: &'static str;
    /// The rail's own request members.
    type Details: Serialize + DeserializeOwned + Send + Sync;
    /// Where a request has them.
    const DETAILS: Place = Place::MethodDetails;
    /// What the payer presents. Unknown members should be ignored, as the protocol asks.
    type Payload: DeserializeOwned + Send;
    /// What moves the money; [`NoSettler`](crate::NoSettler) if the proof is the payment.
    type Settler: Settle;

    /// Checks terms. Pure; called for every offer at startup, and its problems are reported with
    /// all others.
    fn check(&self, terms: &I::Terms) -> Result<(), Invalid> {
        I::check_terms(terms)
    }

    /// Hands over counters that every process shares, and every rail of the same [`METHOD`] too, so an
    /// account's name says whose money it counts. Called once by an engine that knows the rail, before
    /// anything is quoted.
    ///
    /// [`METHOD`]: Self::METHOD
    fn entrust(&self, tally: Tally) {
        let _ = tally;
    }

    /// Says how long a challenge can be paid for at most. What a rail mints for one (an invoice) must
    /// not be payable for longer: whoever pays later has nothing for it. Called by an engine that knows
    /// the rail, before anything is quoted; where several do, the shortest time holds.
    fn challenges_last(&self, at_most: Duration) {
        let _ = at_most;
    }

    /// Reaches out once before serving: a chain id to compare, a key to test. An error stops the
    /// server from starting, so a rail that can recover later should not fail here.
    fn connect(&self) -> impl Future<Output = Result<(), Fault>> + Send {
        async { Ok(()) }
    }

    /// Turns terms into a request. May do I/O (mint an invoice); must not record payments.
    fn quote(
        &self,
        terms: &I::Terms,
    ) -> impl Future<Output = Result<Quote<I, Self::Details>, NoQuote>> + Send;

    /// Decides whether `payload` pays for `ask`. May read (an RPC, a node); must not write,
    /// broadcast or claim.
    ///
    /// The ask is what the engine issued: it is bound by HMAC and was presented before it expired.
    /// The route may ask for other terms by now; then a plan that is paid is honoured as issued,
    /// and no other is carried out. What is left to check is the proof.
    fn verify(
        &self,
        cx: &Presented<'_>,
        ask: &Ask<I, Self::Details>,
        payload: Self::Payload,
    ) -> impl Future<Output = Result<Plan<I::Lifecycle, <Self::Settler as Settle>::Order>, Refusal>> + Send;

    /// What moves the money.
    fn settler(&self) -> &Self::Settler;

    /// Whether somebody outside calls this rail when something has happened to a payment, so that it
    /// wants an address of its own for [`heed`](Self::heed).
    fn listens(&self) -> bool {
        false
    }

    /// Reads such a call into what is to be looked at now. Pure. It is a hint: whatever it says, the
    /// settler is asked what became of the payment.
    ///
    /// # Errors
    /// It is not genuine, as far as can be told.
    fn heed(&self, delivery: &Delivery<'_>) -> Result<Vec<Hint>, Unheeded> {
        let _ = delivery;
        Err(Unheeded("this rail takes no calls"))
    }

    /// What an answer says about its channel, as it stands then. Pure; asked for every answer of a
    /// session, and for the last word of a stream.
    fn statement(&self, channel: &ChannelId, state: &ChannelState, served: &Served) -> Statement {
        let _ = (channel, state, served);
        Statement::default()
    }

    /// What a stream tells its payer at a moment, if anything. Pure. Unless said, `payment-need-voucher` when the
    /// balance is exhausted.
    fn event(&self, channel: &ChannelId, state: &ChannelState, moment: &Moment) -> Option<Event> {
        statement::need_voucher(channel, state, moment)
    }

    /// How a presentation without service is answered: a top-up, a close, an opening or a voucher
    /// on its own. Pure; the same credential may come again and gets the answer of then. Empty
    /// unless said.
    fn answer(&self, action: ChannelAction, receipt: &Receipt, state: &ChannelState) -> Answer {
        statement::empty(action, receipt, state)
    }

    /// What a request is refused with that the balance does not cover.
    fn insufficient(&self) -> Problem {
        Problem::rail("session", "insufficient-balance")
    }

    /// When the rail wants [`upkeep`](Self::upkeep) of its channels.
    fn schedule(&self) -> Schedule {
        Schedule::default()
    }

    /// What is to be done with a channel outside a request. May read; must not write or broadcast.
    fn upkeep(
        &self,
        channel: &ChannelId,
        state: &ChannelState,
        due: Due,
    ) -> impl Future<Output = Result<Upkeep<<Self::Settler as Settle>::Order>, Fault>> + Send {
        let _ = (channel, state, due);
        async { Ok(Upkeep::nothing()) }
    }

    /// One movement that settles all of `channels`, of each of which [`Due::Settle`] is due: an
    /// answer for each, in their order, and to carry out any one's order is to carry out all.
    /// `None`: they are settled one by one, as where the movement would fail for one of them. Like
    /// [`upkeep`](Self::upkeep), only reads.
    fn settle_together(
        &self,
        channels: &[(ChannelId, ChannelState)],
    ) -> impl Future<Output = Result<Together<<Self::Settler as Settle>::Order>, Fault>> + Send
    {
        let _ = channels;
        async { Ok(None) }
    }

    /// Its part of the page that a browser gets, for a challenge of its own; `None` where it has
    /// none. Pure.
    fn page(&self, challenge: &Challenge, ask: &Ask<I, Self::Details>) -> Option<PagePart> {
        let _ = (challenge, ask);
        None
    }

    /// Makes the payload of a credential out of what its part of the page has collected, where a
    /// page cannot: a token that takes the seller's key. It must move no money, and what it makes
    /// may be good for this ask alone. It may be asked a few times for one challenge.
    fn prepare(
        &self,
        cx: &Presented<'_>,
        ask: &Ask<I, Self::Details>,
        collected: Payload,
    ) -> impl Future<Output = Result<Payload, Refusal>> + Send {
        let _ = (cx, ask, collected);
        async { Err(Rejection::malformed("this rail prepares nothing").into()) }
    }
}

/// A quote as the engine sees it.
pub struct AnyQuote {
    /// The request, ready for the wire.
    pub request: Encoded,
    /// See [`Quote::not_after`].
    pub not_after: Option<Timestamp>,
    /// See [`Quote::at_least`].
    pub at_least: Duration,
    /// See [`Quote::private`].
    pub private: Option<Value>,
}

/// What is private stays out of `Debug`.
impl std::fmt::Debug for AnyQuote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AnyQuote")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

/// The object-safe face of [`Rail`]. No method has a default, so that a wrapper cannot lose an
/// override silently.
#[async_trait]
pub trait Method: Send + Sync + 'static {
    /// The wire pair, `tempo/charge`.
    fn offer(&self) -> OfferId;
    /// Its name in configuration and in stored records, by which the reconciler finds the settler
    /// of a payment. Usually the wire pair.
    fn name(&self) -> &str;
    /// The intent.
    fn intent(&self) -> &dyn Intent;
    /// What moves the money.
    fn settler(&self) -> &dyn Settler;
    /// See [`Rail::check`].
    fn check(&self, terms: &Value) -> Result<(), Invalid>;
    /// See [`Rail::entrust`].
    fn entrust(&self, tally: Tally);
    /// See [`Rail::challenges_last`].
    fn challenges_last(&self, at_most: Duration);
    /// See [`Rail::connect`].
    async fn connect(&self) -> Result<(), Fault>;
    /// See [`Rail::quote`].
    async fn quote(&self, terms: &Value) -> Result<AnyQuote, NoQuote>;
    /// See [`Rail::verify`].
    async fn verify(&self, cx: &Presented<'_>, payload: &Payload) -> Result<AnyPlan, Refusal>;
    /// See [`Rail::listens`].
    fn listens(&self) -> bool;
    /// See [`Rail::heed`].
    fn heed(&self, delivery: &Delivery<'_>) -> Result<Vec<Hint>, Unheeded>;
    /// See [`Rail::statement`].
    fn statement(&self, channel: &ChannelId, state: &ChannelState, served: &Served) -> Statement;
    /// See [`Rail::event`].
    fn event(&self, channel: &ChannelId, state: &ChannelState, moment: &Moment) -> Option<Event>;
    /// See [`Rail::answer`].
    fn answer(&self, action: ChannelAction, receipt: &Receipt, state: &ChannelState) -> Answer;
    /// See [`Rail::insufficient`].
    fn insufficient(&self) -> Problem;
    /// See [`Rail::schedule`].
    fn schedule(&self) -> Schedule;
    /// See [`Rail::upkeep`].
    async fn upkeep(
        &self,
        channel: &ChannelId,
        state: &ChannelState,
        due: Due,
    ) -> Result<AnyUpkeep, Fault>;
    /// See [`Rail::settle_together`].
    async fn settle_together(
        &self,
        channels: &[(ChannelId, ChannelState)],
    ) -> Result<Option<Vec<AnyUpkeep>>, Fault>;
    /// See [`Rail::page`].
    fn page(&self, challenge: &Challenge) -> Result<Option<PagePart>, Fault>;
    /// See [`Rail::prepare`].
    async fn prepare(&self, cx: &Presented<'_>, collected: &Payload) -> Result<Payload, Refusal>;
}

/// A [`Rail`] as a [`Method`].
#[derive(Debug)]
pub struct Typed<R, I> {
    rail: R,
    name: String,
    intent: IntentOf<I>,
}

impl<I: IntentSpec, R: Rail<I>> Typed<R, I> {
    /// Wraps a rail under its wire pair's name.
    pub fn new(rail: R) -> Self {
        Self::named(rail, format!("{}/{}", R::METHOD, I::NAME))
    }

    /// Wraps a rail under a name of its own: two instances of one rail need two.
    pub fn named(rail: R, name: impl Into<String>) -> Self {
        Self {
            rail,
            name: name.into(),
            intent: IntentOf::default(),
        }
    }

    /// The rail.
    pub fn rail(&self) -> &R {
        &self.rail
    }

    /// The engine issued and bound it, so one that cannot be read is not the payer's fault.
    fn ask(challenge: &Challenge) -> Result<Ask<I, R::Details>, Fault> {
        Ask::decode_at(R::DETAILS, &challenge.request)
            .map_err(|e| Fault::new("reading a request of our own").caused_by(e))
    }

    fn named_refusal(refusal: Refusal) -> Refusal {
        match refusal {
            Refusal::Rejected(rejection) => rejection.on_rail(R::METHOD).into(),
            fault => fault,
        }
    }
}

#[async_trait]
impl<I: IntentSpec, R: Rail<I>> Method for Typed<R, I> {
    fn offer(&self) -> OfferId {
        OfferId::new(R::METHOD, I::NAME)
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn intent(&self) -> &dyn Intent {
        &self.intent
    }

    fn settler(&self) -> &dyn Settler {
        self.rail.settler()
    }

    fn check(&self, terms: &Value) -> Result<(), Invalid> {
        self.rail.check(&config::read(terms)?)
    }

    fn entrust(&self, tally: Tally) {
        self.rail.entrust(tally);
    }

    fn challenges_last(&self, at_most: Duration) {
        self.rail.challenges_last(at_most);
    }

    async fn connect(&self) -> Result<(), Fault> {
        self.rail.connect().await
    }

    async fn quote(&self, terms: &Value) -> Result<AnyQuote, NoQuote> {
        let terms: I::Terms = I::Terms::deserialize(terms)
            .map_err(|e| Fault::new("reading an offer's terms").caused_by(e))?;
        let quote = self.rail.quote(&terms).await?;
        let ask = Ask::<I, R::Details> {
            request: quote.request,
            details: quote.details,
        };
        Ok(AnyQuote {
            request: ask.encode_at(R::DETAILS)?,
            not_after: quote.not_after,
            at_least: quote.at_least,
            private: quote.private,
        })
    }

    async fn verify(&self, cx: &Presented<'_>, payload: &Payload) -> Result<AnyPlan, Refusal> {
        let ask = Self::ask(cx.challenge)?;
        let payload: R::Payload = payload.decode().map_err(|e| {
            // Its error names fields, never values: a payload is a bearer secret.
            Rejection::malformed(format!("the payload does not fit {}: {e}", self.name))
        })?;
        let plan = self
            .rail
            .verify(cx, &ask, payload)
            .await
            .map_err(Self::named_refusal)?;
        plan::erase(plan).map_err(|e| Fault::new("serialising an order").caused_by(e).into())
    }

    fn listens(&self) -> bool {
        self.rail.listens()
    }

    fn heed(&self, delivery: &Delivery<'_>) -> Result<Vec<Hint>, Unheeded> {
        self.rail.heed(delivery)
    }

    fn statement(&self, channel: &ChannelId, state: &ChannelState, served: &Served) -> Statement {
        self.rail.statement(channel, state, served)
    }

    fn event(&self, channel: &ChannelId, state: &ChannelState, moment: &Moment) -> Option<Event> {
        self.rail.event(channel, state, moment)
    }

    fn answer(&self, action: ChannelAction, receipt: &Receipt, state: &ChannelState) -> Answer {
        self.rail.answer(action, receipt, state)
    }

    fn insufficient(&self) -> Problem {
        self.rail.insufficient()
    }

    fn schedule(&self) -> Schedule {
        self.rail.schedule()
    }

    async fn upkeep(
        &self,
        channel: &ChannelId,
        state: &ChannelState,
        due: Due,
    ) -> Result<AnyUpkeep, Fault> {
        let upkeep = self.rail.upkeep(channel, state, due).await?;
        upkeep::erase(upkeep).map_err(|e| Fault::new("serialising an order").caused_by(e))
    }

    async fn settle_together(
        &self,
        channels: &[(ChannelId, ChannelState)],
    ) -> Result<Option<Vec<AnyUpkeep>>, Fault> {
        let together = self.rail.settle_together(channels).await?;
        let erase = |upkeeps: Vec<_>| upkeeps.into_iter().map(upkeep::erase).collect();
        let erased: Option<Result<_, _>> = together.map(erase);
        let erased = erased.transpose();
        erased.map_err(|e| Fault::new("serialising an order").caused_by(e))
    }

    fn page(&self, challenge: &Challenge) -> Result<Option<PagePart>, Fault> {
        Ok(self.rail.page(challenge, &Self::ask(challenge)?))
    }

    async fn prepare(&self, cx: &Presented<'_>, collected: &Payload) -> Result<Payload, Refusal> {
        let ask = Self::ask(cx.challenge)?;
        let prepared = self.rail.prepare(cx, &ask, collected.clone()).await;
        prepared.map_err(Self::named_refusal)
    }
}
