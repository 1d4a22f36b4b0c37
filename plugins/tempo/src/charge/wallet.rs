//! Paying: whether and how a challenge is paid. What is signed and sent is built in `build`.

use std::{fmt, sync::Arc};

use alloy::{
    primitives::{Address, U256},
    signers::Signer,
};
use farebox_core::{Approved, Ask, Charge, Cost, Paid, PayError, Paying, Wallet};
use farebox_proof::{Proven, Realms, Source, proof_hash, terms};
use serde::Serialize;
use tempo_primitives::transaction::SignedKeyAuthorization;

use crate::{
    Broadcaster, Details, Mode,
    chain::{Chain, Transfer},
    charge::{
        calls::Transfers,
        key::{Authorization, Key},
        legs::Asked,
        swap::{Buying, Swap},
    },
};

/// Pays `tempo/charge`: transfers, in pull mode where the server takes it and in push mode where it
/// does not, or a proof where the amount is zero.
#[derive(Clone)]
pub struct TempoWallet {
    pub(crate) account: Account,
    pub(crate) chain: Arc<Chain>,
    /// Empty: any TIP-20 token.
    pub(crate) currencies: Vec<Address>,
    /// Empty: anybody.
    pub(crate) recipients: Vec<Address>,
    pub(crate) fee_token: Option<Address>,
    /// What it buys the tokens with that it does not pay in directly.
    pub(crate) buying: Option<Buying>,
    pub(crate) realms: Realms,
}

/// How the wallet's account makes transactions.
#[derive(Clone)]
pub(crate) enum Account {
    /// It signs what is built here.
    Signs(Key),
    /// It builds, signs and broadcasts by itself.
    Sends(Arc<dyn Broadcaster>),
}

impl Account {
    pub(crate) fn address(&self) -> Address {
        match self {
            Self::Signs(key) => key.address(),
            Self::Sends(broadcaster) => broadcaster.address(),
        }
    }
}

impl fmt::Debug for TempoWallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TempoWallet")
            .field("address", &self.address())
            .field("chain_id", &self.chain.id())
            .finish_non_exhaustive()
    }
}

/// What the wallet presents: a signed transaction that the server broadcasts, the hash of one that
/// is broadcast already, or a proof.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct Payment(Form);

#[derive(Clone, Serialize)]
#[serde(untagged)]
enum Form {
    Transaction {
        #[serde(rename = "type")]
        kind: &'static str,
        signature: String,
    },
    Hash {
        #[serde(rename = "type")]
        kind: &'static str,
        hash: String,
    },
    Proof(Proven),
}

impl fmt::Debug for Payment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Payment([redacted])")
    }
}

fn unsupported<T>(why: impl Into<String>) -> Result<T, PayError> {
    Err(PayError::Unsupported(why.into()))
}

fn refused<T>(why: impl Into<String>) -> Result<T, PayError> {
    Err(PayError::Refused(why.into()))
}

impl TempoWallet {
    /// The same wallet with another signer of raw hashes: a KMS, a remote wallet. Where the key was an
    /// access key of an account, this one is.
    #[must_use]
    pub fn with_signer(mut self, signer: impl Signer + Send + Sync + 'static) -> Self {
        let mut key = Key::ecdsa(signer);
        if let Account::Signs(before) = self.account {
            key.account = before.account;
            key.authorization = before.authorization;
        }
        self.account = Account::Signs(key);
        self
    }

    /// The same wallet, whose key is an access key of `account`. `authorization` makes it one, where
    /// the chain does not know it yet: the first payment carries it, alone. A wallet that can only
    /// broadcast signs nothing here and stays as it is.
    #[must_use]
    pub fn for_account(
        mut self,
        account: Address,
        authorization: Option<SignedKeyAuthorization>,
    ) -> Self {
        if let Account::Signs(key) = &mut self.account {
            key.account = Some(account);
            key.authorization = authorization.map(|signed| Arc::new(Authorization::new(signed)));
        }
        self
    }

    /// The same wallet, which buys with `token` what it does not pay in directly: any token where the
    /// configuration names none. A payment then costs up to `slippage` basis points more than it asks
    /// for, in `token`, and that is what a budget is asked for. Purchase and payment are one
    /// transaction.
    ///
    /// Beside the same wallet without it, which a client asks first, it steps in where that one holds
    /// too little.
    #[must_use]
    pub fn buying_with(mut self, token: Address, slippage: u16) -> Self {
        self.buying = Some(Buying { token, slippage });
        self
    }

    /// What it buys `token` with, if it does not pay in it directly.
    fn buys(&self, token: Address) -> Option<Buying> {
        let buying = self.buying.filter(|buying| buying.token != token)?;
        (!self.currencies.contains(&token)).then_some(buying)
    }

    /// The account that pays.
    pub fn address(&self) -> Address {
        self.account.address()
    }

