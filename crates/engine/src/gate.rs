//! One paid route: authenticates what is presented and drives it to an answer.

use std::{fmt, sync::Arc};

use farebox_core::{
    AnyPlan, ChannelAction, Fault, Offer, Offers, Outcome, Rejection,
    wire::{AcceptPayment, BodyDigest, Credential, CredentialHeader, OfferId, Problem},
};
use tokio::time::timeout;

use crate::{
    balance,
    challenge::{Bound, terms_print},
    conclude::{conclude, returned},
    detached::Detached,
    ending::Spenders,
    engine::Shared,
    managed::Managed,
    payment::{Authentic, Carried, Driven, Facts, Offered, Payment},
    record::{State, Stored, fingerprint},
    reply::{Keyed, Repeats, Reply},
    serving::{Admission, Serving},
    verdict::Refused,
};

/// A request as far as payment is concerned, without transport types.
#[derive(Clone, Copy, Default)]
pub struct Inbound<'a> {
    /// The request's method, which an `Idempotency-Key` is bound to.
    pub method: &'a str,
    /// Path and query, for prices that depend on them.
    pub target: &'a str,
    /// The body, where it was read.
    pub body: Option<&'a [u8]>,
    /// Its digest, where the request has a body that challenges must bind.
    pub digest: Option<&'a BodyDigest>,
    /// What the payer prefers.
    pub accept: Option<&'a AcceptPayment>,
    /// The request's `Idempotency-Key`. Together with the credential it names one response.
    pub idempotency_key: Option<&'a str>,
    /// The realm this request is under, where the server has several; the engine's unless said. One
    /// of a list that the operator wrote, never text from the request.
    pub realm: Option<&'a str>,
    /// Whether the request asks for no service: it only manages a channel (a voucher or a top-up for
    /// a stream that waits, a close). Then no handler runs, and it need not have the body that was
    /// quoted for. Ignored where the credential is for no channel.
    pub manages: bool,
}

impl fmt::Debug for Inbound<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// A paid route: its scope and its offers.
pub struct Gate {
    pub(crate) shared: Arc<Shared>,
    pub(crate) route: String,
    pub(crate) offers: Offers,
    pub(crate) header: Option<CredentialHeader>,
}

/// How often a presentation starts over because somebody else moved its record meanwhile.
const ROUNDS: usize = 8;

/// What a stored record means for whoever presents a credential for it.
enum Standing {
    /// Nothing was attempted: verify and reserve, over this lapsed reservation if there is one.
    Open(Option<Box<Stored>>),
    /// Money is in: serve.
    Serve(Serving),
    /// It was served, under the same key.
    Replay(Reply),
    /// It asks for no service.
    Manage(Managed),
    /// The record moved: look again.
    Moved,
}

impl Gate {
    pub(crate) fn new(shared: Arc<Shared>, route: String, offers: Offers) -> Self {
        Self {
            shared,
            route,
            offers,
            header: None,
        }
    }

    /// Has credentials come in another header, for routes that use `Authorization` themselves.
    pub fn credentials_in(mut self, header: CredentialHeader) -> Self {
        self.header = (header != CredentialHeader::Authorization).then_some(header);
        self
    }

    /// The header credentials come in.
    pub fn header(&self) -> CredentialHeader {
        self.header.unwrap_or(CredentialHeader::Authorization)
    }

    /// What challenges to this request are for, and what its credential must be for.
    pub(crate) fn realm<'a>(&'a self, inbound: &Inbound<'a>) -> &'a str {
        inbound.realm.unwrap_or(&self.shared.realm)
    }

    /// The route's scope.
    pub fn route(&self) -> &str {
        &self.route
    }

    /// The offers.
    pub fn offers(&self) -> &Offers {
        &self.offers
    }

    /// Checks all that is bound: HMAC, realm, route and body. Pure; no rail code runs before it.
    /// Expiry and terms are checked by [`Payment::verify`], since a lapsed or changed offer may
    /// still be collected by who paid it in time.
    pub fn authenticate(
        &self,
        credential: Credential,
        inbound: &Inbound<'_>,
    ) -> Result<Payment<Authentic>, Refused> {
        let (payment, same_request) = self.recognise(credential, inbound)?;
        same_request.map(|()| payment)
    }

