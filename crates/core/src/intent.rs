//! What a payment means: intents, open over a sealed set of lifecycles.

use std::marker::PhantomData;

use farebox_wire::{Amount, Encoded};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    channel::{Change, ChannelId},
    config::{Invalid, Issue},
    plan::{AnyPlan, ChannelAction, ChannelPlan, OncePlan, ProofKey, Step},
    settle::StoredOrder,
};

/// How payments of an intent are consumed. The engine implements each lifecycle once; which plans
/// a rail may return follows from it.
pub trait Lifecycle: sealed::Sealed + Send + Sync + Sized + 'static {
    /// Whether a challenge pays once. A channel's challenge carries several actions, each with a
    /// proof or a balance that guards it.
    const SINGLE_USE: bool;

    #[doc(hidden)]
    type Claim: Send;

    #[doc(hidden)]
    fn erase(
        proofs: Vec<ProofKey>,
        step: Option<Step<StoredOrder>>,
        claim: Self::Claim,
        receipt: Map<String, Value>,
    ) -> AnyPlan;
}

/// Single use: a charge, an activation.
#[derive(Clone, Copy, Debug)]
pub enum Once {}

/// A running balance: a session.
#[derive(Clone, Copy, Debug)]
pub enum Channel {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Once {}
    impl Sealed for super::Channel {}
}

impl Lifecycle for Once {
    const SINGLE_USE: bool = true;
    type Claim = ();

    fn erase(
        proofs: Vec<ProofKey>,
        step: Option<Step<StoredOrder>>,
        (): (),
        receipt: Map<String, Value>,
    ) -> AnyPlan {
        // Both constructors of a single-use plan set a step.
        let step = step.unwrap_or(Step::Paid {
            reference: String::new(),
        });
        AnyPlan::Once(OncePlan {
            proofs,
            step,
            receipt,
        })
    }
}

impl Lifecycle for Channel {
    const SINGLE_USE: bool = false;
    type Claim = (ChannelAction, ChannelId, Change);

    fn erase(
        proofs: Vec<ProofKey>,
        step: Option<Step<StoredOrder>>,
        (action, channel, change): Self::Claim,
        receipt: Map<String, Value>,
    ) -> AnyPlan {
        let order = match step {
            Some(Step::Settle(order)) => Some(order),
            Some(Step::Paid { .. }) | None => None,
        };
        AnyPlan::Channel(ChannelPlan {
            action,
            channel,
            change,
            proofs,
            order,
            receipt,
        })
    }
}

/// The typed definition of an intent. Anyone may add one over an existing lifecycle.
pub trait IntentSpec: Send + Sync + 'static {
    /// The intent's registered name: `charge`.
    const NAME: &'static str;
    /// How its payments are consumed.
    type Lifecycle: Lifecycle;
    /// The seller's side, rail-neutral: price, unit, period. Read from configuration.
    type Terms: Serialize + DeserializeOwned + Send + Sync;
    /// The request members that all rails share; a rail's own go under `methodDetails`.
    type Request: Serialize + DeserializeOwned + Send + Sync;

    /// Checks terms as far as no rail is needed. Pure; called at startup.
    fn check_terms(terms: &Self::Terms) -> Result<(), Invalid> {
        let _ = terms;
        Ok(())
    }

    /// The shared request's own reference of the seller, which receipts repeat.
    fn external_id(request: &Self::Request) -> Option<&str> {
        let _ = request;
        None
    }
}

/// The object-safe face of an intent.
pub trait Intent: Send + Sync {
    /// See [`IntentSpec::NAME`].
    fn name(&self) -> &'static str;

    /// See [`Lifecycle::SINGLE_USE`].
    fn single_use(&self) -> bool;

    /// See [`IntentSpec::external_id`].
    fn external_id(&self, request: &Encoded) -> Option<String>;
}

/// An [`IntentSpec`] as an [`Intent`].
#[derive(Debug)]
pub struct IntentOf<I>(PhantomData<fn() -> I>);

impl<I> Default for IntentOf<I> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<I: IntentSpec> Intent for IntentOf<I> {
    fn name(&self) -> &'static str {
        I::NAME
    }

    fn single_use(&self) -> bool {
        I::Lifecycle::SINGLE_USE
    }

    fn external_id(&self, request: &Encoded) -> Option<String> {
        let request = request.decode::<I::Request>().ok()?;
        I::external_id(&request).map(str::to_owned)
    }
}

/// `charge`: one payment for one request (draft-payment-intent-charge).
#[derive(Clone, Copy, Debug)]
pub struct Charge;

