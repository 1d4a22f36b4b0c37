//! Closing a channel and getting back what is left in it.

use std::sync::Arc;

use farebox_core::{
    Paying, SessionPayer, Spending, Standing,
    wire::{Amount, Credential, Receipt},
};

use serde_json::Value;

use super::{
    courier::{Answer, Cause, Courier, Statement},
    error::SessionError,
    record::{self, Phase, Record, Stored, key, minus},
    recorded::{Found, Recorded, lost},
    sessions::{Payable, Sessions},
};
use crate::origin::Origin;

/// How often a close is presented before its outcome counts as unknown.
const ATTEMPTS: u32 = 3;

/// A channel that was closed. Amounts are in base units.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// Its id on the wire.
    pub channel: String,
    /// What the payee kept. Without evidence of the rail's own it is what the server says, or else
    /// all that it could take; the budget then counts all that it could take.
    pub spent: Amount,
    /// What came back.
    pub refunded: Amount,
    /// By the rail's own evidence. Where not, the channel stays on record as closing, and closing
    /// it again looks once more.
    pub confirmed: bool,
    /// The server's receipt.
    pub receipt: Option<Box<Receipt>>,
}

/// Whether a closed deposit has nothing to return, or the server says that it did not: the refund
/// was skipped or failed, or the session is not known any more.
fn nothing_returns(receipt: Option<&Receipt>) -> bool {
    let status = receipt.map(|receipt| receipt.extra.get("refundStatus").and_then(Value::as_str));
    !matches!(status, Some(Some("succeeded") | None))
}

impl Sessions {
    /// Closes the channel that is on record under `key`, at `origin`; `courier` speaks with its
    /// resource (see [`ChannelInfo`](super::ChannelInfo)). Waits for calls that are presenting
    /// something; streams under way are cut off by the server.
    ///
    /// # Errors
    /// See [`SessionError`]. Whatever happens, nothing beyond what was signed before is signed.
    pub async fn close<C: Courier>(
        &self,
        closing: &str,
        origin: &Origin,
        courier: &C,
    ) -> Result<Closed, SessionError> {
        if !origin.is_secure() {
            return Err(SessionError::InsecureOrigin(origin.clone()));
        }
        let lane = self.lane(closing);
        let _turn = lane.alone().await;
        let (payer, before, record, shown) = loop {
            let stored = record::load(self.store.as_ref(), closing).await?;
            let record = stored.ok_or(SessionError::NoChannel)?.record;
            if record.origin != origin.to_string() {
                return Err(SessionError::NoChannel);
            }
            let payer = self.payer_for(&record)?;
            let standing = payer.standing(&record.held).await;
            let standing = standing.map_err(SessionError::Standing)?;
            let recorded = Recorded {
                sessions: self,
                payer: payer.as_ref(),
                lane: &lane,
                key: closing,
                origin,
                courier,
            };
            let found = recorded.settle(&record, &standing).await?;
            let held = match standing {
                _ if found == Found::Changed => continue,
                Standing::Closed { taken, .. } => {
                    return self.closed(&payer, closing, None, Some(taken)).await;
                }
                Standing::Absent => {
                    let taken = Some(Some(Amount::new(0)));
                    return self.closed(&payer, closing, None, taken).await;
                }
                Standing::Open { channel, .. } => record.deposit.max(channel.deposit),
                _ if matches!(record.phase.before(), Phase::Opening { .. }) => {
                    return Err(lost(record.deposit, "it is still being opened"));
                }
                _ => record.deposit,
            };
            let before = record.phase.clone();
            if let Some(begun) = self.begin_to_close(closing, &record, held).await? {
                let shown = found == Found::Nothing;
                break (payer, before, begun, shown);
            }
        };
        let mut sent = false;
        let asked = self.ask_to_close(&payer, closing, &record, (origin, courier), &mut sent);
        let asked = asked.await;
        if asked.is_err() && !sent && !matches!(before, Phase::Closing { .. }) {
            // Nobody has heard of it, so it may be used on.
            self.still_open(closing).await?;
        }
        let receipt = match asked? {
            Some(receipt) => receipt,
            // It has the deposit, or was never shown it and never heard of the channel.
            None if !shown => {
                self.still_open(closing).await?;
                return Err(lost(record.deposit, "the server does not take it"));
            }
            None => None,
        };
        let standing = payer.standing(&record.held).await;
        let taken = match standing {
            Ok(Standing::Closed { taken, .. }) => Some(taken),
            // Where a deposit is the server's from the start and nothing comes back, there will
            // never be more evidence than its word that it is over.
            _ if payer.spending() == Spending::Prepaid && nothing_returns(receipt.as_deref()) => {
                Some(Some(record.deposit))
            }
            // The server has closed; when the rail says so too, it is forgotten.
            _ => None,
        };
        self.closed(&payer, closing, receipt, taken).await
    }