    /// All of [`authenticate`](Self::authenticate) but whether the request is the one that was
    /// quoted for, which is answered apart.
    fn recognise(
        &self,
        credential: Credential,
        inbound: &Inbound<'_>,
    ) -> Result<(Payment<Authentic>, Result<(), Refused>), Refused> {
        let under_way = self.shared.drain.admit().ok_or_else(Refused::draining)?;
        let challenge = &credential.challenge;
        let id = challenge.offer();
        if !self.offers.offers(&id) {
            let detail = format!("{id} is not offered here; choose one of the challenges of a 402");
            return Err(Refused::Request(Rejection::new(
                Problem::MethodUnsupported,
                detail,
            )));
        }
        if !self.shared.secrets.verify(challenge) {
            return Err(invalid("the challenge was not issued here, or was altered"));
        }
        if challenge.realm != self.realm(inbound) {
            return Err(invalid("the challenge is for another realm"));
        }
        let bound: Option<Bound> = challenge.opaque.as_ref().and_then(|o| o.decode().ok());
        let bound = bound.ok_or_else(|| invalid("the challenge was not issued here"))?;
        if bound.route != self.route || challenge.header != self.header {
            return Err(invalid("the challenge is for another resource"));
        }
        let same_request = match challenge.digest.as_ref() == inbound.digest {
            false => Err(invalid(
                "the request's body is not the one that was quoted for",
            )),
            // What was paid for a cheap request must not collect a dear one, however often the
            // cheap one's handler failed.
            true if bound.is_for_another(inbound) => {
                Err(invalid("the request is not the one that was quoted for"))
            }
            true => Ok(()),
        };
        let (offered, offer) = self
            .offered(&id, &bound, inbound)
            .ok_or_else(|| invalid("the offer is gone; pay a fresh challenge"))?;
        let method = offer.method().clone();
        // What only manages a channel asks for nothing that could have another price.
        let offered = match inbound.manages && bound.is_per_request() {
            true if !method.intent().single_use() => Offered::Still,
            _ => offered,
        };
        let expires = challenge.expires.as_ref().map(|e| e.unix_millis());
        let expires = expires.ok_or_else(|| invalid("the challenge has no expiry"))?;
        let fingerprint = fingerprint(&credential);
        let id = match method.intent().single_use() {
            true => challenge.id.clone(),
            false => format!("{}.{fingerprint}", challenge.id),
        };
        let facts = Facts {
            id,
            fingerprint,
            expires,
            kept: bound.kept.is_some(),
            offered,
            _under_way: under_way,
        };
        let payment = Payment::new(self.shared.clone(), method, credential, facts);
        Ok((payment, same_request))
    }

    /// What has become of the offer that a challenge was issued for, and the offer whose rail takes
    /// its credential.
    fn offered(
        &self,
        id: &OfferId,
        bound: &Bound,
        inbound: &Inbound<'_>,
    ) -> Option<(Offered, &Offer)> {
        let same = || self.offers.iter().filter(|offer| offer.id() == *id);
        let place = bound.offer.parse().ok();
        let place = place.and_then(|index: usize| self.offers.get(index));
        let place = place.filter(|offer| offer.id() == *id);
        if let Some(offer) = place
            && terms_print(offer, inbound) == bound.terms
        {
            return Some((Offered::Still, offer));
        }
        let first = same().next()?;
        let very = same().find(|o| o.fingerprint() == Some(&bound.terms));
        // A challenge does not name the instance that issued it, so of several none is guessed.
        let only = same().all(|offer| offer.method().name() == first.method().name());
        match very.or(place).or(only.then_some(first)) {
            Some(offer) if !bound.is_per_request() => Some((Offered::Otherwise, offer)),
            // What was paid before may still be collected.
            _ => Some((Offered::NoMore, first)),
        }
    }

