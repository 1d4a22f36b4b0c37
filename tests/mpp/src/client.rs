//! The buyer.

use mpp::{
    PrivateKeySigner,
    client::{Fetch as _, TempoProvider},
};

use crate::Problem;

/// Gets `url` and pays what it asks for, once.
pub(crate) async fn pay(url: &str, rpc_url: &str, key: &str) -> Result<(), Problem> {
    let signer: PrivateKeySigner = key.parse()?;
    let provider = TempoProvider::new(signer, rpc_url)?;
    let answer = reqwest::Client::new()
        .get(url)
        .header("accept-payment", "tempo/charge")
        .send_with_payment_max_retries(&provider, 1)
        .await?;
    let status = answer.status();
    let body = answer.text().await?;
    if !status.is_success() {
        return Err(format!("{status}: {body}").into());
    }
    println!("{body}");
    Ok(())
}
