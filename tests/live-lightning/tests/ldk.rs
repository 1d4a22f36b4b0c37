//! The suite on LDK nodes in this process, over a stand-in chain.

use std::sync::Arc;

use farebox::rails::lightning::ldk::{Ldk, Settings};
use farebox::rails::lightning::{Network, Node as _};
use farebox_live_lightning_tests::{
    Pair, caps,
    esplora::Esplora,
    ldk::{LdkPair, Source},
    rail, session, suite,
};
use farebox_test_services::free_port;

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

/// The two other ways to read the chain: real channels and payments, and a restart.
async fn the_suite_holds_on(source: Source) {
    let nodes = Arc::new(LdkPair::start_on(source).await);
    suite::every_rule(nodes.clone()).await;
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_reads_the_chain_from_an_electrum_server() {
    the_suite_holds_on(Source::Electrum).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_reads_the_chain_from_bitcoin_core() {
    the_suite_holds_on(Source::Bitcoind).await;
}

/// A node whose chain source is not there says which key to look at.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_source_that_is_away_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut esplora = Esplora::start().await;
    esplora.stop();
    let closed = free_port();
    for (source, key) in [
        (Source::Esplora, "ldk.esplora"),
        (Source::Electrum, "ldk.electrum"),
        (Source::Bitcoind, "ldk.bitcoind"),
    ] {
        let config = source.config(folder.path(), key, &esplora, closed);
        // Elsewhere than on mainnet LDK makes do without knowing what fees are.
        let settings = Settings::check(&config, Network::Mainnet).unwrap();
        let why = Ldk::new(settings).start().await.unwrap_err().to_string();
        assert!(why.contains(&format!("`{key}`")), "{source:?}: {why}");
        assert!(why.contains("its address is right"), "{source:?}: {why}");
    }
}
