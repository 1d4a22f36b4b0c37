//! What an invoice says, decoded here and nowhere else: BOLT11, payment hashes and preimages.

use std::fmt;
use std::time::Duration;

use farebox_wire::{Amount, Timestamp};
use lightning_invoice::{Bolt11Invoice, Currency};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroize;

/// The networks that the rail knows. BOLT11 also has testnet and simnet, the rail's draft has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// `lnbc…`
    #[default]
    Mainnet,
    /// `lnbcrt…`
    Regtest,
    /// `lntbs…`
    Signet,
}

impl Network {
    /// The name on the wire and in configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mainnet => "mainnet",
            Self::Regtest => "regtest",
            Self::Signet => "signet",
        }
    }

    /// Every name, for an error text.
    pub(crate) const ALL: [Self; 3] = [Self::Mainnet, Self::Regtest, Self::Signet];

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|network| network.as_str() == text)
    }

    fn of(currency: &Currency) -> Option<Self> {
        match currency {
            Currency::Bitcoin => Some(Self::Mainnet),
            Currency::Regtest => Some(Self::Regtest),
            Currency::Signet => Some(Self::Signet),
            Currency::BitcoinTestnet | Currency::Simnet => None,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// SHA-256 of a preimage: the name of a payment. Public; 64 lower-case hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PaymentHash([u8; 32]);

impl PaymentHash {
    /// A payment hash from its bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads exactly 64 lower-case hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        digits(text).map(Self)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PaymentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PaymentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PaymentHash({self})")
    }
}

/// Exactly 64 lower-case hex digits.
fn digits(text: &str) -> Option<[u8; 32]> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

/// What pays: whoever holds it may have what was paid for. Never shown, wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct Preimage([u8; 32]);

impl Preimage {
    /// A preimage from its bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads exactly 64 lower-case hex digits, the only form the wire allows.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        digits(text).map(Self)
    }

    /// The hex digits, wiped on drop.
    pub(crate) fn to_hex(&self) -> zeroize::Zeroizing<String> {
        zeroize::Zeroizing::new(hex::encode(self.0))
    }

    /// The payment that it proves.
    #[must_use]
    pub fn hash(&self) -> PaymentHash {
        PaymentHash(Sha256::digest(self.0).into())
    }
}

impl fmt::Debug for Preimage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Preimage([redacted])")
    }
}

impl Drop for Preimage {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Serialize for Preimage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

/// What a client presents: `{"preimage": "<64 lower-case hex digits>"}`.
///
/// Anything else in that place reads as `None`, so that the rail can answer it under its own
/// problem type.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Payload {
    /// The preimage, where it has the right form.
    #[serde(default, deserialize_with = "lenient")]
    pub preimage: Option<Preimage>,
}

pub(crate) fn lenient<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Preimage>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(value.as_str().and_then(Preimage::parse))
}

/// A rail's own request members (`methodDetails`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// The BOLT11 invoice; the rest must agree with it.
    pub invoice: String,
    /// Lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_hash: Option<String>,
    /// Mainnet where absent.
    #[serde(default)]
    pub network: Network,
}

/// Why an invoice is not the one a request describes. Safe to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Disagreement {
    /// It cannot be decoded, or its signature is wrong.
    #[error("the invoice is not valid BOLT11")]
    NotBolt11,
    /// It names no amount, so the payer would choose.
    #[error("the invoice has no amount")]
    Amountless,
    /// It is for another amount.
    #[error("the invoice is for {invoice_msat} msat and the request for {request} sat")]
    Amount {
        /// The invoice's amount, millisatoshis.
        invoice_msat: u64,
        /// The request's amount, satoshis.
        request: Amount,
    },
    /// It has another payment hash.
    #[error("the invoice's payment hash is {invoice} and the request's is another")]
    Hash {
        /// The invoice's payment hash.
        invoice: PaymentHash,
    },
    /// It is for another network.
    #[error("the invoice is not for {expected}")]
    Network {
        /// The network it should be for.
        expected: Network,
    },
}

/// What any BOLT11 invoice says, with or without an amount. Its signature has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bolt11 {
    /// The text it was decoded from.
    pub bolt11: String,
    /// What pays it.
    pub payment_hash: PaymentHash,
    /// What it costs, millisatoshis; `None` leaves it to the payer.
    pub amount_msat: Option<u64>,
    /// When it can no longer be paid.
    pub expires: Timestamp,
    /// Whom it pays: the node's compressed public key, hex.
    pub payee: String,
    /// The network it is for; `None` for one that the rail does not know.
    pub network: Option<Network>,
}

impl Bolt11 {
    /// Decodes an invoice.
    ///
    /// # Errors
    ///
    /// [`Disagreement::NotBolt11`].
    pub fn parse(bolt11: &str) -> Result<Self, Disagreement> {
        let decoded: Bolt11Invoice = bolt11.parse().map_err(|_| Disagreement::NotBolt11)?;
        let hash: &[u8] = decoded.payment_hash().as_ref();
        let hash = hash.try_into().map_err(|_| Disagreement::NotBolt11)?;
        // An expiry past the end of time is one that never comes.
        let expires = decoded.expires_at().unwrap_or(Duration::MAX);
        Ok(Self {
            bolt11: bolt11.to_owned(),
            payment_hash: PaymentHash(hash),
            amount_msat: decoded.amount_milli_satoshis(),
            expires: Timestamp::from_unix_millis(0).plus(expires),
            payee: decoded.get_payee_pub_key().to_string(),
            network: Network::of(&decoded.currency()),
        })
    }
}

/// A decoded invoice that is what its request says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Invoice {
    /// The text it was decoded from.
    pub bolt11: String,
    /// What pays it.
    pub payment_hash: PaymentHash,
    /// What it costs, millisatoshis.
    pub amount_msat: u64,
    /// When it can no longer be paid.
    pub expires: Timestamp,
    /// Whom it pays: the node's compressed public key, hex.
    pub payee: String,
}

impl Invoice {
    /// Decodes an invoice and holds it against what a request says beside it.
    ///
    /// # Errors
    ///
    /// The first thing in which they differ.
    pub fn check(amount: Amount, details: &Details) -> Result<Self, Disagreement> {
        let decoded = Bolt11::parse(&details.invoice)?;
        let network = details.network;
        if decoded.network != Some(network) {
            return Err(Disagreement::Network { expected: network });
        }
        let amount_msat = decoded.amount_msat.ok_or(Disagreement::Amountless)?;
        if amount.get().checked_mul(1_000) != Some(u128::from(amount_msat)) {
            return Err(Disagreement::Amount {
                invoice_msat: amount_msat,
                request: amount,
            });
        }
        let payment_hash = decoded.payment_hash;
        let named = details.payment_hash.as_ref();
        if named.is_some_and(|named| *named != payment_hash.to_string()) {
            return Err(Disagreement::Hash {
                invoice: payment_hash,
            });
        }
        Ok(Self {
            bolt11: decoded.bolt11,
            payment_hash,
            amount_msat,
            expires: decoded.expires,
            payee: decoded.payee,
        })
    }
}
