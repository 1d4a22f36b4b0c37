//! The paying side of a session: deposits are paid once, and the preimage of the first is what
//! spends them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farebox_core::{
    Adopted, Approved, Ask, Cost, DepositRule, Draft, Fault, Funded, Invalid, OpenChannel, Paid,
    PayError, Paying, Place, Session, SessionPrice, SessionWallet, Spending, Standing,
};
use farebox_wire::{Amount, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::wire::{SessionDetails, SessionPayload};
use crate::bolt11::{Bolt11, Invoice, PaymentHash, Preimage};
use crate::charge::LightningWallet;
use crate::charge::quote::CURRENCY;
use crate::config::WalletConfig;
use crate::node::{InvoiceState, NewInvoice, NodeError, Payment, SendOrder};

/// How long a refund can be paid: the draft asks for 30 days.
const RETURN_EXPIRY: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long to wait for a payment of which the last is not known.
const WAIT: Duration = Duration::from_secs(5);

/// Pays deposits from a node, within the limits of a [`LightningWallet`].
///
/// The routing fee of a deposit comes on top of it, at most what that wallet allows; a budget
/// counts the deposit. Preimages are kept in memory only: after a restart the node is asked for
/// them.
#[derive(Clone)]
pub struct LightningSessionWallet {
    wallet: LightningWallet,
    secrets: Arc<Mutex<HashMap<PaymentHash, Preimage>>>,
}

impl std::fmt::Debug for LightningSessionWallet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LightningSessionWallet")
            .field("wallet", &self.wallet)
            .finish_non_exhaustive()
    }
}

/// An invoice that a draft pays or has paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deposit {
    bolt11: String,
    sats: Amount,
}

/// What is kept of a session. No secret: the preimages stay with the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldSession {
    opening: Deposit,
    /// The top-ups before that, sats.
    added: Amount,
    /// The last top-up, which is being paid or has been. `added` does not count it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    top_up: Option<Deposit>,
    return_invoice: String,
}

impl LightningSessionWallet {
    /// A wallet as configured. Pure: the node is reached at the first payment.
    ///
    /// # Errors
    /// Everything wrong with the configuration.
    pub fn new(config: WalletConfig) -> Result<Self, Invalid> {
        LightningWallet::new(config).map(Self::within)
    }

    /// A wallet for sessions with the node and the limits of `wallet`.
    #[must_use]
    pub fn within(wallet: LightningWallet) -> Self {
        Self {
            wallet,
            secrets: Arc::default(),
        }
    }

    /// The deposit's invoice and its amount, if the wallet may pay it.
    fn examine(
        &self,
        cx: &Paying<'_>,
        ask: &Ask<Session, SessionDetails>,
    ) -> Result<(Invoice, Amount), PayError> {
        if ask.request.currency != CURRENCY {
            let why = format!("the currency is not \"{CURRENCY}\"");
            return Err(PayError::Unsupported(why));
        }
        let ours = self.wallet.node.network();
        let refused = |why: String| Err(PayError::Refused(why));
        let (invoice, sats) = match ask.details.deposit(ours) {
            Ok(deposit) => deposit,
            Err(disagreement) => return refused(disagreement.to_string()),
        };
        if sats.get().checked_mul(1_000) != Some(invoice.amount_msat.into()) {
            return refused("the deposit is not whole sats".to_owned());
        }
        if ask.request.amount.is_zero() || sats < ask.request.amount {
            return refused(format!(
                "the deposit of {sats} sats does not pay for one unit of {}",
                ask.request.amount
            ));
        }
        let lapsed = cx.challenge.expires.as_ref();
        let now = Timestamp::now();
        if invoice.expires <= now || lapsed.is_some_and(|expires| *expires <= now) {
            return refused("the invoice or its challenge has expired".to_owned());
        }
        self.wallet.check_total(invoice.amount_msat)?;
        Ok((invoice, sats))
    }

