//! The seller.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, header::AUTHORIZATION},
    response::{IntoResponse as _, Response},
    routing::get,
};
use mpp::{
    ChargeRequest, PrivateKeySigner, parse_authorization,
    server::{
        Mpp, TempoChargeMethod, TempoConfig, TempoProvider,
        axum::{PaymentOffers, PaymentProblem, WithReceipt},
        tempo,
    },
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::Problem;

const PATH_USD: &str = "0x20c0000000000000000000000000000000000000";

/// What the joke costs, base units of pathUSD, and how it may be paid.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Offer {
    amount: String,
    /// The private key of the account that pays the network fee.
    fee_payer: Option<String>,
    supported_modes: Option<Value>,
    splits: Option<Value>,
}

struct Shop {
    mpp: Mpp<TempoChargeMethod<TempoProvider>>,
    price: ChargeRequest,
}

/// Serves until it is killed.
pub(crate) async fn serve(
    rpc_url: &str,
    chain_id: u64,
    recipient: &str,
    offer: Offer,
) -> Result<(), Problem> {
    let mut builder = tempo(TempoConfig { recipient })
        .rpc_url(rpc_url)
        .chain_id(chain_id)
        .currencies([PATH_USD])
        .realm("127.0.0.1")
        .secret_key("a secret of 32 bytes, only for tests");
    let mut details = Map::from_iter([("chainId".to_owned(), json!(chain_id))]);
    if let Some(key) = &offer.fee_payer {
        let signer: PrivateKeySigner = key.parse()?;
        builder = builder.fee_payer(true).fee_payer_signer(signer);
        details.insert("feePayer".to_owned(), json!(true));
    }
    for (name, value) in [
        ("supportedModes", offer.supported_modes),
        ("splits", offer.splits),
    ] {
        details.extend(value.map(|value| (name.to_owned(), value)));
    }
    let shop = Arc::new(Shop {
        mpp: Mpp::create(builder)?,
        price: ChargeRequest {
            amount: offer.amount,
            currency: PATH_USD.to_owned(),
            recipient: Some(recipient.to_owned()),
            method_details: Some(details.into()),
            ..ChargeRequest::default()
        },
    });
    let app = Router::new().route("/joke", get(joke)).with_state(shop);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/joke", listener.local_addr()?);
    println!("{}", json!({ "url": url }));
    axum::serve(listener, app).await?;
    Ok(())
}

async fn joke(State(shop): State<Arc<Shop>>, headers: HeaderMap) -> Response {
    let Shop { mpp, price } = shop.as_ref();
    let offers = match mpp.charge_challenge_with_options(price, None, None) {
        Ok(challenge) => vec![challenge],
        Err(error) => return PaymentProblem::new(&error, Vec::new()).into_response(),
    };
    let Some(authorization) = headers.get(AUTHORIZATION) else {
        return PaymentOffers(offers).into_response();
    };
    let credential = match parse_authorization(authorization.to_str().unwrap_or_default()) {
        Ok(credential) => credential,
        Err(error) => return PaymentProblem::new(&error, offers).into_response(),
    };
    let verified = mpp.broadcast_credential_with_expected_request(&credential, price);
    match verified.await {
        Ok(receipt) => WithReceipt {
            receipt,
            body: "a joke from the other side",
        }
        .into_response(),
        Err(error) => PaymentProblem::new(&error, offers).into_response(),
    }
}
