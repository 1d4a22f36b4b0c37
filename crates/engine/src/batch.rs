//! Settling several channels by one movement, where their rail can.
//!
//! Each channel's part is recorded before anything moves, as if it were settled alone, and looked up
//! by itself: whatever dies in between, each is found out. Where it fails for all, or cannot be
//! recorded for one, the channels are settled one by one.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use farebox_core::{
    AnyErrand, ChannelAction, ChannelId, ChannelState, Due, Fault, IdempotencyKey, Method, Outcome,
    Rejection, StoredOrder,
};
use futures_util::future::join_all;
use serde_json::Map;
use tokio::time::{sleep, timeout};

use crate::{
    balance,
    conclude::insist,
    engine::Shared,
    payment::Driven,
    record::{ChannelChange, Record, State, Stored, channel_key},
    upkeep::Ran,
};

/// Most channels of one movement.
const MOST: usize = 16;

/// How long channels that became due by being spent wait for each other.
const GATHER: Duration = Duration::from_millis(100);

/// Channels that are about to be settled, by their method's name.
#[derive(Debug, Default)]
pub(crate) struct Gathered(Mutex<HashMap<String, BTreeSet<String>>>);

impl Gathered {
    /// Whether it is the first of its method.
    fn add(&self, method: &str, channel: &ChannelId) -> bool {
        let mut gathered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let channels = gathered.entry(method.to_owned()).or_default();
        channels.insert(channel.as_str().to_owned());
        channels.len() == 1
    }

    fn take(&self, method: &str) -> Vec<ChannelId> {
        let mut gathered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let channels = gathered.remove(method).unwrap_or_default();
        channels
            .iter()
            .filter_map(|text| ChannelId::stored(text))
            .collect()
    }
}

/// A channel that is claimed for a settlement.
struct Member {
    channel: ChannelId,
    key: String,
    op: String,
    claim: String,
    view: ChannelState,
}

/// Its part, recorded.
struct Part {
    member: Member,
    order: StoredOrder,
    attempted: Stored,
}

/// What a batch came to.
#[derive(Default)]
pub(crate) struct Batch {
    /// Of those that are done with, for now.
    pub(crate) ran: Vec<Ran>,
    /// Those that are to be settled one by one.
    pub(crate) alone: Vec<ChannelId>,
}

impl Batch {
    /// Of a rail that panicked: the channels are held until that lapses.
    pub(crate) fn failed() -> Self {
        Self {
            ran: vec![Ran::Open],
            alone: Vec::new(),
        }
    }
}

impl Shared {
    /// Has `channel` settled soon, together with others of its method that become due meanwhile.
    pub(crate) fn settle_soon(self: &Arc<Self>, method: &str, channel: &ChannelId) {
        if !self.gathered.add(method, channel) {
            return;
        }
        let (shared, method) = (self.clone(), method.to_owned());
        let under_way = self.drain.settling();
        tokio::spawn(async move {
            let _under_way = under_way;
            sleep(GATHER).await;
            let channels = shared.gathered.take(&method);
            let alone = match shared.method(&method) {
                Some(rail) => shared.settle_together(rail, channels).await.alone,
                None => channels,
            };
            let alone = alone
                .iter()
                .map(|channel| shared.look_after_channel(channel, true));
            join_all(alone).await;
        });
    }

    /// Settles channels of one method together, as many at a time as one movement takes.
    pub(crate) async fn settle_together(
        self: &Arc<Self>,
        method: Arc<dyn Method>,
        channels: Vec<ChannelId>,
    ) -> Batch {
        let mut whole = Batch::default();
        for some in channels.chunks(MOST) {
            match some {
                [_, _, ..] if !self.drain.started() => {
                    let batch = self.settle_batch(&*method, some).await;
                    whole.ran.extend(batch.ran);
                    whole.alone.extend(batch.alone);
                }
                _ => whole.alone.extend_from_slice(some),
            }
        }
        whole
    }

    async fn settle_batch(self: &Arc<Self>, method: &dyn Method, channels: &[ChannelId]) -> Batch {
        let mut batch = Batch::default();
        let claims = channels.iter().map(|channel| self.claim(method, channel));
        let mut members = Vec::new();
        for (claimed, channel) in join_all(claims).await.into_iter().zip(channels) {
            match claimed {
                Ok(Some(member)) => members.push(member),
                Ok(None) => batch.ran.push(Ran::Idle),
                Err(fault) => {
                    tracing::warn!(%fault, "a channel could not be looked after");
                    batch.alone.push(channel.clone());
                }
            }
        }
        let Some(errands) = self.ask_together(method, &members).await else {
            for member in members {
                // Who comes next finds it held where this fails, until that lapses.
                drop(self.end(&member.key, &member.op, None).await);
                batch.alone.push(member.channel);
            }
            return batch;
        };
        let mut parts = Vec::new();
        let recorded = members.into_iter().zip(errands);
        let recorded = recorded.map(|(member, errand)| self.write_ahead(method, member, errand));
        let mut whole = true;
        for part in join_all(recorded).await {
            match part {
                Ok(Some(part)) => parts.push(part),
                Ok(None) => batch.ran.push(Ran::Nothing),
                Err(fault) => {
                    tracing::warn!(%fault, "a settlement could not be recorded");
                    batch.ran.push(Ran::Open);
                    whole = false;
                }
            }
        }
        let outcomes = self.move_together(method, &parts, whole).await;
        let concluded = parts
            .into_iter()
            .zip(outcomes)
            .map(|(part, outcome)| async move {
                let Part {
                    member, attempted, ..
                } = part;
                let driven = insist(self, &member.op, &attempted, outcome, None).await;
                (member.channel, driven.map(|concluded| concluded.driven))
            });
        for (channel, driven) in join_all(concluded).await {
            match driven {
                Ok(Driven::Paid) => batch.ran.push(Ran::Done(ChannelAction::Settle)),
                // What all fail for may be one's alone.
                Ok(Driven::Declined(_)) => batch.alone.push(channel),
                Ok(Driven::Pending) | Err(_) => batch.ran.push(Ran::Open),
            }
        }
        batch
    }

