//! The two wallets and the money between them. Everything here is synchronous and runs under one
//! lock, so an observer never sees a payment half made.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use farebox_lnd::lnrpc::PaymentFailureReason;
use lightning_invoice::{Bolt11Invoice, Currency, InvoiceBuilder, PaymentSecret};
use tokio::sync::{broadcast, watch};
use tonic::Status;

/// LND's default: a day.
const DEFAULT_EXPIRY: u64 = 86_400;
/// LND's default for the last hop.
const FINAL_CLTV_DELTA: u64 = 80;
/// What a BOLT11 description field can carry, in bytes.
const MAX_MEMO: usize = 639;

pub(crate) type Hash = [u8; 32];

/// Which of the sandbox's wallets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Seller,
    Agent,
}

/// How far a payment has come. The preimage is here only once it has been revealed.
#[derive(Clone)]
pub(crate) enum Progress {
    InFlight,
    Succeeded(Hash),
    Failed(PaymentFailureReason),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvoiceState {
    Open,
    Settled { at: u64 },
    Canceled,
}

#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) bolt11: String,
    pub(crate) memo: String,
    pub(crate) amount_msat: u64,
    pub(crate) created: u64,
    pub(crate) expiry: u64,
    pub(crate) preimage: Hash,
    pub(crate) add_index: u64,
    pub(crate) state: InvoiceState,
}

#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) bolt11: String,
    pub(crate) amount_msat: u64,
    pub(crate) fee_msat: u64,
    payee: Option<Who>,
    pub(crate) progress: watch::Sender<Progress>,
}

struct Wallet {
    secret: SecretKey,
    public: PublicKey,
    balance_msat: u64,
    invoices: HashMap<Hash, Issued>,
    sent: HashMap<Hash, Sent>,
}

struct State {
    seller: Wallet,
    agent: Wallet,
}

impl State {
    fn wallet(&mut self, who: Who) -> &mut Wallet {
        match who {
            Who::Seller => &mut self.seller,
            Who::Agent => &mut self.agent,
        }
    }

    fn owner_of(&self, node: &PublicKey) -> Option<Who> {
        if *node == self.seller.public {
            Some(Who::Seller)
        } else if *node == self.agent.public {
            Some(Who::Agent)
        } else {
            None
        }
    }
}

/// How many settlements a subscriber may lag behind before it is cut off.
const BACKLOG: usize = 1_024;

pub(crate) struct Ledger {
    state: Mutex<State>,
    settlements: broadcast::Sender<(Who, Hash)>,
    routing_fee_msat: u64,
}

pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}

pub(crate) fn random() -> Result<Hash, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

impl Wallet {
    fn new(balance_sat: u64) -> Result<Self, getrandom::Error> {
        // Not every 32 bytes are a key; all but 1 in 2^127 are.
        let secret = loop {
            if let Ok(secret) = SecretKey::from_slice(&random()?) {
                break secret;
            }
        };
        Ok(Self {
            secret,
            public: secret.public_key(&Secp256k1::signing_only()),
            balance_msat: balance_sat.saturating_mul(1_000),
            invoices: HashMap::new(),
            sent: HashMap::new(),
        })
    }

    fn invoice(&self, hash: &Hash) -> Option<Issued> {
        let mut issued = self.invoices.get(hash)?.clone();
        // A node cancels what has expired unpaid; here that shows when somebody looks.
        if issued.state == InvoiceState::Open && issued.created + issued.expiry <= now() {
            issued.state = InvoiceState::Canceled;
        }
        Some(issued)
    }
}

