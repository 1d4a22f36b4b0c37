//! The suite on two LDK nodes in this process, over a stand-in Esplora.

use std::sync::Arc;

use farebox_live_lightning_tests::{Pair, ldk::LdkPair, rail, session, suite};

/// Real channels, real HTLCs, real preimages.
#[tokio::test(flavor = "multi_thread")]
async fn the_suite_holds_on_ldk() {
    let nodes = Arc::new(LdkPair::start().await);
    let pair: Arc<dyn Pair> = nodes.clone();
    suite::every_rule(Arc::clone(&pair)).await;
    rail::every_rule(Arc::clone(&pair)).await;
    session::every_rule(pair).await;
    nodes.stop().await;
}
