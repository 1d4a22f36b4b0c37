//! The sandbox's PaymentIntents are Stripe's: they read as the type that async-stripe generates from
//! Stripe's description of its API.
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside any #[test]")]

use std::fmt::Display;

use bytes::Bytes;
use farebox_sandbox_stripe::{Fault, Stripe, StripeConfig};
use stripe_client_core::{
    CustomizedStripeRequest, RequestBuilder, StripeClient, StripeClientErr, StripeMethod,
};
use stripe_core::payment_intent::{ListPaymentIntent, RetrievePaymentIntent};
use stripe_shared::PaymentIntentStatus;

/// As bare as a client can be.
struct Client<'a>(&'a Stripe);

#[derive(Debug)]
enum Unreadable {}

impl StripeClientErr for Unreadable {
    fn deserialize_err(message: impl Display) -> Self {
        panic!("{message}")
    }
}

impl Client<'_> {
    async fn send(&self, request: RequestBuilder) -> Bytes {
        let RequestBuilder {
            query,
            body,
            path,
            method,
        } = request;
        let url = format!("{}/v1{path}?{}", self.0.url(), query.unwrap_or_default());
        let http = reqwest::Client::new();
        let call = match method {
            StripeMethod::Post => http.post(url),
            _ => http.get(url),
        };
        let call = call
            .bearer_auth(self.0.secret_key())
            .body(body.unwrap_or_default());
        call.send().await.unwrap().bytes().await.unwrap()
    }
}

impl StripeClient for Client<'_> {
    type Err = Unreadable;

    async fn execute(&self, request: CustomizedStripeRequest) -> Result<Bytes, Unreadable> {
        Ok(self.send(request.into_pieces().0).await)
    }
}

#[tokio::test]
async fn payment_intents_read_as_stripes_own_type() {
    for (fault, expected) in [
        (None, PaymentIntentStatus::Succeeded),
        (Some(Fault::Processing), PaymentIntentStatus::Processing),
        (
            Some(Fault::RequiresAction),
            PaymentIntentStatus::RequiresAction,
        ),
        (
            Some(Fault::Decline("lost_card".to_owned())),
            PaymentIntentStatus::RequiresPaymentMethod,
        ),
    ] {
        let stripe = Stripe::start(StripeConfig::default()).await.unwrap();
        let client = Client(&stripe);
        if let Some(fault) = fault {
            stripe.fault(fault);
        }
        let post = |path: &str, form: String| {
            let mut request = RequestBuilder::new(StripeMethod::Post, path);
            request.body = Some(form);
            client.send(request)
        };
        let granted = post(
            "/test_helpers/shared_payment/granted_tokens",
            "payment_method=pm_card_visa&usage_limits[currency]=usd&usage_limits[max_amount]=50\
             &usage_limits[expires_at]=4102444800"
                .to_owned(),
        )
        .await;
        let granted: serde_json::Value = serde_json::from_slice(&granted).unwrap();
        let token = granted["id"].as_str().unwrap();
        post(
            "/payment_intents",
            format!("amount=50&currency=usd&confirm=true&shared_payment_granted_token={token}"),
        )
        .await;

        let listed = ListPaymentIntent::new().send(&client).await.unwrap();
        assert_eq!(listed.data.len(), 1);
        let read = RetrievePaymentIntent::new(listed.data[0].id.clone())
            .send(&client)
            .await
            .unwrap();
        assert_eq!(read.status, expected);
        assert_eq!(
            (read.amount, read.currency),
            (50, stripe_types::Currency::USD)
        );
    }
}
