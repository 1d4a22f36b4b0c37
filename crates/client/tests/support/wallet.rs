//! The rail: where deposits are, and a wallet.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use farebox_core::{
    Adopted, Approved, Ask, DepositRule, Draft, Fault, Funded, OpenChannel, Paid, PayError, Paying,
    Session, SessionPrice, SessionWallet, Spending, Standing, wire::Amount,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{coins, unit};

/// Where deposits are.
#[derive(Default)]
pub struct Chain {
    channels: Mutex<HashMap<String, Locked>>,
    /// Deposits that can not be made any more.
    lapsed: Mutex<HashSet<String>>,
    next: AtomicU32,
    pub opened: AtomicU32,
}

#[derive(Clone, Default)]
pub struct Locked {
    pub deposit: u128,
    pub taken: u128,
    pub closed: bool,
    made: HashSet<String>,
}

impl Chain {
    pub fn channel(&self, id: &str) -> Option<Locked> {
        self.channels.lock().unwrap().get(id).cloned()
    }

    pub fn opens(&self) -> u32 {
        self.opened.load(Ordering::SeqCst)
    }

    pub fn only(&self) -> (String, Locked) {
        let channels = self.channels.lock().unwrap();
        assert_eq!(channels.len(), 1, "one channel");
        let (id, locked) = channels.iter().next().unwrap();
        (id.clone(), locked.clone())
    }

    /// Whether a top-up was made.
    pub fn has_made(&self, id: &str, movement: &str) -> bool {
        self.channel(id)
            .is_some_and(|locked| locked.made.contains(movement))
    }

    pub fn lapse(&self, id: &str) {
        self.lapsed.lock().unwrap().insert(id.to_owned());
    }

    pub fn open(&self, id: &str, deposit: u128) {
        let mut channels = self.channels.lock().unwrap();
        if !channels.contains_key(id) && !self.lapsed.lock().unwrap().contains(id) {
            self.opened.fetch_add(1, Ordering::SeqCst);
            let locked = Locked {
                deposit,
                ..Locked::default()
            };
            channels.insert(id.to_owned(), locked);
        }
    }

    pub fn top_up(&self, id: &str, movement: &str, additional: u128) {
        let mut channels = self.channels.lock().unwrap();
        let channel = channels.get_mut(id).unwrap();
        if !self.lapsed.lock().unwrap().contains(movement)
            && channel.made.insert(movement.to_owned())
        {
            channel.deposit += additional;
        }
    }

    pub fn close(&self, id: &str, taken: u128) {
        let mut channels = self.channels.lock().unwrap();
        let channel = channels.get_mut(id).unwrap();
        assert!(taken <= channel.deposit);
        (channel.taken, channel.closed) = (taken, true);
    }
}

/// A wallet that notes the highest amount it ever signed.
#[derive(Clone)]
pub struct Coins {
    pub chain: Arc<Chain>,
    pub signed: Arc<Mutex<u128>>,
    pub vouchers: Arc<AtomicU64>,
}

impl Coins {
    pub fn new(chain: &Arc<Chain>) -> Self {
        Self {
            chain: chain.clone(),
            signed: Arc::default(),
            vouchers: Arc::default(),
        }
    }

    pub fn most_signed(&self) -> u128 {
        *self.signed.lock().unwrap()
    }

    fn sign(&self, amount: Amount) {
        let mut signed = self.signed.lock().unwrap();
        *signed = (*signed).max(amount.get());
    }
}

#[derive(Serialize, Deserialize, Clone)]
pub struct Kept {
    id: String,
    deposit: u128,
    movement: Option<(String, u128)>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_delta: Option<u128>,
}

impl SessionWallet for Coins {
    const METHOD: &'static str = "coins";
    const SPENDING: Spending = Spending::Vouchers;
    type Details = Details;
    type Held = Kept;
    type Payload = Value;

    fn price(&self, _: &Paying<'_>, ask: &Ask<Session, Details>) -> Result<SessionPrice, PayError> {
        Ok(SessionPrice {
            unit: unit(ask),
            deposit: DepositRule::Any {
                suggested: ask.request.suggested_deposit,
            },
            min_delta: coins(ask.details.min_delta.unwrap_or_default()),
            reuse: "me:you".to_owned(),
            hint: ask.details.channel.clone(),
        })
    }

    async fn draft_open(
        &self,
        _: &Paying<'_>,
        _: &Ask<Session, Details>,
        amount: Amount,
    ) -> Result<Draft<Kept>, PayError> {
        let id = format!("c{}", self.chain.next.fetch_add(1, Ordering::SeqCst));
        Ok(Draft {
            channel: id.clone(),
            amount,
            held: Kept {
                id,
                deposit: amount.get(),
                movement: None,
            },
        })
    }

