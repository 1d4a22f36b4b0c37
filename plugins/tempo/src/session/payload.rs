//! What a payer presents.

use std::fmt;

use alloy::primitives::{Address, B256, Bytes};
use farebox_core::Rejection;
use farebox_wire::Amount;
use serde::Deserialize;

use super::channel::{Descriptor, MAX_AMOUNT};

/// The members of every action. Which are there depends on the action.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Payload {
    action: String,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    channel_id: B256,
    #[serde(default)]
    descriptor: Option<Descriptor>,
    #[serde(default)]
    transaction: Option<String>,
    #[serde(default)]
    authorized_signer: Option<Address>,
    #[serde(default)]
    cumulative_amount: Option<Amount>,
    #[serde(default)]
    additional_deposit: Option<Amount>,
    #[serde(default)]
    signature: Option<Bytes>,
}

/// Whoever has a voucher can cash it, so none is shown.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload")
            .field("action", &self.action)
            .field("channel_id", &self.channel_id)
            .finish_non_exhaustive()
    }
}

/// A payload whose members fit its action.
pub(crate) struct Said {
    pub(crate) channel: B256,
    pub(crate) descriptor: Descriptor,
    pub(crate) action: Action,
}

pub(crate) enum Action {
    Open {
        transaction: String,
        voucher: Claim,
    },
    TopUp {
        transaction: String,
        additional: u128,
    },
    Voucher(Claim),
    Close(Claim),
}

/// A voucher that nobody has checked.
pub(crate) struct Claim {
    pub(crate) cumulative: u128,
    pub(crate) signature: Bytes,
}

fn malformed(detail: impl Into<String>) -> Rejection {
    Rejection::malformed(detail)
}

impl Payload {
    /// Reads the members that the action has.
    ///
    /// # Errors
    /// What is missing, or too large for a channel.
    pub(crate) fn read(self) -> Result<Said, Rejection> {
        let channel = self.channel_id;
        let action = match self.action.as_str() {
            "open" => Action::Open {
                transaction: self.transaction()?,
                voucher: self.claim()?,
            },
            "topUp" => Action::TopUp {
                transaction: self.transaction()?,
                additional: amount("additionalDeposit", self.additional_deposit)?,
            },
            "voucher" => Action::Voucher(self.claim()?),
            "close" => Action::Close(self.claim()?),
            _ => {
                return Err(malformed(
                    "the payload's `action` is none of open, topUp, voucher and close",
                ));
            }
        };
        let descriptor = self.descriptor.ok_or_else(|| {
            malformed(
                "the payload has no `descriptor`: it is of version 1 of the session protocol, and \
                 this server speaks version 2 (`sessionProtocol: \"v2\"`)",
            )
        })?;
        let signer = self.authorized_signer;
        if signer.is_some_and(|signer| signer != descriptor.authorized_signer) {
            return Err(malformed(
                "the payload's `authorizedSigner` is not its descriptor's",
            ));
        }
        Ok(Said {
            channel,
            descriptor,
            action,
        })
    }

    fn transaction(&self) -> Result<String, Rejection> {
        if self.kind.as_deref() != Some("transaction") {
            return Err(malformed("the payload's `type` must be `transaction`"));
        }
        let missing = || malformed("the payload lacks its `transaction`");
        self.transaction.clone().ok_or_else(missing)
    }

    fn claim(&self) -> Result<Claim, Rejection> {
        let missing = || malformed("the payload lacks its `signature`");
        Ok(Claim {
            cumulative: amount("cumulativeAmount", self.cumulative_amount)?,
            signature: self.signature.clone().ok_or_else(missing)?,
        })
    }
}

fn amount(name: &str, amount: Option<Amount>) -> Result<u128, Rejection> {
    let amount = amount.ok_or_else(|| malformed(format!("the payload lacks its `{name}`")))?;
    if amount.get() > MAX_AMOUNT {
        return Err(malformed(format!(
            "the payload's `{name}` is more than a channel can hold (2^96 - 1)"
        )));
    }
    Ok(amount.get())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn voucher() -> Value {
        let address = Address::repeat_byte(1);
        let hash = B256::repeat_byte(2);
        json!({
            "action": "voucher",
            "channelId": hash,
            "cumulativeAmount": "5",
            "signature": "0x00",
            "descriptor": {
                "payer": address, "payee": address, "operator": address, "token": address,
                "salt": hash, "authorizedSigner": address, "expiringNonceHash": hash,
            },
            "unknown": "is ignored",
        })
    }

    fn read(payload: &Value) -> Result<Said, String> {
        let payload: Payload =
            serde_json::from_value(payload.clone()).map_err(|e| e.to_string())?;
        payload.read().map_err(|rejection| rejection.detail)
    }

    #[test]
    fn each_action_has_its_members() {
        assert!(matches!(
            read(&voucher()).unwrap().action,
            Action::Voucher(Claim { cumulative: 5, .. })
        ));
        let mut open = voucher();
        open["action"] = json!("open");
        assert!(read(&open).err().unwrap().contains("`type`"));
        open["type"] = json!("transaction");
        assert!(read(&open).err().unwrap().contains("`transaction`"));
        open["transaction"] = json!("0x76");
        assert!(read(&open).is_ok());
        open["authorizedSigner"] = json!(Address::repeat_byte(9));
        assert!(read(&open).err().unwrap().contains("authorizedSigner"));
        for (member, names) in [
            ("signature", "`signature`"),
            ("cumulativeAmount", "`cumulativeAmount`"),
        ] {
            let mut less = voucher();
            less.as_object_mut().unwrap().remove(member);
            assert!(read(&less).err().unwrap().contains(names));
        }
        let mut unknown = voucher();
        unknown["action"] = json!("settle");
        assert!(read(&unknown).err().unwrap().contains("action"));
    }

    /// Protects: a payer of the older protocol is told so, and not that its voucher is forged.
    #[test]
    fn version_1_is_refused_by_name() {
        let mut old = voucher();
        old.as_object_mut().unwrap().remove("descriptor");
        assert!(read(&old).err().unwrap().contains("version 1"));
    }

    /// Protects: no amount is cut down to the 96 bits of a channel.
    #[test]
    fn amounts_are_digits_and_fit_a_channel() {
        let mut at = voucher();
        at["cumulativeAmount"] = json!(MAX_AMOUNT.to_string());
        assert!(read(&at).is_ok());
        for bad in [
            json!((MAX_AMOUNT + 1).to_string()),
            json!("-1"),
            json!("0x5"),
            json!("1e3"),
            json!(""),
            json!(5),
        ] {
            at["cumulativeAmount"] = bad.clone();
            assert!(read(&at).is_err(), "{bad}");
        }
    }
}
