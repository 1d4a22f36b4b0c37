//! Fixtures for every rail of this repository, on the sandbox.

use farebox_sandbox_lightning::{Lightning, LightningConfig};
use farebox_sandbox_stripe::{Stripe, StripeConfig};
use farebox_sandbox_tempo::{Chain, ChainConfig};
use farebox_testkit::PluginFixture;
use serde_json::json;

const PATH_USD: &str = "0x20c0000000000000000000000000000000000000";
const SELLER: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
/// The second of the usual development accounts.
const PAYER_KEY: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";

/// `tempo/charge` on the sandbox chain.
pub async fn tempo() -> PluginFixture {
    let chain = Chain::start(ChainConfig::default())
        .await
        .expect("the sandbox chain starts");
    let config = json!({
        "rpc_url": chain.url(),
        "chain_id": chain.chain_id(),
        "currency": PATH_USD,
        "recipient": SELLER,
    });
    let wallet = json!({
        "rpc_url": chain.url(),
        "chain_id": chain.chain_id(),
        "private_key": PAYER_KEY,
    });
    let forged = [
        json!({"type": "transaction", "signature": "0x76c0"}),
        json!({"type": "transaction", "signature": "nothing"}),
        // One of the right shape that no block has yet is asked for again, so it is no forgery.
        json!({"type": "hash", "hash": "0xabab"}),
        json!({"type": "proof", "signature": format!("0x{}", "11".repeat(65))}),
    ];
    let terms = json!({"amount": "0.01"});
    PluginFixture::new(&farebox_tempo::CHARGE, config, wallet, terms, forged, chain)
}

/// `proof/charge`, which needs nothing.
pub async fn proof() -> PluginFixture {
    let config = json!({"chain_id": 1337, "currency": PATH_USD, "recipient": SELLER});
    let wallet = json!({"chain_id": 1337, "private_key": PAYER_KEY});
    let forged = [json!({"type": "proof", "signature": format!("0x{}", "11".repeat(65))})];
    let terms = json!({"amount": "0"});
    PluginFixture::new(&farebox_proof::CHARGE, config, wallet, terms, forged, ())
}

/// `stripe/charge` on the sandbox API.
pub async fn stripe() -> PluginFixture {
    let api = Stripe::start(StripeConfig::default())
        .await
        .expect("the sandbox API starts");
    let config = json!({
        "secret_key": api.secret_key(),
        "network_id": "internal",
        "payment_method_types": ["card"],
        "api_base": api.url(),
    });
    let wallet = json!({
        "secret_key": api.secret_key(),
        "api_base": api.url(),
        "payment_method": "pm_card_visa",
    });
    let forged = [
        json!({"spt": "not a token"}),
        json!({"spt": "spt_nobody_has_issued_this"}),
    ];
    let terms = json!({"amount": "0.50", "currency": "usd"});
    PluginFixture::new(&farebox_stripe::CHARGE, config, wallet, terms, forged, api)
}

/// `lightning/charge` between the sandbox's two nodes.
pub async fn lightning() -> PluginFixture {
    let nodes = Lightning::start(LightningConfig::default())
        .await
        .expect("the sandbox nodes start");
    let config = json!({
        "backend": "lnd",
        "endpoint": nodes.seller().endpoint(),
        "tls_cert": {"file": nodes.seller().tls_cert_path()},
        "macaroon": nodes.seller().invoice_macaroon_hex(),
        "network": "regtest",
    });
    let wallet = json!({
        "backend": "lnd",
        "endpoint": nodes.agent().endpoint(),
        "tls_cert": {"file": nodes.agent().tls_cert_path()},
        "macaroon": nodes.agent().admin_macaroon_hex(),
        "network": "regtest",
    });
    let forged = [
        json!({"preimage": "00".repeat(32)}),
        json!({"preimage": "AB"}),
    ];
    let terms = json!({"amount": "21"});
    PluginFixture::new(
        &farebox_lightning::CHARGE,
        config,
        wallet,
        terms,
        forged,
        nodes,
    )
}
