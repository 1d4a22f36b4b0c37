//! The suite on the sandbox's LND: what the real one is held against.

use std::sync::Arc;

use farebox_live_lightning_tests::{Pair, caps, rail, sandbox::Sandbox, session, suite};

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_holds_on_the_sandbox() {
    let nodes = Arc::new(Sandbox::start().await);
    let pair: Arc<dyn Pair> = nodes.clone();
    suite::every_rule(Arc::clone(&pair)).await;
    rail::every_rule(Arc::clone(&pair)).await;
    caps::every_rule(Arc::clone(&pair)).await;
    session::every_rule(Arc::clone(&pair)).await;
    suite::a_shop_cannot_spend(&*pair, nodes.stranger()).await;
    let restart = async || nodes.restart_seller_with_new_certificate().await;
    suite::a_node_comes_back(pair.shop(), restart).await;
}
