//! `compose()`: several offers as one value that issues challenges *and* dispatches credentials,
//! so that the two cannot disagree.

use std::{borrow::Cow, fmt, pin::Pin, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use farebox_wire::{Encoded, OfferId};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{config::Invalid, intent::IntentSpec, method::Method, refusal::Fault};

/// What a price may depend on: the request, without transport types.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct PricingContext<'a> {
    /// The route's scope: method and pattern.
    pub route: &'a str,
    /// The request target: path and query.
    pub target: &'a str,
    /// The body, where there is one and it was read.
    pub body: Option<&'a [u8]>,
}

impl<'a> PricingContext<'a> {
    /// The context of a request to `target` on `route`.
    pub fn new(route: &'a str, target: &'a str, body: Option<&'a [u8]>) -> Self {
        Self {
            route,
            target,
            body,
        }
    }
}

impl fmt::Debug for PricingContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PricingContext")
            .field("route", &self.route)
            .finish_non_exhaustive()
    }
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Pricer = dyn Fn(PricingContext<'_>) -> BoxFuture<Result<Value, Fault>> + Send + Sync;

enum Price {
    Fixed { terms: Value, print: String },
    Dynamic(Box<Pricer>),
}

/// One `method/intent` with its terms on one route.
pub struct Offer {
    method: Arc<dyn Method>,
    price: Price,
}

impl Offer {
    /// An offer at fixed terms.
    pub fn new<I: IntentSpec>(
        method: Arc<dyn Method>,
        terms: I::Terms,
    ) -> Result<Self, ComposeError> {
        if method.intent().name() != I::NAME {
            return Err(ComposeError::Intent {
                offer: method.offer(),
                terms: I::NAME,
            });
        }
        let terms = serde_json::to_value(terms)
            .map_err(|e| ComposeError::Terms(method.offer(), Invalid::new("", e.to_string())))?;
        Self::from_value(method, terms)
    }

    /// An offer at fixed terms, read from configuration.
    pub fn from_value(method: Arc<dyn Method>, terms: Value) -> Result<Self, ComposeError> {
        method
            .check(&terms)
            .map_err(|e| ComposeError::Terms(method.offer(), e))?;
        let print = fingerprint(method.name(), &terms);
        Ok(Self {
            method,
            price: Price::Fixed { terms, print },
        })
    }

    /// An offer whose terms depend on the request. A challenge is honoured as issued until it
    /// expires; route, offer, realm and body are bound into it.
    pub fn dynamic<I, F, Fut>(method: Arc<dyn Method>, price: F) -> Result<Self, ComposeError>
    where
        I: IntentSpec,
        F: Fn(PricingContext<'_>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<I::Terms, Fault>> + Send + 'static,
    {
        if method.intent().name() != I::NAME {
            return Err(ComposeError::Intent {
                offer: method.offer(),
                terms: I::NAME,
            });
        }
        let price = move |cx: PricingContext<'_>| -> BoxFuture<_> {
            let terms = price(cx);
            Box::pin(async move {
                serde_json::to_value(terms.await?)
                    .map_err(|e| Fault::new("serialising terms").caused_by(e))
            })
        };
        Ok(Self {
            method,
            price: Price::Dynamic(Box::new(price)),
        })
    }

    /// The rail.
    pub fn method(&self) -> &Arc<dyn Method> {
        &self.method
    }

    /// The wire pair.
    pub fn id(&self) -> OfferId {
        self.method.offer()
    }

    /// A short hash of fixed terms, or `None` for a price that depends on the request. It goes
    /// into the challenge, so that nothing is settled at a price that has changed since.
    pub fn fingerprint(&self) -> Option<&str> {
        match &self.price {
            Price::Fixed { print, .. } => Some(print),
            Price::Dynamic(_) => None,
        }
    }

    /// The terms for a request.
    pub async fn terms(&self, cx: PricingContext<'_>) -> Result<Cow<'_, Value>, Fault> {
        match &self.price {
            Price::Fixed { terms, .. } => Ok(Cow::Borrowed(terms)),
            Price::Dynamic(pricer) => pricer(cx).await.map(Cow::Owned),
        }
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Offer({})", self.id())
    }
}

/// 72 bits of the canonical terms' SHA-256: it tells versions of one seller's price apart, and
/// nobody but the seller chooses them. A description is text for people, so whoever paid what was
/// asked a moment ago is not refused over another one.
fn fingerprint(name: &str, terms: &Value) -> String {
    let mut terms = terms.clone();
    if let Some(members) = terms.as_object_mut() {
        members.remove("description");
    }
    let canonical = Encoded::encode(&terms).map(|e| e.as_str().to_owned());
    let canonical = canonical.unwrap_or_else(|_| terms.to_string());
    let digest = Sha256::new()
        .chain_update((name.len() as u64).to_be_bytes())
        .chain_update(name)
        .chain_update(canonical)
        .finalize();
    URL_SAFE_NO_PAD.encode(&digest[..9])
}

/// Why offers do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ComposeError {
    /// There is none.
    #[error("a paid route needs at least one offer")]
    Empty,
    /// The terms are for another intent.
    #[error("{offer} is offered at the terms of a {terms}")]
    Intent {
        /// The offer.
        offer: OfferId,
        /// What the terms are for.
        terms: &'static str,
    },
    /// The rail refuses the terms.
    #[error("{0}: {1}")]
    Terms(OfferId, Invalid),
    /// Two offers are the same.
    #[error("{0} is offered twice at the same terms; drop one, or change its currency or price")]
    Duplicate(OfferId),
}

/// Offers that go together, in the server's order of preference.
#[derive(Debug)]
pub struct Offers(Vec<Offer>);

/// Puts offers together. List order is the server's preference.
///
/// Several offers of one `method/intent` are allowed when their terms differ (two currencies):
/// the offer's index is bound into each challenge, and dispatch goes by it.
pub fn compose(offers: impl IntoIterator<Item = Offer>) -> Result<Offers, ComposeError> {
    let offers: Vec<Offer> = offers.into_iter().collect();
    if offers.is_empty() {
        return Err(ComposeError::Empty);
    }
    for (n, offer) in offers.iter().enumerate() {
        let twin = offers[..n].iter().any(|other| {
            // Two prices that depend on the request cannot be told apart here, so they may not meet.
            other.id() == offer.id() && other.fingerprint() == offer.fingerprint()
        });
        if twin {
            return Err(ComposeError::Duplicate(offer.id()));
        }
    }
    Ok(Offers(offers))
}

impl Offers {
    /// The offers, by index.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Offer> {
        self.0.iter()
    }

    /// The offer with this index.
    pub fn get(&self, index: usize) -> Option<&Offer> {
        self.0.get(index)
    }

    /// Whether a method of this pair is among them.
    pub fn offers(&self, id: &OfferId) -> bool {
        self.0.iter().any(|offer| offer.id() == *id)
    }
}