impl Ledger {
    pub(crate) fn new(
        seller_sat: u64,
        agent_sat: u64,
        routing_fee_msat: u64,
    ) -> Result<Self, getrandom::Error> {
        Ok(Self {
            state: Mutex::new(State {
                seller: Wallet::new(seller_sat)?,
                agent: Wallet::new(agent_sat)?,
            }),
            settlements: broadcast::Sender::new(BACKLOG),
            routing_fee_msat,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn public_key(&self, who: Who) -> PublicKey {
        self.lock().wallet(who).public
    }

    pub(crate) fn balance_msat(&self, who: Who) -> u64 {
        self.lock().wallet(who).balance_msat
    }

    pub(crate) fn invoice(&self, who: Who, hash: &Hash) -> Option<Issued> {
        self.lock().wallet(who).invoice(hash)
    }

    /// Whose invoice is settled, and which, from now on.
    pub(crate) fn settlements(&self) -> broadcast::Receiver<(Who, Hash)> {
        self.settlements.subscribe()
    }

    /// The settled invoices of one wallet, oldest first.
    pub(crate) fn settled(&self, who: Who) -> Vec<(Hash, Issued)> {
        let mut state = self.lock();
        let invoices = state.wallet(who).invoices.iter();
        let mut settled: Vec<_> = invoices
            .filter(|(_, i)| matches!(i.state, InvoiceState::Settled { .. }))
            .map(|(hash, issued)| (*hash, issued.clone()))
            .collect();
        settled.sort_by_key(|(_, issued)| issued.add_index);
        settled
    }

    pub(crate) fn invoice_count(&self, who: Who) -> usize {
        self.lock().wallet(who).invoices.len()
    }

    /// Mints a signed invoice with a fresh random preimage; an amount of 0 leaves the amount open.
    pub(crate) fn add_invoice(
        &self,
        who: Who,
        memo: String,
        amount_msat: u64,
        expiry: u64,
    ) -> Result<(Hash, Issued), Status> {
        if memo.len() > MAX_MEMO {
            return Err(Status::invalid_argument(format!(
                "memo too large: {} bytes, at most {MAX_MEMO}",
                memo.len()
            )));
        }
        let broken = |_| Status::internal("no randomness");
        let preimage = random().map_err(broken)?;
        let payment_secret = random().map_err(broken)?;
        let hash = sha256::Hash::hash(&preimage);
        let expiry = if expiry == 0 { DEFAULT_EXPIRY } else { expiry };
        let created = now();

        let mut state = self.lock();
        let wallet = state.wallet(who);
        let mut builder = InvoiceBuilder::new(Currency::Regtest)
            .description(memo.clone())
            .payment_hash(hash)
            .payment_secret(PaymentSecret(payment_secret))
            .duration_since_epoch(Duration::from_secs(created))
            .min_final_cltv_expiry_delta(FINAL_CLTV_DELTA)
            .expiry_time(Duration::from_secs(expiry))
            .basic_mpp();
        if amount_msat > 0 {
            builder = builder.amount_milli_satoshis(amount_msat);
        }
        let invoice = builder
            .build_signed(|message| {
                Secp256k1::signing_only().sign_ecdsa_recoverable(message, &wallet.secret)
            })
            .map_err(|e| Status::invalid_argument(format!("invoice: {e}")))?;
        let issued = Issued {
            bolt11: invoice.to_string(),
            memo,
            amount_msat,
            created,
            expiry,
            preimage,
            add_index: wallet.invoices.len() as u64 + 1,
            state: InvoiceState::Open,
        };
        let hash = hash.to_byte_array();
        wallet.invoices.insert(hash, issued.clone());
        Ok((hash, issued))
    }

    pub(crate) fn sent(&self, who: Who, hash: &Hash) -> Option<Sent> {
        self.lock().wallet(who).sent.get(hash).cloned()
    }

    /// Starts a payment: sets the money aside, or fails it for a reason the payer can see.
    ///
    /// An `Err` means that nothing was recorded. LND gives most of these no code of their own.
    pub(crate) fn begin(
        &self,
        payer: Who,
        bolt11: &str,
        amount_msat: u64,
        fee_limit_msat: u64,
    ) -> Result<(Hash, Sent), Status> {
        let invoice: Bolt11Invoice = bolt11
            .parse()
            .map_err(|e| Status::unknown(format!("invoice: {e}")))?;
        if invoice.currency() != Currency::Regtest {
            return Err(Status::unknown(
                "invoice not for current active network 'regtest'",
            ));
        }
        let amount_msat = match (invoice.amount_milli_satoshis(), amount_msat) {
            (Some(named), 0) => named,
            (None, 0) => {
                return Err(Status::unknown(
                    "amount must be specified when paying a zero amount invoice",
                ));
            }
            (Some(_), _) => {
                return Err(Status::unknown(
                    "amount must not be specified when paying a non-zero amount invoice",
                ));
            }
            (None, chosen) => chosen,
        };
        if invoice.would_expire(Duration::from_secs(now())) {
            return Err(Status::unknown("invoice expired"));
        }
        let hash = invoice.payment_hash().to_byte_array();

        let mut state = self.lock();
        let payee = state.owner_of(&invoice.get_payee_pub_key());
        if payee == Some(payer) {
            return Err(Status::unknown("self-payments not allowed"));
        }
        if let Some(earlier) = state.wallet(payer).sent.get(&hash) {
            match *earlier.progress.borrow() {
                Progress::Succeeded(_) => {
                    return Err(Status::already_exists("invoice is already paid"));
                }
                Progress::InFlight => {
                    return Err(Status::already_exists("payment is in transition"));
                }
                Progress::Failed(_) => {}
            }
        }

        let fee_msat = self.routing_fee_msat;
        let total = amount_msat.saturating_add(fee_msat);
        let open = payee.is_some_and(|payee| {
            let invoice = state.wallet(payee).invoice(&hash);
            invoice.is_some_and(|i| i.state == InvoiceState::Open && i.bolt11 == bolt11)
        });
        let wallet = state.wallet(payer);
        let progress = if wallet.balance_msat < total {
            Progress::Failed(PaymentFailureReason::FailureReasonInsufficientBalance)
        } else if payee.is_none() || fee_msat > fee_limit_msat {
            Progress::Failed(PaymentFailureReason::FailureReasonNoRoute)
        } else if !open {
            Progress::Failed(PaymentFailureReason::FailureReasonIncorrectPaymentDetails)
        } else {
            wallet.balance_msat -= total;
            Progress::InFlight
        };
        let sent = Sent {
            bolt11: bolt11.into(),
            amount_msat,
            fee_msat,
            payee,
            progress: watch::Sender::new(progress),
        };
        wallet.sent.insert(hash, sent.clone());
        Ok((hash, sent))
    }

    /// Ends a payment that is in flight: the payee reveals the preimage, or the money goes back.
    /// A payment that has already ended stays as it is.
    pub(crate) fn finish(&self, payer: Who, hash: &Hash, settle: bool) {
        let mut state = self.lock();
        let Some(sent) = state.wallet(payer).sent.get(hash).cloned() else {
            return;
        };
        if !matches!(*sent.progress.borrow(), Progress::InFlight) {
            return;
        }
        let revealed = sent.payee.filter(|_| settle).and_then(|payee| {
            let wallet = state.wallet(payee);
            let issued = wallet.invoices.get_mut(hash)?;
            if issued.state != InvoiceState::Open {
                return None;
            }
            issued.state = InvoiceState::Settled { at: now() };
            // What an invoice that named no amount has come to.
            issued.amount_msat = sent.amount_msat;
            wallet.balance_msat = wallet.balance_msat.saturating_add(sent.amount_msat);
            Some(issued.preimage)
        });
        if let (Some(_), Some(payee)) = (&revealed, sent.payee) {
            // Nobody may be listening.
            let _ = self.settlements.send((payee, *hash));
        }
        let outcome = revealed.map_or_else(
            || {
                let wallet = state.wallet(payer);
                wallet.balance_msat += sent.amount_msat + sent.fee_msat;
                Progress::Failed(PaymentFailureReason::FailureReasonIncorrectPaymentDetails)
            },
            Progress::Succeeded,
        );
        sent.progress.send_replace(outcome);
    }
}
