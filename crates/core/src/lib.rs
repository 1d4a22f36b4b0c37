//! What a rail author depends on, and nothing more: intents, methods, settlers, payers, stores,
//! the plugin registry and [`compose()`](compose::compose).
//!
//! There is no HTTP here, no async runtime and no store implementation. One rule shapes every
//! type: **rails decide, the engine acts**. A rail says what it asks for ([`Rail::quote`]) and
//! whether a proof is good ([`Rail::verify`], read-only, answering a [`Plan`]); the engine alone
//! claims, settles, records, retries, reconciles and answers.
//!
//! Each role has two traits. Authors write the *typed* one with plain `async fn` and serde types;
//! the engine holds the *object-safe* one; a blanket implementation joins them at the JSON
//! boundary.
//!
//! | role | authors write | the engine holds |
//! |---|---|---|
//! | what a payment means | [`IntentSpec`] | [`dyn Intent`](Intent) |
//! | a rail for one intent | [`Rail`] | [`dyn Method`](Method) |
//! | moving money | [`Settle`] | [`dyn Settler`](Settler) |
//! | paying | [`Wallet`] | [`dyn Payer`](Payer) |
//! | paying as you go | [`SessionWallet`] | [`dyn SessionPayer`](SessionPayer) |
//! | remembering | [`Store`] | [`dyn Store`](Store) |

pub mod ask;
pub mod budget;
pub mod channel;
pub mod compose;
pub mod config;
pub mod driver;
pub mod hook;
pub mod intent;

pub mod method;
pub mod page;
pub mod payer;
pub mod plan;
pub mod quote;
pub mod refund;
pub mod refusal;
pub mod registry;
pub mod session;
pub mod settle;
pub mod statement;
pub mod store;
pub mod tally;
pub mod upkeep;

pub use ask::{Ask, Place};
pub use budget::{Approved, Budget, BudgetError, Limit, Reservation};
pub use channel::{
    Authorize, Change, ChannelId, ChannelState, Channels, NoChannels, Observed, Refund, Voucher,
};
pub use compose::{ComposeError, Offer, Offers, PricingContext, compose};
pub use config::{Invalid, Issue, Secret, SecretSource};
pub use driver::{Backend, Opener, StoreDriver, StoreDrivers};
pub use hook::{Delivery, Hint, Unheeded};
pub use intent::{
    Channel, Charge, ChargeRequest, ChargeTerms, Intent, IntentSpec, Lifecycle, Once, Session,
    SessionRequest, SessionTerms,
};

pub use method::{AnyQuote, Method, Presented, Rail, Typed};
pub use page::PagePart;
pub use payer::{Cost, Paid, PayError, Payer, Paying, TypedPayer, Wallet};
pub use plan::{AnyPlan, ChannelAction, ChannelPlan, OncePlan, Plan, ProofKey, Step};
pub use quote::{NoQuote, Quote};
pub use refund::{Misnamed, NoRefund, PaymentName, RefundKey, RefundOrder, Refundable, Refunded};
pub use refusal::{Fault, Refusal, Rejection};
pub use registry::{Linked, Plugin, Registry, RegistryError};
pub use session::{
    Adopted, DepositRule, Draft, Funded, Held, OpenChannel, SessionPayer, SessionPrice,
    SessionWallet, Spending, Standing, TypedSessionPayer,
};
pub use settle::{IdempotencyKey, Never, NoSettler, Outcome, Settle, Settler, StoredOrder};
pub use statement::{Answer, Attachment, Event, Moment, Served, Statement};
pub use store::{Durability, Listener, Notices, Store};
pub use tally::{Account, Reserved, Tally};
pub use upkeep::{AnyErrand, AnyUpkeep, Due, Schedule, Together, Upkeep};

/// The protocol values, re-exported so that a rail needs one dependency.
pub use farebox_wire as wire;

#[doc(hidden)]
pub mod __private {
    pub use inventory;

    /// `method/intent` at compile time, so that a plugin's name cannot disagree with its rail.
    pub const fn pair<const N: usize>(method: &str, intent: &str) -> [u8; N] {
        let (method, intent) = (method.as_bytes(), intent.as_bytes());
        let mut out = [b'/'; N];
        let mut i = 0;
        while i < method.len() {
            out[i] = method[i];
            i += 1;
        }
        i = 0;
        while i < intent.len() {
            out[method.len() + 1 + i] = intent[i];
            i += 1;
        }
        out
    }

    /// The inverse of `as_bytes`, for a `const`.
    pub const fn text(bytes: &'static [u8]) -> &'static str {
        match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(_) => panic!("a method or intent name is not UTF-8"),
        }
    }
}

/// Everything a rail's source file needs.
pub mod prelude {
    pub use crate::{
        Adopted, DepositRule, Draft, Funded, OpenChannel, SessionPrice, SessionWallet, Spending,
        Standing,
    };
    pub use crate::{
        Answer, Approved, Ask, Authorize, Change, Channel, ChannelAction, ChannelId, ChannelState,
        Charge, ChargeRequest, ChargeTerms, Cost, Delivery, Due, Event, Fault, Hint,
        IdempotencyKey, IntentSpec, Invalid, Issue, Misnamed, Moment, Never, NoQuote, NoRefund,
        NoSettler, Observed, Once, Outcome, PagePart, Paid, PayError, Paying, PaymentName, Plan,
        Presented, ProofKey, Quote, Rail, Refund, RefundKey, RefundOrder, Refundable, Refunded,
        Refusal, Rejection, Schedule, Secret, Served, Session, SessionRequest, SessionTerms,
        Settle, Statement, Together, Unheeded, Upkeep, Voucher, Wallet, plugin,
    };
    pub use farebox_wire::{Amount, Challenge, Problem, Receipt, Timestamp};
    pub use serde::{Deserialize, Serialize};
}
