//! Tokens and PaymentIntents, and their JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::error::ApiError;

/// A Shared Payment Token: what an agent grants a seller.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) payment_method: String,
    pub(crate) currency: String,
    pub(crate) max_amount: u64,
    pub(crate) expires_at: u64,
    pub(crate) seller: Option<Seller>,
    pub(crate) metadata: BTreeMap<String, String>,
    /// When, and one of `consumed`, `expired`, `revoked`.
    pub(crate) deactivated: Option<(u64, &'static str)>,
    pub(crate) captured: u64,
}

/// Whom a token is for.
#[derive(Clone, Debug)]
pub(crate) struct Seller {
    /// `network_business_profile`, and `network_id` before it was called so.
    pub(crate) profile: String,
    pub(crate) external_id: String,
}

impl Token {
    /// As the seller sees it.
    pub(crate) fn granted(&self) -> Value {
        let mut json = self.json("granted_token");
        json["agent_details"] = Value::Null;
        let mut card = card("visa", "4242");
        for unsaid in ["country", "display_brand", "networks", "wallet"] {
            card[unsaid] = Value::Null;
        }
        json["payment_method_details"] =
            json!({ "billing_details": null, "card": card, "type": "card" });
        json
    }

    /// As the agent sees it.
    pub(crate) fn issued(&self) -> Value {
        let mut json = self.json("issued_token");
        let status = match self.deactivated {
            Some(_) => "deactivated",
            None => "active",
        };
        json["status"] = status.into();
        json["next_action"] = Value::Null;
        json["payment_method"] = self.payment_method.clone().into();
        json["seller_details"] = self.seller.as_ref().map_or(Value::Null, |seller| {
            json!({
                "external_id": seller.external_id,
                "network_business_profile": seller.profile,
            })
        });
        json["setup_future_usage"] = Value::Null;
        json["use_stripe_sdk"] = Value::Null;
        json
    }

    fn json(&self, object: &str) -> Value {
        json!({
            "id": self.id,
            "object": format!("shared_payment.{object}"),
            "created": self.created,
            "deactivated_at": self.deactivated.map(|(at, _)| at),
            "deactivated_reason": self.deactivated.map(|(_, reason)| reason),
            "livemode": false,
            "shared_metadata": self.metadata,
            "usage_details": {
                "amount_captured": { "currency": self.currency, "value": self.captured },
            },
            "usage_limits": {
                "currency": self.currency,
                "expires_at": self.expires_at,
                "max_amount": self.max_amount,
            },
        })
    }
}

/// What every card tells of itself.
pub(crate) fn card(brand: &str, last4: &str) -> Value {
    json!({
        "brand": brand,
        "exp_month": 12,
        "exp_year": 2040,
        "funding": "credit",
        "last4": last4,
    })
}

/// Where a PaymentIntent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Succeeded,
    Processing,
    RequiresAction,
    RequiresPaymentMethod,
    Canceled,
}

impl Status {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Processing => "processing",
            Self::RequiresAction => "requires_action",
            Self::RequiresPaymentMethod => "requires_payment_method",
            Self::Canceled => "canceled",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Intent {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) amount: u64,
    pub(crate) currency: String,
    pub(crate) status: Status,
    pub(crate) token: String,
    pub(crate) payment_method: String,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) description: Option<String>,
    pub(crate) charge: Option<String>,
    pub(crate) last_error: Option<ApiError>,
    pub(crate) canceled_at: Option<u64>,
    /// The connected account that charged, `Stripe-Account`.
    pub(crate) account: Option<String>,
    pub(crate) settlement: Settlement,
}

/// What a PaymentIntent says of connected accounts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settlement {
    pub(crate) application_fee: Option<u64>,
    pub(crate) on_behalf_of: Option<String>,
    pub(crate) destination: Option<String>,
    pub(crate) transfer: Option<u64>,
    pub(crate) transfer_group: Option<String>,
}

impl Settlement {
    fn transfer_data(&self) -> Option<Value> {
        let destination = self.destination.as_ref()?;
        Some(json!({ "destination": destination, "amount": self.transfer }))
    }
}

