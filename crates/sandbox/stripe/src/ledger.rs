//! What the account holds: tokens, PaymentIntents and the answers kept for idempotency keys.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use crate::{
    connect,
    error::ApiError,
    fault::Fault,
    form::Form,
    model::{Intent, Seller, Status, Token, Verdict, declined, test_method},
    refund::Refund,
    webhook::Event,
};

/// How long an answer is kept for its key. Stripe promises at least this.
const KEEP_KEYS: u64 = 24 * 3600;

/// A request on the account, its path's id included.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Grant,
    Issue,
    Token(String),
    Revoke(String),
    /// [`Self::Revoke`] by the agent.
    Withdraw(String),
    CreateIntent,
    Intent(String),
    CancelIntent(String),
    ListIntents,
    SearchIntents,
    CreateRefund,
    Refund(String),
    ListRefunds,
    Method(String),
    Balance,
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// What the account knows about an idempotency key.
#[derive(Debug)]
struct Kept {
    fingerprint: String,
    at: u64,
    /// `None` while the first request is being worked on.
    answer: Option<Answer>,
}

#[derive(Debug)]
pub(crate) enum Claim {
    /// Go ahead, then [`Ledger::keep`] or [`Ledger::release`].
    New,
    /// This was the answer.
    Replay(Answer),
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    tokens: HashMap<String, Token>,
    /// In order of creation.
    pub(crate) intents: Vec<Intent>,
    pub(crate) refunds: Vec<Refund>,
    /// What has happened and was not sent yet.
    pub(crate) events: Vec<Event>,
    kept: HashMap<String, Kept>,
    /// The customers of PaymentMethods that have one.
    pub(crate) customers: HashMap<String, String>,
    pub(crate) search_lag: u64,
}

impl Ledger {
    pub(crate) fn new(search_lag: u64) -> Self {
        Self {
            search_lag,
            ..Self::default()
        }
    }

    /// Claims an idempotency key for a request with this fingerprint.
    pub(crate) fn claim(
        &mut self,
        key: &str,
        fingerprint: &str,
        now: u64,
    ) -> Result<Claim, ApiError> {
        self.kept
            .retain(|_, kept| kept.answer.is_none() || now < kept.at + KEEP_KEYS);
        match self.kept.get(key) {
            None => {
                let kept = Kept {
                    fingerprint: fingerprint.to_owned(),
                    at: now,
                    answer: None,
                };
                self.kept.insert(key.to_owned(), kept);
                Ok(Claim::New)
            }
            Some(kept) if kept.fingerprint != fingerprint => Err(ApiError::idempotency()),
            Some(Kept { answer: None, .. }) => Err(ApiError::in_use()),
            Some(Kept {
                answer: Some(answer),
                ..
            }) => Ok(Claim::Replay(answer.clone())),
        }
    }

    pub(crate) fn keep(&mut self, key: &str, answer: Answer) {
        if let Some(kept) = self.kept.get_mut(key) {
            kept.answer = Some(answer);
        }
    }

    pub(crate) fn release(&mut self, key: &str) {
        self.kept.remove(key);
    }

    pub(crate) fn intents(&self) -> &[Intent] {
        &self.intents
    }

    pub(crate) fn execute(
        &mut self,
        call: &Call,
        form: &Form,
        account: Option<&str>,
        fault: Option<&Fault>,
        now: u64,
    ) -> Result<Value, ApiError> {
        self.expire(now);
        match call {
            Call::Grant => Ok(self.mint(form, now)?.granted()),
            Call::Issue => Ok(self.mint(form, now)?.issued()),
            Call::Token(id) => {
                form.only(&["expand[]"])?;
                Ok(self.token(id, "id")?.granted())
            }
            Call::Revoke(id) => Ok(self.revoke(id, form, now)?.granted()),
            Call::Withdraw(id) => Ok(self.revoke(id, form, now)?.issued()),
            Call::CreateIntent => self.create_intent(form, account, fault, now),
            Call::Intent(id) => {
                form.only(&["expand[]", "client_secret"])?;
                Ok(self.intent(id, account)?.json())
            }
            Call::CancelIntent(id) => {
                form.only(&["cancellation_reason"])?;
                self.cancel(id, account, now)
            }
            Call::ListIntents => self.list(form, account),
            Call::SearchIntents => self.search(form, account, now),
            Call::CreateRefund => self.create_refund(form, account, fault, now),
            Call::Refund(id) => {
                form.only(&["expand[]"])?;
                self.refund(id, account)
            }
            Call::ListRefunds => self.list_refunds(form, account),
            Call::Method(id) => {
                form.only(&["expand[]"])?;
                self.method(id)
            }
            Call::Balance => Ok(self.balance()),
        }
    }