    fn remember(&self, preimage: &Preimage) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.insert(preimage.hash(), preimage.clone());
    }

    /// The secret of a session that was paid for.
    async fn secret(&self, held: &HeldSession) -> Result<Preimage, PayError> {
        let hash = hash_of(&held.opening.bolt11).map_err(PayError::NotPaid)?;
        let kept = {
            let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
            secrets.get(&hash).cloned()
        };
        if let Some(preimage) = kept {
            return Ok(preimage);
        }
        match self.wallet.node.track(hash, WAIT).await {
            Some(Payment::Succeeded { preimage, .. }) => {
                self.remember(&preimage);
                Ok(preimage)
            }
            Some(Payment::Unknown(error) | Payment::Unsent(error)) => {
                let fault = Fault::unavailable("asking the node for a session's secret");
                Err(PayError::NotPaid(fault.caused_by(error)))
            }
            Some(Payment::Failed(_)) | None => Err(PayError::Refused(
                "the node knows of no deposit that opened the session".to_owned(),
            )),
        }
    }

    /// Pays a deposit, or finds that it has been paid: a node pays an invoice once.
    async fn pay(&self, deposit: &Deposit) -> Result<Preimage, PayError> {
        let what = "paying a Lightning deposit";
        let invoice = Bolt11::parse(&deposit.bolt11)
            .map_err(|e| PayError::NotPaid(Fault::new(what).caused_by(e)))?;
        let msat = deposit.sats.get().saturating_mul(1_000);
        let msat = u64::try_from(msat).unwrap_or(u64::MAX);
        let left = invoice.expires.unix_millis() - Timestamp::now().unix_millis();
        let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
        let payment = if left.is_zero() {
            // Too late to begin; it may have been paid in time.
            let tracked = self.wallet.node.track(invoice.payment_hash, WAIT).await;
            tracked.unwrap_or_else(|| Payment::Failed("the invoice has expired".to_owned()))
        } else {
            let order = SendOrder::new(
                invoice.bolt11,
                invoice.payment_hash,
                self.wallet.fee_limit_msat(msat),
                self.wallet.payment_timeout.min(left),
            );
            match self.wallet.node.pay(order).await {
                Payment::Unknown(error) => self.wallet.resolve(invoice.payment_hash, error).await,
                ended => ended,
            }
        };
        match payment {
            Payment::Succeeded { preimage, .. } => {
                self.remember(&preimage);
                Ok(preimage)
            }
            Payment::Failed(why) => {
                let cause = NodeError::Refused(why);
                Err(PayError::NotPaid(Fault::new(what).caused_by(cause)))
            }
            Payment::Unsent(error) => Err(PayError::NotPaid(Fault::new(what).caused_by(error))),
            Payment::Unknown(error) => Err(PayError::Unknown(Fault::new(what).caused_by(error))),
        }
    }

    /// Whether a deposit was made, as far as that can ever be known.
    async fn fate(&self, deposit: &Deposit) -> Result<Fate, Fault> {
        let invoice = Bolt11::parse(&deposit.bolt11)
            .map_err(|e| Fault::new("reading a recorded invoice").caused_by(e))?;
        Ok(
            match self.wallet.node.track(invoice.payment_hash, WAIT).await {
                Some(Payment::Succeeded { .. }) => Fate::Made,
                Some(Payment::Unknown(_) | Payment::Unsent(_)) => Fate::Open,
                // A request may still be on its way, until nobody can pay the invoice any more.
                Some(Payment::Failed(_)) | None if invoice.expires <= Timestamp::now() => {
                    Fate::Never
                }
                Some(Payment::Failed(_)) | None => Fate::Open,
            },
        )
    }
}

/// What became of a deposit.
enum Fate {
    Made,
    Never,
    Open,
}

fn hash_of(bolt11: &str) -> Result<PaymentHash, Fault> {
    Bolt11::parse(bolt11)
        .map(|invoice| invoice.payment_hash)
        .map_err(|e| Fault::new("reading a recorded invoice").caused_by(e))
}

