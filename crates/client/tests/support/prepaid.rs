//! A rail whose deposits are paid to the server, which has to be shown each; and such a server.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use farebox_client::{
    Budget,
    session::{Answer, Courier, DepositLimit, Sessions, Store},
};
use farebox_core::{
    Adopted, Approved, Ask, DepositRule, Draft, Fault, Funded, OpenChannel, Paid, PayError, Paying,
    Session, SessionPrice, SessionWallet, Spending, Standing,
    wire::{Amount, Challenge, Credential, Receipt, Timestamp},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Seller, budget, challenge, coins, one_less, unit};

/// What a wallet can ask its own node.
#[derive(Default)]
pub struct Node {
    /// Invoices that were paid, each once.
    pub paid: Mutex<BTreeMap<String, u128>>,
    /// What came back, by channel.
    pub refunds: Mutex<BTreeMap<String, u128>>,
    /// It does not answer, and does not pay.
    pub hangs: AtomicBool,
}

/// A wallet that pays invoices.
#[derive(Clone)]
pub struct Payer(pub Arc<Node>);

type Invoice = (String, u128);

#[derive(Serialize, Deserialize, Clone)]
pub struct Kept {
    opening: Invoice,
    added: u128,
    top_up: Option<Invoice>,
}

#[derive(Serialize, Deserialize)]
pub struct Details {
    invoice: String,
}

impl Payer {
    fn pay(&self, (invoice, amount): &Invoice, ask: &Ask<Session, Details>) {
        assert_eq!(*invoice, ask.details.invoice, "of another challenge");
        let mut paid = self.0.paid.lock().unwrap();
        paid.insert(invoice.clone(), *amount);
    }

    fn has_paid(&self, (invoice, _): &Invoice) -> bool {
        self.0.paid.lock().unwrap().contains_key(invoice)
    }
}

impl SessionWallet for Payer {
    const METHOD: &'static str = "coins";
    const SPENDING: Spending = Spending::Prepaid;
    type Details = Details;
    type Held = Kept;
    type Payload = Value;

    fn price(&self, _: &Paying<'_>, ask: &Ask<Session, Details>) -> Result<SessionPrice, PayError> {
        Ok(SessionPrice {
            unit: unit(ask),
            deposit: DepositRule::Exactly(ask.request.suggested_deposit.unwrap()),
            min_delta: coins(0),
            reuse: unit(ask).recipient.unwrap_or_default(),
            hint: None,
        })
    }

    async fn draft_open(
        &self,
        _: &Paying<'_>,
        ask: &Ask<Session, Details>,
        amount: Amount,
    ) -> Result<Draft<Kept>, PayError> {
        Ok(Draft {
            channel: ask.details.invoice.clone(),
            amount,
            held: Kept {
                opening: (ask.details.invoice.clone(), amount.get()),
                added: 0,
                top_up: None,
            },
        })
    }

    async fn open(
        &self,
        _: &Paying<'_>,
        ask: &Ask<Session, Details>,
        draft: Draft<Kept>,
        _: Amount,
        _: Approved,
    ) -> Result<Funded<Value, Kept>, PayError> {
        self.pay(&draft.held.opening, ask);
        Ok(Funded {
            paid: Paid::new(json!({ "action": "open", "proof": draft.held.opening })),
            held: draft.held,
        })
    }

    async fn voucher(
        &self,
        _: &Paying<'_>,
        _: &Ask<Session, Details>,
        channel: &OpenChannel<Kept>,
        _: Amount,
    ) -> Result<Paid<Value>, PayError> {
        Ok(Paid::new(
            json!({ "action": "bearer", "channel": channel.id }),
        ))
    }