    /// `None` if something else was begun meanwhile.
    async fn begin_to_close(
        &self,
        closing: &str,
        seen: &Record,
        held: Amount,
    ) -> Result<Option<Record>, SessionError> {
        let begun = record::update(self.store.as_ref(), closing, |record| {
            let same = record.phase == seen.phase;
            if same {
                record.phase = record.phase.closing();
                record.deposit = record.deposit.max(held);
            }
            Ok(same)
        });
        let (record, same) = begun.await?;
        Ok(same.then_some(record))
    }

    fn payer_for(&self, record: &Record) -> Result<Arc<dyn SessionPayer>, SessionError> {
        let payer = self
            .payers
            .iter()
            .find(|p| p.offer().method == record.method);
        let why = || SessionError::NothingPayable(format!("no wallet for {}", record.method));
        payer.cloned().ok_or_else(why)
    }

    /// The receipt, if there is one. `None` if the server knows of no such channel. `sent`: the server
    /// may have heard of it.
    async fn ask_to_close<C: Courier>(
        &self,
        payer: &Arc<dyn SessionPayer>,
        closing: &str,
        record: &Record,
        (origin, courier): (&Origin, &C),
        sent: &mut bool,
    ) -> Result<Option<Option<Box<Receipt>>>, SessionError> {
        let mut why = String::new();
        for _ in 0..ATTEMPTS {
            let challenges = courier.ask().await.map_err(SessionError::Unreachable)?;
            let Payable {
                challenge, price, ..
            } = self.payable_as(closing, &challenges, origin)?;
            if key(origin, &record.method, &price.reuse) != closing {
                let why = "the resource asks for another channel".to_owned();
                return Err(SessionError::NothingPayable(why));
            }
            let cx = Paying::new(&challenge, Some(origin.host()));
            let paid = payer.close(&cx, &record.channel(), record.signed).await;
            let paid = paid.map_err(SessionError::NotPaid)?;
            let credential = Credential {
                payload: paid.payload,
                source: paid.source,
                challenge,
            };
            let answer = courier.deliver(&credential).await;
            *sent |= !matches!(answer, Answer::Unsent(_));
            match answer {
                Answer::Accepted(receipt) => return Ok(Some(receipt)),
                Answer::Refused { problem, .. } if Cause::of(problem.as_deref()) == Cause::Gone => {
                    return Ok(None);
                }
                Answer::Refused {
                    status, problem, ..
                } => {
                    self.still_open(closing).await?;
                    return Err(SessionError::NotAccepted { status, problem });
                }
                Answer::NotServed { status } => {
                    self.still_open(closing).await?;
                    let problem = None;
                    return Err(SessionError::NotAccepted { status, problem });
                }
                unclear => why = unclear.unclear(),
            }
        }
        Err(SessionError::Unreachable(why))
    }

    /// The server would not close it, so it may be used on, from where it stood.
    async fn still_open(&self, closing: &str) -> Result<(), SessionError> {
        record::update(self.store.as_ref(), closing, |record| {
            record.phase = record.phase.before().clone();
            Ok(())
        })
        .await?;
        Ok(())
    }

    async fn closed(
        &self,
        payer: &Arc<dyn SessionPayer>,
        closing: &str,
        receipt: Option<Box<Receipt>>,
        confirmed: Option<Option<Amount>>,
    ) -> Result<Closed, SessionError> {
        let stored = record::load(self.store.as_ref(), closing).await?;
        let stored = stored.ok_or(SessionError::NoChannel)?;
        let record = &stored.record;
        let (channel, deposit, signed) = (record.channel.clone(), record.deposit, record.signed);
        let said = receipt.as_deref().map(Statement::of).unwrap_or_default();
        let told = match said.refund {
            Some(refund) => Some(minus(deposit, refund)),
            None => said.spent,
        };
        let spent = match confirmed {
            Some(taken) => {
                let counted = self.retire(payer.as_ref(), closing, &stored, taken).await?;
                // The budget counts the worst where there is no evidence; a server that says that it
                // kept less is believed for what it is worth, a line in a report.
                match taken {
                    Some(_) => counted,
                    None => told.map_or(counted, |told| told.min(counted)),
                }
            }
            // A server that says it kept more than was signed cannot have.
            None => told.map_or(signed, |told| told.min(deposit)),
        };
        Ok(Closed {
            channel,
            spent,
            refunded: minus(deposit, spent),
            confirmed: confirmed.is_some(),
            receipt,
        })
    }

    /// Forgets a channel that is over, and gives back to the budget what came back from it. What
    /// the payee kept counts by evidence, or else is all that it could have taken.
    pub(crate) async fn retire(
        &self,
        payer: &dyn SessionPayer,
        key: &str,
        stored: &Stored,
        taken: Option<Amount>,
    ) -> Result<Amount, SessionError> {
        let most = match payer.spending() {
            Spending::Vouchers => stored.record.signed,
            Spending::Prepaid => stored.record.deposit,
        };
        let taken = taken.unwrap_or(most);
        if record::remove(self.store.as_ref(), key, stored).await? {
            self.lane(key).settle(&stored.record.channel, taken);
        }
        Ok(taken)
    }
}