/// A draft is for the invoice of one challenge, and so is its proof.
fn of_this_challenge(
    deposit: &Deposit,
    ask: &Ask<Session, SessionDetails>,
) -> Result<(), PayError> {
    if ask.details.deposit_invoice.as_ref() == Some(&deposit.bolt11) {
        return Ok(());
    }
    Err(PayError::Refused(
        "the deposit was drafted for another challenge".to_owned(),
    ))
}

impl HeldSession {
    fn deposit(&self) -> Amount {
        Amount::new(self.opening.sats.get().saturating_add(self.added.get()))
    }

    fn channel(self) -> Result<OpenChannel<Self>, Fault> {
        Ok(OpenChannel {
            id: hash_of(&self.opening.bolt11)?.to_string(),
            deposit: self.deposit(),
            held: self,
        })
    }
}

impl SessionWallet for LightningSessionWallet {
    const METHOD: &'static str = crate::METHOD;
    const SPENDING: Spending = Spending::Prepaid;
    const DETAILS: Place = Place::Beside;
    type Details = SessionDetails;
    type Held = HeldSession;
    type Payload = SessionPayload;

    fn price(
        &self,
        cx: &Paying<'_>,
        ask: &Ask<Session, SessionDetails>,
    ) -> Result<SessionPrice, PayError> {
        let (invoice, deposit) = self.examine(cx, ask)?;
        let network = self.wallet.node.network();
        Ok(SessionPrice {
            reuse: format!("{}:{network}", invoice.payee),
            unit: Cost {
                amount: ask.request.amount,
                currency: CURRENCY.into(),
                recipient: Some(invoice.payee),
            },
            deposit: DepositRule::Exactly(deposit),
            min_delta: Amount::ZERO,
            hint: None,
        })
    }

    async fn funded(&self, cost: &Cost) -> bool {
        match self.wallet.node.balance_msat().await {
            Ok(balance) => u128::from(balance) >= cost.amount.get().saturating_mul(1_000),
            Err(_) => true,
        }
    }

    async fn draft_open(
        &self,
        cx: &Paying<'_>,
        ask: &Ask<Session, SessionDetails>,
        deposit: Amount,
    ) -> Result<Draft<HeldSession>, PayError> {
        let (invoice, sats) = self.examine(cx, ask)?;
        exactly(sats, deposit)?;
        let minted = self
            .wallet
            .node
            .create_invoice(NewInvoice::open("a session's refund", RETURN_EXPIRY))
            .await;
        let minted = minted.map_err(|e| {
            PayError::NotPaid(Fault::new("minting an invoice for a refund").caused_by(e))
        })?;
        Ok(Draft {
            channel: invoice.payment_hash.to_string(),
            amount: sats,
            held: HeldSession {
                opening: Deposit {
                    bolt11: invoice.bolt11,
                    sats,
                },
                added: Amount::ZERO,
                top_up: None,
                return_invoice: minted.bolt11,
            },
        })
    }

    async fn open(
        &self,
        _: &Paying<'_>,
        ask: &Ask<Session, SessionDetails>,
        draft: Draft<HeldSession>,
        _: Amount,
        _: Approved,
    ) -> Result<Funded<SessionPayload, HeldSession>, PayError> {
        of_this_challenge(&draft.held.opening, ask)?;
        let preimage = self.pay(&draft.held.opening).await?;
        let payload = SessionPayload::open(preimage, &draft.held.return_invoice);
        Ok(Funded {
            paid: Paid::new(payload),
            held: draft.held,
        })
    }

    async fn voucher(
        &self,
        _: &Paying<'_>,
        _: &Ask<Session, SessionDetails>,
        channel: &OpenChannel<HeldSession>,
        _: Amount,
    ) -> Result<Paid<SessionPayload>, PayError> {
        let secret = self.secret(&channel.held).await?;
        Ok(Paid::new(SessionPayload::bearer(secret)))
    }

