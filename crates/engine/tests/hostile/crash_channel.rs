//! A channel's opening, top-up and close, killed before every single effect. A deposit is credited
//! exactly once per movement, the channel is closed exactly when the close moved, what was
//! captured is what was spent, and no crash leaves a channel that can be neither spent nor closed.
//! Then the process that cleans up is killed before every single effect too.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicI64, Ordering::SeqCst},
};

use farebox_core::{Store, Typed, prelude::*};
use farebox_engine::{Engine, Gate, Meter, Reconciled};
use farebox_testkit::{Fuse, FusedStore};
use serde_json::json;

use crate::common::{Got, Till, World, challenge, credential, present, session_gate};

type Moved = Arc<Mutex<Vec<(IdempotencyKey, String)>>>;

struct Process {
    engine: Engine,
    gate: Arc<Gate>,
    meter: Meter,
}

fn boot(world: &World, moved: &Moved, fuse: Fuse) -> Process {
    let store = FusedStore::new(world.disk.clone(), fuse.clone());
    boot_on(world, Arc::new(store), moved, fuse)
}

fn boot_on(world: &World, store: Arc<dyn Store>, moved: &Moved, fuse: Fuse) -> Process {
    let engine = world.engine(store);
    let till = Arc::new(Typed::new(Till::new(moved.clone(), fuse, 1_000)));
    Process {
        gate: session_gate(&engine, till),
        meter: engine.meter(Till::channel()),
        engine,
    }
}

/// The orders of one kind that moved money.
fn orders(moved: &Moved, action: &str) -> Vec<String> {
    let moved = moved.lock().unwrap();
    let orders = moved.iter().map(|(_, order)| order.clone());
    orders.filter(|order| order.starts_with(action)).collect()
}

/// One action. The process dies before effect `n` and is down for so long; the one after it dies
/// before effect `m`.
#[derive(Clone, Copy, Debug)]
struct Case {
    action: &'static str,
    order: bool,
    n: i64,
    downtime: i64,
    m: i64,
    /// The payer comes back before the reconciler runs.
    early: bool,
    /// Instead of dying, the first process does not hear of this write's success.
    deaf: Option<i64>,
}

/// Answers whether the first and the second process survived.
async fn crash(case: Case) -> (bool, bool) {
    let Case {
        action,
        order: slow,
        n,
        downtime,
        m,
        early,
        deaf,
    } = case;
    let (world, moved) = (World::new(), Moved::default());
    let well = boot(&world, &moved, Fuse::endless());
    let base = if action == "open" { 0 } else { 100 };
    if base > 0 {
        let open = json!({"do": "open", "n": base, "proof": "o"});
        let open = credential(&challenge(&well.gate).await, &open);
        assert_eq!(present(&well.gate, &open).await, Got::Served);
        well.meter.debit(Amount::new(10)).await.unwrap();
    }
    let ids = world.disk_ids().await;

    let fuse = Fuse::new(n);
    let (dying, store) = (boot(&world, &moved, fuse.clone()), world.store());
    let left = Arc::new(AtomicI64::new(deaf.unwrap_or(-1)));
    let dying = match deaf {
        None => dying,
        Some(_) => boot_on(&world, store.clone(), &moved, Fuse::endless()),
    };
    if deaf.is_some() {
        let left = left.clone();
        store.lose_reply_of(move |_| left.fetch_sub(1, SeqCst) == 0);
    }
    let payload = json!({"do": action, "n": 50, "proof": "p", "slow": slow});
    let credential = credential(&challenge(&dying.gate).await, &payload);
    let mut got = vec![present(&dying.gate, &credential).await];
    let survived = match deaf {
        None => !fuse.is_dead(),
        Some(_) => left.load(SeqCst) >= 0,
    };

    // Another replica serves the channel meanwhile, except where its close may have moved.
    let attempted = world
        .state_beyond(&ids)
        .await
        .is_some_and(|state| state != "reserved");
    let spends = well.meter.debit(Amount::new(1)).await.is_ok();
    assert!(
        action != "close" || !(attempted && spends),
        "{case:?}: spent after a close"
    );
    world.pass(downtime);
    if well.meter.debit(Amount::new(1)).await.is_ok() {
        assert!(
            action != "close" || !attempted,
            "{case:?}: spent after a close"
        );
    }

    let fuse = Fuse::new(m);
    let second = boot(&world, &moved, fuse.clone());
    if early {
        got.push(present(&second.gate, &credential).await);
        world.pass(61);
    }
    let mut found = vec![second.engine.reconcile().await.ok()];
    got.push(present(&second.gate, &credential).await);
    let both_survived = (survived, !fuse.is_dead());
    world.pass(120);

    let process = boot(&world, &moved, Fuse::endless());
    found.push(process.engine.reconcile().await.ok());
    got.push(present(&process.gate, &credential).await);
    let after = orders(&moved, action);
    let at = format!("{case:?}: {got:?}, {found:?}, moved {after:?}");

    let served = match action {
        "open" => got.iter().filter(|got| **got == Got::Served).count(),
        // Answered as often as it comes.
        _ => usize::from(got.contains(&Got::Managed)),
    };
    assert!(served <= 1 && after.len() <= 1, "{at}");
    // Without an order the proof is the payment, and is lost only if nothing was written in time.
    let lost = n == 0 && downtime > 300;
    let due = if slow {
        after.len()
    } else {
        usize::from(!lost)
    };
    assert_eq!(served, due, "{at}");
    let told = got.iter().any(|got| matches!(got, Got::Pay(_)));
    assert!(due == 0 || !told, "{at}: told to pay again");

    let state = process.meter.state().await;
    if let Ok(state) = &state {
        let credited = if action == "close" {
            0
        } else {
            due as u128 * 50
        };
        assert_eq!(state.deposit.get(), base + credited, "{at}");
        assert_eq!(state.authorized, state.deposit, "{at}");
        assert_eq!(state.closed, action == "close" && due == 1, "{at}");
        if let Some(order) = after.first().filter(|_| action == "close") {
            assert_eq!(*order, format!("close {}", state.spent), "{at}");
        }
    } else {
        assert!(action == "open" && due == 0, "{at}: the channel is gone");
    }
    assert_ne!(
        present(&process.gate, &credential).await,
        Got::Served,
        "{at}: twice"
    );
    assert_eq!(
        process.engine.reconcile().await.unwrap(),
        Reconciled::default(),
        "{at}"
    );
    assert_eq!(world.count("todo:").await, 0, "{at}: left behind");

    // A channel that is not closed can be spent, and closed for what is spent.
    if state.is_ok_and(|state| !state.closed) {
        let spent = process.meter.debit(Amount::new(3)).await.unwrap().spent;
        let close = json!({"do": "close", "slow": true});
        let close = crate::common::credential(&challenge(&process.gate).await, &close);
        assert_eq!(
            present(&process.gate, &close).await,
            Got::Managed,
            "{at}: wedged"
        );
        assert_eq!(orders(&moved, "close"), [format!("close {spent}")], "{at}");
    }
    both_survived
}

