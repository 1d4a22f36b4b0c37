//! Paying as you go. A session wallet drafts deposits, funds them and signs vouchers; how much may
//! be put in and signed away is never its decision.
//!
//! Money moves in two steps, so that whoever drives a wallet can write down what is about to
//! happen: a [`Draft`] names the movement and binds nobody, and only when it is recorded is it
//! funded, which takes an [`Approved`]. Whatever then gets lost, the recorded draft finds the money
//! again ([`SessionWallet::standing`]), and no second deposit is made while nobody knows about the
//! first.

use std::{fmt, future::Future};

use async_trait::async_trait;
use farebox_wire::{Amount, OfferId, Payload};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    ask::{Ask, Place},
    budget::Approved,
    intent::Session,
    payer::{Cost, Paid, PayError, Paying},
    refusal::Fault,
};

/// How the money of a channel is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spending {
    /// The deposit is in escrow, and signed vouchers hand it over bit by bit.
    Vouchers,
    /// The deposit is the server's from the start; what is left at the end comes back.
    Prepaid,
}

/// What may be put into a channel, in base units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DepositRule {
    /// As much as the payer likes.
    Any {
        /// What the server suggests.
        suggested: Option<Amount>,
    },
    /// This much, neither more nor less: the invoice says so.
    Exactly(Amount),
}

/// What a session challenge asks for, from its machine-readable members only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPrice {
    /// One unit, as a budget would see it.
    pub unit: Cost,
    /// What may be deposited.
    pub deposit: DepositRule,
    /// The least by which a voucher must exceed the one before; zero where the rail has no such
    /// rule.
    pub min_delta: Amount,
    /// What an open channel must agree with to be used for this challenge: payer, payee, token,
    /// escrow and chain, in one spelling.
    pub reuse: String,
    /// The channel that the server would like to see used. A hint and no more.
    pub hint: Option<String>,
}

/// What a rail keeps about one channel. It may hold keys to the money (a preimage), so `Debug`
/// shows nothing of it; it is written to channel stores as it is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Held(Value);

impl Held {
    fn write<T: Serialize>(held: &T) -> Result<Self, Fault> {
        serde_json::to_value(held)
            .map(Self)
            .map_err(|e| Fault::new("writing a channel's state").caused_by(e))
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        // The error of serde_json would quote the value.
        T::deserialize(&self.0).map_err(|_| Fault::new("a channel's state cannot be read"))
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held(..)")
    }
}

/// A deposit or top-up that is worked out and not made.
#[derive(Clone, Serialize, Deserialize)]
pub struct Draft<H = Held> {
    /// The channel it is for, as the wire names it.
    pub channel: String,
    /// What it moves, base units.
    pub amount: Amount,
    /// The channel's state once it is recorded: what [`standing`](SessionWallet::standing) finds
    /// the money by.
    pub held: H,
}

/// A channel that can be spent from.
#[derive(Clone, Serialize, Deserialize)]
pub struct OpenChannel<H = Held> {
    /// As the wire names it.
    pub id: String,
    /// What is in it, and so the most that may be signed over. Base units.
    pub deposit: Amount,
    /// The rail's own state.
    pub held: H,
}

/// A deposit or top-up that is made, or is made by presenting the payload.
#[derive(Clone)]
pub struct Funded<P, H = Held> {
    /// What to present, and who paid.
    pub paid: Paid<P>,
    /// The state to record.
    pub held: H,
}

/// How a channel stands, by evidence that does not come from the server.
#[derive(Clone)]
#[non_exhaustive]
pub enum Standing<H = Held> {
    /// It holds a deposit.
    Open {
        /// The channel, with the deposit that is really there.
        channel: OpenChannel<H>,
        /// What the payee has taken out of it.
        taken: Amount,
        /// The payer has asked for it to be closed, so that it gives no more service.
        closing: bool,
    },
    /// It is over.
    Closed {
        /// What the payee kept, where that can be known.
        taken: Option<Amount>,
        /// What had been put in, where the wallet can say: with a top-up that the draft speaks of
        /// only if that one was made.
        held: Option<Amount>,
    },
    /// The money has not moved and can not move any more.
    Absent,
    /// Nobody can say yet whether the money moves.
    Pending,
}