    /// Claims a channel's errands, if it is still to be settled.
    async fn claim(
        self: &Arc<Self>,
        method: &dyn Method,
        channel: &ChannelId,
    ) -> Result<Option<Member>, Fault> {
        let key = channel_key(channel);
        let (op, claim) = (Self::nonce()?, Self::nonce()?);
        let schedule = method.schedule();
        let begun = self.begin(&key, &schedule, (&op, &claim), false);
        let Some((due, account)) = begun.await? else {
            return Ok(None);
        };
        if due != Due::Settle {
            self.end(&key, &op, None).await?;
            return Err(Fault::new("something else is due by now"));
        }
        let view = account.view(self.clock.millis());
        let channel = channel.clone();
        Ok(Some(Member {
            channel,
            key,
            op,
            claim,
            view,
        }))
    }

    /// What the rail says, for each member; `None` where it settles them one by one.
    async fn ask_together(
        self: &Arc<Self>,
        method: &dyn Method,
        members: &[Member],
    ) -> Option<Vec<Option<AnyErrand>>> {
        if members.len() < 2 {
            return None;
        }
        let channels: Vec<_> = members
            .iter()
            .map(|member| (member.channel.clone(), member.view.clone()))
            .collect();
        let asked = timeout(self.timing.settle, method.settle_together(&channels)).await;
        let upkeeps = match asked {
            Ok(Ok(upkeeps)) => upkeeps.filter(|upkeeps| upkeeps.len() == members.len())?,
            Ok(Err(fault)) => {
                tracing::warn!(%fault, "channels cannot be settled together");
                return None;
            }
            Err(_) => return None,
        };
        let mut errands = Vec::with_capacity(upkeeps.len());
        for (upkeep, member) in upkeeps.into_iter().zip(members) {
            let seen = balance::observe(self, &member.channel, &upkeep.observed).await;
            if let Err(fault) = seen {
                tracing::warn!(%fault, "what a rail saw of a channel is not recorded");
                return None;
            }
            errands.push(upkeep.errand);
        }
        Some(errands)
    }

    /// Records a member's part. `None`: it has none.
    async fn write_ahead(
        self: &Arc<Self>,
        method: &dyn Method,
        member: Member,
        errand: Option<AnyErrand>,
    ) -> Result<Option<Part>, Fault> {
        let settles = |errand: &AnyErrand| errand.action == ChannelAction::Settle;
        let errand = errand.filter(settles);
        let Some((errand, order)) = errand.and_then(|mut errand| {
            let order = errand.order.take()?;
            Some((errand, order))
        }) else {
            let now = self.clock.millis();
            self.end(&member.key, &member.op, Some(now)).await?;
            return Ok(None);
        };
        let change = ChannelChange {
            id: member.channel.clone(),
            action: errand.action,
            change: errand.change,
        };
        let terms = self.errand(method, &member.op, member.claim.clone(), change);
        let until = self.after(self.timing.reserve);
        let record = Record::new(terms, State::Reserved { until });
        let lost = || Fault::unavailable("a settlement lost its channel");
        let reserved = self
            .advance(&member.op, None, record)
            .await?
            .ok_or_else(lost)?;
        let receipt = Map::new();
        let attempted = self.attempt(&member.op, &reserved, &order, &receipt);
        let attempted = attempted.await?.ok_or_else(lost)?;
        Ok(Some(Part {
            member,
            order,
            attempted,
        }))
    }

    /// Carries out the one movement, and says of each part what became of it. Unless the parts are
    /// the `whole` of it nothing is sent.
    async fn move_together(
        &self,
        method: &dyn Method,
        parts: &[Part],
        whole: bool,
    ) -> Vec<Outcome> {
        let Some((first, others)) = parts.split_first() else {
            return Vec::new();
        };
        if !whole {
            let why = Rejection::verification("a part of the movement could not be recorded");
            return vec![Outcome::Declined(why); parts.len()];
        }
        let late = parts.iter().any(|part| match part.attempted.record.state {
            // The writes took so long that others may look it up while we settle.
            State::Attempted { until, .. } => self.after(self.timing.settle_cap) > until,
            _ => true,
        });
        if late {
            return vec![Outcome::Unknown; parts.len()];
        }
        let mut outcomes = vec![
            self.move_money(method, &first.member.op, &first.order)
                .await,
        ];
        let lookups = others.iter().map(|part| async move {
            let key = IdempotencyKey::for_challenge(&part.member.op);
            let lookup = method.settler().lookup(&key, &part.order);
            let lookup = timeout(self.timing.settle, lookup);
            effect!("lookup", lookup.await).unwrap_or(Outcome::Unknown)
        });
        outcomes.extend(join_all(lookups).await);
        outcomes
    }
}
