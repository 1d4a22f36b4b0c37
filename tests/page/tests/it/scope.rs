//! What the page's service worker touches, and what it leaves alone.

use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use farebox_page_tests::{Browser, JOKE, PATIENCE, Rails, Shop};
use serde_json::{Value, json};

use crate::goods::pay;

/// The scopes of the workers that are registered.
async fn scopes(browser: &Browser) -> Value {
    let script = "const done = arguments[arguments.length - 1];
        navigator.serviceWorker.getRegistrations().then((all) =>
            done(all.map(({ scope }) => new URL(scope).pathname).sort()));";
    let found = browser.client().execute_async(script, Vec::new()).await;
    found.unwrap()
}

/// Protects: a site's other pages and its own service worker from the worker of a payment: they are
/// served as ever while it waits, and it goes when it is done.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn a_worker_keeps_to_its_own_address() {
    let (shop, browser) = (Shop::open(Rails::Card).await, Browser::start().await);
    browser.open(&format!("{}/there", shop.url)).await;
    let register = "const done = arguments[arguments.length - 1];
        navigator.serviceWorker.register('/worker.js', { scope: '/' })
            .then(() => navigator.serviceWorker.ready).then(() => done(true), (e) => done(String(e)));";
    let client = browser.client();
    let registered = client.execute_async(register, Vec::new()).await.unwrap();
    assert_eq!(registered, json!(true));

    shop.failures.store(usize::MAX, SeqCst);
    browser.open(&shop.joke()).await;
    pay(&browser).await;
    browser.until("The server answered 502").await;
    assert_eq!(scopes(&browser).await, json!(["/", "/joke"]));

    let paying = client.window().await.unwrap();
    let other = client.new_window(false).await.unwrap().handle;
    client.switch_to_window(other).await.unwrap();
    // A page below the paid address is in the worker's scope, and a credential is no business of it.
    browser.open(&format!("{}/joke/free", shop.url)).await;
    browser.until("Nothing to pay here.").await;
    let fetched = "const done = arguments[arguments.length - 1];
        fetch('/there').then((r) => r.text()).then(done, (e) => done(String(e)));";
    let fetched = client.execute_async(fetched, Vec::new()).await.unwrap();
    assert_eq!(fetched, json!("You are there."));
    browser.open(&format!("{}/joke?other", shop.url)).await;
    browser.until("$0.50").await;

    shop.failures.store(0, SeqCst);
    client.switch_to_window(paying).await.unwrap();
    browser.until(JOKE).await;
    assert_eq!((shop.stripe.charged().len(), shop.served()), (1, 1));
    let deadline = Instant::now() + PATIENCE;
    while scopes(&browser).await != json!(["/"]) {
        assert!(Instant::now() < deadline, "{}", scopes(&browser).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Protects: a payer whose receipt gets lost on the way, or who is answered by something that stands in
/// the server's place: nothing is taken for the goods unasked, and they can be had.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn an_answer_without_a_receipt_is_the_payers_choice() {
    let (shop, browser) = (Shop::open(Rails::Card).await, Browser::start().await);
    browser.open(&format!("{}/bare", shop.url)).await;
    pay(&browser).await;
    browser.until("without a receipt for your payment").await;
    browser.picture("without-receipt").await;
    let found = browser.accessibility().await;
    assert!(found.is_empty(), "{found:#?}");
    browser.find(".notice .pay").await.click().await.unwrap();
    browser.until(JOKE).await;
    assert_eq!((shop.stripe.charged().len(), shop.served()), (1, 1));
}
