//! Replicas that pause, die and lose replies, clocks that jump, and payers who present everything
//! everywhere: hundreds of histories, each repeatable by its seed.

use std::sync::{Arc, Mutex};

use farebox_core::{Typed, prelude::*, wire::Credential};
use farebox_engine::Reconciled;
use farebox_testkit::{Bank, Between, Call, Fuse, Proxy, TestRail};

use crate::common::{Got, World, challenge, pay, present};

/// Marsaglia's xorshift: enough to shuffle tasks.
struct Dice(Mutex<u64>);

impl Dice {
    fn roll(&self, sides: u64) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state % sides
    }

    async fn dawdle(&self, sides: u64) {
        for _ in 0..self.roll(sides) {
            tokio::task::yield_now().await;
        }
    }
}

/// A replica's way to the disk: slow, mortal, and deaf now and then.
struct Chaos {
    dice: Arc<Dice>,
    fuse: Fuse,
    deaf: bool,
}

impl Between for Chaos {
    async fn call<T: Send>(
        &self,
        call: Call<'_>,
        reply: impl Future<Output = Result<T, Fault>> + Send,
    ) -> Result<T, Fault> {
        let writes = matches!(call, Call::Write(_));
        // Now and then for long, so that reservations lapse under their holders.
        let patience = match writes && self.dice.roll(8) == 0 {
            true => 300,
            false => 6,
        };
        self.dice.dawdle(patience).await;
        let reply = self.fuse.call(call, reply).await;
        if writes {
            self.dice.dawdle(6).await;
            if self.deaf && self.dice.roll(12) == 0 {
                return Err(Fault::unavailable("the reply was lost"));
            }
        }
        reply
    }
}

fn rail(bank: &Arc<Bank>, fuse: Fuse, prepaid: bool) -> Arc<Typed<TestRail, Charge>> {
    Arc::new(Typed::new(match prepaid {
        true => TestRail::prepaid(bank.clone(), fuse),
        false => TestRail::settling(bank.clone(), fuse),
    }))
}

async fn history(seed: u64, prepaid: bool) {
    let (world, bank) = (Arc::new(World::new()), Arc::new(Bank::default()));
    let dice = Arc::new(Dice(Mutex::new(
        seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
    )));
    let mut replicas = Vec::new();
    for n in 0..3 {
        let mortal = n > 0 && dice.roll(2) == 0;
        let fuse = match mortal {
            true => Fuse::new(i64::try_from(dice.roll(16)).unwrap()),
            false => Fuse::endless(),
        };
        let chaos = Chaos {
            dice: dice.clone(),
            fuse: fuse.clone(),
            deaf: !mortal,
        };
        let store = Arc::new(Proxy::new(world.disk.clone(), chaos));
        replicas.push(world.charge(store, rail(&bank, fuse, prepaid)));
    }
    let (calm, gate) = world.charge(world.store(), rail(&bank, Fuse::endless(), prepaid));
    // Two challenges, and two proofs of which each is tried with both.
    let challenges = [challenge(&gate).await, challenge(&gate).await];
    let credentials: Vec<(usize, Credential)> = (0..4)
        .map(|n| (n % 2, pay(&challenges[n / 2], ["x", "y"][n % 2])))
        .collect();

    let served = Arc::new(Mutex::new([0; 2]));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (engine, gate) = replicas[usize::try_from(dice.roll(3)).unwrap()].clone();
        let (proof, credential) = credentials[usize::try_from(dice.roll(4)).unwrap()].clone();
        let (dice, world, served) = (dice.clone(), world.clone(), served.clone());
        tasks.spawn(async move {
            dice.dawdle(600).await;
            world.pass(i64::try_from(dice.roll(35)).unwrap());
            if dice.roll(4) == 0 {
                // A dead replica's run fails; what it would have found is found by another.
                let _ = engine.reconcile().await;
            } else if present(&gate, &credential).await == Got::Served {
                served.lock().unwrap()[proof] += 1;
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    // Settlements go on without their clients.
    for _ in 0..3_000 {
        tokio::task::yield_now().await;
    }

    // What is left is found by a replica that is well, within a few runs.
    for _ in 0..3 {
        world.pass(130);
        calm.reconcile().await.unwrap();
        for (proof, credential) in &credentials {
            if present(&gate, credential).await == Got::Served {
                served.lock().unwrap()[*proof] += 1;
            }
        }
    }
    let at = format!("seed {seed}, prepaid {prepaid}");
    let served = *served.lock().unwrap();
    if prepaid {
        assert!(served.iter().all(|times| *times <= 1), "{at}: {served:?}");
    } else {
        assert_eq!(bank.transfers(), bank.moved(), "{at}: settled twice");
        assert_eq!(
            served.iter().sum::<usize>(),
            bank.moved(),
            "{at}: {served:?}"
        );
    }
    assert_eq!(
        calm.reconcile().await.unwrap(),
        Reconciled::default(),
        "{at}"
    );
    assert_eq!(world.count("todo:").await, 0, "{at}");
    for (_, credential) in &credentials {
        let got = present(&gate, credential).await;
        assert!(matches!(got, Got::Spent | Got::Pay(_)), "{at}: {got:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_a_proof_is_served_once_and_money_moves_as_often_as_it_is_served() {
    for seed in 1..=120 {
        for prepaid in [false, true] {
            history(seed, prepaid).await;
        }
    }
}