/// A channel that a server told of, checked.
#[derive(Clone)]
pub struct Adopted<H = Held> {
    /// The channel, by the wallet's own evidence.
    pub channel: OpenChannel<H>,
    /// The most that is provably signed over or taken already, base units.
    pub authorized: Amount,
}

macro_rules! redacted {
    ($($name:ident { $($field:ident),* } $([$p:ident])?),* $(,)?) => {$(
        impl<$($p,)? H> fmt::Debug for $name<$($p,)? H> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))
                    $(.field(stringify!($field), &self.$field))*
                    .finish_non_exhaustive()
            }
        }
    )*};
}

redacted! {
    Draft { channel, amount },
    OpenChannel { id, deposit },
    Funded { paid } [P],
    Adopted { channel, authorized },
}

impl<H> fmt::Debug for Standing<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open {
                channel,
                taken,
                closing,
            } => f
                .debug_struct("Open")
                .field("channel", channel)
                .field("taken", taken)
                .field("closing", closing)
                .finish(),
            Self::Closed { taken, held } => f
                .debug_struct("Closed")
                .field("taken", taken)
                .field("held", held)
                .finish(),
            Self::Absent => f.write_str("Absent"),
            Self::Pending => f.write_str("Pending"),
        }
    }
}

/// A wallet for sessions. The typed trait that authors write.
pub trait SessionWallet: Send + Sync + 'static {
    /// The method's name on the wire.
    const METHOD: &'static str;
    /// How it hands money over.
    const SPENDING: Spending;
    /// The rail's own request members.
    type Details: Serialize + DeserializeOwned + Send + Sync;
    /// Where a request has them.
    const DETAILS: Place = Place::MethodDetails;
    /// The rail's own state of one channel. Its `Debug`, if any, must not show what spends money.
    type Held: Serialize + DeserializeOwned + Send + Sync;
    /// What is presented.
    type Payload: Serialize + Send;

    /// What is asked for, after checking all that can be checked without paying. Never from
    /// `description`.
    fn price(
        &self,
        cx: &Paying<'_>,
        ask: &Ask<Session, Self::Details>,
    ) -> Result<SessionPrice, PayError>;

    /// Whether the wallet holds enough. A wallet that cannot tell answers yes.
    fn funded(&self, cost: &Cost) -> impl Future<Output = bool> + Send {
        let _ = cost;
        async { true }
    }

    /// Works out the deposit of a new channel. Nothing moves, and nothing that could move money is
    /// signed.
    fn draft_open(
        &self,
        cx: &Paying<'_>,
        ask: &Ask<Session, Self::Details>,
        deposit: Amount,
    ) -> impl Future<Output = Result<Draft<Self::Held>, PayError>> + Send;

    /// Makes the deposit of a recorded draft and authorises `cumulative`, at most the deposit.
    ///
    /// Called again with the same draft it never deposits twice: it is how an opening that was cut
    /// short is taken up again.
    fn open(
        &self,
        cx: &Paying<'_>,
        ask: &Ask<Session, Self::Details>,
        draft: Draft<Self::Held>,
        cumulative: Amount,
        approved: Approved,
    ) -> impl Future<Output = Result<Funded<Self::Payload, Self::Held>, PayError>> + Send;

    /// Authorises `cumulative` in all. Where [`Spending::Prepaid`], shows the right to spend what
    /// is there.
    fn voucher(
        &self,
        cx: &Paying<'_>,
        ask: &Ask<Session, Self::Details>,
        channel: &OpenChannel<Self::Held>,
        cumulative: Amount,
    ) -> impl Future<Output = Result<Paid<Self::Payload>, PayError>> + Send;

    /// As [`draft_open`](Self::draft_open), for more money in an open channel. The draft's state
    /// stands for the channel with and without the money.
    fn draft_top_up(
        &self,
        cx: &Paying<'_>,
        ask: &Ask<Session, Self::Details>,
        channel: &OpenChannel<Self::Held>,
        additional: Amount,
    ) -> impl Future<Output = Result<Draft<Self::Held>, PayError>> + Send;

    /// As [`open`](Self::open), for a recorded top-up.
    fn top_up(
        &self,
        cx: &Paying<'_>,
        ask: &Ask<Session, Self::Details>,
        draft: Draft<Self::Held>,
        approved: Approved,
    ) -> impl Future<Output = Result<Funded<Self::Payload, Self::Held>, PayError>> + Send;

    /// Asks the server to close the channel with `cumulative` as the most it may keep.
    fn close(
        &self,
        cx: &Paying<'_>,
        ask: &Ask<Session, Self::Details>,
        channel: &OpenChannel<Self::Held>,
        cumulative: Amount,
    ) -> impl Future<Output = Result<Paid<Self::Payload>, PayError>> + Send;

    /// How the channel stands, from the rail itself and never from the server.
    /// [`Standing::Absent`] only when the recorded movement has become impossible; while it still
    /// may happen, and whenever the rail cannot be asked, it is [`Standing::Pending`] or a fault.
    /// Of a top-up that was lost, `Open` with the old deposit says that it can not happen any more.
    fn standing(
        &self,
        held: &Self::Held,
    ) -> impl Future<Output = Result<Standing<Self::Held>, Fault>> + Send;

    /// Checks a channel that the server tells of (`snapshot`, or what the challenge carries), so
    /// that a wallet whose records are gone may go on with it. Only the rail's state and the
    /// wallet's own signatures count as evidence.
    ///
    /// # Errors
    /// [`PayError::Unsupported`] if there is nothing to check or the rail has no such thing;
    /// [`PayError::Refused`] if what is told is not so.
    fn adopt(
        &self,
        cx: &Paying<'_>,
        ask: &Ask<Session, Self::Details>,
        snapshot: Option<&Value>,
    ) -> impl Future<Output = Result<Adopted<Self::Held>, PayError>> + Send;
}

