//! Who signed a transaction: an account with its own key, or somebody whom it lets sign for it.

use alloy::primitives::{Address, B256};
use farebox_core::Rejection;
use tempo_primitives::transaction::{SignatureType, TempoSignature};

/// A signature that has been checked, as far as that can be done without the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SignedBy {
    /// The account that pays. With an access key it is only claimed until its keychain is read.
    pub(crate) account: Address,
    pub(crate) key: Option<AccessKey>,
}

/// A key that is not the account's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AccessKey {
    /// Its address.
    pub(crate) id: Address,
    pub(crate) kind: SignatureType,
}

impl SignedBy {
    /// Who signed `hash`.
    ///
    /// # Errors
    /// If nobody can have, or in a form that chains take no more.
    pub(crate) fn of(signature: &TempoSignature, hash: &B256) -> Result<Self, Rejection> {
        let nobody =
            |_| Rejection::verification("no account can have made the transaction's signature");
        let Some(delegated) = signature.as_keychain() else {
            let account = signature.recover_signer(hash).map_err(nobody)?;
            return Ok(Self { account, key: None });
        };
        if delegated.is_legacy() {
            return Err(Rejection::verification(
                "the access key's signature does not name its account (0x03); sign in the form 0x04",
            ));
        }
        let id = delegated.key_id(hash).map_err(nobody)?;
        let kind = delegated.signature.signature_type();
        let account = delegated.user_address;
        Ok(Self {
            account,
            key: Some(AccessKey { id, kind }),
        })
    }
}
