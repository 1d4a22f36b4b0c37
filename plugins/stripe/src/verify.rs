//! Whether a payload pays for an ask. Read-only, and without asking Stripe: the token's limits come
//! to light when it is charged, and by then the order is on record.

use std::collections::BTreeMap;

use farebox_core::{Ask, Charge, Once, Plan, Presented, ProofKey, Refusal, Rejection};
use farebox_wire::Problem;
use serde::{Deserialize, Serialize};

use crate::{
    METHOD,
    order::{Order, unix_now},
    quote::Details,
    token::{SharedPaymentToken, TokenParameter},
};

/// The longest reference of a client's own, characters.
const MAX_EXTERNAL_ID: usize = 500;

/// What the payer presents.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Payload {
    /// The token.
    pub spt: SharedPaymentToken,
    /// The request's reference, repeated; or the client's own, if the request has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
}

impl Payload {
    /// A payload.
    pub fn new(spt: SharedPaymentToken, external_id: Option<String>) -> Self {
        Self { spt, external_id }
    }
}

pub(crate) fn verify(
    token_parameter: TokenParameter,
    api_version: &str,
    cx: &Presented<'_>,
    ask: &Ask<Charge, Details>,
    payload: Payload,
) -> Result<Plan<Once, Order>, Refusal> {
    let Payload { spt, external_id } = payload;
    if !spt.is_well_formed() {
        return Err(Rejection::malformed("`spt` is no Shared Payment Token, `spt_…`").into());
    }
    let bound = ask.request.external_id.as_deref();
    if bound.is_some() && external_id.as_deref() != bound {
        return Err(Rejection::new(
            Problem::InvalidChallenge,
            "`externalId` is not the one of the challenge; repeat it in the payload",
        )
        .into());
    }
    // The client's own reference goes on the receipt, so it may not be of any size.
    let own = external_id.filter(|_| bound.is_none());
    if own
        .as_ref()
        .is_some_and(|id| id.chars().count() > MAX_EXTERNAL_ID)
    {
        let detail = format!("`externalId` is too long; at most {MAX_EXTERNAL_ID} characters");
        return Err(Rejection::malformed(detail).into());
    }
    let Ok(amount) = i64::try_from(ask.request.amount.get()) else {
        // Never quoted; a challenge signed by an older configuration at the worst.
        return Err(Rejection::verification("the amount is more than Stripe charges").into());
    };
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
    };
    let plan = Plan::settle(proof, order);
    Ok(match own {
        Some(id) => plan.receipt("externalId", id),
        None => plan,
    })
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
