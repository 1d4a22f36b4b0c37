//! A stream's block of its channel's balance. The stream burns it locally, and a task of its own
//! counts what was burnt and holds on to the rest, whether anybody polls the stream or not: a payer
//! that stops reading must not have what it was served back.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use farebox_core::{ChannelState, Fault, Served, wire::Amount};
use futures_util::future::{Either, select};
use tokio::{
    sync::Mutex as Turn,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    account::{Account, Block},
    balance::BalanceError,
    engine::Shared,
    hub::Waiting,
    lease::{Deadline, Renewal},
    meter::{Meter, MeterError, exhausted},
};

/// How many units a stream takes aside at once, to begin with, at least and at most.
const FIRST: u64 = 1_024;
const LEAST: u64 = 16;
const MOST: u64 = 1 << 16;

/// A block that is burnt faster than this was too small, and slower than that too large.
const FAST: Duration = Duration::from_secs(2);
const SLOW: Duration = Duration::from_secs(20);

/// After this part of its lease a block is written anew, and one that could not be is tried again
/// this often in a lease: some times before the stream must stop burning it.
const KEPT: u32 = 2;
const TRIED: u32 = 12;

/// How long a stream may take to end by itself before its block is taken from it.
const GRACE: Duration = Duration::from_secs(1);

/// A block, shared by the stream that burns it and the task that keeps it.
pub(crate) struct Held {
    pub(crate) meter: Meter,
    id: String,
    book: Mutex<Book>,
    /// One write at a time.
    turn: Turn<()>,
}

/// Why a block is written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Its lease goes on.
    Due,
    /// Somebody needs what is left of it.
    Recalled,
    /// The channel was seen to serve nobody any more.
    Ended,
}

struct Book {
    /// What may still be burnt without a write.
    left: Amount,
    deadline: Option<Deadline>,
    /// What was served in all.
    served: Served,
    /// What had been served when the store was written to, by the writes that it may have; the last
    /// that it is known to have comes first.
    marks: Vec<Mark>,
    written: Instant,
    taken: Instant,
    /// Units of the next block, and whether the last was one at all.
    block: u64,
    whole: bool,
    /// Whether a task keeps it.
    kept: bool,
}

/// What had been served at the writes from turn `first` to turn `last`.
#[derive(Clone, Copy)]
struct Mark {
    first: u64,
    last: u64,
    served: Served,
}

/// One write.
struct Write {
    turn: u64,
    served: Served,
    marks: Vec<Mark>,
}

impl Write {
    /// Counts in `account` what was burnt since its block was written. The write before may have
    /// been carried out or not: the block tells.
    fn count(&self, account: &mut Account, block: Option<Block>, now: i64) {
        let known = |mark: &&Mark| block.is_none_or(|block| mark.first <= block.turn);
        let mark = self.marks.iter().rfind(known);
        let before = mark.map_or_else(Served::default, |mark| mark.served);
        let burnt = self.served.spent.get().saturating_sub(before.spent.get());
        let units = self.served.units.saturating_sub(before.units);
        account.burnt(Amount::new(burnt), units, now);
    }
}

impl Book {
    /// Begins a write.
    fn write(&mut self) -> Write {
        let marks = self.marks.clone();
        let turn = marks.last().map_or(1, |mark| mark.last + 1);
        let served = self.served;
        match self.marks.last_mut() {
            // Any of them counts the same, so a store that stays away costs no memory.
            Some(last) if last.served == served => last.last = turn,
            _ => self.marks.push(Mark {
                first: turn,
                last: turn,
                served,
            }),
        }
        Write {
            turn,
            served,
            marks,
        }
    }

    /// Nothing is left of the block, and the store is known to have that, and what was burnt.
    fn has_nothing_to_say(&self) -> bool {
        let known = |mark: &Mark| mark.first == mark.last && mark.served == self.served;
        self.left.is_zero() && matches!(&*self.marks, [mark] if known(mark))
    }

    /// The store has it.
    fn has(&mut self, write: &Write) {
        let (first, last) = (write.turn, write.turn);
        let served = write.served;
        self.marks = vec![Mark {
            first,
            last,
            served,
        }];
    }

    /// Sizes the next block by how fast the last one went.
    fn resize(&mut self) {
        match self.taken.elapsed() {
            fast if self.whole && fast < FAST => self.block = (self.block * 2).min(MOST),
            slow if self.whole && slow > SLOW => self.block = (self.block / 2).max(LEAST),
            _ => {}
        }
    }
}

