//! A rail from outside: gift cards. A code pays once: the engine claims it before it counts, and
//! remembers the claim for good. An issuer with an API of its own would be a `Settle`.

use farebox::core::prelude::*;
use std::collections::BTreeMap as Map;

/// The payload: what is printed on a card.
#[derive(Debug, Serialize, Deserialize)]
pub struct Card {
    /// The code.
    pub code: String,
}
/// The issuer, which is this map of codes and their worth in cents, and the rail over it.
#[derive(Debug)]
pub struct GiftCards(Map<String, u128>, NoSettler);

impl GiftCards {
    fn new(cards: Map<String, u128>) -> Result<Self, Invalid> {
        Ok(Self(cards, NoSettler))
    }
}
impl Rail<Charge> for GiftCards {
    const METHOD: &'static str = "giftcard";
    type Details = Map<String, String>;
    type Payload = Card;
    type Settler = NoSettler;

    async fn quote(&self, terms: &ChargeTerms) -> Result<Quote<Charge, Self::Details>, NoQuote> {
        let amount = Amount::from_decimal(&terms.amount, 2);
        let request = terms.request(amount.map_err(|e| NoQuote::Declined(e.to_string()))?, "usd");
        Ok(Quote::new(request, Map::new()))
    }
    async fn verify(
        &self,
        _: &Presented<'_>,
        ask: &Ask<Charge, Self::Details>,
        card: Card,
    ) -> Result<Plan<Once, Never>, Refusal> {
        match self.0.get(&card.code) {
            Some(worth) if *worth >= ask.request.amount.get() => {}
            _ => return Err(Rejection::verification("no such card, or it is worth less").into()),
        }
        let redeemed = ProofKey::of("giftcard", &card.code);
        Ok(Plan::paid(redeemed.clone(), redeemed.as_str()))
    }
    fn settler(&self) -> &NoSettler {
        &self.1
    }
}
plugin! {
    /// `giftcard/charge`.
    pub static CHARGE = Charge: GiftCards::new;
}