    /// Reads a priced request. Everything is checked before anything is signed, and the bytes that
    /// are signed come from here.
    fn transfers(
        &self,
        cx: &Paying<'_>,
        ask: &Ask<Charge, Details>,
    ) -> Result<Vec<Transfer>, PayError> {
        self.mode(&ask.details)?;
        let Ok(token) = ask.request.currency.parse::<Address>() else {
            return unsupported("its currency is no token address");
        };
        let direct = self.currencies.is_empty() || self.currencies.contains(&token);
        if !direct && self.buying.is_none() {
            return unsupported(format!("it is in the token {token}"));
        }
        // A call to anything else would be a call of the server's choice in our name.
        if !terms::is_token(token) {
            return refused("its currency is no TIP-20 token");
        }
        let asked = Asked::of(cx.challenge, ask).map_err(|why| PayError::Refused(why.detail))?;
        for payee in asked.payees() {
            if payee.is_zero() || payee == self.address() || terms::is_token(payee) {
                return refused("its recipient is the zero address, a token or this wallet itself");
            }
            if !self.recipients.is_empty() && !self.recipients.contains(&payee) {
                return refused(format!("{payee} is none of this wallet's `recipients`"));
            }
        }
        Ok(asked.transfers(self.address()))
    }

    /// How to hand the payment over: signed where that is taken, since a payment that the server
    /// cannot use then moves nothing.
    fn mode(&self, details: &Details) -> Result<Mode, PayError> {
        let push = details.takes_hash().is_ok();
        match &self.account {
            Account::Signs(_) if details.takes(Mode::Pull) => Ok(Mode::Pull),
            Account::Signs(_) if push => Ok(Mode::Push),
            Account::Signs(_) => unsupported("it takes neither pull mode nor push mode"),
            Account::Sends(_) if push => Ok(Mode::Push),
            Account::Sends(_) => {
                unsupported("it takes no hash (push mode), and this wallet can only broadcast")
            }
        }
    }

    fn check_chain(&self, details: &Details) -> Result<(), PayError> {
        let own = self.chain.id();
        match details.chain_id {
            Some(asked) if asked == own => Ok(()),
            Some(asked) => unsupported(format!(
                "it is for chain {asked}, this wallet pays on {own}"
            )),
            // The drafts disagree on the default.
            None => unsupported("it names no chain"),
        }
    }
}

impl Wallet<Charge> for TempoWallet {
    const METHOD: &'static str = "tempo";
    type Details = Details;
    type Payload = Payment;

    fn price(&self, cx: &Paying<'_>, ask: &Ask<Charge, Details>) -> Result<Cost, PayError> {
        self.check_chain(&ask.details)?;
        let amount = ask.request.amount;
        if amount.is_zero() {
            self.realms.check(&cx.challenge.realm, cx.host)?;
            return Ok(Cost {
                amount,
                currency: ask.request.currency.to_ascii_lowercase(),
                recipient: ask.request.recipient.clone(),
            });
        }
        let transfers = self.transfers(cx, ask)?;
        let Some(payment) = transfers.last() else {
            return refused("it asks for no transfer");
        };
        let (token, amount) = match self.buys(payment.token) {
            Some(buying) => match buying.most(amount) {
                Some(most) => (buying.token, most),
                None => return refused("what it may cost is no number"),
            },
            None => (payment.token, amount),
        };
        // A budget knows one payee. Where others get a part, and nobody has said here who may, it is
        // paid to nobody in particular, which a list of recipients refuses.
        let split = transfers.iter().any(|part| part.to != payment.to);
        let known = !split || !self.recipients.is_empty();
        // Written anew: an address has several spellings, and limits go by the text.
        Ok(Cost {
            amount,
            currency: format!("{token:#x}"),
            recipient: known.then(|| payment.to.to_string()),
        })
    }

    async fn funded(&self, cost: &Cost) -> bool {
        let (Ok(token), false) = (cost.currency.parse(), cost.amount.is_zero()) else {
            return true;
        };
        let balance = self.chain.balance(token, self.address()).await;
        balance.map_or(true, |balance| balance >= U256::from(cost.amount.get()))
    }

    async fn pay(
        &self,
        cx: &Paying<'_>,
        ask: Ask<Charge, Details>,
        approved: Approved,
    ) -> Result<Paid<Payment>, PayError> {
        let cost = self.price(cx, &ask)?;
        let limit = approved.cost();
        if cost.amount > limit.amount || cost.currency != limit.currency {
            return refused("it costs more than was approved");
        }
        let (chain_id, address) = (self.chain.id(), self.address());
        if cost.amount.is_zero() {
            let Account::Signs(key) = &self.account else {
                return unsupported("it asks for a proof, and this wallet can only broadcast");
            };
            let hash = proof_hash(address, chain_id, cx.challenge);
            let proven = Proven::of(&key.sign(hash).await?.to_bytes());
            let source = Source { chain_id, address };
            return Ok(Paid::new(Payment(Form::Proof(proven))).by(source.to_string()));
        }
        let transfers = self.transfers(cx, &ask)?;
        let token = transfers.last().map(|payment| payment.token);
        let bought = token.and_then(|token| Some((token, self.buys(token)?)));
        let swap = bought.map(|(token_out, buying)| Swap {
            token_in: buying.token,
            most: limit.amount.get(),
            token_out,
            amount: ask.request.amount.get(),
        });
        let transfers = Transfers { transfers, swap };
        let form = match self.mode(&ask.details)? {
            Mode::Pull => Form::Transaction {
                kind: "transaction",
                signature: self
                    .sign(cx, &transfers, ask.details.fee_payer == Some(true))
                    .await?,
            },
            Mode::Push => Form::Hash {
                kind: "hash",
                hash: self.push(cx, &transfers).await?.to_string(),
            },
        };
        Ok(Paid::new(Payment(form)).by(Source { chain_id, address }.to_string()))
    }
}
