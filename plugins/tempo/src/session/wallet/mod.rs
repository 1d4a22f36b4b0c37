//! Paying by sessions: which channel is opened and what is signed. What is sent is built in `fund`,
//! what the chain says of a channel is read in `evidence`.

mod evidence;
mod fund;

use std::fmt;

use alloy::primitives::{Address, B256, Bytes, U256};
use farebox_core::{
    Adopted, Approved, Ask, Cost, DepositRule, Draft, Fault, Funded, OpenChannel, Paid, PayError,
    Paying, Session, SessionPrice, SessionWallet, Spending, Standing,
};
use farebox_proof::{Source, sign_hash, terms};
use farebox_wire::Amount;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Details, Domain, Snapshot,
    channel::{Descriptor, MAX_AMOUNT},
    config::is_canonical,
    signature,
};
use crate::{TempoWallet, charge::wallet::Account};

pub(super) use fund::Movement;

/// Pays `tempo/session`: deposits in the channel reserve, and vouchers for what is served.
#[derive(Clone, Debug)]
pub struct TempoSessionWallet {
    pub(crate) base: TempoWallet,
    /// The most that one channel may hold, base units.
    pub(crate) max_deposit: u128,
    pub(crate) allow_custom_escrow: bool,
}

/// What the wallet keeps about one channel. It holds no keys; a transaction in it is not signed.
#[derive(Clone, Serialize, Deserialize)]
pub struct SessionHeld {
    pub(super) descriptor: Descriptor,
    pub(super) chain_id: u64,
    pub(super) escrow: Address,
    /// What was in it before the movement.
    pub(super) deposit: Amount,
    /// The deposit or top-up that may be under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) movement: Option<Movement>,
}

impl fmt::Debug for SessionHeld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionHeld")
            .field("channel", &self.id())
            .finish_non_exhaustive()
    }
}

impl SessionHeld {
    fn domain(&self) -> Domain {
        Domain::new(self.chain_id, self.escrow)
    }

    fn id(&self) -> B256 {
        self.domain().channel_id(&self.descriptor)
    }
}

/// What the wallet presents.
#[derive(Clone, Serialize)]
pub struct Presentation {
    #[serde(flatten)]
    form: Form,
    #[serde(rename = "channelId")]
    channel: B256,
    descriptor: Descriptor,
}

#[derive(Clone, Serialize)]
#[serde(
    tag = "action",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
enum Form {
    Open {
        #[serde(rename = "type")]
        kind: &'static str,
        transaction: String,
        cumulative_amount: Amount,
        signature: Bytes,
        authorized_signer: Address,
    },
    TopUp {
        #[serde(rename = "type")]
        kind: &'static str,
        transaction: String,
        additional_deposit: Amount,
    },
    Voucher {
        cumulative_amount: Amount,
        signature: Bytes,
    },
    Close {
        cumulative_amount: Amount,
        signature: Bytes,
    },
}

const TRANSACTION: &str = "transaction";

impl fmt::Debug for Presentation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Presentation([redacted])")
    }
}

fn unsupported<T>(why: impl Into<String>) -> Result<T, PayError> {
    Err(PayError::Unsupported(why.into()))
}

fn refused<T>(why: impl Into<String>) -> Result<T, PayError> {
    Err(PayError::Refused(why.into()))
}

/// A request that this wallet would pay.
struct Terms {
    domain: Domain,
    payee: Address,
    token: Address,
    operator: Address,
    sponsored: bool,
}

impl TempoSessionWallet {
    /// The account that pays.
    pub fn address(&self) -> Address {
        self.base.address()
    }

    fn signer(&self) -> Result<&(dyn alloy::signers::Signer + Send + Sync), PayError> {
        match &self.base.account {
            Account::Signs(key) => key.plain().map_or_else(
                || unsupported("it takes signatures of an account's own secp256k1 key"),
                Ok,
            ),
            Account::Sends(_) => unsupported("it takes signatures, and this wallet can only send"),
        }
    }