    /// Moves a PaymentIntent out of `processing` or `requires_action`.
    pub(crate) fn resolve(&mut self, id: &str, succeeded: bool, now: u64) -> bool {
        let Some(intent) = self.intents.iter_mut().find(|intent| intent.id == id) else {
            return false;
        };
        if !matches!(intent.status, Status::Processing | Status::RequiresAction) {
            return false;
        }
        if succeeded {
            intent.status = Status::Succeeded;
            intent.charge = Some(crate::object_id("ch"));
            if let Some(token) = self.tokens.get_mut(&intent.token) {
                token.captured = intent.amount;
                token.deactivated.get_or_insert((now, "consumed"));
            }
        } else {
            intent.status = Status::RequiresPaymentMethod;
        }
        self.events.push(happened(intent, now));
        true
    }

    fn expire(&mut self, now: u64) {
        for token in self.tokens.values_mut() {
            if token.expires_at <= now {
                token
                    .deactivated
                    .get_or_insert((token.expires_at, "expired"));
            }
        }
    }

    fn method(&self, id: &str) -> Result<Value, ApiError> {
        if test_method(id).is_none() {
            return Err(ApiError::missing("PaymentMethod", id, "payment_method"));
        }
        Ok(json!({
            "id": id,
            "object": "payment_method",
            "type": "card",
            "customer": self.customers.get(id),
            "livemode": false,
        }))
    }

    fn token(&mut self, id: &str, param: &str) -> Result<&mut Token, ApiError> {
        self.tokens
            .get_mut(id)
            .ok_or_else(|| ApiError::missing("shared payment granted token", id, param))
    }

    /// A PaymentIntent of the account that asks.
    pub(crate) fn intent(
        &mut self,
        id: &str,
        account: Option<&str>,
    ) -> Result<&mut Intent, ApiError> {
        self.intents
            .iter_mut()
            .find(|intent| intent.id == id && intent.account.as_deref() == account)
            .ok_or_else(|| ApiError::missing("payment_intent", id, "intent"))
    }

    fn mint(&mut self, form: &Form, now: u64) -> Result<&Token, ApiError> {
        form.only(&[
            "payment_method",
            "customer",
            "return_url",
            "usage_limits[currency]",
            "usage_limits[max_amount]",
            "usage_limits[expires_at]",
            "seller_details[network_id]",
            "seller_details[network_business_profile]",
            "seller_details[external_id]",
            "shared_metadata[]",
            "expand[]",
        ])?;
        let payment_method = form.required("payment_method")?;
        if test_method(payment_method).is_none() {
            return Err(ApiError::missing(
                "PaymentMethod",
                payment_method,
                "payment_method",
            ));
        }
        let currency = currency(form, "usage_limits[currency]")?;
        let max_amount = form.required_integer("usage_limits[max_amount]")?;
        let expires_at = form.required_integer("usage_limits[expires_at]")?;
        if expires_at <= now {
            return Err(ApiError::invalid("expires_at must be in the future")
                .param("usage_limits[expires_at]"));
        }
        let seller = ["network_id", "network_business_profile"]
            .into_iter()
            .find_map(|key| form.get(&format!("seller_details[{key}]")));
        let external_id = form.get("seller_details[external_id]");
        let seller = seller.map(|profile| Seller {
            profile: profile.to_owned(),
            external_id: external_id.unwrap_or_default().to_owned(),
        });
        let token = Token {
            id: crate::object_id("spt"),
            created: now,
            payment_method: payment_method.to_owned(),
            currency,
            max_amount,
            expires_at,
            seller,
            metadata: form.metadata("shared_metadata")?,
            deactivated: None,
            captured: 0,
        };
        Ok(self.tokens.entry(token.id.clone()).or_insert(token))
    }

    fn revoke(&mut self, id: &str, form: &Form, now: u64) -> Result<&Token, ApiError> {
        form.only(&["expand[]"])?;
        let token = self.token(id, "id")?;
        token.deactivated.get_or_insert((now, "revoked"));
        Ok(token)
    }