impl Intent {
    pub(crate) fn json(&self) -> Value {
        let received = if self.status == Status::Succeeded {
            self.amount
        } else {
            0
        };
        let next_action = (self.status == Status::RequiresAction).then(|| {
            json!({ "type": "use_stripe_sdk", "use_stripe_sdk": { "type": "three_d_secure_redirect" } })
        });
        json!({
            "id": self.id,
            "object": "payment_intent",
            "amount": self.amount,
            "amount_capturable": 0,
            "amount_details": { "tip": {} },
            "amount_received": received,
            "application": null,
            "application_fee_amount": self.settlement.application_fee,
            "automatic_payment_methods": { "allow_redirects": "never", "enabled": true },
            "canceled_at": self.canceled_at,
            "cancellation_reason": null,
            "capture_method": "automatic_async",
            "client_secret": format!("{}_secret_sandbox", self.id),
            "confirmation_method": "automatic",
            "created": self.created,
            "currency": self.currency,
            "customer": null,
            "description": self.description,
            "last_payment_error": self.last_error.as_ref().map(ApiError::object),
            "latest_charge": self.charge,
            "livemode": false,
            "metadata": self.metadata,
            "next_action": next_action,
            "on_behalf_of": self.settlement.on_behalf_of,
            "payment_method": self.payment_method,
            "payment_method_configuration_details": null,
            "payment_method_options": {},
            "payment_method_types": ["card"],
            "processing": null,
            "receipt_email": null,
            "review": null,
            "setup_future_usage": null,
            "shipping": null,
            "statement_descriptor": null,
            "statement_descriptor_suffix": null,
            "status": self.status.as_str(),
            "transfer_data": self.settlement.transfer_data(),
            "transfer_group": self.settlement.transfer_group,
        })
    }
}

/// What becomes of a confirmation.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Status(Status),
    Declined(ApiError),
}

/// How Stripe's test payment methods behave (docs.stripe.com/testing).
pub(crate) fn test_method(id: &str) -> Option<Verdict> {
    let verdict = match id {
        "pm_card_visa" | "pm_card_visa_debit" | "pm_card_mastercard" | "pm_card_amex"
        | "pm_card_discover" => Verdict::Status(Status::Succeeded),
        "pm_card_authenticationRequired"
        | "pm_card_threeDSecure2Required"
        | "pm_card_threeDSecureRequired" => Verdict::Status(Status::RequiresAction),
        // An asynchronous method stands for what stays `processing` for days.
        "pm_usBankAccount_success" | "pm_usBankAccount_processing" => {
            Verdict::Status(Status::Processing)
        }
        "pm_card_chargeDeclined" | "pm_card_visa_chargeDeclined" => declined("generic_decline"),
        "pm_card_chargeDeclinedInsufficientFunds"
        | "pm_card_visa_chargeDeclinedInsufficientFunds" => declined("insufficient_funds"),
        "pm_card_chargeDeclinedLostCard" | "pm_card_visa_chargeDeclinedLostCard" => {
            declined("lost_card")
        }
        "pm_card_chargeDeclinedStolenCard" | "pm_card_visa_chargeDeclinedStolenCard" => {
            declined("stolen_card")
        }
        "pm_card_chargeDeclinedExpiredCard" => Verdict::Declined(ApiError::card(
            "expired_card",
            None,
            "Your card has expired.",
        )),
        "pm_card_chargeDeclinedIncorrectCvc" => Verdict::Declined(ApiError::card(
            "incorrect_cvc",
            None,
            "Your card's security code is incorrect.",
        )),
        "pm_card_chargeDeclinedProcessingError" => Verdict::Declined(ApiError::card(
            "processing_error",
            None,
            "An error occurred while processing your card. Try again in a little bit.",
        )),
        _ => return None,
    };
    Some(verdict)
}

/// `card_declined` with this decline code.
pub(crate) fn declined(decline_code: &str) -> Verdict {
    let message = match decline_code {
        "insufficient_funds" => "Your card has insufficient funds.",
        _ => "Your card was declined.",
    };
    Verdict::Declined(ApiError::card("card_declined", Some(decline_code), message))
}