    /// Reads a request. Everything is checked before anything is signed.
    fn terms(&self, ask: &Ask<Session, Details>) -> Result<Terms, PayError> {
        let details = &ask.details;
        if !details.is_spoken() {
            return unsupported(
                "it is of version 1 of the session protocol; this wallet pays version 2",
            );
        }
        self.signer()?;
        let own = self.base.chain.id();
        if details.chain_id != Some(own) {
            return unsupported(format!("it is for another chain than {own}"));
        }
        let Some(escrow) = details.escrow_contract else {
            return unsupported("it names no channel reserve");
        };
        if !is_canonical(escrow) && !self.allow_custom_escrow {
            return refused(format!(
                "its reserve {escrow} is not the chain's own; allow_custom_escrow would take it"
            ));
        }
        let (Ok(token), Some(Ok(payee))) = (
            ask.request.currency.parse::<Address>(),
            ask.request.recipient.as_deref().map(str::parse::<Address>),
        ) else {
            return unsupported("its currency or its recipient is no address");
        };
        let base = &self.base;
        if !base.currencies.is_empty() && !base.currencies.contains(&token) {
            return unsupported(format!("it is in the token {token}"));
        }
        if !terms::is_token(token) {
            return refused("its currency is no TIP-20 token");
        }
        if payee.is_zero() || payee == self.address() || terms::is_token(payee) {
            return refused("its recipient is the zero address, a token or this wallet itself");
        }
        if !base.recipients.is_empty() && !base.recipients.contains(&payee) {
            return refused(format!("{payee} is none of this wallet's `recipients`"));
        }
        Ok(Terms {
            domain: Domain::new(own, escrow),
            payee,
            token,
            operator: details.operator.unwrap_or_default(),
            sponsored: details.fee_payer == Some(true),
        })
    }

    /// The same for a channel that is there: it must be one that answers the request.
    fn fits(&self, ask: &Ask<Session, Details>, held: &SessionHeld) -> Result<Terms, PayError> {
        let terms = self.terms(ask)?;
        let descriptor = &held.descriptor;
        let same = (held.chain_id, held.escrow) == (terms.domain.chain_id(), terms.domain.escrow())
            && (descriptor.payee, descriptor.token) == (terms.payee, terms.token)
            && descriptor.operator == terms.operator;
        if !same {
            return refused("it asks for another payee, token, operator or reserve than before");
        }
        if descriptor.payer != self.address() || descriptor.signer() != self.address() {
            return refused("the channel is another account's");
        }
        Ok(terms)
    }

    async fn sign(&self, held: &SessionHeld, cumulative: Amount) -> Result<Bytes, PayError> {
        // A deposit has passed `max_deposit`, and no voucher is for more than the deposit; this is
        // for channels that somebody else has filled.
        if cumulative.get() > self.max_deposit.min(MAX_AMOUNT) {
            return refused("the voucher would be for more than `max_deposit`");
        }
        let digest = held.domain().voucher(held.id(), cumulative.get());
        let signature = sign_hash(self.signer()?, &digest).await;
        let signature = signature.map_err(PayError::NotPaid)?;
        Ok(signature.as_bytes().to_vec().into())
    }

    fn present(&self, held: &SessionHeld, form: Form) -> Paid<Presentation> {
        let presentation = Presentation {
            form,
            channel: held.id(),
            descriptor: held.descriptor,
        };
        let source = Source {
            chain_id: held.chain_id,
            address: self.address(),
        };
        Paid::new(presentation).by(source.to_string())
    }

    fn check_total(&self, total: u128) -> Result<(), PayError> {
        if total > self.max_deposit {
            let most = self.max_deposit;
            return refused(format!(
                "the channel would hold {total}; `max_deposit` is {most} base units"
            ));
        }
        Ok(())
    }
}

impl SessionWallet for TempoSessionWallet {
    const METHOD: &'static str = "tempo";
    const SPENDING: Spending = Spending::Vouchers;
    type Details = Details;
    type Held = SessionHeld;
    type Payload = Presentation;

    fn price(&self, _: &Paying<'_>, ask: &Ask<Session, Details>) -> Result<SessionPrice, PayError> {
        let terms = self.terms(ask)?;
        let (chain, escrow) = (terms.domain.chain_id(), terms.domain.escrow());
        let (payee, token, operator) = (terms.payee, terms.token, terms.operator);
        Ok(SessionPrice {
            // Written anew: an address has several spellings, and limits go by the text.
            unit: Cost {
                amount: ask.request.amount,
                currency: format!("{token:#x}"),
                recipient: Some(payee.to_string()),
            },
            deposit: DepositRule::Any {
                suggested: ask.request.suggested_deposit,
            },
            min_delta: ask.details.min_voucher_delta.unwrap_or_default(),
            reuse: format!(
                "{:#x}:{payee:#x}:{token:#x}:{operator:#x}:{escrow:#x}:{chain}",
                self.address()
            ),
            hint: ask.details.channel_id.map(|id| id.to_string()),
        })
    }

    async fn funded(&self, cost: &Cost) -> bool {
        let Ok(token) = cost.currency.parse() else {
            return true;
        };
        let balance = self.base.chain.balance(token, self.address()).await;
        balance.map_or(true, |balance| balance >= U256::from(cost.amount.get()))
    }

    async fn draft_open(
        &self,
        cx: &Paying<'_>,
        ask: &Ask<Session, Details>,
        deposit: Amount,
    ) -> Result<Draft<SessionHeld>, PayError> {
        let terms = self.terms(ask)?;
        self.check_total(deposit.get())?;
        let held = self.draft_deposit(cx, &terms, deposit).await?;
        Ok(Draft {
            channel: held.id().to_string(),
            amount: deposit,
            held,
        })
    }

