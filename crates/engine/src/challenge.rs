//! Issuing challenges: quotes run concurrently, each under a deadline, and each challenge binds
//! its route, its offer and the offer's terms.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use farebox_core::{
    AnyQuote, Fault, NoQuote, Offer, PricingContext,
    wire::{Challenge, Encoded, Timestamp},
};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    engine::Shared,
    gate::{Gate, Inbound},
    record::quote_key,
};

/// What the engine binds into a challenge's `opaque`. Each member is a string, as the draft asks.
#[derive(Debug, Deserialize)]
pub(crate) struct Bound {
    /// The route's scope.
    pub(crate) route: String,
    /// The offer's index on that route.
    pub(crate) offer: String,
    /// A hash of fixed terms, or of the request that a dynamic price was computed from.
    pub(crate) terms: String,
    /// The rail kept something with the challenge.
    pub(crate) kept: Option<String>,
}

/// The same as it is written. In alphabetical order, so that nobody has to sort it.
#[derive(Serialize)]
struct Issued<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<&'a str>,
    nonce: &'a str,
    offer: &'a str,
    route: &'a str,
    terms: &'a str,
}

const PER_REQUEST: &str = "for:";

impl Bound {
    /// Whether the price was computed for a request.
    pub(crate) fn is_per_request(&self) -> bool {
        self.terms.starts_with(PER_REQUEST)
    }

    /// Whether the price was computed for another request than this one.
    pub(crate) fn is_for_another(&self, inbound: &Inbound<'_>) -> bool {
        self.is_per_request() && self.terms != request_print(inbound)
    }
}

/// The member of a request that a challenge repeats.
#[derive(Deserialize)]
struct Described {
    description: Option<String>,
}

impl Gate {
    /// Whether the server [drains](crate::Engine::drain): that it issues no challenges then is as
    /// planned.
    pub fn is_draining(&self) -> bool {
        self.shared.drain.started()
    }

    /// The challenges of a 402: the offers that apply, in the payer's order of preference.
    ///
    /// A rail that cannot quote loses its place. When none is left the answer is a [`Fault`] (503):
    /// a 402 must carry a challenge. So it is on a server that [drains](crate::Engine::drain), and
    /// while the store is away: what was paid now could not be recorded.
    pub async fn challenges(&self, inbound: &Inbound<'_>) -> Result<Vec<Challenge>, Fault> {
        if self.shared.drain.started() {
            // Whoever pays must find somebody to present it to.
            return Err(Fault::unavailable("the server is draining"));
        }
        self.shared.pulse.check()?;
        let offers: Vec<(usize, &Offer)> = self.offers.iter().enumerate().collect();
        let offers = match inbound.accept {
            Some(accept) => accept.rank(offers, |(_, offer)| offer.id()),
            None => offers,
        };
        let drafts = offers
            .into_iter()
            .map(|(index, offer)| self.draft(index, offer, inbound));
        let mut challenges = Vec::new();
        for challenge in join_all(drafts).await {
            challenges.extend(challenge?);
        }
        if challenges.is_empty() {
            return Err(Fault::unavailable("no rail can quote"));
        }
        Ok(challenges)
    }

    /// One offer's challenge, or `None` where the rail makes no quote.
    async fn draft(
        &self,
        index: usize,
        offer: &Offer,
        inbound: &Inbound<'_>,
    ) -> Result<Option<Challenge>, Fault> {
        let quote = tokio::time::timeout(self.shared.timing.quote, async {
            let cx = PricingContext::new(&self.route, inbound.target, inbound.body);
            let terms = offer.terms(cx).await?;
            offer.method().quote(&terms).await
        });
        let quote = match quote.await {
            Ok(Ok(quote)) => quote,
            Ok(Err(NoQuote::Declined(why))) => {
                tracing::debug!(offer = %offer.id(), why, "the rail does not quote");
                return Ok(None);
            }
            Ok(Err(NoQuote::Fault(fault))) => {
                tracing::warn!(offer = %offer.id(), %fault, "the rail cannot quote");
                return Ok(None);
            }
            Err(_) => {
                tracing::warn!(offer = %offer.id(), "the rail did not quote in time");
                return Ok(None);
            }
        };
        self.issue(index, offer, quote, inbound).await
    }

