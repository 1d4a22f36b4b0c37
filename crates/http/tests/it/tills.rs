//! Two session rails that exist only here: one with vouchers, one with a deposit and a bearer.

use farebox_core::{NoSettler, Served, prelude::*, wire::Receipt};
use serde_json::{Map, Value, json};

/// `chit/session`: a deposit, and vouchers over it. A signature is the word `signed`.
pub struct Chits;

/// `purse/session`: what is put in is spendable at once, and whoever knows the id spends it.
pub struct Purses;

#[derive(Deserialize)]
pub struct Act {
    action: String,
    #[serde(default)]
    channel: String,
    /// What is put in.
    #[serde(default)]
    deposit: u64,
    /// Up to where a voucher goes.
    #[serde(default)]
    cumulative: u64,
    #[serde(default)]
    signature: String,
    #[serde(default)]
    proof: String,
}

fn quote(terms: &SessionTerms) -> Result<Quote<Session, Map<String, Value>>, NoQuote> {
    let amount = Amount::parse(&terms.amount);
    let request = terms.request(
        amount.map_err(|e| Fault::new("reading terms").caused_by(e))?,
        "pts",
    );
    Ok(Quote::new(request, Map::new()))
}

/// What is captured is what was seen spent.
async fn close(cx: &Presented<'_>, channel: ChannelId) -> Result<Plan<Channel, Never>, Refusal> {
    match cx.channel(&channel).await? {
        Some(_) => Ok(Plan::close(channel, Change::none(), None)),
        None => Err(Rejection::verification("no such session").into()),
    }
}

fn amount(n: u64) -> Amount {
    Amount::new(n.into())
}

impl Rail<Session> for Chits {
    const METHOD: &'static str = "chit";
    type Details = Map<String, Value>;
    type Payload = Act;
    type Settler = NoSettler;

    async fn quote(&self, terms: &SessionTerms) -> Result<Quote<Session, Self::Details>, NoQuote> {
        quote(terms)
    }

    async fn verify(
        &self,
        cx: &Presented<'_>,
        _: &Ask<Session, Self::Details>,
        act: Act,
    ) -> Result<Plan<Channel, Never>, Refusal> {
        if act.signature != "signed" {
            let problem = Problem::rail("session", "invalid-signature");
            return Err(Rejection::new(problem, "the signature is wrong").into());
        }
        let channel = ChannelId::of("chit", &act.channel);
        let proof = ProofKey::of("chit", format!("{}{}", act.channel, act.proof));
        let cumulative = amount(act.cumulative);
        match act.action.as_str() {
            "open" => {
                let change = Change::deposit(amount(act.deposit)).authorized(cumulative);
                Ok(Plan::open(proof, channel, change, None))
            }
            "topUp" => Ok(Plan::top_up(
                proof,
                channel,
                Change::deposit(amount(act.deposit)),
                None,
            )),
            "voucher" => Ok(Plan::advance(channel, Voucher::to(cumulative))),
            "close" => close(cx, channel).await,
            _ => Err(Rejection::verification("no such action").into()),
        }
    }

    fn settler(&self) -> &NoSettler {
        &NoSettler
    }

    fn statement(&self, channel: &ChannelId, state: &ChannelState, _: &Served) -> Statement {
        Statement::default()
            .member("channelId", channel.id())
            .member("acceptedCumulative", state.authorized.to_string())
            .member("spent", state.spent.to_string())
            .member("units", state.units)
            .attach("Payment-Session", channel.id())
    }
}

impl Rail<Session> for Purses {
    const METHOD: &'static str = "purse";
    type Details = Map<String, Value>;
    type Payload = Act;
    type Settler = NoSettler;

    async fn quote(&self, terms: &SessionTerms) -> Result<Quote<Session, Self::Details>, NoQuote> {
        quote(terms)
    }

    async fn verify(
        &self,
        cx: &Presented<'_>,
        _: &Ask<Session, Self::Details>,
        act: Act,
    ) -> Result<Plan<Channel, Never>, Refusal> {
        let channel = ChannelId::of("purse", &act.channel);
        let proof = ProofKey::of("purse", format!("{}{}", act.channel, act.proof));
        let change = Change::prepaid(amount(act.deposit));
        match act.action.as_str() {
            "open" => Ok(Plan::open(proof, channel, change, None)),
            "topUp" => Ok(Plan::top_up(proof, channel, change, None)),
            "bearer" => match cx.channel(&channel).await? {
                Some(_) => Ok(Plan::advance(channel, Voucher::bearer())),
                None => Err(Rejection::verification("no such session").into()),
            },
            "close" => close(cx, channel).await,
            _ => Err(Rejection::verification("no such action").into()),
        }
    }

    fn settler(&self) -> &NoSettler {
        &NoSettler
    }

    fn statement(&self, _: &ChannelId, _: &ChannelState, served: &Served) -> Statement {
        Statement::default()
            .member("spent", u64::try_from(served.spent.get()).unwrap())
            .member("units", served.units)
    }

    fn event(&self, channel: &ChannelId, state: &ChannelState, moment: &Moment) -> Option<Event> {
        let (name, next) = match moment {
            Moment::Exhausted { next, .. } => ("payment-need-topup", next),
            Moment::TimedOut { next, .. } => ("session-timeout", next),
            Moment::Ended => {
                let (name, data) = ("message", "[DONE]".into());
                return Some(Event { name, data });
            }
            _ => return None,
        };
        let data = json!({
            "sessionId": channel.id(),
            "balanceSpent": state.spent.get().to_string(),
            "balanceRequired": next.get().to_string(),
        });
        Some(Event { name, data })
    }

    fn answer(&self, action: ChannelAction, _: &Receipt, _: &ChannelState) -> Answer {
        match action {
            ChannelAction::TopUp => Answer::Json(json!({"status": "ok"})),
            _ => Answer::Empty,
        }
    }
}
