//! Refunds of PaymentIntents (docs.stripe.com/api/refunds).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    error::ApiError,
    fault::Fault,
    find::page,
    form::Form,
    ledger::Ledger,
    model::{Intent, Status},
    webhook::Event,
};

/// Where a refund stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Succeeded,
    Pending,
    Failed,
}

impl Progress {
    fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Pending => "pending",
            Self::Failed => "failed",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Refund {
    pub(crate) id: String,
    created: u64,
    pub(crate) amount: u64,
    pub(crate) currency: String,
    charge: String,
    pub(crate) payment_intent: String,
    reason: Option<String>,
    metadata: BTreeMap<String, String>,
    pub(crate) progress: Progress,
    account: Option<String>,
    reverses_transfer: bool,
}

impl Refund {
    /// Whether its amount is gone from the charge.
    pub(crate) fn counts(&self) -> bool {
        self.progress != Progress::Failed
    }

    pub(crate) fn json(&self) -> Value {
        let mut json = json!({
            "id": self.id,
            "object": "refund",
            "amount": self.amount,
            "balance_transaction": null,
            "charge": self.charge,
            "created": self.created,
            "currency": self.currency,
            "destination_details": { "card": { "type": "refund" }, "type": "card" },
            "metadata": self.metadata,
            "payment_intent": self.payment_intent,
            "reason": self.reason,
            "receipt_number": null,
            "source_transfer_reversal": null,
            "status": self.progress.as_str(),
            "transfer_reversal": self.reverses_transfer.then(|| self.id.replace("re_", "trr_")),
        });
        if self.progress == Progress::Failed {
            json["failure_reason"] = "declined".into();
        }
        json
    }
}

/// The charge of a PaymentIntent that succeeded, which keeps the metadata it was made with.
fn charge_json(intent: &Intent, refunded: u64) -> Value {
    json!({
        "id": intent.charge,
        "object": "charge",
        "amount": intent.amount,
        "amount_captured": intent.amount,
        "amount_refunded": refunded,
        "application": null,
        "application_fee": null,
        "application_fee_amount": intent.settlement.application_fee,
        "balance_transaction": null,
        "billing_details": {
            "address": null, "email": null, "name": null, "phone": null, "tax_id": null,
        },
        "captured": true,
        "created": intent.created,
        "currency": intent.currency,
        "customer": null,
        "description": intent.description,
        "disputed": false,
        "failure_code": null,
        "failure_message": null,
        "livemode": false,
        "metadata": intent.metadata,
        "on_behalf_of": intent.settlement.on_behalf_of,
        "paid": true,
        "payment_intent": intent.id,
        "payment_method": intent.payment_method,
        "receipt_email": null,
        "refunded": refunded == intent.amount,
        "status": "succeeded",
    })
}

impl Ledger {
    /// What of a PaymentIntent has gone back, or is about to.
    fn given_back(&self, intent: &str) -> u64 {
        let of = |refund: &&Refund| refund.payment_intent == intent && refund.counts();
        self.refunds.iter().filter(of).map(|r| r.amount).sum()
    }

