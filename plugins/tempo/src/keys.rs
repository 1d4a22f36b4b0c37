//! Who signed: an account with its own key, or a key that it lets sign for it (an access key).
//!
//! Which keys an account has is in its keychain on the chain, or authorised by the very transaction
//! that is signed. A signature alone only claims an account.

use alloy::{
    primitives::{Address, B256, Bytes, U256},
    sol_types::{SolCall, SolValue},
};
use farebox_core::{Fault, Refusal, Rejection};
use farebox_proof::Delegates;
use serde::Deserialize;
use serde_json::{Value, json};
use tempo_contracts::precompiles::{ACCOUNT_KEYCHAIN_ADDRESS, IAccountKeychain};
use tempo_primitives::{
    TempoTransaction,
    transaction::{CallScope, KeyAuthorization, SignatureType, TempoSignature},
};

use crate::{
    chain::Chain,
    rpc::{Call, RpcError},
};

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

/// What a payment takes from a key: the token, how much, and when it has to be in a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spending {
    pub(crate) token: Address,
    pub(crate) amount: U256,
    /// Unix seconds.
    pub(crate) until: u64,
}

fn no(detail: impl Into<String>) -> Rejection {
    Rejection::verification(detail)
}

impl SignedBy {
    /// Who signed `hash`.
    ///
    /// # Errors
    /// If nobody can have, or in a form that chains take no more.
    pub(crate) fn of(signature: &TempoSignature, hash: &B256) -> Result<Self, Rejection> {
        let nobody = |_| no("no account can have made the transaction's signature");
        let Some(delegated) = signature.as_keychain() else {
            let account = signature.recover_signer(hash).map_err(nobody)?;
            return Ok(Self { account, key: None });
        };
        if delegated.is_legacy() {
            return Err(no(
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

    /// Whether the key may make the payment that `tx` is: by the authorisation in it, or by what the
    /// account's keychain says. One request where an access key has signed, none otherwise.
    ///
    /// # Errors
    /// A rejection that says what the key may not; a fault if the chain cannot be read.
    pub(crate) async fn may_spend(
        &self,
        chain: &Chain,
        tx: &TempoTransaction,
        spending: Spending,
    ) -> Result<(), Refusal> {
        let Some(key) = self.key else {
            return match tx.key_authorization {
                None => Ok(()),
                Some(_) => Err(no(
                    "the transaction authorises a key that it is not signed with; leave that out",
                )
                .into()),
            };
        };
        if let Some(authorization) = &tx.key_authorization {
            let signer = authorization.recover_signer();
            if signer.ok() != Some(self.account) {
                return Err(
                    no("the key's authorisation is not signed by the account's own key").into(),
                );
            }
            self.granted(key, &authorization.authorization, tx, spending)?;
        }
        let standing = read(chain, self.account, key.id, spending.token).await?;
        match &tx.key_authorization {
            Some(_) if standing.info.isRevoked => Err(revoked().into()),
            Some(_) if standing.is_known() => Err(no(
                "the account has authorised this key already; leave the authorisation out",
            )
            .into()),
            Some(_) => Ok(()),
            None => standing.allows(key, tx, spending).map_err(Refusal::from),
        }
    }

    /// Whether an authorisation is for this key and this payment.
    fn granted(
        &self,
        key: AccessKey,
        grant: &KeyAuthorization,
        tx: &TempoTransaction,
        spending: Spending,
    ) -> Result<(), Rejection> {
        if grant.key_id != key.id || grant.key_type != key.kind {
            return Err(no(
                "the transaction authorises another key than the one it is signed with",
            ));
        }
        if grant.chain_id != tx.chain_id
            || grant.account.is_some_and(|account| account != self.account)
        {
            return Err(no(
                "the key's authorisation is for another chain or account",
            ));
        }
        if grant
            .expiry
            .is_some_and(|expiry| expiry.get() < spending.until)
        {
            return Err(expired());
        }
        let limit = |limits: &Vec<tempo_primitives::transaction::TokenLimit>| {
            let limit = limits.iter().find(|limit| limit.token == spending.token);
            limit.map_or(U256::ZERO, |limit| limit.limit)
        };
        if let Some(limit) = grant.limits.as_ref().map(limit)
            && limit < spending.amount
        {
            return Err(over(limit, spending));
        }
        match &grant.allowed_calls {
            Some(scopes) => in_scope(scopes, tx),
            None => Ok(()),
        }
    }
}

/// What a keychain says of a key.
struct Standing {
    info: IAccountKeychain::KeyInfo,
    /// Of the token in question.
    remaining: U256,
    scopes: Option<Vec<CallScope>>,
}

impl Standing {
    fn is_known(&self) -> bool {
        !self.info.keyId.is_zero()
    }

    /// Whether the key may sign for the account at all.
    fn is_active(&self, kind: SignatureType, until: u64) -> Result<(), Rejection> {
        if self.info.isRevoked {
            return Err(revoked());
        }
        if !self.is_known() || u8::from(kind) != self.info.signatureType as u8 {
            return Err(no(
                "the key is none of the account's access keys; authorise it first, or in this \
                 transaction",
            ));
        }
        if self.info.expiry < until {
            return Err(expired());
        }
        Ok(())
    }

    fn allows(
        &self,
        key: AccessKey,
        tx: &TempoTransaction,
        spending: Spending,
    ) -> Result<(), Rejection> {
        self.is_active(key.kind, spending.until)?;
        if self.info.enforceLimits && self.remaining < spending.amount {
            return Err(over(self.remaining, spending));
        }
        match &self.scopes {
            Some(scopes) => in_scope(scopes, tx),
            None => Ok(()),
        }
    }
}

fn revoked() -> Rejection {
    no("the access key is revoked; sign with another key")
}

fn expired() -> Rejection {
    no("the access key has expired, or does before the payment could be included; renew it")
}

fn over(left: U256, spending: Spending) -> Rejection {
    let Spending { token, amount, .. } = spending;
    no(format!(
        "the access key may spend {left} more base units of {token}, the payment takes {amount}; \
         raise its limit or sign with the account's own key"
    ))
}

/// Whether a key's scopes cover every call.
fn in_scope(scopes: &[CallScope], tx: &TempoTransaction) -> Result<(), Rejection> {
    let covers = |call: &tempo_primitives::transaction::Call| {
        let to = call.to.to().copied()?;
        let scope = scopes.iter().find(|scope| scope.target == to)?;
        if scope.selector_rules.is_empty() {
            return Some(());
        }
        let selector = call.input.first_chunk::<4>()?;
        let mut rules = scope.selector_rules.iter();
        let rule = rules.find(|rule| rule.selector == *selector)?;
        let first = call
            .input
            .get(4..36)
            .and_then(|word| Address::abi_decode(word).ok());
        let open = rule.recipients.is_empty();
        (open || rule.recipients.contains(&first?)).then_some(())
    };
    if tx.calls.iter().all(|call| covers(call).is_some()) {
        return Ok(());
    }
    Err(no(
        "the access key's scopes do not cover this payment; it needs transferWithMemo of this token \
         to this recipient",
    ))
}

/// Reads three things of one key in one request.
async fn read(
    chain: &Chain,
    account: Address,
    id: Address,
    token: Address,
) -> Result<Standing, Fault> {
    use IAccountKeychain::{getAllowedCallsCall, getKeyCall, getRemainingLimitWithPeriodCall};
    let (key_id, to_fault) = (id, |error: RpcError| {
        Fault::unavailable("reading an account's keychain").caused_by(error)
    });
    let calls = [
        ask(getKeyCall {
            account,
            keyId: key_id,
        }),
        ask(getRemainingLimitWithPeriodCall {
            account,
            keyId: key_id,
            token,
        }),
        ask(getAllowedCallsCall {
            account,
            keyId: key_id,
        }),
    ];
    let answers = chain.read_all(&calls).await.map_err(to_fault)?;
    let [info, remaining, scopes] = answers.as_slice() else {
        return Err(to_fault(RpcError::Unreadable("eth_call")));
    };
    let info = answer::<getKeyCall>(info).map_err(to_fault)?;
    let remaining = answer::<getRemainingLimitWithPeriodCall>(remaining).map_err(to_fault)?;
    let allowed = answer::<getAllowedCallsCall>(scopes).map_err(to_fault)?;
    let scopes = || allowed.scopes.into_iter().map(CallScope::from).collect();
    Ok(Standing {
        info,
        remaining: remaining.remaining,
        scopes: allowed.isScoped.then(scopes),
    })
}

/// Whether an account's keychain has a key, active or not.
///
/// # Errors
/// If the chain cannot be read.
pub(crate) async fn is_authorised(
    chain: &Chain,
    account: Address,
    id: Address,
) -> Result<bool, Fault> {
    let standing = read(chain, account, id, Address::ZERO).await?;
    Ok(standing.is_known() || standing.info.isRevoked)
}

fn ask(call: impl SolCall) -> Call {
    let data = Bytes::from(call.abi_encode());
    let params = json!([{ "to": ACCOUNT_KEYCHAIN_ADDRESS, "data": data }, "latest"]);
    ("eth_call", params)
}

fn answer<C: SolCall>(value: &Value) -> Result<C::Return, RpcError> {
    let unreadable = RpcError::Unreadable("an account's keychain");
    let bytes = Bytes::deserialize(value).ok();
    bytes
        .and_then(|bytes| C::abi_decode_returns(&bytes).ok())
        .ok_or(unreadable)
}

/// Proofs by access keys of accounts on this chain, and by accounts whose own key is of another
/// kind than secp256k1.
impl Delegates for Chain {
    async fn signed(&self, account: Address, hash: B256, signature: &[u8]) -> Result<(), Refusal> {
        let other = || {
            no(
                "the signature is neither the source's over this challenge (EIP-712, MPP version 3) \
                nor one of its access keys'",
            )
        };
        let signature = TempoSignature::from_bytes(signature).map_err(|_| {
            Rejection::malformed("the proof's signature is in no form that Tempo accounts sign in")
        })?;
        let key = match signature.as_keychain() {
            Some(delegated) if delegated.user_address != account => {
                return Err(no("the access key signs for another account than the source").into());
            }
            // The proof itself names the account, so either form is bound to it.
            Some(delegated) => AccessKey {
                id: delegated.key_id(&hash).map_err(|_| other())?,
                kind: delegated.signature.signature_type(),
            },
            None => AccessKey {
                id: signature.recover_signer(&hash).map_err(|_| other())?,
                kind: signature.signature_type(),
            },
        };
        if key.id == account && signature.as_keychain().is_none() {
            return Ok(());
        }
        let now = farebox_wire::Timestamp::now()
            .unix_millis()
            .div_euclid(1000);
        let now = u64::try_from(now).unwrap_or(0);
        let standing = read(self, account, key.id, Address::ZERO).await?;
        if !standing.is_known() && !standing.info.isRevoked {
            return Err(other().into());
        }
        standing.is_active(key.kind, now).map_err(Refusal::from)
    }
}