    async fn open(
        &self,
        _: &Paying<'_>,
        ask: &Ask<Session, Details>,
        draft: Draft<SessionHeld>,
        cumulative: Amount,
        _: Approved,
    ) -> Result<Funded<Presentation, SessionHeld>, PayError> {
        self.fits(ask, &draft.held)?;
        self.check_total(draft.amount.get())?;
        let form = Form::Open {
            kind: TRANSACTION,
            transaction: self.signed(&draft.held).await?,
            cumulative_amount: cumulative,
            signature: self.sign(&draft.held, cumulative).await?,
            authorized_signer: draft.held.descriptor.authorized_signer,
        };
        Ok(Funded {
            paid: self.present(&draft.held, form),
            held: draft.held,
        })
    }

    async fn voucher(
        &self,
        _: &Paying<'_>,
        ask: &Ask<Session, Details>,
        channel: &OpenChannel<SessionHeld>,
        cumulative: Amount,
    ) -> Result<Paid<Presentation>, PayError> {
        self.fits(ask, &channel.held)?;
        let form = Form::Voucher {
            cumulative_amount: cumulative,
            signature: self.sign(&channel.held, cumulative).await?,
        };
        Ok(self.present(&channel.held, form))
    }

    async fn draft_top_up(
        &self,
        cx: &Paying<'_>,
        ask: &Ask<Session, Details>,
        channel: &OpenChannel<SessionHeld>,
        additional: Amount,
    ) -> Result<Draft<SessionHeld>, PayError> {
        let terms = self.fits(ask, &channel.held)?;
        self.check_total(channel.deposit.get().saturating_add(additional.get()))?;
        let held = self.draft_addition(cx, &terms, channel, additional).await?;
        Ok(Draft {
            channel: held.id().to_string(),
            amount: additional,
            held,
        })
    }

    async fn top_up(
        &self,
        _: &Paying<'_>,
        ask: &Ask<Session, Details>,
        draft: Draft<SessionHeld>,
        _: Approved,
    ) -> Result<Funded<Presentation, SessionHeld>, PayError> {
        self.fits(ask, &draft.held)?;
        let total = draft.held.deposit.get().saturating_add(draft.amount.get());
        self.check_total(total)?;
        let form = Form::TopUp {
            kind: TRANSACTION,
            transaction: self.signed(&draft.held).await?,
            additional_deposit: draft.amount,
        };
        Ok(Funded {
            paid: self.present(&draft.held, form),
            held: draft.held,
        })
    }

    async fn close(
        &self,
        _: &Paying<'_>,
        ask: &Ask<Session, Details>,
        channel: &OpenChannel<SessionHeld>,
        cumulative: Amount,
    ) -> Result<Paid<Presentation>, PayError> {
        self.fits(ask, &channel.held)?;
        let form = Form::Close {
            cumulative_amount: cumulative,
            signature: self.sign(&channel.held, cumulative).await?,
        };
        Ok(self.present(&channel.held, form))
    }

    async fn standing(&self, held: &SessionHeld) -> Result<Standing<SessionHeld>, Fault> {
        self.evidence(held).await
    }

    async fn adopt(
        &self,
        _: &Paying<'_>,
        ask: &Ask<Session, Details>,
        snapshot: Option<&Value>,
    ) -> Result<Adopted<SessionHeld>, PayError> {
        let told = snapshot.or(ask.details.session_snapshot.as_ref());
        let Some(told) = told else {
            return unsupported("the server tells of no channel");
        };
        let Ok(told) = Snapshot::deserialize(told) else {
            return unsupported("what the server tells of a channel cannot be read");
        };
        let held = SessionHeld {
            descriptor: told.descriptor,
            chain_id: told.chain_id,
            escrow: told.escrow,
            deposit: Amount::ZERO,
            movement: None,
        };
        self.fits(ask, &held)?;
        if held.id() != told.channel_id {
            return refused("what the server tells of is not the channel it names");
        }
        let signed = match &told.highest_voucher {
            None => 0,
            Some(voucher) => {
                let cumulative = voucher.cumulative_amount.get();
                let digest = held.domain().voucher(held.id(), cumulative);
                let own = signature::check(&digest, &voucher.signature, self.address());
                if voucher.channel_id != told.channel_id || own.is_err() {
                    return refused("the voucher that the server shows is not this wallet's");
                }
                cumulative
            }
        };
        match self.evidence(&held).await.map_err(PayError::NotPaid)? {
            Standing::Open {
                channel,
                taken,
                closing: false,
            } => Ok(Adopted {
                authorized: taken.max(Amount::new(signed)),
                channel,
            }),
            _ => refused("the channel that the server tells of is not open"),
        }
    }
}
