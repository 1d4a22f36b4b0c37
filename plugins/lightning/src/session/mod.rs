//! `lightning/session`: a deposit is paid once, spent by whoever holds its preimage, and what is
//! left of it goes back to an invoice of the payer's (draft-lightning-session).
//!
//! Unlike a voucher, a deposit is the seller's from the start, so the payer trusts the seller for
//! as much as is left. The node must be able to pay for that: an `invoice.macaroon` does not do,
//! since refunds need `offchain:write`.

mod quote;
mod settle;
mod verify;
mod wallet;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use farebox_core::{
    Answer, Ask, Channel, ChannelAction, ChannelId, ChannelState, Due, Event, Fault, Invalid,
    Moment, NoQuote, Place, Plan, Presented, Quote, Rail, Refund, Refusal, Schedule, Served,
    Session, SessionTerms, Statement, Upkeep,
    wire::{Amount, Receipt},
};
use serde_json::{Value, json};

pub use settle::{RefundOrder, Refunder};
pub use wallet::{Deposit, HeldSession, LightningSessionWallet};
pub use wire::{SessionDetails, SessionPayload};

use crate::METHOD;
use crate::config::{self, Config, DEFAULT_MAX_FEE_MSAT, InvoiceExpiry};
use crate::node::Node;

/// After how long without a request a session is closed, unless the configuration says otherwise.
pub(crate) const DEFAULT_IDLE: Duration = Duration::from_secs(300);

/// The seller's side of `lightning/session`.
pub struct LightningSession {
    node: Arc<dyn Node>,
    strict: bool,
    invoice_expiry: InvoiceExpiry,
    idle: Duration,
    max_refund_fee_msat: u64,
    settler: Refunder,
}

impl fmt::Debug for LightningSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LightningSession")
            .field("network", &self.node.network())
            .field("strict", &self.strict)
            .field("idle", &self.idle)
            .finish_non_exhaustive()
    }
}

impl LightningSession {
    /// The rail as configured. Pure: the node is reached at the first challenge.
    ///
    /// # Errors
    ///
    /// Everything wrong with the configuration, files that are missing included.
    pub fn new(config: Config) -> Result<Self, Invalid> {
        let mut issues = Vec::new();
        let invoice_expiry = config.invoice_expiry(&mut issues);
        let idle = config.session.idle_timeout(&mut issues);
        let node = config.node(&mut issues);
        let rail = Self::on(config::finish(node, issues)?);
        Ok(Self {
            strict: config.strict,
            invoice_expiry: InvoiceExpiry::new(invoice_expiry),
            idle,
            max_refund_fee_msat: config
                .session
                .max_refund_fee_msat
                .unwrap_or(DEFAULT_MAX_FEE_MSAT),
            ..rail
        })
    }

    /// The rail on a node of one's own, with every setting at its default.
    #[must_use]
    pub fn on(node: Arc<dyn Node>) -> Self {
        Self {
            settler: Refunder::new(node.clone()),
            node,
            strict: true,
            invoice_expiry: InvoiceExpiry::new(config::DEFAULT_INVOICE_EXPIRY),
            idle: DEFAULT_IDLE,
            max_refund_fee_msat: DEFAULT_MAX_FEE_MSAT,
        }
    }

    /// See [`SessionConfig::idle_timeout`](field@crate::SessionConfig::idle_timeout).
    #[must_use]
    pub fn idle_timeout(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }
}

impl Rail<Session> for LightningSession {
    const METHOD: &'static str = METHOD;
    const DETAILS: Place = Place::Beside;
    type Details = SessionDetails;
    type Payload = SessionPayload;
    type Settler = Refunder;

    fn check(&self, terms: &SessionTerms) -> Result<(), Invalid> {
        quote::read(terms).map(drop)
    }

    fn challenges_last(&self, at_most: Duration) {
        self.invoice_expiry.cap(at_most);
    }

    async fn quote(&self, terms: &SessionTerms) -> Result<Quote<Session, SessionDetails>, NoQuote> {
        quote::quote(&*self.node, terms, self.invoice_expiry.get(), self.idle).await
    }

    async fn verify(
        &self,
        cx: &Presented<'_>,
        ask: &Ask<Session, SessionDetails>,
        payload: SessionPayload,
    ) -> Result<Plan<Channel, RefundOrder>, Refusal> {
        verify::verify(&*self.node, self.strict, cx, ask, payload).await
    }

    fn settler(&self) -> &Refunder {
        &self.settler
    }

    fn statement(&self, _: &ChannelId, state: &ChannelState, served: &Served) -> Statement {
        let mut statement = Statement::default();
        if served.units > 0 {
            statement = statement
                .member("spent", number(served.spent))
                .member("units", served.units);
        }
        match refunded(state) {
            Some((sats, status)) => statement
                .member("refundSats", sats)
                .member("refundStatus", status),
            None => statement,
        }
    }

    fn event(&self, channel: &ChannelId, state: &ChannelState, moment: &Moment) -> Option<Event> {
        let (name, next) = match moment {
            Moment::Exhausted { next, .. } => ("payment-need-topup", next),
            Moment::TimedOut { next, .. } => ("session-timeout", next),
            Moment::Ended => {
                let (name, data) = ("message", "[DONE]".into());
                return Some(Event { name, data });
            }
            _ => return None,
        };
        let data = json!({
            "sessionId": channel.id(),
            "balanceSpent": number(state.spent),
            "balanceRequired": number(*next),
        });
        Some(Event { name, data })
    }

    fn answer(&self, action: ChannelAction, _: &Receipt, state: &ChannelState) -> Answer {
        match action {
            ChannelAction::TopUp => Answer::Json(json!({ "status": "ok" })),
            ChannelAction::Close => match refunded(state) {
                Some((sats, status)) => Answer::Json(json!({
                    "status": "closed", "refundSats": sats, "refundStatus": status,
                })),
                None => Answer::Later,
            },
            _ => Answer::Empty,
        }
    }

    fn insufficient(&self) -> farebox_core::wire::Problem {
        farebox_core::wire::Problem::rail(METHOD, "insufficient-balance")
    }

    fn schedule(&self) -> Schedule {
        Schedule::default().idle(self.idle)
    }

    async fn upkeep(
        &self,
        _: &ChannelId,
        state: &ChannelState,
        due: Due,
    ) -> Result<Upkeep<RefundOrder>, Fault> {
        Ok(match due {
            Due::Idle => Upkeep::close(farebox_core::Change::none(), None),
            Due::Owed => {
                let order = verify::refund_of(state, self.max_refund_fee_msat)?;
                Upkeep::refund(state.unaccounted(), Some(order))
            }
            _ => Upkeep::nothing(),
        })
    }
}

/// What a closed session's payer got back, once that is known.
fn refunded(state: &ChannelState) -> Option<(Value, &'static str)> {
    if !state.closed {
        return None;
    }
    match state.refund {
        Refund::Done => Some((number(state.refunded), "succeeded")),
        Refund::Failed => Some((number(state.unaccounted()), "failed")),
        Refund::None if state.unaccounted().is_zero() => Some((number(Amount::ZERO), "skipped")),
        _ => None,
    }
}

/// The wire has sats as numbers here; there are fewer than 2^53 of them.
fn number(amount: Amount) -> Value {
    u64::try_from(amount.get()).unwrap_or(u64::MAX).into()
}