    pub(crate) fn create_refund(
        &mut self,
        form: &Form,
        account: Option<&str>,
        fault: Option<&Fault>,
        now: u64,
    ) -> Result<Value, ApiError> {
        form.only(&[
            "payment_intent",
            "amount",
            "reason",
            "metadata[]",
            "refund_application_fee",
            "reverse_transfer",
            "expand[]",
        ])?;
        let id = form.required("payment_intent")?.to_owned();
        let metadata = form.metadata("metadata")?;
        let reverses = form.boolean("reverse_transfer")?;
        let returns_fee = form.boolean("refund_application_fee")?;
        let intent: Intent = self
            .intent(&id, account)
            .map_err(|error| error.param("payment_intent").executed())?
            .clone();
        let refuse = |error: ApiError| Err(error.executed());
        let (Status::Succeeded, Some(charge)) = (intent.status, intent.charge) else {
            return refuse(ApiError::invalid(format!(
                "This PaymentIntent ({id}) does not have a successful charge to refund."
            )));
        };
        let left = intent.amount - self.given_back(&id);
        if left == 0 {
            let message = format!("Charge {charge} has already been refunded.");
            return refuse(ApiError::invalid(message).code("charge_already_refunded"));
        }
        let amount = form.integer("amount")?.unwrap_or(left);
        if amount == 0 {
            return refuse(ApiError::invalid("Invalid positive integer").param("amount"));
        }
        if amount > left {
            let message = format!(
                "Refund amount ({amount}) is greater than unrefunded amount on charge ({left})"
            );
            return refuse(ApiError::invalid(message).param("amount"));
        }
        if reverses && intent.settlement.destination.is_none() {
            let message = "The charge has no transfer that could be reversed.";
            return refuse(ApiError::invalid(message).param("reverse_transfer"));
        }
        if returns_fee && intent.settlement.application_fee.is_none() {
            let message = "The charge has no application fee that could be refunded.";
            return refuse(ApiError::invalid(message).param("refund_application_fee"));
        }
        let refund = Refund {
            id: crate::object_id("re"),
            created: now,
            amount,
            currency: intent.currency,
            charge,
            payment_intent: intent.id,
            reason: form.get("reason").map(str::to_owned),
            metadata,
            progress: match fault {
                Some(Fault::Processing) => Progress::Pending,
                Some(Fault::Decline(_)) => Progress::Failed,
                _ => Progress::Succeeded,
            },
            account: account.map(str::to_owned),
            reverses_transfer: reverses,
        };
        let (json, counts) = (refund.json(), refund.counts());
        let created = Event::new("refund.created", json.clone(), account, now);
        self.events.push(created);
        self.refunds.push(refund);
        if counts {
            let intent = self.intent(&id, account)?.clone();
            let charge = charge_json(&intent, self.given_back(&id));
            let refunded = Event::new("charge.refunded", charge, account, now);
            self.events.push(refunded);
        }
        Ok(json)
    }

    /// Gives back what somebody asks for in the dashboard, on whichever account it is.
    pub(crate) fn refund_by_hand(
        &mut self,
        intent: &str,
        amount: Option<u64>,
        now: u64,
    ) -> Option<String> {
        let account = self.intents.iter().find(|known| known.id == intent);
        let account = account?.account.clone();
        let mut form = vec![("payment_intent".to_owned(), intent.to_owned())];
        form.extend(amount.map(|amount| ("amount".to_owned(), amount.to_string())));
        let made = self.create_refund(&Form::of(form), account.as_deref(), None, now);
        Some(made.ok()?.get("id")?.as_str()?.to_owned())
    }

    pub(crate) fn refund(&self, id: &str, account: Option<&str>) -> Result<Value, ApiError> {
        let of = |refund: &&Refund| refund.id == id && refund.account.as_deref() == account;
        let found = self.refunds.iter().find(of);
        let found = found.ok_or_else(|| ApiError::missing("refund", id, "id"))?;
        Ok(found.json())
    }

    pub(crate) fn list_refunds(
        &self,
        form: &Form,
        account: Option<&str>,
    ) -> Result<Value, ApiError> {
        form.only(&["payment_intent", "limit", "expand[]"])?;
        let wanted = form.get("payment_intent");
        let of = |refund: &&Refund| {
            refund.account.as_deref() == account
                && wanted.is_none_or(|intent| refund.payment_intent == intent)
        };
        let found = self.refunds.iter().rev().filter(of).map(Refund::json);
        page("list", "/v1/refunds", found.collect(), form)
    }

    /// Ends a refund that is pending. Says whether there was one.
    pub(crate) fn resolve_refund(&mut self, id: &str, succeeded: bool, now: u64) -> bool {
        // One that succeeded may still fail, where a bank sends the money back.
        let open = |refund: &&mut Refund| {
            let late = refund.progress == Progress::Succeeded && !succeeded;
            refund.id == id && (refund.progress == Progress::Pending || late)
        };
        let Some(refund) = self.refunds.iter_mut().find(open) else {
            return false;
        };
        refund.progress = match succeeded {
            true => Progress::Succeeded,
            false => Progress::Failed,
        };
        let event = Event::new(
            "refund.updated",
            refund.json(),
            refund.account.as_deref(),
            now,
        );
        self.events.push(event);
        true
    }
}
