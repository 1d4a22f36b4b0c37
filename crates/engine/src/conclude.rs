//! Recording what became of the money.

use std::{sync::Arc, time::Duration};

use farebox_core::{Fault, Outcome, Rejection, wire::Receipt};
use serde_json::{Map, Value};
use tokio::time::sleep;

use crate::{
    balance,
    engine::Shared,
    payment::Driven,
    record::{Record, State, Stored},
    withdraw::withdraw,
};

/// How often a record may move under us before we leave it to the next one who asks.
const ROUNDS: usize = 16;

/// What became of a payment, and its record where it was ours to write.
pub(crate) struct Concluded {
    pub(crate) driven: Driven,
    pub(crate) written: Option<Stored>,
}

impl From<Driven> for Concluded {
    fn from(driven: Driven) -> Self {
        Self {
            driven,
            written: None,
        }
    }
}

/// Records an outcome over whatever the record says by now. Evidence that money moved wins over
/// everything; what only says that it did not yields to what others found out.
pub(crate) async fn conclude(
    shared: &Arc<Shared>,
    id: &str,
    from: &Stored,
    outcome: Outcome,
) -> Result<Driven, Fault> {
    Ok(conclude_for(shared, id, from, outcome, None).await?.driven)
}

/// The same. `holder` is served at once: that the money is in and who has the serving lease is one
/// write then.
pub(crate) async fn conclude_for(
    shared: &Arc<Shared>,
    id: &str,
    from: &Stored,
    outcome: Outcome,
    holder: Option<&str>,
) -> Result<Concluded, Fault> {
    // `None`: nothing was attempted, so the outcome stands on the reservation and its proofs alone.
    let todo = match &from.record.state {
        State::Attempted { todo, .. } => Some(todo.as_str()),
        _ => None,
    };
    let tried = matches!(from.record.state, State::Attempted { looked: 0, .. });
    // What was found since `from`, once it has moved.
    let mut found = None;
    for _ in 0..ROUNDS {
        let current = match &found {
            None => Some(from),
            Some(found) => Option::as_ref(found),
        };
        let record = current.map_or(&from.record, |stored: &Stored| &stored.record);
        let ours = current.is_some_and(|stored| stored.text == from.text);
        let (next, driven) = match (&outcome, &record.state) {
            (_, State::Paid { .. } | State::Serving { .. } | State::Delivered { .. }) => {
                return Ok(Driven::Paid.into());
            }
            // What was found out before the refund came.
            (_, State::Returned { .. }) => return Ok(Driven::Declined(returned()).into()),
            // A reservation that is not ours any more: its proof may be somebody else's by now.
            _ if todo.is_none() && !ours => return Ok(Driven::Pending.into()),
            (
                Outcome::Settled {
                    reference,
                    receipt: more,
                },
                state,
            ) => {
                if let Some(change) = &record.channel {
                    balance::settle(shared, id, &record.method, change).await?;
                }
                let mut members = match state {
                    State::Attempted { receipt, .. } => receipt.clone(),
                    _ => Map::new(),
                };
                members.extend(more.clone());
                let receipt = receipt(shared, record, reference.clone(), members);
                let receipt = Arc::new(receipt);
                let paid = match holder {
                    // Nobody comes for it.
                    _ if record.errand => State::Delivered {
                        receipt,
                        holder: String::new(),
                        reply: None,
                    },
                    None => State::Paid { receipt },
                    Some(holder) => State::Serving {
                        receipt,
                        holder: holder.to_owned(),
                        until: shared.lease_until(shared.timing.serve),
                    },
                };
                (paid, Driven::Paid)
            }
            (Outcome::Declined(_) | Outcome::Unknown, State::Declined { rejection }) => {
                return Ok(Driven::Declined(rejection.clone()).into());
            }
            (Outcome::Declined(_) | Outcome::Unknown, State::Reserved { .. }) if !ours => {
                return Ok(Driven::Pending.into());
            }
            (Outcome::Declined(_) | Outcome::Unknown, _) if current.is_none() => {
                return Ok(Driven::Pending.into());
            }
            (Outcome::Declined(rejection), _) => {
                let rejection = rejection.clone().on_rail(&record.offer.method);
                (
                    State::Declined {
                        rejection: rejection.clone(),
                    },
                    Driven::Declined(rejection),
                )
            }
            // Somebody else is at it.
            (Outcome::Unknown, State::Attempted { .. }) if !ours => {
                return Ok(Driven::Pending.into());
            }
            (
                Outcome::Unknown,
                State::Attempted {
                    todo,
                    order,
                    receipt,
                    ..
                },
            ) => {
                // Nobody is at it any more: the next one who asks may look it up.
                let now = shared.clock.millis();
                let parked = State::Attempted {
                    until: now,
                    todo: todo.clone(),
                    order: order.clone(),
                    receipt: receipt.clone(),
                    looked: now,
                };
                (parked, Driven::Pending)
            }
            (Outcome::Unknown, State::Reserved { .. }) => return Ok(Driven::Pending.into()),
        };
        let next = record.with(next);
        if let Some(stored) = shared.advance(id, current, next).await? {
            if matches!(driven, Driven::Declined(_)) {
                shared.free(id, &stored, tried).await?;
            }
            if let (Some(todo), Driven::Paid | Driven::Declined(_)) = (todo, &driven) {
                shared.strike(id, todo).await?;
            }
            let written = Some(stored);
            return Ok(Concluded { driven, written });
        }
        found = Some(shared.record(id).await?);
    }
    Ok(Driven::Pending.into())
}

