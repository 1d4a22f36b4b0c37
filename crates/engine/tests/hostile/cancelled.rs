//! A client that goes away while its response is being recorded got nothing, and may come again.

use std::{sync::Arc, time::Duration};

use farebox_core::{Typed, prelude::*};
use farebox_engine::{Engine, Gate, Inbound, MemoryStore, Serving};
use farebox_testkit::{Bank, FaultyStore, Fuse, TestRail};

use crate::common::{Got, World, challenge, pay, settled};

struct Shop {
    world: World,
    bank: Arc<Bank>,
    store: Arc<FaultyStore<MemoryStore>>,
    engine: Engine,
    gate: Arc<Gate>,
}

impl Shop {
    fn new() -> Self {
        let (world, bank) = (World::new(), Arc::new(Bank::default()));
        let store = world.store();
        let rail = TestRail::settling(bank.clone(), Fuse::endless());
        let method = Arc::new(Typed::<_, Charge>::new(rail));
        let (engine, gate) = world.charge(store.clone(), method);
        Self {
            world,
            bank,
            store,
            engine,
            gate,
        }
    }

    /// Pays, and goes away once the store holds what `conclude` writes. Nobody else may be served,
    /// and then the same credential is.
    async fn left_while<F>(&self, conclude: impl FnOnce(Serving) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let credential = pay(&challenge(&self.gate).await, "t");
        let inbound = Inbound::default();
        let admission = self.gate.present(credential.clone(), &inbound).await;
        let serving = admission.unwrap().into_serving().unwrap();
        let client = tokio::spawn(conclude(serving));
        self.store.reached().await;
        client.abort();
        assert!(client.await.unwrap_err().is_cancelled());
        self.store.release();
        // A server that ends waits for it, and the lease does not have to lapse.
        let left = self.engine.drained(Duration::from_secs(10)).await;
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(self.world.record().await["state"], "paid");

        let rail = TestRail::settling(self.bank.clone(), Fuse::endless());
        let method = Arc::new(Typed::<_, Charge>::new(rail));
        let (_, next) = self.world.charge(self.world.store(), method);
        assert_eq!(settled(&next, &credential).await, Got::Served);
        assert_eq!(settled(&next, &credential).await, Got::Spent);
        assert_eq!(self.bank.transfers(), 1);
    }
}

/// Protects: a delivery that was never sent is withdrawn, before and after its write is carried out.
#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_its_delivery_is_recorded_collects_it() {
    for carried_out in [false, true] {
        let shop = Shop::new();
        let delivery = |write: &farebox_testkit::Write<'_>| write.puts("pay:", "\"delivered\"");
        match carried_out {
            true => shop.store.pause_after(delivery),
            false => shop.store.pause_before(delivery),
        }
        shop.left_while(|serving| async move { drop(serving.delivered(None).await) })
            .await;
    }
}

/// Protects: a failed handler's payment goes back though its client does not wait.
#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_its_payment_goes_back_collects_it() {
    let shop = Shop::new();
    shop.left_while(|serving| {
        shop.store
            .pause_before(|write| write.puts("pay:", "\"state\":\"paid\""));
        async move { drop(serving.failed().await) }
    })
    .await;
}
