//! The balance machine against a model that is too simple to be wrong.

use farebox_core::{Schedule, wire::Amount};
use farebox_engine::{Charge, Lease, Refused, Tap};
use proptest::prelude::*;
use serde_json::json;

use crate::bank::World;

#[derive(Clone, Debug)]
enum Op {
    Voucher(u64),
    TopUp(u64),
    Debit(u64),
    Reserve(u64),
    Commit,
    Release,
    Lease(u64),
    Burn(u64),
    Finish,
    Tick(u64),
    EndStream,
    Close,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..300_u64).prop_map(Op::Voucher),
        1 => (0..100_u64).prop_map(Op::TopUp),
        3 => (0..20_u64).prop_map(Op::Debit),
        3 => (0..20_u64).prop_map(Op::Reserve),
        2 => Just(Op::Commit),
        2 => Just(Op::Release),
        2 => (0..40_u64).prop_map(Op::Lease),
        3 => (0..20_u64).prop_map(Op::Burn),
        1 => Just(Op::Finish),
        5 => (1..10_u64).prop_map(Op::Tick),
        1 => Just(Op::EndStream),
        1 => Just(Op::Close),
    ]
}

/// A channel in four numbers. What a stream's blocks hold is nobody's to know, so while one lives
/// only its own charges are certain.
#[derive(Default)]
struct Model {
    deposit: u64,
    authorized: u64,
    spent: u64,
    /// Held by requests and leases.
    held: u64,
    closed: bool,
}

impl Model {
    fn free(&self) -> u64 {
        self.authorized - self.spent - self.held
    }
}

async fn play(ops: Vec<Op>) {
    let mut world = World::new(Schedule::default());
    // A close that is put off must not outlast a lease.
    world.patience = std::time::Duration::from_millis(1);
    let process = world.boot();
    let open = json!({"do": "open", "n": 100, "chain": true});
    process.go(open).await.unwrap();
    let meter = process.meter();
    let mut model = Model {
        deposit: 100,
        ..Model::default()
    };
    let mut charges: Vec<(Charge, u64)> = Vec::new();
    let mut lease: Option<(Lease, u64, u64)> = None;
    let mut tap: Option<Tap> = None;
    for (n, op) in ops.into_iter().enumerate() {
        let at = format!("{n}: {op:?}");
        // A stream's spare block may keep the rest from others, but never from the payer.
        let shared = tap.is_some();
        match op {
            Op::Voucher(to) => {
                let fits = !model.closed && to >= model.authorized && to <= model.deposit;
                let went = process.go(json!({"do": "voucher", "to": to})).await;
                assert_eq!(went.is_ok(), fits, "{at}: {went:?}");
                if fits {
                    model.authorized = to;
                }
            }
            Op::TopUp(more) => {
                let top_up = json!({"do": "topup", "n": more, "proof": format!("p{n}")});
                let went = process.go(top_up).await;
                assert_eq!(went.is_ok(), !model.closed, "{at}: {went:?}");
                if !model.closed {
                    model.deposit += more;
                }
            }
            Op::Debit(cost) => {
                let went = meter.debit(Amount::new(cost.into())).await.is_ok();
                let fits = !model.closed && cost <= model.free();
                assert!(if shared { !went || fits } else { went == fits }, "{at}");
                if went {
                    model.spent += cost;
                }
            }
            Op::Reserve(cost) => {
                let went = meter.reserve(cost).await;
                let fits = !model.closed && cost <= model.free();
                assert!(
                    if shared {
                        went.is_err() || fits
                    } else {
                        went.is_ok() == fits
                    },
                    "{at}"
                );
                if let Ok(charge) = went {
                    model.held += cost;
                    charges.push((charge, cost));
                }
            }
            Op::Commit => {
                if let Some((charge, cost)) = charges.pop() {
                    charge.commit().await.unwrap();
                    (model.held, model.spent) = (model.held - cost, model.spent + cost);
                }
            }
            Op::Release => {
                if let Some((charge, cost)) = charges.pop() {
                    charge.release().await.unwrap();
                    model.held -= cost;
                }
            }
            Op::Lease(block) if lease.is_none() => {
                let went = meter.lease(Amount::new(block.into())).await;
                let fits = !model.closed && block <= model.free();
                assert!(
                    if shared {
                        went.is_err() || fits
                    } else {
                        went.is_ok() == fits
                    },
                    "{at}"
                );
                if let Ok(taken) = went {
                    model.held += block;
                    lease = Some((taken, block, 0));
                }
            }
            Op::Burn(cost) => {
                if let Some((lease, block, burnt)) = &mut lease {
                    let fits = *burnt + cost <= *block;
                    assert_eq!(lease.burn(Amount::new(cost.into())), fits, "{at}");
                    *burnt += if fits { cost } else { 0 };
                }
            }
            Op::Finish => {
                if let Some((taken, block, burnt)) = lease.take() {
                    taken.finish().await.unwrap();
                    (model.held, model.spent) = (model.held - block, model.spent + burnt);
                }
            }
            Op::Tick(units) => {
                let stream = tap.get_or_insert_with(|| meter.tap().unwrap());
                let fits = !model.closed && units <= model.free();
                let went = stream.charge(units).await;
                assert_eq!(went.is_ok(), fits, "{at}: {went:?}");
                if fits {
                    model.spent += units;
                }
            }
            Op::EndStream => {
                if let Some(stream) = tap.take() {
                    stream.finish().await.unwrap();
                }
            }
            Op::Close => {
                let went = process.go(json!({"do": "close"})).await;
                // Whoever still serves is waited for.
                let busy = model.held > 0 || shared;
                assert!(!model.closed || went.is_err(), "{at}");
                assert!(busy || model.closed || went.is_ok(), "{at}: {went:?}");
                let later = matches!(went, Err(Refused::Pending { .. }));
                assert!(went.is_ok() || model.closed || later, "{at}: {went:?}");
                model.closed |= went.is_ok();
            }
            Op::Lease(_) => {}
        }
        if tap.is_none() {
            let state = meter.state().await.unwrap();
            let now = (
                state.deposit.get(),
                state.authorized.get(),
                state.spent.get(),
            );
            let spent = model.spent + model.held;
            let due = (model.deposit, model.authorized, spent);
            assert_eq!(now, (due.0.into(), due.1.into(), due.2.into()), "{at}");
            assert_eq!(state.closed, model.closed, "{at}");
        }
        world.balances(&process, &at).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Protects: whatever is done in whatever order, exactly what was authorised and put in can be
    /// spent, by requests, blocks and streams alike, and the bank agrees.
    #[test]
    fn the_machine_does_as_the_model(ops in proptest::collection::vec(op(), 1..60)) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // A close that is put off has waited for whoever serves.
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(play(ops));
    }
}
