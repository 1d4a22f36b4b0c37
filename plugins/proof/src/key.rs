//! A key in this process's memory, and signing with any key.

use std::{fmt, time::Duration};

use alloy::{
    primitives::{Address, B256, ChainId, Signature, hex},
    signers::{Signer, k256::ecdsa::SigningKey},
};
use async_trait::async_trait;
use farebox_core::{Fault, Issue, Secret};
use zeroize::Zeroizing;

/// How long a signer may take. A remote one may ask a person; one that never answers must not hold
/// a request and its budget for good.
const DEADLINE: Duration = Duration::from_secs(30);

/// Signs `hash`, giving up on the signer after 30 seconds.
///
/// # Errors
/// If the signer refuses or does not answer. The signature, if one comes to be, reaches nobody.
pub async fn sign_hash(
    signer: &(dyn Signer + Send + Sync),
    hash: &B256,
) -> Result<Signature, Fault> {
    match tokio::time::timeout(DEADLINE, signer.sign_hash(hash)).await {
        Ok(Ok(signature)) => Ok(signature),
        Ok(Err(error)) => Err(Fault::new("signing a payment").caused_by(error)),
        Err(_) => Err(Fault::unavailable("the signer does not answer")),
    }
}

/// A secp256k1 private key, wiped on drop.
///
/// The key of `alloy-signer-local` brings alloy's network and RPC types along, which a proof does
/// not need. Wallets take any [`Signer`], so a remote one fits as well.
#[derive(Clone)]
pub struct LocalKey {
    key: SigningKey,
    address: Address,
}

impl LocalKey {
    /// Reads 64 hexadecimal digits, with or without `0x`.
    ///
    /// # Errors
    /// An issue with the configuration key `at`; it does not repeat the secret.
    pub fn parse(at: &str, secret: &Secret) -> Result<Self, Issue> {
        let shape = || Issue::new(at, "is no private key; give 64 hexadecimal digits");
        let mut bytes = Zeroizing::new([0u8; 32]);
        hex::decode_to_slice(secret.expose(), bytes.as_mut_slice()).map_err(|_| shape())?;
        let key = SigningKey::from_slice(bytes.as_slice())
            .map_err(|_| Issue::new(at, "is no private key: zero, or above the curve's order"))?;
        let address = Address::from_private_key(&key);
        Ok(Self { key, address })
    }
}

impl fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalKey({})", self.address)
    }
}

#[async_trait]
impl Signer for LocalKey {
    async fn sign_hash(&self, hash: &B256) -> alloy::signers::Result<Signature> {
        Ok(self.key.sign_prehash_recoverable(hash.as_slice())?.into())
    }

    fn address(&self) -> Address {
        self.address
    }

    fn chain_id(&self) -> Option<ChainId> {
        None
    }

    // Nothing here signs for "the" chain: each statement names its own.
    fn set_chain_id(&mut self, _: Option<ChainId>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: what is wrong with a key is said without the key.
    #[test]
    fn bad_keys_are_refused_without_being_repeated() {
        for bad in [
            "",
            "0x",
            "abc",
            &"zz".repeat(32),
            &"00".repeat(32),
            &"ff".repeat(32),
        ] {
            let issue = LocalKey::parse("private_key", &Secret::new(bad)).unwrap_err();
            assert_eq!(issue.key, "private_key");
            assert!(
                bad.is_empty() || !issue.problem.contains(bad),
                "{}",
                issue.problem
            );
        }
        let key = LocalKey::parse("private_key", &Secret::new("11".repeat(32))).unwrap();
        assert!(!format!("{key:?}").contains("1111"));
    }
}
