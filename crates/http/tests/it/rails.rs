//! Two rails that exist only here, and their wallets.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use farebox_core::prelude::*;
use tokio::sync::Notify;

/// What moves on both rails, and how they behave.
#[derive(Default)]
pub struct Bank {
    pub moved: AtomicUsize,
    pub minted: AtomicUsize,
    /// Settlements wait here while `held` is set.
    pub held: AtomicBool,
    pub begun: Notify,
    pub release: Notify,
    /// Neither settling nor looking up says anything.
    pub silent: AtomicBool,
    pub declines: AtomicBool,
    pub closed: AtomicBool,
}

#[derive(Serialize, Deserialize)]
pub struct Nothing {}

#[derive(Serialize, Deserialize)]
pub struct Token {
    pub token: String,
}

pub struct TokenRail(pub Arc<Bank>);

impl Settle for TokenRail {
    type Order = String;

    async fn settle(&self, _: &IdempotencyKey, _: &String) -> Outcome {
        self.0.begun.notify_one();
        if self.0.held.load(SeqCst) {
            self.0.release.notified().await;
        }
        if self.0.declines.load(SeqCst) {
            return Outcome::Declined(Rejection::verification("the token was revoked"));
        }
        self.0.moved.fetch_add(1, SeqCst);
        if self.0.silent.load(SeqCst) {
            Outcome::Unknown
        } else {
            Outcome::settled("ref-token")
        }
    }

    async fn lookup(&self, _: &IdempotencyKey, _: &String) -> Outcome {
        if self.0.silent.load(SeqCst) {
            Outcome::Unknown
        } else {
            Outcome::settled("ref-token")
        }
    }
}

fn request(bank: &Bank, terms: &ChargeTerms) -> Result<ChargeRequest, NoQuote> {
    if bank.closed.load(SeqCst) {
        return Err(Fault::unavailable("the bank at http://10.0.0.7 is closed").into());
    }
    let amount = Amount::parse(&terms.amount);
    Ok(terms.request(
        amount.map_err(|e| Fault::new("reading terms").caused_by(e))?,
        "pts",
    ))
}

/// A rail that settles: whatever starts with `good` pays.
impl Rail<Charge> for TokenRail {
    const METHOD: &'static str = "token";
    type Details = Nothing;
    type Payload = Token;
    type Settler = Self;

    async fn quote(&self, terms: &ChargeTerms) -> Result<Quote<Charge, Nothing>, NoQuote> {
        Ok(Quote::new(request(&self.0, terms)?, Nothing {}))
    }

    async fn verify(
        &self,
        _: &Presented<'_>,
        _: &Ask<Charge, Nothing>,
        payload: Token,
    ) -> Result<Plan<Once, String>, Refusal> {
        match payload.token.as_str() {
            "fault" => Err(Fault::new("asking the bank at http://10.0.0.7").into()),
            "torn" => Err(Rejection::rail("torn-token", "the token is torn").into()),
            token if token.starts_with("good") => {
                Ok(Plan::settle(ProofKey::of("token", token), token.to_owned()))
            }
            _ => Err(Rejection::verification("the token is no good").into()),
        }
    }

    fn settler(&self) -> &Self {
        self
    }
}

pub struct PrepaidRail(pub Arc<Bank>);

/// A rail whose proof is the payment.
impl Rail<Charge> for PrepaidRail {
    const METHOD: &'static str = "prepaid";
    type Details = Nothing;
    type Payload = Token;
    type Settler = NoSettler;

    async fn quote(&self, terms: &ChargeTerms) -> Result<Quote<Charge, Nothing>, NoQuote> {
        Ok(Quote::new(request(&self.0, terms)?, Nothing {}))
    }

    async fn verify(
        &self,
        _: &Presented<'_>,
        _: &Ask<Charge, Nothing>,
        payload: Token,
    ) -> Result<Plan<Once, Never>, Refusal> {
        Ok(Plan::paid(
            ProofKey::of("prepaid", &payload.token),
            "ref-prepaid",
        ))
    }

    fn settler(&self) -> &NoSettler {
        &NoSettler
    }
}

/// Pays on either rail with a fresh token; the prepaid one moves money while paying.
pub struct Minter<const PREPAID: bool>(pub Arc<Bank>);

macro_rules! minter {
    ($prepaid:literal, $method:literal) => {
        impl Wallet<Charge> for Minter<$prepaid> {
            const METHOD: &'static str = $method;
            type Details = Nothing;
            type Payload = Token;

            fn price(&self, _: &Paying<'_>, ask: &Ask<Charge, Nothing>) -> Result<Cost, PayError> {
                let (amount, currency) = (ask.request.amount, ask.request.currency.clone());
                Ok(Cost {
                    amount,
                    currency,
                    recipient: None,
                })
            }

            async fn pay(
                &self,
                _: &Paying<'_>,
                _: Ask<Charge, Nothing>,
                _: Approved,
            ) -> Result<Paid<Token>, PayError> {
                let n = self.0.minted.fetch_add(1, SeqCst);
                self.0.moved.fetch_add(usize::from($prepaid), SeqCst);
                Ok(Paid::new(Token {
                    token: format!("good-{n}"),
                })
                .by("did:example:payer"))
            }
        }
    };
}
minter!(false, "token");
minter!(true, "prepaid");
