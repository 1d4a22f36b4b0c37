//! Tokens of an agent's own: issued by its Stripe account, from a payment method it holds, to the
//! seller that a challenge names.

use std::collections::BTreeMap;

use farebox_core::{Fault, Invalid};
use serde::{Deserialize, Serialize};
use stripe_client_core::{RequestBuilder, StripeMethod};

use crate::{
    api::{Answer, Api},
    config::WalletConfig,
    token::SharedPaymentToken,
    wallet::{MintToken, TokenRequest},
};

/// Issues tokens with Stripe's agentic commerce API, `POST /v1/shared_payment/issued_tokens`, in
/// live or test mode. The payment method never leaves Stripe; what the seller gets is limited to the
/// price, the currency and the challenge's life, and Stripe holds it to that.
///
/// A token is only issued for what a budget has approved: see [`Wallet::pay`](farebox_core::Wallet).
#[derive(Debug)]
pub struct IssuedTokens {
    api: Api,
    payment_method: String,
}

#[derive(Deserialize)]
struct Issued {
    id: SharedPaymentToken,
    /// `active`, `requires_action` or `deactivated`; versions before it had none.
    status: Option<String>,
    usage_limits: Option<Limits>,
}

/// What Stripe says the token may do.
#[derive(Deserialize)]
struct Limits {
    currency: String,
    max_amount: u64,
    expires_at: Option<i64>,
}

impl IssuedTokens {
    /// As configured, whatever it says of `tokens`. Pure.
    ///
    /// # Errors
    /// Everything wrong with the configuration.
    pub fn new(config: WalletConfig) -> Result<Self, Invalid> {
        config.check_issued()
    }

    pub(crate) fn with(api: Api, payment_method: String) -> Self {
        Self {
            api,
            payment_method,
        }
    }

    async fn issue(&self, request: &TokenRequest, max_amount: u64) -> Result<Issued, Fault> {
        #[derive(Serialize)]
        struct Form<'a> {
            payment_method: &'a str,
            seller_details: Seller<'a>,
            usage_limits: Usage<'a>,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            shared_metadata: &'a BTreeMap<String, String>,
        }
        #[derive(Serialize)]
        struct Seller<'a> {
            network_business_profile: &'a str,
        }
        #[derive(Serialize)]
        struct Usage<'a> {
            currency: &'a str,
            max_amount: u64,
            expires_at: i64,
        }
        let form = Form {
            payment_method: &self.payment_method,
            seller_details: Seller {
                network_business_profile: &request.network_id,
            },
            usage_limits: Usage {
                currency: &request.currency,
                max_amount,
                expires_at: request.expires_at,
            },
            shared_metadata: &request.metadata,
        };
        let path = "/shared_payment/issued_tokens";
        let call = RequestBuilder::new(StripeMethod::Post, path).form(&form);
        let answer = self.api.send(call, None).await;
        let answer =
            answer.map_err(|lost| Fault::unavailable("issuing a token").caused_by(lost))?;
        if !answer.status.is_success() {
            return Err(refused(&answer));
        }
        answer
            .read()
            .map_err(|_| Fault::new("issuing a token: the answer holds no token"))
    }

    /// Ends a token that must not be handed over. Best effort: it lapses by itself.
    async fn revoke(&self, token: &SharedPaymentToken) {
        let path = format!("/shared_payment/issued_tokens/{}/revoke", token.expose());
        let call = RequestBuilder::new(StripeMethod::Post, path);
        match self.api.send(call, None).await {
            Ok(answer) if answer.status.is_success() => {}
            Ok(answer) => tracing::warn!(
                status = answer.status.as_u16(),
                request_id = answer.request_id,
                "a token that is not used was not revoked"
            ),
            Err(lost) => tracing::warn!(error = %lost, "a token that is not used was not revoked"),
        }
    }
}

fn refused(answer: &Answer) -> Fault {
    let error = answer.error();
    let code = error.code.unwrap_or(error.kind);
    let param = error.param.unwrap_or_default();
    let (status, id) = (answer.status, &answer.request_id);
    let why = format!("{status} {code} {param}, request {id}");
    Fault::new("issuing a token: Stripe refuses").caused_by(why)
}

impl MintToken for IssuedTokens {
    async fn mint(&self, request: TokenRequest) -> Result<SharedPaymentToken, Fault> {
        let max_amount = u64::try_from(request.amount.get())
            .map_err(|_| Fault::new("issuing a token: the amount is too large"))?;
        let issued = self.issue(&request, max_amount).await?;
        if !issued.id.is_well_formed() {
            return Err(Fault::new("issuing a token: the answer holds no token"));
        }
        // A token that could charge more than was approved is not handed over.
        let limited = issued.usage_limits.as_ref().is_some_and(|limits| {
            let lapses = limits.expires_at.is_some_and(|at| at <= request.expires_at);
            limits.max_amount <= max_amount && limits.currency == request.currency && lapses
        });
        let what = match issued.status.as_deref() {
            _ if !limited => "issuing a token: its limits are not those asked for",
            None | Some("active") => return Ok(issued.id),
            Some("requires_action") => {
                "issuing a token: the issuer of the card wants its holder to act first"
            }
            Some(_) => "issuing a token: it is not active",
        };
        self.revoke(&issued.id).await;
        Err(Fault::new(what))
    }
}
