//! Whether a payload pays for an ask. Read-only, and without asking Stripe: the token's limits come
//! to light when it is charged, and by then the order is on record.

use std::collections::BTreeMap;

use farebox_core::{
    Ask, Charge, ChargeRequest, Fault, Once, Plan, Presented, ProofKey, Refusal, Rejection,
};
use farebox_wire::Problem;
use serde::{Deserialize, Serialize};

use crate::{
    METHOD,
    connect::Connect,
    order::{Order, unix_now},
    quote::Details,
    token::{SharedPaymentToken, TokenParameter},
};

/// What the payer presents.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Payload {
    /// The token.
    pub spt: SharedPaymentToken,
    /// The request's reference, repeated. Where the request has none it is the client's own, and
    /// stays with the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
}

impl Payload {
    /// A payload.
    pub fn new(spt: SharedPaymentToken, external_id: Option<String>) -> Self {
        Self { spt, external_id }
    }

    /// The reference that the receipt carries: the request's, which this payload has to repeat.
    ///
    /// Never the payload's own. A receipt is the seller's word, and anything that a payer could
    /// put there would pass for an order that the seller did not bind to this payment.
    ///
    /// # Errors
    /// `invalid-challenge` if another reference, or none, is repeated.
    pub fn reference<'a>(&self, request: &'a ChargeRequest) -> Result<Option<&'a str>, Rejection> {
        let bound = request.external_id.as_deref();
        if bound.is_some() && self.external_id.as_deref() != bound {
            return Err(Rejection::new(
                Problem::InvalidChallenge,
                "`externalId` is not the one of the challenge; repeat it in the payload",
            ));
        }
        Ok(bound)
    }
}

pub(crate) fn verify(
    token_parameter: TokenParameter,
    api_version: &str,
    connect: &Connect,
    cx: &Presented<'_>,
    ask: &Ask<Charge, Details>,
    payload: Payload,
) -> Result<Plan<Once, Order>, Refusal> {
    if !payload.spt.is_well_formed() {
        return Err(Rejection::malformed("`spt` is no Shared Payment Token, `spt_…`").into());
    }
    // The engine puts the request's reference on the receipt.
    payload.reference(&ask.request)?;
    let spt = payload.spt;
    let Ok(amount) = i64::try_from(ask.request.amount.get()) else {
        // Never quoted; a challenge signed by an older configuration at the worst.
        return Err(Rejection::verification("the amount is more than Stripe charges").into());
    };
    // The seller's contradiction, and not the payer's: nothing is charged, and the proof stays good.
    let settlement = connect.settlement(ask).map_err(|problem| {
        tracing::error!(
            problem,
            "a charge cannot be settled over Connect; check the rail"
        );
        Fault::new("settling over Connect")
    })?;
    let proof = ProofKey::of(METHOD, spt.expose());
    let order = Order {
        challenge: cx.challenge.id.clone(),
        expires: cx
            .challenge
            .expires
            .as_ref()
            .map(|at| at.unix_millis().div_euclid(1000)),
        // Not the presentation's time: that can be long ago, if the engine was held up since.
        created: unix_now(),
        amount,
        currency: ask.request.currency.clone(),
        metadata: metadata(cx, ask),
        token: spt,
        token_parameter,
        api_version: api_version.to_owned(),
        settlement,
    };
    Ok(Plan::settle(proof, order))
}

/// The request's metadata first, so that what the rail says cannot be overwritten.
fn metadata(cx: &Presented<'_>, ask: &Ask<Charge, Details>) -> BTreeMap<String, String> {
    let mut metadata = ask.details.metadata.clone().unwrap_or_default();
    let id = &cx.challenge.id;
    for (key, value) in [
        ("machine_payment", "true"),
        ("mpp_challenge_id", id),
        ("mpp_intent", &cx.challenge.intent),
        ("challenge_id", id),
    ] {
        metadata.insert(key.to_owned(), value.to_owned());
    }
    metadata
}