#[tokio::test(start_paused = true)]
async fn a_channels_books_balance_whenever_the_process_dies() {
    // Reserve, claim, list, attempt, move, answer, apply, record, strike, lease, deliver; a close
    // claims nothing but freezes twice.
    for (action, order, least) in [
        ("open", true, 11),
        ("topup", true, 11),
        ("close", true, 12),
        ("open", false, 6),
        ("topup", false, 6),
        ("close", false, 6),
    ] {
        for (downtime, early) in [(120, false), (110, true), (400, false), (400, true)] {
            let points = every_point(action, order, downtime, early).await;
            assert!(points >= least, "{action}: only {points} crash points");
        }
    }
}

/// Answers how many points there were for the first process to die at.
async fn every_point(action: &'static str, order: bool, downtime: i64, early: bool) -> i64 {
    for n in 0.. {
        for m in 0.. {
            let case = Case {
                action,
                order,
                n,
                downtime,
                m,
                early,
                deaf: None,
            };
            match crash(case).await {
                (true, true) => return n,
                (false, true) => break,
                _ => {}
            }
        }
    }
    0
}

#[tokio::test(start_paused = true)]
async fn a_channels_books_balance_whichever_reply_is_lost() {
    for action in ["open", "topup", "close"] {
        for order in [true, false] {
            for deaf in 0.. {
                let case = Case {
                    action,
                    order,
                    n: i64::MAX,
                    downtime: 120,
                    m: i64::MAX,
                    early: false,
                    deaf: Some(deaf),
                };
                if crash(case).await.0 {
                    assert!(deaf > 4, "{action}: only {deaf} writes");
                    break;
                }
            }
        }
    }
}

impl World {
    async fn disk_ids(&self) -> Vec<String> {
        let records = farebox_core::Store::scan(&*self.disk, "pay:")
            .await
            .unwrap();
        records.into_iter().map(|(key, _)| key).collect()
    }

    /// The state of the record that came after these.
    async fn state_beyond(&self, ids: &[String]) -> Option<String> {
        let records = farebox_core::Store::scan(&*self.disk, "pay:")
            .await
            .unwrap();
        let (_, text) = records.into_iter().find(|(key, _)| !ids.contains(key))?;
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        record["state"].as_str().map(str::to_owned)
    }
}
