//! A server that keeps books.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use farebox_client::session::{Answer, Courier};
use farebox_core::wire::{Amount, Challenge, Credential, Receipt, Timestamp};
use serde::Deserialize;
use serde_json::json;

use super::{Chain, Seller, challenge, one_less};

/// Counts one unit for each request that it serves.
pub struct Server {
    pub chain: Arc<Chain>,
    pub unit: u128,
    pub suggested: u128,
    pub min_delta: u128,
    pub hint: Mutex<Option<String>>,
    pub channels: Mutex<HashMap<String, Books>>,
    /// How many of the next credentials get lost: before the server sees them, or after.
    pub lose_before: AtomicU32,
    pub lose_after: AtomicU32,
    pub challenges: AtomicU32,
    /// What was asked before this many challenges is another resource's.
    pub oldest: AtomicU32,
    /// It refuses credentials of this action.
    pub refuses: Mutex<Option<&'static str>>,
    /// It refuses top-ups that were made before: a transaction is included once.
    pub once: AtomicBool,
}

#[derive(Clone, Copy, Default, Debug)]
pub struct Books {
    pub deposit: u128,
    pub accepted: u128,
    pub spent: u128,
}

#[derive(Deserialize)]
struct Presented {
    action: String,
    channel: String,
    #[serde(default)]
    cumulative: Option<Amount>,
    #[serde(default)]
    deposit: Option<Amount>,
    #[serde(default)]
    movement: Option<String>,
    #[serde(default)]
    additional: Option<Amount>,
}

impl Server {
    pub fn new(unit: u128, suggested: u128) -> Arc<Self> {
        Arc::new(Self {
            chain: Arc::default(),
            unit,
            suggested,
            min_delta: 0,
            hint: Mutex::default(),
            channels: Mutex::default(),
            lose_before: AtomicU32::new(0),
            lose_after: AtomicU32::new(0),
            challenges: AtomicU32::new(0),
            oldest: AtomicU32::new(0),
            refuses: Mutex::default(),
            once: AtomicBool::new(false),
        })
    }

    pub fn books(&self, id: &str) -> Books {
        self.channels.lock().unwrap()[id]
    }

    pub fn receipt(&self, id: &str, books: Books) -> Receipt {
        Receipt::new("coins", id, Timestamp::now())
            .with("channelId", id)
            .with("acceptedCumulative", books.accepted.to_string())
            .with("spent", books.spent.to_string())
    }

    fn honour(&self, credential: &Credential, units: u128) -> Answer {
        let presented: Presented = credential.payload.decode().unwrap();
        let id = presented.channel.clone();
        let issued: u32 = credential.challenge.id[1..].parse().unwrap();
        if issued < self.oldest.load(Ordering::SeqCst) {
            return self.refuse("invalid-challenge");
        }
        let action = presented.action.as_str();
        if *self.refuses.lock().unwrap() == Some(action) {
            return self.refuse("verification-failed");
        }
        let mut channels = self.channels.lock().unwrap();
        match action {
            "open" => {
                self.chain.open(&id, presented.deposit.unwrap().get());
                let Some(locked) = self.chain.channel(&id) else {
                    return self.refuse("channel-not-found");
                };
                let books = channels.entry(id.clone()).or_default();
                books.deposit = locked.deposit;
                books.accepted = books.accepted.max(presented.cumulative.unwrap().get());
            }
            "topUp" => {
                let movement = presented.movement.unwrap();
                if self.once.load(Ordering::SeqCst) && self.chain.has_made(&id, &movement) {
                    return self.refuse("verification-failed");
                }
                self.chain
                    .top_up(&id, &movement, presented.additional.unwrap().get());
                let deposit = self.chain.channel(&id).unwrap().deposit;
                channels.get_mut(&id).unwrap().deposit = deposit;
            }
            action => {
                if self.chain.channel(&id).is_none_or(|locked| locked.closed) {
                    return self.refuse("channel-finalized");
                }
                // As a real one, it finds on the chain what it has forgotten.
                let deposit = self.chain.channel(&id).unwrap().deposit;
                let books = channels.entry(id.clone()).or_default();
                books.deposit = deposit;
                let cumulative = presented.cumulative.unwrap().get();
                if cumulative > books.deposit {
                    return self.refuse("amount-exceeds-deposit");
                }
                if action == "close" {
                    self.chain.close(&id, books.spent);
                } else if cumulative < books.accepted {
                    return self.refuse("invalid-signature");
                } else if cumulative > books.accepted
                    && cumulative - books.accepted < self.min_delta
                {
                    return self.refuse("delta-too-small");
                } else {
                    books.accepted = cumulative;
                }
            }
        }
        let books = channels.get_mut(&id).unwrap();
        let cost = units * self.unit;
        if books.accepted - books.spent < cost {
            return self.refuse("insufficient-balance");
        }
        books.spent += cost;
        Answer::Accepted(Some(Box::new(self.receipt(&id, *books))))
    }
}

impl Seller for Server {
    fn challenge(&self) -> Challenge {
        let mut details = serde_json::Map::new();
        if let Some(channel) = self.hint.lock().unwrap().clone() {
            details.insert("channel".into(), channel.into());
        }
        if self.min_delta > 0 {
            details.insert("min_delta".into(), json!(self.min_delta));
        }
        let n = self.challenges.fetch_add(1, Ordering::SeqCst);
        challenge(n, self.unit, self.suggested, details.into())
    }

    fn take(&self, credential: &Credential, units: u128) -> Answer {
        if one_less(&self.lose_before) {
            return Answer::Lost("it got lost".to_owned());
        }
        let answer = self.honour(credential, units);
        if one_less(&self.lose_after) {
            return Answer::Lost("the answer got lost".to_owned());
        }
        answer
    }
}

impl Courier for Server {
    async fn ask(&self) -> Result<Vec<Challenge>, String> {
        Ok(vec![self.challenge()])
    }

    async fn deliver(&self, credential: &Credential) -> Answer {
        // So that messages of several calls can cross.
        tokio::task::yield_now().await;
        self.take(credential, 0)
    }

    async fn deliver_at(&self, _: &str, credential: &Credential) -> Answer {
        self.deliver(credential).await
    }
}
