//! What a session's request and credentials look like (draft-lightning-session).

use std::fmt;

use farebox_core::Rejection;
use farebox_wire::Amount;
use serde::{Deserialize, Serialize};

use crate::bolt11::{Bolt11, Details, Disagreement, Invoice, Network, PaymentHash, Preimage};

/// The rail's own request members, beside the shared ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SessionDetails {
    /// The BOLT11 invoice that funds an opening or a top-up; the rest must agree with it. Absent
    /// where a server takes neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deposit_invoice: Option<String>,
    /// Its payment hash, 64 lower-case hex digits.
    pub payment_hash: String,
    /// What it costs, sats. Not negotiable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deposit_amount: Option<Amount>,
    /// After how many seconds without a request the session is closed; informational.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
}

impl SessionDetails {
    pub(crate) fn new(invoice: &Invoice, deposit: Amount, idle_seconds: u64) -> Self {
        Self {
            deposit_invoice: Some(invoice.bolt11.clone()),
            payment_hash: invoice.payment_hash.to_string(),
            deposit_amount: Some(deposit),
            idle_timeout: Some(idle_seconds.to_string()),
        }
    }

    /// The deposit's invoice and its amount in sats, held against everything said beside it.
    ///
    /// # Errors
    /// The first contradiction.
    pub(crate) fn deposit(&self, network: Network) -> Result<(Invoice, Amount), Disagreement> {
        let bolt11 = self.deposit_invoice.clone().unwrap_or_default();
        let msat = Bolt11::parse(&bolt11)?.amount_msat;
        let msat = msat.ok_or(Disagreement::Amountless)?;
        let sats = Amount::new(u128::from(msat / 1_000));
        let said = Details {
            invoice: bolt11,
            payment_hash: Some(self.payment_hash.clone()),
            network,
        };
        let invoice = Invoice::check(self.deposit_amount.unwrap_or(sats), &said)?;
        Ok((invoice, sats))
    }
}

/// What is presented: an action and what it takes. What is missing or misspelt reads as absent, so
/// that it is answered under the rail's own problem type.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SessionPayload {
    /// `open`, `bearer`, `topUp` or `close`.
    #[serde(default)]
    pub action: String,
    /// The payment hash of the deposit that opened the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The preimage of that deposit: the session's bearer secret.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::bolt11::lenient"
    )]
    pub preimage: Option<Preimage>,
    /// The preimage of a top-up's deposit.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::bolt11::lenient"
    )]
    pub top_up_preimage: Option<Preimage>,
    /// Where what is left goes at the close: an invoice without an amount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_invoice: Option<String>,
}

impl fmt::Debug for SessionPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionPayload")
            .field("action", &self.action)
            .finish_non_exhaustive()
    }
}

/// A payload that has what its action takes.
pub(crate) enum Action {
    Open {
        preimage: Preimage,
        return_invoice: String,
    },
    Bearer(Right),
    TopUp {
        session: PaymentHash,
        preimage: Preimage,
    },
    Close(Right),
}

/// Who shows it may spend a session and end it.
pub(crate) struct Right {
    pub(crate) session: PaymentHash,
    pub(crate) preimage: Preimage,
}

impl SessionPayload {
    fn of(action: &str) -> Self {
        Self {
            action: action.to_owned(),
            session_id: None,
            preimage: None,
            top_up_preimage: None,
            return_invoice: None,
        }
    }

    pub(crate) fn open(preimage: Preimage, return_invoice: &str) -> Self {
        Self {
            preimage: Some(preimage),
            return_invoice: Some(return_invoice.to_owned()),
            ..Self::of("open")
        }
    }

    pub(crate) fn bearer(preimage: Preimage) -> Self {
        Self::with_right("bearer", preimage)
    }

    pub(crate) fn close(preimage: Preimage) -> Self {
        Self::with_right("close", preimage)
    }

    fn with_right(action: &str, preimage: Preimage) -> Self {
        Self {
            session_id: Some(preimage.hash().to_string()),
            preimage: Some(preimage),
            ..Self::of(action)
        }
    }

    pub(crate) fn top_up(session: &str, preimage: Preimage) -> Self {
        Self {
            session_id: Some(session.to_owned()),
            top_up_preimage: Some(preimage),
            ..Self::of("topUp")
        }
    }

    /// What the payload does.
    ///
    /// # Errors
    /// `lightning/malformed-credential`, naming the member.
    pub(crate) fn read(self) -> Result<Action, Rejection> {
        let preimage = || {
            let missing = "`preimage` must be 64 lower-case hex digits";
            self.preimage.clone().ok_or_else(|| malformed(missing))
        };
        let session = || {
            let id = self.session_id.as_deref().and_then(PaymentHash::parse);
            id.ok_or_else(|| {
                malformed(
                    "`sessionId` must be the deposit's payment hash, 64 lower-case hex digits",
                )
            })
        };
        let right = || {
            Ok(Right {
                session: session()?,
                preimage: preimage()?,
            })
        };
        match self.action.as_str() {
            "open" => Ok(Action::Open {
                preimage: preimage()?,
                return_invoice: self
                    .return_invoice
                    .clone()
                    .ok_or_else(|| malformed("`returnInvoice` is missing"))?,
            }),
            "bearer" => right().map(Action::Bearer),
            "topUp" => Ok(Action::TopUp {
                session: session()?,
                preimage: self
                    .top_up_preimage
                    .clone()
                    .ok_or_else(|| malformed("`topUpPreimage` must be 64 lower-case hex digits"))?,
            }),
            "close" => right().map(Action::Close),
            _ => Err(malformed("`action` must be open, bearer, topUp or close")),
        }
    }
}

fn malformed(detail: &str) -> Rejection {
    Rejection::rail("malformed-credential", detail)
}