    async fn issue(
        &self,
        index: usize,
        offer: &Offer,
        quote: AnyQuote,
        inbound: &Inbound<'_>,
    ) -> Result<Option<Challenge>, Fault> {
        let shared = &self.shared;
        let now = shared.clock.millis();
        let mut expires = shared.after(shared.timing.ttl);
        if let Some(cap) = &quote.not_after {
            expires = expires.min(cap.unix_millis());
        }
        if expires <= now {
            tracing::warn!(offer = %offer.id(), "the rail's quote has lapsed already");
            return Ok(None);
        }
        let least = i64::try_from(quote.at_least.as_millis()).unwrap_or(i64::MAX);
        if expires.saturating_sub(now) < least {
            let (offer, seconds) = (offer.id(), quote.at_least.as_secs());
            tracing::warn!(%offer, seconds, "a challenge that nobody could pay in time is left out");
            return Ok(None);
        }
        // Few have one, and reading a request costs more than looking for it.
        let described = quote.request.json().contains("\"description\"");
        let described = described.then(|| quote.request.decode::<Described>().ok());
        let description = described.flatten().and_then(|d| d.description);
        // A header is one line; the request keeps the text as it is.
        let description = description.map(|text| text.replace(['\r', '\n'], " "));
        let mut challenge = Challenge {
            id: String::new(),
            realm: self.realm(inbound).to_owned(),
            method: offer.id().method.into_owned(),
            intent: offer.id().intent.into_owned(),
            request: quote.request,
            expires: Some(Timestamp::from_unix_millis(expires)),
            digest: inbound.digest.cloned(),
            description,
            opaque: Some(self.opaque(index, offer, inbound, quote.private.is_some())?),
            header: self.header,
        };
        shared.secrets.sign(&mut challenge);
        if let Some(private) = quote.private {
            let keep = shared.timing.ttl.saturating_add(shared.timing.grace);
            let key = quote_key(&challenge.id);
            let text = private.to_string();
            let kept = shared
                .store
                .compare_and_swap(&key, None, Some(&text), Some(keep));
            effect!("quote.kept", kept.await)?;
        }
        Ok(Some(challenge))
    }

    fn opaque(
        &self,
        index: usize,
        offer: &Offer,
        inbound: &Inbound<'_>,
        kept: bool,
    ) -> Result<Encoded, Fault> {
        // Without the nonce the id is a function of price and time, and two payers who ask in one
        // millisecond would share one single-use id.
        let opaque = Issued {
            kept: kept.then_some("1"),
            nonce: &Shared::nonce()?,
            offer: &index.to_string(),
            route: &self.route,
            terms: &terms_print(offer, inbound),
        };
        Encoded::encode(&opaque).map_err(|e| Fault::new("encoding opaque").caused_by(e))
    }
}

/// What the price stands on: the terms, or the request they are computed from. A credential for
/// the cheap item of a dynamically priced route must not buy the dear one.
pub(crate) fn terms_print<'a>(offer: &'a Offer, inbound: &Inbound<'_>) -> Cow<'a, str> {
    match offer.fingerprint() {
        Some(print) => print.into(),
        None => request_print(inbound).into(),
    }
}

/// What a price that was computed for this very request stands on. No hash of terms looks so.
fn request_print(inbound: &Inbound<'_>) -> String {
    let digest = Sha256::new()
        .chain_update((inbound.target.len() as u64).to_be_bytes())
        .chain_update(inbound.target)
        .chain_update(inbound.body.unwrap_or_default())
        .finalize();
    format!("{PER_REQUEST}{}", URL_SAFE_NO_PAD.encode(&digest[..12]))
}