/// The longest pause between two attempts to record an outcome.
const PAUSE: Duration = Duration::from_millis(500);

/// Records an outcome, and where the store is away goes on behind the caller's back for as long as
/// the payment is ours. Nobody else knows it, and the others would have to wait that long to ask.
///
/// `holder` as for [`conclude_for`]; once its caller was told otherwise it serves nothing.
pub(crate) async fn insist(
    shared: &Arc<Shared>,
    id: &str,
    from: &Stored,
    outcome: Outcome,
    holder: Option<&str>,
) -> Result<Concluded, Fault> {
    let fault = match conclude_for(shared, id, from, outcome.clone(), holder).await {
        Ok(concluded) => return Ok(concluded),
        Err(fault) => fault,
    };
    let until = match from.record.state {
        State::Reserved { until } | State::Attempted { until, .. } => until,
        _ => return Err(fault),
    };
    let (shared, id, from) = (shared.clone(), id.to_owned(), from.clone());
    let holder = holder.map(str::to_owned);
    let under_way = shared.drain.settling();
    tokio::spawn(async move {
        let _under_way = under_way;
        let mut pause = Duration::from_millis(10);
        while shared.clock.millis() < until {
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE);
            match conclude(&shared, &id, &from, outcome.clone()).await {
                Ok(_) => break,
                Err(fault) => tracing::warn!(%fault, "an outcome is not recorded yet"),
            }
        }
        if let Some(holder) = holder {
            withdraw(&shared, &id, &holder).await;
        }
    });
    Err(fault)
}

/// What a payer hears whose payment went back: nothing is owed, and nothing is to be paid again.
pub(crate) fn returned() -> Rejection {
    Rejection::spent("the payment was refunded")
}

/// What the payer gets: the protocol's members, `challengeId`, `externalId` and the rail's own.
pub(crate) fn receipt(
    shared: &Shared,
    record: &Record,
    reference: String,
    members: Map<String, Value>,
) -> Receipt {
    let method = record.offer.method.clone().into_owned();
    // A receipt must name the movement; a rail without a name for it has the challenge's.
    let reference = if reference.is_empty() {
        record.challenge.clone()
    } else {
        reference
    };
    let challenge = record.challenge.as_str();
    let mut receipt =
        Receipt::new(method, reference, shared.clock.now()).with("challengeId", challenge);
    if let Some(external_id) = &record.external_id {
        receipt = receipt.with("externalId", external_id.as_str());
    }
    for (key, value) in members {
        receipt = receipt.with(&key, value);
    }
    receipt
}
