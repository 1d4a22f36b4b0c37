//! What a Tempo receipt proves, and which transactions a sponsor signs.

use std::{num::NonZeroU64, sync::Arc};

use alloy::{
    eips::eip2930::AccessList,
    primitives::{Address, Bytes, Signature, TxKind, U256},
};
use farebox::{
    Secret,
    core::Refusal,
    rails::{
        proof::{LocalKey, sign_hash},
        tempo::{self, Sponsor, TransactionReceipt},
    },
    wire::{Challenge, Credential, Encoded, Timestamp},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tempo_primitives::{
    AASigned, TempoTransaction,
    transaction::{Call, TempoSignature},
};

use crate::protocol::{Answer, Failure, Kind, failed, read};

const KIND: Kind = Kind::VerificationError;

pub(crate) fn verify_receipt(input: &Value) -> Answer {
    #[derive(Deserialize)]
    struct Input {
        credential: Value,
        receipt: TransactionReceipt,
    }
    let Input {
        credential,
        receipt,
    } = read(KIND, input)?;
    let credential = Credential::from_value(&credential).map_err(failed(KIND))?;
    let expires = credential.challenge.expires.as_ref();
    if expires.is_some_and(|at| at.unix_millis() <= Timestamp::now().unix_millis()) {
        return Err(Failure::new(KIND, "the challenge has expired"));
    }
    let hash = tempo::verify_receipt(&credential, &receipt)
        .map_err(|rejection| Failure::new(KIND, rejection.detail))?;
    Ok(json!({ "status": "success", "reference": hash }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cosign {
    payer_private_key: String,
    fee_payer_private_key: String,
    fee_token: Address,
    challenge: Option<Value>,
    request: Value,
    transaction: Transaction,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Transaction {
    chain_id: Uint,
    max_priority_fee_per_gas: Uint,
    max_fee_per_gas: Uint,
    gas_limit: Uint,
    calls: Vec<CallInput>,
    access_list: AccessList,
    nonce_key: Uint,
    nonce: Uint,
    valid_before: Uint,
    fee_token: Option<Address>,
}

#[derive(Deserialize)]
struct CallInput {
    to: Address,
    value: Uint,
    data: Bytes,
}

/// A number, its digits, `max`, or `now+` seconds.
#[derive(Deserialize)]
#[serde(untagged)]
enum Uint {
    Number(u64),
    Text(String),
}

impl Uint {
    fn get(&self, now: u64) -> Result<U256, Failure> {
        let wrong = || Failure::new(KIND, "a number of the transaction cannot be read");
        match self {
            Self::Number(number) => Ok(U256::from(*number)),
            Self::Text(text) if text == "max" => Ok(U256::MAX),
            Self::Text(text) => match text.strip_prefix("now+") {
                Some(seconds) => {
                    let seconds: u64 = seconds.parse().map_err(|_| wrong())?;
                    Ok(U256::from(now.saturating_add(seconds)))
                }
                None => U256::from_str_radix(text, 10).map_err(|_| wrong()),
            },
        }
    }

    fn fit<T: TryFrom<U256>>(&self, now: u64) -> Result<T, Failure> {
        let wrong = |_| Failure::new(KIND, "a number of the transaction is too large");
        T::try_from(self.get(now)?).map_err(wrong)
    }
}

impl Transaction {
    fn build(self, now: u64) -> Result<TempoTransaction, Failure> {
        let call = |call: CallInput| {
            Ok(Call {
                to: TxKind::Call(call.to),
                value: call.value.get(now)?,
                input: call.data,
            })
        };
        Ok(TempoTransaction {
            chain_id: self.chain_id.fit(now)?,
            fee_token: self.fee_token,
            max_priority_fee_per_gas: self.max_priority_fee_per_gas.fit(now)?,
            max_fee_per_gas: self.max_fee_per_gas.fit(now)?,
            gas_limit: self.gas_limit.fit(now)?,
            calls: self.calls.into_iter().map(call).collect::<Result<_, _>>()?,
            access_list: self.access_list,
            nonce_key: self.nonce_key.get(now)?,
            nonce: self.nonce.fit(now)?,
            valid_before: NonZeroU64::new(self.valid_before.fit(now)?),
            ..TempoTransaction::default()
        })
    }
}

pub(crate) async fn cosign(input: &Value) -> Answer {
    let input: Cosign = read(KIND, input)?;
    let now = Timestamp::now();
    let seconds = u64::try_from(now.unix_millis() / 1000).unwrap_or_default();
    let key = |at: &str, text: String| {
        LocalKey::parse(at, &Secret::new(text))
            .map_err(|issue| Failure::new(KIND, format!("{} {}", issue.key, issue.problem)))
    };
    let payer = key("payerPrivateKey", input.payer_private_key)?;
    let sponsor = key("feePayerPrivateKey", input.fee_payer_private_key)?;
    let tx = input.transaction.build(seconds)?;
    let challenge = challenge(input.challenge, input.request)?;
    let signed = signed(tx, &payer).await?;
    let signed = Sponsor::new(Arc::new(sponsor), input.fee_token)
        .cosign(&challenge, signed, &now)
        .await
        .map_err(|refusal| match refusal {
            Refusal::Rejected(rejection) => Failure::new(KIND, rejection.detail),
            Refusal::Fault(fault) => Failure::new(KIND, fault),
        })?;
    let mut raw = Vec::new();
    signed.eip2718_encode(&mut raw);
    let tx = signed.tx();
    Ok(json!({
        "type": format!("{:#x}", raw.first().copied().unwrap_or_default()),
        "feeToken": tx.fee_token.map(|token| format!("{token:#x}")),
        "feePayerSignaturePresent": tx.fee_payer_signature.is_some(),
        "accessListLength": tx.access_list.len(),
        "callCount": tx.calls.len(),
    }))
}

/// The challenge that is paid: the suite gives its request apart.
fn challenge(challenge: Option<Value>, request: Value) -> Result<Challenge, Failure> {
    let challenge = challenge.unwrap_or_else(
        || json!({ "id": "-", "realm": "-", "method": "tempo", "intent": "charge", "request": {} }),
    );
    let challenge: Challenge = read(KIND, &challenge)?;
    let request = Encoded::encode(&request).map_err(failed(KIND))?;
    Ok(Challenge {
        request,
        ..challenge
    })
}

/// What a payer signs: the fee payer's place is taken, by whom is not said.
async fn signed(mut tx: TempoTransaction, payer: &LocalKey) -> Result<AASigned, Failure> {
    tx.fee_payer_signature = Some(Signature::new(U256::ZERO, U256::ZERO, false));
    let signature = sign_hash(payer, &tx.signature_hash())
        .await
        .map_err(failed(KIND))?;
    tx.fee_payer_signature = None;
    Ok(tx.into_signed(TempoSignature::from(signature)))
}