    async fn draft_top_up(
        &self,
        _: &Paying<'_>,
        ask: &Ask<Session, Details>,
        channel: &OpenChannel<Kept>,
        amount: Amount,
    ) -> Result<Draft<Kept>, PayError> {
        Ok(Draft {
            channel: channel.id.clone(),
            amount,
            held: Kept {
                added: channel.deposit.get() - channel.held.opening.1,
                top_up: Some((ask.details.invoice.clone(), amount.get())),
                ..channel.held.clone()
            },
        })
    }

    async fn top_up(
        &self,
        _: &Paying<'_>,
        ask: &Ask<Session, Details>,
        draft: Draft<Kept>,
        _: Approved,
    ) -> Result<Funded<Value, Kept>, PayError> {
        let proof = draft.held.top_up.clone().unwrap();
        if self.0.hangs.load(Ordering::SeqCst) {
            return Err(PayError::Unknown(Fault::unavailable("the node hangs")));
        }
        self.pay(&proof, ask);
        let payload = json!({ "action": "topUp", "channel": draft.channel, "proof": proof });
        Ok(Funded {
            paid: Paid::new(payload),
            held: draft.held,
        })
    }

    async fn close(
        &self,
        _: &Paying<'_>,
        _: &Ask<Session, Details>,
        channel: &OpenChannel<Kept>,
        _: Amount,
    ) -> Result<Paid<Value>, PayError> {
        Ok(Paid::new(
            json!({ "action": "close", "channel": channel.id }),
        ))
    }

    async fn standing(&self, held: &Kept) -> Result<Standing<Kept>, Fault> {
        if !self.has_paid(&held.opening) {
            return Ok(Standing::Pending);
        }
        let over = self.0.refunds.lock().unwrap().contains_key(&held.opening.0);
        let mut held = held.clone();
        if let Some(top_up) = held.top_up.take() {
            if self.has_paid(&top_up) {
                held.added += top_up.1;
            } else if !over {
                return Ok(Standing::Pending);
            }
        }
        if over {
            return Ok(Standing::Closed {
                taken: None,
                held: Some(coins(held.opening.1 + held.added)),
            });
        }
        Ok(Standing::Open {
            channel: OpenChannel {
                id: held.opening.0.clone(),
                deposit: coins(held.opening.1 + held.added),
                held,
            },
            taken: coins(0),
            closing: false,
        })
    }

    async fn adopt(
        &self,
        _: &Paying<'_>,
        _: &Ask<Session, Details>,
        _: Option<&Value>,
    ) -> Result<Adopted<Kept>, PayError> {
        Err(PayError::Unsupported("it is whoever paid's".to_owned()))
    }
}

/// The channels of a server by their opening invoice.
#[derive(Default, Clone, Debug)]
pub struct Account {
    pub deposit: u128,
    pub spent: u128,
    pub closed: bool,
    shown: BTreeSet<String>,
}

/// A server of a prepaid rail.
pub struct Shop {
    pub node: Arc<Node>,
    pub unit: AtomicU32,
    deposit: u128,
    pub accounts: Mutex<BTreeMap<String, Account>>,
    /// How many of the next deposits get lost before they are seen.
    pub lose: AtomicU32,
    /// Everything gets lost.
    pub away: AtomicBool,
    /// It refuses credentials of this action.
    pub refuses: Mutex<Option<&'static str>>,
    /// What is left comes back at a close.
    pub refunds: AtomicBool,
    challenges: AtomicU32,
}

#[derive(Deserialize)]
struct Presented {
    action: String,
    #[serde(default)]
    channel: String,
    #[serde(default)]
    proof: Invoice,
}

impl Shop {
    pub fn new(unit: u32, deposit: u128) -> Arc<Self> {
        Arc::new(Self {
            node: Arc::default(),
            unit: AtomicU32::new(unit),
            deposit,
            accounts: Mutex::default(),
            lose: AtomicU32::new(0),
            away: AtomicBool::new(false),
            refuses: Mutex::default(),
            refunds: AtomicBool::new(true),
            challenges: AtomicU32::new(0),
        })
    }

