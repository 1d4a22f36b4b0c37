//! The key that a wallet signs with: the account's own, or an access key of it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use alloy::{
    primitives::{Address, B256},
    signers::Signer,
};
use async_trait::async_trait;
use farebox_core::{Fault, PayError};
use farebox_proof::sign_hash;
use tempo_primitives::{
    TempoTransaction,
    transaction::{
        KeychainSignature, PrimitiveSignature, SignatureType, SignedKeyAuthorization,
        TempoSignature,
    },
};

use crate::{
    chain::Chain,
    charge::build::mark_open,
    envelope,
    keys::{AccessKey, SignedBy, is_authorised},
};

/// How long a signer may take; see [`sign_hash`].
const DEADLINE: Duration = Duration::from_secs(30);

/// A key that signs hashes in one of the forms that Tempo accounts know: secp256k1, P-256, WebAuthn.
/// Every alloy [`Signer`] is one through [`TempoWallet::signing`](crate::TempoWallet::signing).
#[async_trait]
pub trait KeySigner: fmt::Debug + Send + Sync + 'static {
    /// The key's address: of its account, or its id as an access key.
    fn address(&self) -> Address;

    /// In which form it signs.
    fn kind(&self) -> SignatureType;

    /// Signs these 32 bytes.
    ///
    /// # Errors
    /// If it does not. The text must not hold the key.
    async fn sign(&self, hash: &B256) -> Result<PrimitiveSignature, Fault>;
}

/// An alloy signer.
pub(crate) struct Ecdsa(pub(crate) Arc<dyn Signer + Send + Sync>);

impl fmt::Debug for Ecdsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ecdsa({})", self.0.address())
    }
}

#[async_trait]
impl KeySigner for Ecdsa {
    fn address(&self) -> Address {
        self.0.address()
    }

    fn kind(&self) -> SignatureType {
        SignatureType::Secp256k1
    }

    async fn sign(&self, hash: &B256) -> Result<PrimitiveSignature, Fault> {
        Ok(PrimitiveSignature::Secp256k1(
            sign_hash(self.0.as_ref(), hash).await?,
        ))
    }
}

/// A key, and whose.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    signer: Arc<dyn KeySigner>,
    /// The same, where it is an alloy signer.
    plain: Option<Arc<Ecdsa>>,
    /// The account that it is an access key of.
    pub(crate) account: Option<Address>,
    /// What makes it one, where that may have to ride in a payment.
    pub(crate) authorization: Option<Arc<Authorization>>,
}

#[derive(Debug)]
pub(crate) struct Authorization {
    signed: SignedKeyAuthorization,
    /// Whether the chain is known to have it.
    known: AtomicBool,
}

impl Authorization {
    pub(crate) fn new(signed: SignedKeyAuthorization) -> Self {
        let known = AtomicBool::new(false);
        Self { signed, known }
    }
}

impl Key {
    pub(crate) fn own(signer: Arc<dyn KeySigner>) -> Self {
        Self {
            signer,
            plain: None,
            account: None,
            authorization: None,
        }
    }

    pub(crate) fn ecdsa(signer: impl Signer + Send + Sync + 'static) -> Self {
        let signer = Arc::new(Ecdsa(Arc::new(signer)));
        Self {
            plain: Some(Arc::clone(&signer)),
            ..Self::own(signer)
        }
    }

    /// The account's own secp256k1 key, if that is what this is.
    pub(crate) fn plain(&self) -> Option<&(dyn Signer + Send + Sync)> {
        let own = self.plain.as_ref().filter(|_| self.account.is_none());
        own.map(|signer| signer.0.as_ref())
    }

    /// The account that pays.
    pub(crate) fn address(&self) -> Address {
        self.account.unwrap_or_else(|| self.signer.address())
    }

    pub(crate) fn by(&self) -> SignedBy {
        let key = self.account.map(|_| AccessKey {
            id: self.signer.address(),
            kind: self.signer.kind(),
        });
        SignedBy {
            account: self.address(),
            key,
        }
    }

    /// The authorisation that has to ride in a transaction that is made now: none once the chain has
    /// it, which refuses it twice.
    ///
    /// # Errors
    /// If the chain cannot be read.
    pub(crate) async fn riding(
        &self,
        chain: &Chain,
    ) -> Result<Option<SignedKeyAuthorization>, Fault> {
        let Some(authorization) = &self.authorization else {
            return Ok(None);
        };
        if authorization.known.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if is_authorised(chain, self.address(), self.signer.address()).await? {
            authorization.known.store(true, Ordering::Relaxed);
            return Ok(None);
        }
        Ok(Some(authorization.signed.clone()))
    }

    /// Signs 32 bytes in the account's name.
    ///
    /// # Errors
    /// If the signer refuses or does not answer.
    pub(crate) async fn sign(&self, hash: B256) -> Result<TempoSignature, PayError> {
        let hash = match self.account {
            Some(account) => KeychainSignature::signing_hash(hash, account),
            None => hash,
        };
        let signing = tokio::time::timeout(DEADLINE, self.signer.sign(&hash));
        let silent = |_| PayError::NotPaid(Fault::unavailable("the signer does not answer"));
        let signature = signing.await.map_err(silent)?.map_err(PayError::NotPaid)?;
        Ok(match self.account {
            Some(account) => TempoSignature::Keychain(KeychainSignature::new(account, signature)),
            None => TempoSignature::Primitive(signature),
        })
    }

    /// The signed transaction's bytes.
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub(crate) async fn seal(&self, tx: TempoTransaction) -> Result<Vec<u8>, PayError> {
        let signature = self.sign(tx.signature_hash()).await?;
        let mut raw = Vec::new();
        tx.into_signed(signature).eip2718_encode(&mut raw);
        Ok(raw)
    }

    /// The bytes of a signed transaction that leaves the fee token and the fee payer's place open.
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub(crate) async fn seal_open(&self, mut tx: TempoTransaction) -> Result<Vec<u8>, PayError> {
        mark_open(&mut tx);
        let signature = self.sign(tx.signature_hash()).await?;
        tx.fee_payer_signature = None;
        // Not reached: what was built here has every field.
        envelope::write(&tx.into_signed(signature), self.address()).ok_or_else(|| {
            PayError::NotPaid(Fault::new("a sponsored transaction cannot be written"))
        })
    }
}
