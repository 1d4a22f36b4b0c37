//! What Stripe's answers say about the money. Only what is explicit decides.

use farebox_core::{Outcome, Rejection};
use farebox_wire::Problem;
use stripe_shared::PaymentIntentStatus;
use tracing::{error, warn};

use crate::{
    api::{Answer, ApiError, Intent, NoAnswer},
    order::Order,
};

/// Which call of an order an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nothing was asked for before it.
    First,
    /// There may have been one before. What Stripe holds against this one is not its fate.
    Again,
}

/// What an answer says about the money.
#[derive(Debug)]
pub(crate) enum Verdict {
    Known(Outcome),
    /// The PaymentIntent is on its way; ask for it again.
    Pending(String),
    /// It waits for what nobody here will do: to be cancelled, and then declined like this.
    Open(String, Rejection),
    Unclear,
}

pub(crate) fn judge(answer: &Answer, order: &Order, asked: Asked) -> Verdict {
    const WHAT: &str = "charging a token";
    if answer.status.is_success() {
        return match answer.read::<Intent>() {
            Ok(intent) if asked == Asked::First && answer.replayed && precedes(&intent, order) => {
                error!(
                    payment_intent = intent.id,
                    challenge = order.challenge,
                    request_id = answer.request_id,
                    "a challenge was charged before its order was written down: has the store lost \
                     a payment?"
                );
                Verdict::Known(Outcome::Declined(charged_before()))
            }
            Ok(intent) => judge_intent(&intent, order),
            Err(_) => unexpected(WHAT, answer),
        };
    }
    let error = answer.error();
    // A card error is the answer of a charge that was carried out, so it is the key's answer.
    let (rejection, of_the_key) = match (answer.status.as_u16(), error.kind.as_str()) {
        (402, "card_error") => (declined(&error), true),
        (402, "invalid_request_error") => (declined(&error), false),
        (400 | 404, "invalid_request_error") => (refused(&error, answer), false),
        // Other parameters under this key, a key that lacks a right, a limit, a broken Stripe, or
        // somebody in between. A call may still be under way: only a success is beyond doubt.
        _ => {
            let shown = error.payment_intent;
            return match shown.map(|intent| judge_intent(&intent, order)) {
                Some(settled @ Verdict::Known(Outcome::Settled { .. })) => settled,
                _ => unexpected(WHAT, answer),
            };
        }
    };
    match error.payment_intent {
        // The error's words, if its PaymentIntent says that it failed.
        Some(intent) => match judge_intent(&intent, order) {
            Verdict::Known(Outcome::Declined(_)) => Verdict::Known(Outcome::Declined(rejection)),
            told => told,
        },
        None if asked == Asked::First || of_the_key => Verdict::Known(Outcome::Declined(rejection)),
        None => unexpected(WHAT, answer),
    }
}

/// Whether it is another order's success: one that a store forgot, and that was served for then.
fn precedes(intent: &Intent, order: &Order) -> bool {
    let before = intent.created.is_some_and(|at| at < order.created);
    before && intent.status() == PaymentIntentStatus::Succeeded
}

pub(crate) fn judge_intent(intent: &Intent, order: &Order) -> Verdict {
    let ours = intent.metadata("mpp_challenge_id") == Some(&order.challenge)
        && i64::try_from(intent.amount) == Ok(order.amount)
        && intent.currency == order.currency;
    if !ours {
        error!(
            payment_intent = intent.id,
            challenge = order.challenge,
            "Stripe answers with a PaymentIntent of another payment"
        );
        return Verdict::Unclear;
    }
    match intent.status() {
        PaymentIntentStatus::Succeeded => Verdict::Known(Outcome::settled(&intent.id)),
        // The cardholder would have to act, whom nobody can reach here.
        PaymentIntentStatus::RequiresAction => Verdict::Open(intent.id.clone(), action_required()),
        // Only we could confirm it, and we do not.
        PaymentIntentStatus::RequiresConfirmation => {
            Verdict::Open(intent.id.clone(), did_not_go_through())
        }
        PaymentIntentStatus::Canceled | PaymentIntentStatus::RequiresPaymentMethod => {
            Verdict::Known(Outcome::Declined(did_not_go_through()))
        }
        _ => Verdict::Pending(intent.id.clone()),
    }
}

