//! A rail that no list names: only `use farebox_link_outside as _;` brings it into a binary.

use farebox_core::prelude::*;

struct Outside(NoSettler);

#[derive(Deserialize)]
struct Nothing {}

impl Outside {
    fn new(_: Nothing) -> Result<Self, Invalid> {
        Ok(Self(NoSettler))
    }
}

impl Rail<Charge> for Outside {
    const METHOD: &'static str = "outside";
    type Details = std::collections::BTreeMap<String, String>;
    type Payload = Nothing;
    type Settler = NoSettler;

    async fn quote(&self, _: &ChargeTerms) -> Result<Quote<Charge, Self::Details>, NoQuote> {
        Err(NoQuote::Declined("it is only there to be linked".into()))
    }

    async fn verify(
        &self,
        _: &Presented<'_>,
        _: &Ask<Charge, Self::Details>,
        _: Nothing,
    ) -> Result<Plan<Once, Never>, Refusal> {
        Err(Rejection::verification("nothing pays for it").into())
    }

    fn settler(&self) -> &NoSettler {
        &self.0
    }
}

plugin! {
    /// `outside/charge`.
    pub static CHARGE = Charge: Outside::new;
}