    /// What was paid, in all.
    pub fn paid(&self) -> u128 {
        self.node.paid.lock().unwrap().values().sum()
    }

    /// The only channel.
    pub fn account(&self) -> Account {
        let accounts = self.accounts.lock().unwrap();
        assert_eq!(accounts.len(), 1, "one channel");
        accounts.values().next().unwrap().clone()
    }

    /// Closes all channels, as a server does that hears nothing.
    pub fn close_all(&self) {
        for (id, account) in self.accounts.lock().unwrap().iter_mut() {
            self.close(id, account);
        }
    }

    fn close(&self, id: &str, account: &mut Account) -> u128 {
        account.closed = true;
        let left = account.deposit - account.spent;
        if left == 0 || !self.refunds.load(Ordering::SeqCst) {
            return 0;
        }
        let mut refunds = self.node.refunds.lock().unwrap();
        refunds.insert(id.to_owned(), left);
        left
    }
}

impl Seller for Shop {
    fn challenge(&self) -> Challenge {
        let n = self.challenges.fetch_add(1, Ordering::SeqCst);
        let details = json!({ "invoice": format!("i{n}") });
        let unit = self.unit.load(Ordering::SeqCst);
        challenge(n, unit.into(), self.deposit, details)
    }

    fn take(&self, credential: &Credential, units: u128) -> Answer {
        let presented: Presented = credential.payload.decode().unwrap();
        let action = presented.action.as_str();
        let deposits = matches!(action, "open" | "topUp");
        if self.away.load(Ordering::SeqCst) || deposits && one_less(&self.lose) {
            return Answer::Lost("it got lost".to_owned());
        }
        if *self.refuses.lock().unwrap() == Some(action) {
            return self.refuse("verification-failed");
        }
        let mut accounts = self.accounts.lock().unwrap();
        let (invoice, amount) = presented.proof;
        let id = match action {
            "open" => {
                accounts.entry(invoice.clone()).or_default();
                invoice.clone()
            }
            _ => presented.channel,
        };
        let Some(account) = accounts.get_mut(&id) else {
            return self.refuse("session-not-found");
        };
        if account.closed {
            return self.refuse("session-closed");
        }
        let mut receipt = Receipt::new("coins", &id, Timestamp::now());
        match action {
            "open" | "topUp" => {
                assert_eq!(self.node.paid.lock().unwrap()[&invoice], amount);
                if account.shown.insert(invoice) {
                    account.deposit += amount;
                }
            }
            "close" => {
                let left = self.close(&id, account);
                let status = if left > 0 { "succeeded" } else { "skipped" };
                receipt = receipt
                    .with("refundSats", left.to_string())
                    .with("refundStatus", status);
            }
            _ => {}
        }
        let cost = units * u128::from(self.unit.load(Ordering::SeqCst));
        if account.deposit - account.spent < cost {
            return self.refuse("insufficient-balance");
        }
        account.spent += cost;
        Answer::Accepted(Some(Box::new(receipt)))
    }
}

impl Courier for Shop {
    async fn ask(&self) -> Result<Vec<Challenge>, String> {
        Ok(vec![self.challenge()])
    }

    async fn deliver(&self, credential: &Credential) -> Answer {
        tokio::task::yield_now().await;
        self.take(credential, 0)
    }

    async fn deliver_at(&self, _: &str, credential: &Credential) -> Answer {
        self.deliver(credential).await
    }
}

/// A client that may spend so much, and remembers on `disk`.
pub fn within(budget: Budget, shop: &Shop, disk: &Arc<dyn Store>) -> Sessions {
    Sessions::new(budget, disk.clone())
        .wallet(Payer(shop.node.clone()))
        .limit(DepositLimit::new("coin", coins(100)))
}

/// One that may spend enough.
pub fn process(shop: &Shop, disk: &Arc<dyn Store>) -> Sessions {
    within(budget(1_000), shop, disk)
}
