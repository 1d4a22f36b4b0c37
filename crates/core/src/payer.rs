//! Paying. A wallet prices and pays; whether to pay is never its decision.

use std::{fmt, future::Future, marker::PhantomData};

use async_trait::async_trait;
use farebox_wire::{Amount, Challenge, OfferId, Payload};
use serde::{Serialize, de::DeserializeOwned};

use crate::{ask::Ask, budget::Approved, intent::IntentSpec, refusal::Fault};

/// What paying a challenge would cost, from its machine-readable members only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Base units.
    pub amount: Amount,
    /// The currency as budgets name it: what the request says, in lower case.
    pub currency: String,
    /// Who is paid, where the request says so.
    pub recipient: Option<String>,
}

/// What a wallet is asked to pay.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Paying<'a> {
    /// The challenge, unexpired.
    pub challenge: &'a Challenge,
    /// The host that was asked, where there is one. Proofs must be for it.
    pub host: Option<&'a str>,
}

impl<'a> Paying<'a> {
    /// Paying `challenge`, which `host` sent.
    pub fn new(challenge: &'a Challenge, host: Option<&'a str>) -> Self {
        Self { challenge, host }
    }
}

/// A payment made: what to present.
#[derive(Clone)]
pub struct Paid<P> {
    /// The proof.
    pub payload: P,
    /// Who paid, as a DID, where the rail wants it.
    pub source: Option<String>,
}

impl<P> Paid<P> {
    /// A payment without a source.
    pub fn new(payload: P) -> Self {
        Self {
            payload,
            source: None,
        }
    }

    /// By this payer.
    pub fn by(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl<P> fmt::Debug for Paid<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paid")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// Why a wallet did not pay, or does not know whether it did.
#[derive(Debug)]
pub enum PayError {
    /// This wallet cannot pay such a challenge; another may.
    Unsupported(String),
    /// The challenge contradicts itself or the wallet's rules; it must not be paid.
    Refused(String),
    /// Nothing has moved and nothing will: another rail may be tried.
    NotPaid(Fault),
    /// Money may have moved. Nothing else may be paid for this request.
    Unknown(Fault),
}

impl fmt::Display for PayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(why) => write!(f, "this wallet cannot pay it: {why}"),
            Self::Refused(why) => write!(f, "not paid, the challenge is not acceptable: {why}"),
            Self::NotPaid(fault) => write!(f, "not paid: {fault}"),
            Self::Unknown(fault) => write!(f, "the outcome of the payment is unknown: {fault}"),
        }
    }
}

impl std::error::Error for PayError {}

/// A wallet for the intent `I`. The typed trait that authors write.
pub trait Wallet<I: IntentSpec>: Send + Sync + 'static {
    /// The method's name on the wire.
    const METHOD: &'static str;
    /// The rail's own request members.
    type Details: Serialize + DeserializeOwned + Send + Sync;
    /// What is presented.
    type Payload: Serialize + Send;

    /// What it would cost, after checking all that can be checked without paying. Never from
    /// `description` (draft-httpauth-payment, Amount Verification).
    fn price(&self, cx: &Paying<'_>, ask: &Ask<I, Self::Details>) -> Result<Cost, PayError>;

    /// Whether the wallet holds enough. A wallet that cannot tell answers yes.
    fn funded(&self, cost: &Cost) -> impl Future<Output = bool> + Send {
        let _ = cost;
        async { true }
    }

    /// Pays, at most what was approved.
    fn pay(
        &self,
        cx: &Paying<'_>,
        ask: Ask<I, Self::Details>,
        approved: Approved,
    ) -> impl Future<Output = Result<Paid<Self::Payload>, PayError>> + Send;
}

/// The object-safe face of [`Wallet`].
#[async_trait]
pub trait Payer: Send + Sync + 'static {
    /// The wire pair it pays.
    fn offer(&self) -> OfferId;
    /// See [`Wallet::price`].
    fn price(&self, cx: &Paying<'_>) -> Result<Cost, PayError>;
    /// See [`Wallet::funded`].
    async fn funded(&self, cost: &Cost) -> bool;
    /// See [`Wallet::pay`].
    async fn pay(&self, cx: &Paying<'_>, approved: Approved) -> Result<Paid<Payload>, PayError>;
}

/// A [`Wallet`] as a [`Payer`].
#[derive(Debug)]
pub struct TypedPayer<W, I> {
    wallet: W,
    _intent: PhantomData<fn() -> I>,
}

impl<W, I> TypedPayer<W, I> {
    /// Wraps a wallet.
    pub fn new(wallet: W) -> Self {
        Self {
            wallet,
            _intent: PhantomData,
        }
    }
}

fn ask<I: IntentSpec, D: Serialize + DeserializeOwned>(
    cx: &Paying<'_>,
) -> Result<Ask<I, D>, PayError> {
    Ask::decode(&cx.challenge.request)
        .map_err(|e| PayError::Unsupported(format!("the request cannot be read: {e}")))
}

#[async_trait]
impl<I: IntentSpec, W: Wallet<I>> Payer for TypedPayer<W, I> {
    fn offer(&self) -> OfferId {
        OfferId::new(W::METHOD, I::NAME)
    }

    fn price(&self, cx: &Paying<'_>) -> Result<Cost, PayError> {
        self.wallet.price(cx, &ask(cx)?)
    }

    async fn funded(&self, cost: &Cost) -> bool {
        self.wallet.funded(cost).await
    }

    async fn pay(&self, cx: &Paying<'_>, approved: Approved) -> Result<Paid<Payload>, PayError> {
        // An approval is for one price; it does not pay another challenge that costs more.
        if self.price(cx)? != *approved.cost() {
            return Err(PayError::Refused("it is not what was approved".to_owned()));
        }
        let paid = self.wallet.pay(cx, ask(cx)?, approved).await?;
        // The money may have moved by now, so a payload that cannot be written is not "not paid".
        let payload = Payload::from_value(&paid.payload)
            .map_err(|e| PayError::Unknown(Fault::new("serialising a payload").caused_by(e)))?;
        Ok(Paid {
            payload,
            source: paid.source,
        })
    }
}