    /// The whole way: from a credential to permission to serve.
    ///
    /// Dropping the future (the client went away) does not stop a settlement under way; the same
    /// credential collects what it paid for.
    pub async fn present(
        &self,
        credential: Credential,
        inbound: &Inbound<'_>,
    ) -> Result<Admission, Refused> {
        let (payment, same_request) = self.recognise(credential, inbound)?;
        let manages = inbound.manages && !payment.is_single_use();
        let keyed = match payment.is_single_use() {
            true => Keyed::of(inbound),
            false => Some(Keyed::of_channel(inbound)),
        };
        if let (Err(refused), false) = (same_request, manages) {
            return Err(match &keyed {
                // Asked to pay again, the payer would take its first request for lost.
                Some(keyed) if self.answered(&payment, keyed).await? => conflict(),
                _ => refused,
            });
        }
        for _ in 0..ROUNDS {
            let lapsed = match self.shared.record(payment.id()).await? {
                None => None,
                Some(stored) => match self
                    .standing(&payment, stored, keyed.as_ref(), manages)
                    .await?
                {
                    Standing::Open(lapsed) => lapsed.map(|stored| *stored),
                    Standing::Manage(managed) => return Ok(Admission::Managed(managed)),
                    Standing::Serve(serving) => return Ok(Admission::Serve(serving)),
                    Standing::Replay(reply) => return Ok(Admission::Replay(reply)),
                    Standing::Moved => continue,
                },
            };
            let verified = payment.again(lapsed).verify().await?;
            if let AnyPlan::Channel(plan) = verified.plan()
                && plan.action == ChannelAction::Advance
            {
                return self.advance(verified, manages).await;
            }
            let limit = self.shared.timing.settle;
            if let Some(channel) = verified.closes() {
                let spenders = self.shared.end_spending(payment.id(), channel, limit);
                match spenders.await? {
                    Spenders::None => {}
                    // The rail saw another balance.
                    Spenders::Ended => continue,
                    Spenders::Left => return Err(Refused::pending()),
                }
            }
            // A client that goes away cannot cut it short.
            let decided = verified.is_decided();
            let served = !manages && verified.asks_for_service();
            let work = verified.carry_out(keyed.clone(), served);
            let carried = match decided {
                true => timeout(limit, Detached::new(work)).await.map(Ok),
                false => timeout(limit, tokio::spawn(Box::pin(work))).await,
            };
            match carried {
                Err(_) => return Err(Refused::pending()),
                // A panic's own words could hold anything, so they are not passed on.
                Ok(Err(_)) => return Err(Fault::new("a rail panicked while settling").into()),
                Ok(Ok(carried)) => match carried? {
                    Some(Carried::Serve(serving)) => return Ok(Admission::Serve(serving)),
                    Some(Carried::Paid(stored)) => {
                        let (shared, keyed) = (self.shared.clone(), keyed.clone());
                        let serving = Serving::lease(shared, payment.id(), &stored, keyed);
                        if let Some(serving) = serving.await? {
                            return Ok(Admission::Serve(serving));
                        }
                    }
                    None | Some(Carried::Driven(Driven::Paid)) => {}
                    Some(Carried::Driven(Driven::Declined(rejection))) => {
                        return Err(rejection.into());
                    }
                    Some(Carried::Driven(Driven::Pending)) => return Err(Refused::pending()),
                },
            }
        }
        Err(Refused::pending())
    }

    /// A voucher: no record, no claim; the balance only grows.
    async fn advance(
        &self,
        verified: Payment<crate::payment::Verified>,
        manages: bool,
    ) -> Result<Admission, Refused> {
        let method = verified.method().clone();
        let meter = verified.advance().await?;
        if manages {
            let state = meter.glance().await?;
            let managed = Managed::of(&*method, &meter, ChannelAction::Advance, &state)?;
            return Ok(Admission::Managed(managed));
        }
        let serving = Serving::unrecorded(self.shared.clone(), meter);
        Ok(Admission::Serve(serving))
    }

    /// Whether another request was answered under this key and this credential.
    async fn answered(&self, payment: &Payment<Authentic>, keyed: &Keyed) -> Result<bool, Fault> {
        let stored = self.shared.record(payment.id()).await?;
        let stored = stored.filter(|s| s.record.fingerprint == payment.fingerprint());
        Ok(stored.is_some_and(|stored| match &stored.record.state {
            State::Delivered { reply, .. } => reply
                .as_ref()
                .is_some_and(|reply| !matches!(keyed.repeats(&reply.keyed), Repeats::Not)),
            _ => false,
        }))
    }

