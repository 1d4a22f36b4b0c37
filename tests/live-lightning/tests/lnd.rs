//! The suite on two LND, as `./tests/run` builds them: what holds here holds on the sandbox.

use std::sync::Arc;

use farebox_live_lightning_tests::{Pair, caps, lnd::LndPair, rail, session, suite};

/// The same suite as on the sandbox, so that the stand-in and the real daemon cannot drift apart.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs lnd and btcd (./tests/run builds them)"]
async fn the_suite_holds_on_lnd() {
    let nodes = Arc::new(LndPair::start().await);
    let pair: Arc<dyn Pair> = nodes.clone();
    suite::every_rule(Arc::clone(&pair)).await;
    rail::every_rule(Arc::clone(&pair)).await;
    caps::every_rule(Arc::clone(&pair)).await;
    session::every_rule(Arc::clone(&pair)).await;
    suite::a_shop_cannot_spend(&*pair, nodes.stranger()).await;
    let restart = async || nodes.restart_seller_with_new_certificate().await;
    suite::a_node_comes_back(pair.shop(), restart).await;
}
