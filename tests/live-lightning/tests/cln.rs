//! The suite through the backend for Core Lightning, on the sandbox's stand-in for it.

use std::sync::Arc;

use farebox_live_lightning_tests::{Pair, caps, cln::ClnPair, rail, session, suite};

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_holds_on_core_lightnings_stand_in() {
    let pair: Arc<dyn Pair> = Arc::new(ClnPair::start().await);
    suite::every_rule(Arc::clone(&pair)).await;
    rail::every_rule(Arc::clone(&pair)).await;
    caps::every_rule(Arc::clone(&pair)).await;
    session::every_rule(pair).await;
}