    async fn open(
        &self,
        _: &Paying<'_>,
        _: &Ask<Session, Details>,
        draft: Draft<Kept>,
        cumulative: Amount,
        approved: Approved,
    ) -> Result<Funded<Value, Kept>, PayError> {
        assert_eq!(approved.cost().amount, draft.amount);
        self.sign(cumulative);
        let payload = json!({
            "action": "open",
            "channel": draft.channel,
            "deposit": draft.amount,
            "cumulative": cumulative,
        });
        Ok(Funded {
            paid: Paid::new(payload).by("me"),
            held: draft.held,
        })
    }

    async fn voucher(
        &self,
        _: &Paying<'_>,
        _: &Ask<Session, Details>,
        channel: &OpenChannel<Kept>,
        cumulative: Amount,
    ) -> Result<Paid<Value>, PayError> {
        self.sign(cumulative);
        self.vouchers.fetch_add(1, Ordering::SeqCst);
        let payload = json!({
            "action": "voucher",
            "channel": channel.id,
            "cumulative": cumulative,
        });
        Ok(Paid::new(payload).by("me"))
    }

    async fn draft_top_up(
        &self,
        _: &Paying<'_>,
        _: &Ask<Session, Details>,
        channel: &OpenChannel<Kept>,
        additional: Amount,
    ) -> Result<Draft<Kept>, PayError> {
        let movement = format!("m{}", self.chain.next.fetch_add(1, Ordering::SeqCst));
        Ok(Draft {
            channel: channel.id.clone(),
            amount: additional,
            held: Kept {
                movement: Some((movement, additional.get())),
                ..channel.held.clone()
            },
        })
    }

    async fn top_up(
        &self,
        _: &Paying<'_>,
        _: &Ask<Session, Details>,
        draft: Draft<Kept>,
        approved: Approved,
    ) -> Result<Funded<Value, Kept>, PayError> {
        assert_eq!(approved.cost().amount, draft.amount);
        let payload = json!({
            "action": "topUp",
            "channel": draft.channel,
            "movement": draft.held.movement.as_ref().unwrap().0,
            "additional": draft.amount,
        });
        // Its state is then one that cannot be topped up with again.
        let held = Kept {
            movement: None,
            ..draft.held
        };
        Ok(Funded {
            paid: Paid::new(payload).by("me"),
            held,
        })
    }

    async fn close(
        &self,
        _: &Paying<'_>,
        _: &Ask<Session, Details>,
        channel: &OpenChannel<Kept>,
        cumulative: Amount,
    ) -> Result<Paid<Value>, PayError> {
        self.sign(cumulative);
        let payload = json!({
            "action": "close",
            "channel": channel.id,
            "cumulative": cumulative,
        });
        Ok(Paid::new(payload).by("me"))
    }

    async fn standing(&self, held: &Kept) -> Result<Standing<Kept>, Fault> {
        let Some(locked) = self.chain.channel(&held.id) else {
            let lapsed = self.chain.lapsed.lock().unwrap().contains(&held.id);
            return Ok(if lapsed {
                Standing::Absent
            } else {
                Standing::Pending
            });
        };
        if locked.closed {
            return Ok(Standing::Closed {
                taken: Some(coins(locked.taken)),
                held: Some(coins(locked.deposit)),
            });
        }
        if let Some((movement, _)) = &held.movement
            && !locked.made.contains(movement)
            && !self.chain.lapsed.lock().unwrap().contains(movement)
        {
            return Ok(Standing::Pending);
        }
        Ok(Standing::Open {
            channel: OpenChannel {
                id: held.id.clone(),
                deposit: coins(locked.deposit),
                held: held.clone(),
            },
            taken: coins(locked.taken),
            closing: false,
        })
    }

    async fn adopt(
        &self,
        _: &Paying<'_>,
        ask: &Ask<Session, Details>,
        snapshot: Option<&Value>,
    ) -> Result<Adopted<Kept>, PayError> {
        let told = snapshot.and_then(|s| s["channel"].as_str().map(str::to_owned));
        let id = told.or(ask.details.channel.clone());
        let id = id.ok_or_else(|| PayError::Unsupported("nothing is told".to_owned()))?;
        let signed = snapshot.and_then(|s| s["signed"].as_u64()).unwrap_or(0);
        let Some(locked) = self.chain.channel(&id) else {
            return Err(PayError::Refused("there is no such channel".to_owned()));
        };
        Ok(Adopted {
            channel: OpenChannel {
                id: id.clone(),
                deposit: coins(locked.deposit),
                held: Kept {
                    id,
                    deposit: locked.deposit,
                    movement: None,
                },
            },
            authorized: coins(signed.into()),
        })
    }
}