/// What a declined payer can do. Codes that tell of theft or fraud are not passed on, as Stripe asks
/// (docs.stripe.com/declines/codes).
fn declined(error: &ApiError) -> Rejection {
    let code = error.code.as_deref().unwrap_or_default();
    let reason = error.decline_code.as_deref().unwrap_or(code);
    let advice = match reason {
        "authentication_required" | "authentication_not_handled" => return action_required(),
        "insufficient_funds" | "withdrawal_count_limit_exceeded" | "card_velocity_exceeded" => {
            "there are not enough funds; use another payment method"
        }
        "expired_card" => "the card has expired; use another payment method",
        "currency_not_supported" | "card_not_supported" | "transaction_not_allowed" => {
            "the card does not allow this payment; use another payment method"
        }
        "processing_error" | "try_again_later" | "issuer_not_available" | "reenter_transaction" => {
            "the issuer could not be asked; try again in a while"
        }
        "approve_with_id" | "call_issuer" | "do_not_try_again" => {
            "the issuer declined; ask the issuer, or use another payment method"
        }
        _ => "the issuer declined; use another payment method",
    };
    Rejection::verification(format!("not charged: {advice}"))
}

fn charged_before() -> Rejection {
    Rejection::spent("the challenge was charged before; ask the seller, and do not pay again")
}

fn did_not_go_through() -> Rejection {
    Rejection::verification("the payment did not go through")
}

fn action_required() -> Rejection {
    Rejection::new(
        Problem::PaymentActionRequired,
        "not charged: the issuer wants the cardholder to act; use a payment method that needs no \
         further step",
    )
}

/// 400 and 404: nothing was charged, and asking again changes nothing.
fn refused(error: &ApiError, answer: &Answer) -> Rejection {
    let param = error.param.as_deref().unwrap_or_default();
    let code = error.code.as_deref().unwrap_or_default();
    if param.contains("shared_payment_granted_token") && code != "parameter_unknown" {
        return Rejection::verification(
            "Stripe does not accept the token: it is unknown, used, revoked or expired, or its \
             limits do not cover the amount and currency",
        );
    }
    error!(
        status = answer.status.as_u16(),
        request_id = answer.request_id,
        code,
        param,
        "Stripe refuses the parameters of a charge; check the rail's configuration"
    );
    Rejection::verification(
        "not charged: Stripe refuses this payment, and the seller has to look into it",
    )
}

pub(crate) fn unanswered(what: &str, lost: &NoAnswer) -> Verdict {
    warn!(error = %lost, "no answer while {what}");
    Verdict::Unclear
}

pub(crate) fn unexpected(what: &str, answer: &Answer) -> Verdict {
    warn!(
        status = answer.status.as_u16(),
        replayed = answer.replayed,
        request_id = answer.request_id,
        "an answer that does not tell while {what}"
    );
    Verdict::Unclear
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::tests::order;

    fn intent(status: &str, challenge: &str) -> Intent {
        serde_json::from_value(serde_json::json!({
            "id": "pi_1", "amount": 50, "currency": "usd", "status": status,
            "metadata": { "mpp_challenge_id": challenge },
        }))
        .unwrap()
    }

    #[test]
    fn only_succeeded_is_success() {
        let judge = |status| judge_intent(&intent(status, "c-1_A"), &order());
        assert!(matches!(
            judge("succeeded"),
            Verdict::Known(Outcome::Settled { .. })
        ));
        assert!(matches!(
            judge("canceled"),
            Verdict::Known(Outcome::Declined(_))
        ));
        assert!(matches!(
            judge("requires_payment_method"),
            Verdict::Known(Outcome::Declined(_))
        ));
        for status in ["requires_action", "requires_confirmation"] {
            assert!(matches!(judge(status), Verdict::Open(..)), "{status}");
        }
        for status in ["processing", "requires_capture", "of_tomorrow"] {
            assert!(matches!(judge(status), Verdict::Pending(_)), "{status}");
        }
    }

    /// Protects: the success of another challenge does not open this one.
    #[test]
    fn a_success_of_another_challenge_tells_nothing() {
        assert!(matches!(
            judge_intent(&intent("succeeded", "c-2"), &order()),
            Verdict::Unclear
        ));
        let dearer = Order {
            amount: 51,
            ..order()
        };
        assert!(matches!(
            judge_intent(&intent("succeeded", "c-1_A"), &dearer),
            Verdict::Unclear
        ));
    }
}