/// The object-safe face of [`SessionWallet`].
#[async_trait]
pub trait SessionPayer: Send + Sync + 'static {
    /// The wire pair it pays.
    fn offer(&self) -> OfferId;
    /// How it hands money over.
    fn spending(&self) -> Spending;
    /// See [`SessionWallet::price`].
    fn price(&self, cx: &Paying<'_>) -> Result<SessionPrice, PayError>;
    /// See [`SessionWallet::funded`].
    async fn funded(&self, cost: &Cost) -> bool;
    /// See [`SessionWallet::draft_open`].
    async fn draft_open(&self, cx: &Paying<'_>, deposit: Amount) -> Result<Draft, PayError>;
    /// See [`SessionWallet::open`].
    async fn open(
        &self,
        cx: &Paying<'_>,
        draft: &Draft,
        cumulative: Amount,
        approved: Approved,
    ) -> Result<Funded<Payload>, PayError>;
    /// See [`SessionWallet::voucher`].
    async fn voucher(
        &self,
        cx: &Paying<'_>,
        channel: &OpenChannel,
        cumulative: Amount,
    ) -> Result<Paid<Payload>, PayError>;
    /// See [`SessionWallet::draft_top_up`].
    async fn draft_top_up(
        &self,
        cx: &Paying<'_>,
        channel: &OpenChannel,
        additional: Amount,
    ) -> Result<Draft, PayError>;
    /// See [`SessionWallet::top_up`].
    async fn top_up(
        &self,
        cx: &Paying<'_>,
        draft: &Draft,
        approved: Approved,
    ) -> Result<Funded<Payload>, PayError>;
    /// See [`SessionWallet::close`].
    async fn close(
        &self,
        cx: &Paying<'_>,
        channel: &OpenChannel,
        cumulative: Amount,
    ) -> Result<Paid<Payload>, PayError>;
    /// See [`SessionWallet::standing`].
    async fn standing(&self, held: &Held) -> Result<Standing, Fault>;
    /// See [`SessionWallet::adopt`].
    async fn adopt(&self, cx: &Paying<'_>, snapshot: Option<&Value>) -> Result<Adopted, PayError>;
}

mod typed;

pub use typed::TypedSessionPayer;
