//! `tempo/session`: pay as you go out of a channel on the chain (TIP-1034), version 2 of the
//! protocol.
//!
//! The payer locks a deposit in the channel reserve and signs vouchers for cumulative amounts. The
//! server checks the signatures, which costs no call of the chain, and cashes the highest voucher
//! when it settles or closes; what is left goes back to the payer within the close.
//!
//! A channel is known by its [`Descriptor`]. Who may sign its vouchers stands there, hashed into the
//! channel's id, so a signature is checked before anything is looked up, and nobody but its signer
//! learns how a channel stands.

pub mod channel;
mod config;
mod operator;
mod payload;
mod quote;
mod settle;
pub mod signature;
mod snapshot;
mod states;
mod tx;
mod verify;
mod wallet;

use std::sync::Arc;

use alloy::primitives::{Address, B256};
use farebox_core::{Tally, prelude::*};

pub use channel::{Descriptor, Domain};
pub use config::{SessionConfig, SessionWalletConfig, SettlementConfig};
pub use payload::Payload;
pub use settle::{SessionOrder, SessionSettler};
pub use snapshot::{HighestVoucher, Snapshot};
pub use wallet::{Presentation, SessionHeld, TempoSessionWallet};

use crate::Tempo;
pub(crate) use tx::Moved;

use operator::Operator;
use snapshot::Kept;
use states::States;

/// The version of the protocol that is spoken.
const PROTOCOL: &str = "v2";

/// The server's side.
#[derive(Debug)]
pub struct TempoSession {
    pub(crate) base: Tempo,
    domain: Domain,
    /// Without one nothing can be offered.
    operator: Option<Operator>,
    states: Arc<States>,
    min_delta: Amount,
    suggested_deposit: Option<String>,
    schedule: Schedule,
    settler: SessionSettler,
}

/// The rail's own request members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// The channel reserve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escrow_contract: Option<Address>,
    /// EIP-155 chain id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<u64>,
    /// `v2`; absent means `v1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_protocol: Option<String>,
    /// The least by which a voucher must exceed the one before, base units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_voucher_delta: Option<Amount>,
    /// A channel to go on with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_id: Option<B256>,
    /// Whether the server pays the network fee of openings and top-ups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fee_payer: Option<bool>,
    /// The token that it pays that fee in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fee_token: Option<Address>,
    /// Who settles beside the recipient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<Address>,
    /// How a channel of the payer's stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_snapshot: Option<serde_json::Value>,
}

impl Details {
    /// Whether the request is of the version that is spoken here.
    pub(crate) fn is_spoken(&self) -> bool {
        self.session_protocol.as_deref() == Some(PROTOCOL)
    }
}

impl Rail<Session> for TempoSession {
    const METHOD: &'static str = "tempo";
    type Details = Details;
    type Payload = Payload;
    type Settler = SessionSettler;

    fn check(&self, terms: &SessionTerms) -> Result<(), Invalid> {
        quote::read(self, terms).map(drop)
    }

    fn entrust(&self, tally: Tally) {
        Rail::<Charge>::entrust(&self.base, tally);
    }

    async fn connect(&self) -> Result<(), Fault> {
        self.base.chain.connect().await
    }

    async fn quote(&self, terms: &SessionTerms) -> Result<Quote<Session, Details>, NoQuote> {
        quote::quote(self, terms)
    }

    async fn verify(
        &self,
        cx: &Presented<'_>,
        ask: &Ask<Session, Details>,
        payload: Payload,
    ) -> Result<Plan<Channel, SessionOrder>, Refusal> {
        verify::verify(self, cx, ask, payload).await
    }

    fn settler(&self) -> &SessionSettler {
        &self.settler
    }

    fn statement(&self, channel: &ChannelId, state: &ChannelState, served: &Served) -> Statement {
        let mut statement = Statement::default()
            .member("intent", Session::NAME)
            .member("channelId", channel.id())
            .member("acceptedCumulative", state.authorized.to_string())
            .member("spent", state.spent.to_string())
            .attach("Payment-Session", channel.id());
        if served.units > 0 {
            statement = statement.member("units", served.units);
        }
        if let Some(snapshot) = Snapshot::of(&self.domain, channel, state).filter(|_| !state.closed)
        {
            statement = statement.attach("Payment-Session-Snapshot", snapshot.header());
        }
        statement
    }

    fn event(&self, channel: &ChannelId, state: &ChannelState, moment: &Moment) -> Option<Event> {
        let Moment::Exhausted { required, .. } = moment else {
            return None;
        };
        // A voucher that is refused for being too small a step would not help.
        let step = Amount::new(state.authorized.get().saturating_add(self.min_delta.get()));
        let required = (*required).max(step);
        Some(Event {
            name: "payment-need-voucher",
            data: serde_json::json!({
                "channelId": channel.id(),
                "requiredCumulative": required,
                "acceptedCumulative": state.authorized,
                "deposit": state.deposit,
            }),
        })
    }

    fn schedule(&self) -> Schedule {
        self.schedule
    }

    async fn upkeep(
        &self,
        channel: &ChannelId,
        state: &ChannelState,
        due: Due,
    ) -> Result<Upkeep<SessionOrder>, Fault> {
        operator::upkeep(self, channel, state, due).await
    }

    async fn settle_together(
        &self,
        channels: &[(ChannelId, ChannelState)],
    ) -> Result<Together<SessionOrder>, Fault> {
        operator::together(self, channels).await
    }
}

impl TempoSession {
    fn operator(&self) -> Result<&Operator, Fault> {
        let operator = self.operator.as_ref();
        operator.ok_or_else(|| Fault::new("a session without an operator's key"))
    }
}

/// The rail's own part of a channel.
fn kept(state: &ChannelState) -> Option<Kept> {
    Kept::deserialize(&state.rail).ok()
}