    async fn draft_top_up(
        &self,
        cx: &Paying<'_>,
        ask: &Ask<Session, SessionDetails>,
        channel: &OpenChannel<HeldSession>,
        additional: Amount,
    ) -> Result<Draft<HeldSession>, PayError> {
        let (invoice, sats) = self.examine(cx, ask)?;
        exactly(sats, additional)?;
        let opened = channel.held.opening.sats.get();
        Ok(Draft {
            channel: channel.id.clone(),
            amount: sats,
            held: HeldSession {
                // What the channel holds is what was made of the drafts before.
                added: Amount::new(channel.deposit.get().saturating_sub(opened)),
                top_up: Some(Deposit {
                    bolt11: invoice.bolt11,
                    sats,
                }),
                ..channel.held.clone()
            },
        })
    }

    async fn top_up(
        &self,
        _: &Paying<'_>,
        ask: &Ask<Session, SessionDetails>,
        draft: Draft<HeldSession>,
        _: Approved,
    ) -> Result<Funded<SessionPayload, HeldSession>, PayError> {
        let Some(deposit) = &draft.held.top_up else {
            let fault = Fault::new("reading a draft that is no top-up");
            return Err(PayError::NotPaid(fault));
        };
        of_this_challenge(deposit, ask)?;
        let preimage = self.pay(deposit).await?;
        Ok(Funded {
            paid: Paid::new(SessionPayload::top_up(&draft.channel, preimage)),
            // As it was, so that it can be taken up again until the server has heard of it.
            held: draft.held,
        })
    }

    async fn close(
        &self,
        _: &Paying<'_>,
        _: &Ask<Session, SessionDetails>,
        channel: &OpenChannel<HeldSession>,
        _: Amount,
    ) -> Result<Paid<SessionPayload>, PayError> {
        let secret = self.secret(&channel.held).await?;
        Ok(Paid::new(SessionPayload::close(secret)))
    }

    /// By the node: whether the deposit left it, and whether a refund has come back. How much the
    /// seller has taken meanwhile only the seller knows.
    async fn standing(&self, held: &HeldSession) -> Result<Standing<HeldSession>, Fault> {
        match self.fate(&held.opening).await? {
            Fate::Made => {}
            Fate::Never => return Ok(Standing::Absent),
            Fate::Open => return Ok(Standing::Pending),
        }
        let refund = hash_of(&held.return_invoice)?;
        let refunded = self.wallet.node.look_up(refund, Duration::ZERO).await;
        let refunded = refunded
            .map_err(|e| Fault::unavailable("looking up a session's refund").caused_by(e))?;
        let over = refunded == Some(InvoiceState::Settled);
        let mut held = held.clone();
        if let Some(deposit) = held.top_up.take() {
            match self.fate(&deposit).await? {
                Fate::Made => {
                    let added = held.added.get().saturating_add(deposit.sats.get());
                    held.added = Amount::new(added);
                }
                Fate::Never => {}
                Fate::Open if over => {
                    return Ok(Standing::Closed {
                        taken: None,
                        held: None,
                    });
                }
                Fate::Open => return Ok(Standing::Pending),
            }
        }
        let channel = held.channel()?;
        Ok(match over {
            true => Standing::Closed {
                taken: None,
                held: Some(channel.deposit),
            },
            false => Standing::Open {
                channel,
                taken: Amount::ZERO,
                closing: false,
            },
        })
    }

    async fn adopt(
        &self,
        _: &Paying<'_>,
        _: &Ask<Session, SessionDetails>,
        _: Option<&Value>,
    ) -> Result<Adopted<HeldSession>, PayError> {
        Err(PayError::Unsupported(
            "a Lightning session belongs to whoever paid its deposit".to_owned(),
        ))
    }
}

fn exactly(asked: Amount, given: Amount) -> Result<(), PayError> {
    if asked == given {
        return Ok(());
    }
    Err(PayError::Refused(format!(
        "the invoice is for a deposit of {asked} sats, and not for {given}"
    )))
}