    async fn standing(
        &self,
        payment: &Payment<Authentic>,
        stored: Stored,
        keyed: Option<&Keyed>,
        manages: bool,
    ) -> Result<Standing, Refused> {
        let now = self.shared.clock.millis();
        let mine = stored.record.fingerprint == payment.fingerprint();
        match &stored.record.state {
            State::Reserved { until } if *until <= now => {
                return match self.applied(payment.id(), &stored).await? {
                    true => Ok(Standing::Moved),
                    false => Ok(Standing::Open(Some(Box::new(stored)))),
                };
            }
            State::Declined { rejection } if mine => return Err(rejection.clone().into()),
            State::Declined { .. } => {
                let detail =
                    "the challenge was used for a payment that was declined; pay a fresh one";
                return Err(Rejection::new(Problem::InvalidChallenge, detail).into());
            }
            _ if !mine => {
                return Err(Rejection::spent("the challenge was used with another proof").into());
            }
            State::Returned { .. } => return Err(returned().into()),
            State::Paid { .. } | State::Delivered { .. }
                if manages || !stored.record.is_service() =>
            {
                let managed = self.shared.manage(payment.id(), &stored).await?;
                return Ok(managed.map_or(Standing::Moved, Standing::Manage));
            }
            State::Delivered { receipt, reply, .. } => {
                if let (Some(keyed), Some(reply)) = (keyed, reply) {
                    match keyed.repeats(&reply.keyed) {
                        Repeats::Same => return Ok(Standing::Replay(reply.reply(receipt)?)),
                        Repeats::Other => return Err(conflict()),
                        Repeats::Not => {}
                    }
                }
                return Err(
                    Rejection::spent("the payment was already exchanged for a response").into(),
                );
            }
            State::Serving { until, .. }
            | State::Reserved { until }
            | State::Attempted { until, .. }
                if *until > now =>
            {
                return Err(Refused::pending());
            }
            State::Paid { .. } | State::Serving { .. } => {
                let shared = self.shared.clone();
                let serving = Serving::lease(shared, payment.id(), &stored, keyed.cloned()).await?;
                return Ok(serving.map_or(Standing::Moved, Standing::Serve));
            }
            State::Reserved { .. } | State::Attempted { .. } => {}
        }
        self.look_up(payment.id(), &stored).await
    }

    /// Records as paid what was applied to its channel before a crash. Its rail is not asked again:
    /// what it would see by now (an open channel, a closed one) is this very payment's work.
    async fn applied(&self, id: &str, stored: &Stored) -> Result<bool, Fault> {
        let Some(change) = &stored.record.channel else {
            return Ok(false);
        };
        if !balance::is_applied(&self.shared, id, change).await? {
            return Ok(false);
        }
        let outcome = Outcome::settled(change.id.id());
        let driven = conclude(&self.shared, id, stored, outcome).await?;
        Ok(driven == Driven::Paid)
    }

    /// An attempt whose outcome nobody recorded: only the settler's lookup may decide. On a task of
    /// its own, as the settlement was.
    async fn look_up(&self, id: &str, stored: &Stored) -> Result<Standing, Refused> {
        let (shared, id, stored) = (self.shared.clone(), id.to_owned(), stored.clone());
        let under_way = shared.drain.settling();
        let work = tokio::spawn(async move {
            let _under_way = under_way;
            shared.look_up(&id, &stored).await
        });
        let Ok(driven) = work.await else {
            return Err(Fault::new("a rail panicked while a payment was looked up").into());
        };
        match driven? {
            Some(Driven::Paid) => Ok(Standing::Moved),
            Some(Driven::Declined(rejection)) => Err(rejection.into()),
            Some(Driven::Pending) | None => Err(Refused::pending()),
        }
    }
}

fn invalid(detail: &str) -> Refused {
    Rejection::new(Problem::InvalidChallenge, detail).into()
}

fn conflict() -> Refused {
    let detail = "the Idempotency-Key was used for another request";
    Rejection::new(Problem::IdempotencyMismatch, detail).into()
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("route", &self.route)
            .field("offers", &self.offers)
            .finish_non_exhaustive()
    }
}