impl Held {
    pub(crate) fn new(meter: Meter) -> Result<Self, Fault> {
        let now = Instant::now();
        let none = Mark {
            first: 0,
            last: 0,
            served: Served::default(),
        };
        Ok(Self {
            id: Shared::nonce()?,
            book: Mutex::new(Book {
                left: Amount::new(0),
                deadline: None,
                served: Served::default(),
                marks: vec![none],
                written: now,
                taken: now,
                block: FIRST,
                whole: false,
                kept: false,
            }),
            turn: Turn::new(()),
            meter,
        })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn served(&self) -> Served {
        self.book().served
    }

    pub(crate) fn left(&self) -> Amount {
        self.book().left
    }

    /// Whether its lease has run out, or none was taken.
    pub(crate) fn lapsed(&self) -> bool {
        let deadline = self.book().deadline;
        deadline.is_none_or(|deadline| deadline.passed(&self.meter.shared))
    }

    pub(crate) fn burn(&self, amount: Amount, units: u64) -> bool {
        let mut book = self.book();
        let (Some(left), Some(deadline)) = (book.left.checked_sub(amount), &book.deadline) else {
            return false;
        };
        if deadline.passed(&self.meter.shared) {
            return false;
        }
        book.left = left;
        book.served.units += units;
        book.served.spent = Amount::new(book.served.spent.get().saturating_add(amount.get()));
        true
    }

    /// Counts what was burnt and takes the next block, in one write. Where the balance does not
    /// cover `least`, what was burnt is counted all the same and an empty block says that a stream
    /// waits here. Answers how the channel stands, whether the block is enough, and the task that
    /// keeps it where that is new.
    pub(crate) async fn refill(self: &Arc<Self>, least: Amount) -> Result<Filled, MeterError> {
        let _turn = self.turn.lock().await;
        let shared = &self.meter.shared;
        let (write, block) = {
            let mut book = self.book();
            book.resize();
            // Until it is known what the store has.
            book.left = Amount::new(0);
            (book.write(), book.block)
        };
        let want = self.meter.cost(block).unwrap_or(least).max(least);
        let (now, until) = (shared.clock.millis(), shared.after(shared.timing.hold));
        // From before the write, so that a slow store shortens the lease and never stretches it.
        let deadline = Deadline::of(shared);
        let refill = self.meter.update(|account| {
            let account = account.ok_or(BalanceError::NotFound)?;
            let before = account.leases.get(&self.id).copied();
            if let Some(ours) = before.filter(|before| before.turn == write.turn) {
                // Written before, and its reply was lost.
                let answer = (ours, account.view(now), account.serves(now));
                return Ok((account.clone(), answer));
            }
            let mut next = account.clone();
            next.leases.remove(&self.id);
            write.count(&mut next, before, now);
            next.forget_lost_leases(now);
            next.end_lapsed_close(now);
            let serves = next.serves(now);
            let available = match serves {
                Ok(()) => next.available(now),
                Err(_) => Amount::new(0),
            };
            let amount = share(&next, available, least, want, now);
            let block = Block {
                amount,
                until,
                turn: write.turn,
            };
            next.leases.insert(self.id.clone(), block);
            let answer = (block, next.view(now), serves);
            Ok((next, answer))
        });
        let (block, state, serves) = refill.await?;
        let new = {
            let mut book = self.book();
            book.has(&write);
            (book.left, book.whole) = (block.amount, !block.amount.is_zero());
            (book.deadline, book.taken) = (Some(deadline), Instant::now());
            book.written = book.taken;
            !std::mem::replace(&mut book.kept, true)
        };
        let enough = match serves {
            Err(error) => Err(error.into()),
            Ok(()) if block.amount < least => Err(exhausted(&state, least)),
            Ok(()) => Ok(()),
        };
        Ok(Filled {
            state,
            enough,
            renewal: new.then(|| Renewal::of(tokio::spawn(self.clone().keep()))),
        })
    }

    /// Keeps the block until the channel serves nobody any more. The next refill begins anew.
    async fn keep(self: Arc<Self>) {
        let shared = self.meter.shared.clone();
        let retry = shared.timing.hold / TRIED;
        let recalled = shared.recalled(self.meter.key());
        let mut cause = None;
        loop {
            let now = match cause {
                Some(cause) => cause,
                None => self.next(&recalled).await,
            };
            if now == Cause::Ended && cause.is_none() {
                sleep(GRACE.min(retry)).await;
            }
            cause = Some(now);
            match self.renew(now).await {
                Ok(true) => cause = None,
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, "what a stream was served is not counted yet");
                    sleep(retry).await;
                }
            }
        }
    }

    /// Waits until the block must be written again, for whatever cause.
    async fn next(&self, recalled: &Waiting) -> Cause {
        let end = self.meter.shared.ended(self.meter.key());
        let (end, due, recall) = (pin!(end), pin!(self.due()), pin!(recalled.changed()));
        match select(end, select(due, recall)).await {
            Either::Left(_) => Cause::Ended,
            Either::Right((Either::Left(_), _)) => Cause::Due,
            Either::Right((Either::Right(_), _)) => Cause::Recalled,
        }
    }

    /// Waits until the block must be written again.
    async fn due(&self) {
        let life = self.meter.shared.timing.hold / KEPT;
        loop {
            let due = self.book().written + life;
            if Instant::now() >= due {
                return;
            }
            sleep_until(due).await;
        }
    }

    /// Counts what was burnt and holds the rest for another lease, or gives it back if it is recalled;
    /// where the channel serves nobody, or the block has lapsed, counts all of it and gives the rest
    /// back. Answers whether it goes on.
    async fn renew(&self, cause: Cause) -> Result<bool, MeterError> {
        let _turn = self.turn.lock().await;
        let shared = &self.meter.shared;
        let mut ends = cause == Cause::Ended;
        loop {
            let (write, left) = {
                let mut book = self.book();
                if cause == Cause::Due
                    && !ends
                    && book.written.elapsed() < shared.timing.hold / KEPT
                {
                    return Ok(true);
                }
                if cause == Cause::Recalled && !ends && book.has_nothing_to_say() {
                    return Ok(true);
                }
                if ends {
                    book.left = Amount::new(0);
                } else if cause == Cause::Recalled {
                    // What the stream still needs it takes again, and less of it.
                    (book.left, book.block, book.whole) = (Amount::new(0), LEAST, false);
                } else if book.taken.elapsed() > SLOW {
                    // Others may want what a slow stream does not.
                    book.block = (book.block / 2).max(LEAST);
                    let most = self.meter.cost(book.block).unwrap_or(book.left);
                    (book.left, book.taken) = (book.left.min(most), Instant::now());
                }
                (book.write(), book.left)
            };
            let kept = self.rewrite(&write, left).await;
            let mut book = self.book();
            match kept {
                Ok(Some(deadline)) => {
                    book.has(&write);
                    (book.deadline, book.written) = (Some(deadline), Instant::now());
                    return Ok(true);
                }
                // The stream may have burnt of it meanwhile.
                Ok(None) if !left.is_zero() => {
                    book.has(&write);
                    ends = true;
                }
                Ok(None) => {
                    book.has(&write);
                    book.kept = false;
                    return Ok(false);
                }
                Err(MeterError::Channel(_)) => {
                    (book.left, book.kept) = (Amount::new(0), false);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes the block with what is `left` of it. `None`: it is not held for longer than it was.
    async fn rewrite(&self, write: &Write, left: Amount) -> Result<Option<Deadline>, MeterError> {
        let shared = &self.meter.shared;
        let deadline = Deadline::of(shared);
        let (now, until) = (shared.clock.millis(), shared.after(shared.timing.hold));
        let rewrite = self.meter.update(|account| {
            let mut next = account.cloned().ok_or(BalanceError::NotFound)?;
            let Some(block) = next.leases.get(&self.id).copied() else {
                return Ok((next, false));
            };
            if block.turn == write.turn {
                // Written before, and its reply was lost.
                return Ok((next, block.until == until));
            }
            // What has lapsed others may have spent by now.
            let stands = next.serves(now).is_ok() && block.until > now;
            write.count(&mut next, Some(block), now);
            let block = Block {
                amount: left,
                until: if stands { until } else { block.until },
                turn: write.turn,
            };
            next.leases.insert(self.id.clone(), block);
            Ok((next, stands))
        });
        Ok(rewrite.await?.then_some(deadline))
    }

    /// The block is taken out in the same write that counts what was burnt of it.
    pub(crate) async fn give_back(&self) -> Result<ChannelState, MeterError> {
        let _turn = self.turn.lock().await;
        let now = self.meter.shared.clock.millis();
        let write = {
            let mut book = self.book();
            book.left = Amount::new(0);
            book.write()
        };
        let give_back = self.meter.update(|account| {
            let mut next = account.cloned().ok_or(BalanceError::NotFound)?;
            if let Some(block) = next.leases.remove(&self.id) {
                write.count(&mut next, Some(block), now);
            }
            let state = next.view(now);
            Ok((next, state))
        });
        give_back.await
    }
}

/// What a refill came to.
pub(crate) struct Filled {
    pub(crate) state: ChannelState,
    pub(crate) enough: Result<(), MeterError>,
    pub(crate) renewal: Option<Renewal>,
}

/// How much of what is `available` a stream takes: what it wants, but where others stream from the
/// same channel no more than its share; nothing where that is less than it needs.
fn share(account: &Account, available: Amount, least: Amount, want: Amount, now: i64) -> Amount {
    if available < least {
        return Amount::new(0);
    }
    let others = account.leases.values().filter(|block| block.until > now);
    let others = u128::try_from(others.count()).unwrap_or(u128::MAX);
    let fair = available.get() / others.saturating_add(1);
    Amount::new(fair.max(least.get())).min(want)
}
