//! The suite on LDK nodes in this process, over a stand-in Esplora.

use std::sync::Arc;

use farebox_live_lightning_tests::{Pair, caps, ldk::LdkPair, rail, session, suite};

/// Real channels, real HTLCs, real preimages.
#[tokio::test(flavor = "multi_thread")]
async fn the_suite_holds_on_ldk() {
    let nodes = Arc::new(LdkPair::start().await);
    let pair: Arc<dyn Pair> = nodes.clone();
    suite::every_rule(Arc::clone(&pair)).await;
    rail::every_rule(Arc::clone(&pair)).await;
    caps::every_rule(Arc::clone(&pair)).await;
    session::every_rule(pair).await;
    nodes.stop().await;
}

/// A real route with a real fee: a limit one msat below it pays nothing, one that meets it pays.
#[tokio::test(flavor = "multi_thread")]
async fn the_suite_holds_over_a_node_that_forwards() {
    let nodes = Arc::new(LdkPair::through_a_hop().await);
    let pair: Arc<dyn Pair> = nodes.clone();
    suite::every_rule(Arc::clone(&pair)).await;
    caps::every_rule(pair).await;
    nodes.stop().await;
}