/// What the seller says about a charge.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ChargeTerms {
    /// A decimal in the currency's usual unit: `"0.10"` dollars, `"21"` sats. The rail turns it
    /// into base units and refuses what its currency cannot express.
    pub amount: String,
    /// The currency, where a rail has several; otherwise the rail's configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// Who is paid, where it differs from the rail's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// Shown to the payer; never decides anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The seller's own reference, repeated on the receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// Keys of one rail only. A rail refuses those it does not know.
    #[serde(flatten)]
    pub options: Map<String, Value>,
}

impl ChargeTerms {
    /// Terms with nothing but a price.
    pub fn amount(amount: impl Into<String>) -> Self {
        Self {
            amount: amount.into(),
            ..Self::default()
        }
    }

    /// In this currency.
    pub fn currency(mut self, currency: impl Into<String>) -> Self {
        self.currency = Some(currency.into());
        self
    }

    /// With text for the payer.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// With the seller's own reference.
    pub fn external_id(mut self, external_id: impl Into<String>) -> Self {
        self.external_id = Some(external_id.into());
        self
    }

    /// With a key that only one rail knows.
    pub fn option(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.options.insert(key.to_owned(), value.into());
        self
    }

    /// The request for these terms, at a price in base units; without a recipient.
    pub fn request(&self, amount: Amount, currency: impl Into<String>) -> ChargeRequest {
        ChargeRequest {
            amount,
            currency: currency.into(),
            recipient: None,
            description: self.description.clone(),
            external_id: self.external_id.clone(),
        }
    }

    /// Refuses options beyond `known`, naming the nearest one.
    pub fn only_options(&self, known: &[&str]) -> Result<(), Invalid> {
        only_options(
            &self.options,
            &[
                "amount",
                "currency",
                "recipient",
                "description",
                "external_id",
            ],
            known,
        )
    }
}

fn only_options(
    options: &Map<String, Value>,
    shared: &[&str],
    known: &[&str],
) -> Result<(), Invalid> {
    let all: Vec<&str> = shared.iter().chain(known).copied().collect();
    let unknown = options.keys().filter(|key| !known.contains(&key.as_str()));
    Invalid::unless_empty(unknown.map(|key| Issue::unknown_key(key, &all)).collect())
}

/// The shared members of a charge request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChargeRequest {
    /// Base units: cents, sats, a token's smallest unit.
    pub amount: Amount,
    /// Lower-case ISO 4217, a token address, or what the method defines (`sat`).
    pub currency: String,
    /// Who is paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// For people only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The seller's own reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
}

impl IntentSpec for Charge {
    const NAME: &'static str = "charge";
    type Lifecycle = Once;
    type Terms = ChargeTerms;
    type Request = ChargeRequest;

    fn check_terms(terms: &ChargeTerms) -> Result<(), Invalid> {
        terms.only_options(&[])
    }

    fn external_id(request: &ChargeRequest) -> Option<&str> {
        request.external_id.as_deref()
    }
}

/// `session`: pay as you go against a running balance (draft-tempo-session, draft-lightning-session).
#[derive(Clone, Copy, Debug)]
pub struct Session;

/// What the seller says about a session.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SessionTerms {
    /// The price of one unit, a decimal in the currency's usual unit.
    pub amount: String,
    /// What a unit is: `token`, `request`, `second`.
    pub unit: String,
    /// See [`ChargeTerms::currency`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// See [`ChargeTerms::recipient`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// See [`ChargeTerms::description`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// A deposit to suggest, in the currency's usual unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggested_deposit: Option<String>,
    /// Keys of one rail only.
    #[serde(flatten)]
    pub options: Map<String, Value>,
}

impl SessionTerms {
    /// The request for these terms, at a price of a unit in base units; without a recipient or a
    /// deposit.
    pub fn request(&self, amount: Amount, currency: impl Into<String>) -> SessionRequest {
        SessionRequest {
            amount,
            currency: currency.into(),
            recipient: None,
            description: self.description.clone(),
            unit_type: Some(self.unit.clone()),
            suggested_deposit: None,
        }
    }

    /// Refuses options beyond `known`, naming the nearest one.
    pub fn only_options(&self, known: &[&str]) -> Result<(), Invalid> {
        only_options(
            &self.options,
            &[
                "amount",
                "unit",
                "currency",
                "recipient",
                "description",
                "suggested_deposit",
            ],
            known,
        )
    }
}

/// The shared members of a session request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionRequest {
    /// Base units per unit of service.
    pub amount: Amount,
    /// As in [`ChargeRequest::currency`].
    pub currency: String,
    /// Who is paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// For people only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What a unit is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit_type: Option<String>,
    /// Base units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggested_deposit: Option<Amount>,
}

impl IntentSpec for Session {
    const NAME: &'static str = "session";
    type Lifecycle = Channel;
    type Terms = SessionTerms;
    type Request = SessionRequest;

    fn check_terms(terms: &SessionTerms) -> Result<(), Invalid> {
        terms.only_options(&[])
    }
}