    fn create_intent(
        &mut self,
        form: &Form,
        account: Option<&str>,
        fault: Option<&Fault>,
        now: u64,
    ) -> Result<Value, ApiError> {
        form.only(&[
            "amount",
            "currency",
            "confirm",
            "description",
            "shared_payment_granted_token",
            "payment_method_data[shared_payment_granted_token]",
            "automatic_payment_methods[enabled]",
            "automatic_payment_methods[allow_redirects]",
            "metadata[]",
            "application_fee_amount",
            "on_behalf_of",
            "transfer_data[destination]",
            "transfer_data[amount]",
            "transfer_group",
            "expand[]",
        ])?;
        let amount = form.required_integer("amount")?;
        let currency = currency(form, "currency")?;
        if amount < minimum(&currency) {
            let message = format!(
                "Amount must be at least {} in the smallest unit of {currency}.",
                minimum(&currency)
            );
            return Err(ApiError::invalid(message)
                .code("amount_too_small")
                .param("amount"));
        }
        if !form.boolean("confirm")? {
            return Err(ApiError::invalid(
                "This sandbox confirms as it creates; send confirm=true.",
            )
            .param("confirm"));
        }
        let metadata = form.metadata("metadata")?;
        let settlement = connect::settlement(form, account, amount)?;
        let spellings = [
            "shared_payment_granted_token",
            "payment_method_data[shared_payment_granted_token]",
        ];
        let param = match spellings.map(|name| form.get(name)) {
            [Some(_), None] => spellings[0],
            [None, Some(_)] => spellings[1],
            [Some(_), Some(_)] => {
                return Err(
                    ApiError::invalid("Pass one spelling of the token only.").param(spellings[0])
                );
            }
            [None, None] => {
                return Err(
                    ApiError::invalid("You cannot confirm without a payment method.")
                        .code("payment_intent_unexpected_state")
                        .param(spellings[0]),
                );
            }
        };

        // From here on the endpoint works, so that its answer is kept for the key.
        let token = self
            .token(form.required(param)?, param)
            .map_err(ApiError::executed)?
            .clone();
        let refuse = |message: &str| Err(ApiError::invalid(message).param(param).executed());
        match token.deactivated {
            Some((_, "consumed")) => return refuse("The shared payment token has been used."),
            Some((_, "expired")) => return refuse("The shared payment token has expired."),
            Some(_) => return refuse("The shared payment token has been revoked."),
            None => {}
        }
        if token.currency != currency {
            return refuse("The currency is not the one of the shared payment token.");
        }
        if amount > token.max_amount {
            return refuse("The amount is above the shared payment token's maximum.");
        }
        let verdict = match fault {
            Some(Fault::Decline(code)) => declined(code),
            Some(Fault::RequiresAction) => Verdict::Status(Status::RequiresAction),
            Some(Fault::Processing) => Verdict::Status(Status::Processing),
            _ => test_method(&token.payment_method).unwrap_or(Verdict::Status(Status::Succeeded)),
        };
        let (status, error) = match verdict {
            Verdict::Status(status) => (status, None),
            Verdict::Declined(error) => (Status::RequiresPaymentMethod, Some(error)),
        };
        let intent = Intent {
            id: crate::object_id("pi"),
            created: now,
            amount,
            currency,
            status,
            token: token.id.clone(),
            payment_method: crate::object_id("pm"),
            metadata,
            description: form.get("description").map(str::to_owned),
            charge: (status == Status::Succeeded).then(|| crate::object_id("ch")),
            last_error: error.clone(),
            canceled_at: None,
            account: account.map(str::to_owned),
            settlement,
        };
        let json = intent.json();
        self.events.push(happened(&intent, now));
        self.intents.push(intent);
        if status == Status::Succeeded {
            let token = self.token(&token.id, param)?;
            token.captured = amount;
            token.deactivated = Some((now, "consumed"));
        }
        match error {
            Some(error) => Err(error.payment_intent(json)),
            None => Ok(json),
        }
    }

    fn cancel(&mut self, id: &str, account: Option<&str>, now: u64) -> Result<Value, ApiError> {
        let intent = self.intent(id, account)?;
        match intent.status {
            Status::RequiresAction | Status::RequiresPaymentMethod => {
                intent.status = Status::Canceled;
                intent.canceled_at = Some(now);
                let (json, event) = (intent.json(), happened(intent, now));
                self.events.push(event);
                Ok(json)
            }
            status => {
                let message = format!(
                    "You cannot cancel this PaymentIntent because it has a status of {}.",
                    status.as_str()
                );
                Err(ApiError::invalid(message)
                    .code("payment_intent_unexpected_state")
                    .payment_intent(intent.json())
                    .executed())
            }
        }
    }

    fn balance(&self) -> Value {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for intent in self
            .intents
            .iter()
            .filter(|intent| intent.status == Status::Succeeded)
        {
            *sums.entry(&intent.currency).or_default() += intent.amount;
        }
        for refund in self.refunds.iter().filter(|refund| refund.counts()) {
            *sums.entry(&refund.currency).or_default() -= refund.amount;
        }
        let available: Vec<Value> = sums
            .into_iter()
            .map(|(currency, amount)| {
                json!({ "amount": amount, "currency": currency, "source_types": { "card": amount } })
            })
            .collect();
        json!({ "object": "balance", "available": available, "livemode": false, "pending": [] })
    }
}

/// What is told of a PaymentIntent's status.
fn happened(intent: &Intent, now: u64) -> Event {
    let kind = match intent.status {
        Status::Succeeded => "payment_intent.succeeded",
        Status::Processing => "payment_intent.processing",
        Status::RequiresAction => "payment_intent.requires_action",
        Status::RequiresPaymentMethod => "payment_intent.payment_failed",
        Status::Canceled => "payment_intent.canceled",
    };
    let account = intent.account.as_deref();
    Event::new(kind, intent.json(), account, now)
}

fn currency(form: &Form, name: &str) -> Result<String, ApiError> {
    let text = form.required(name)?;
    if text.len() == 3 && text.bytes().all(|b| b.is_ascii_alphabetic()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(ApiError::invalid(format!("Invalid currency: {text}.")).param(name))
    }
}

/// The smallest charge, for a few currencies (docs.stripe.com/currencies); 1 for the rest.
fn minimum(currency: &str) -> u64 {
    match currency {
        "usd" | "eur" | "jpy" | "aud" | "cad" | "chf" => 50,
        "gbp" => 30,
        "huf" => 17_500,
        _ => 1,
    }
}
