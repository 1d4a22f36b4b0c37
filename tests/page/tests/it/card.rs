//! Paying by card.

use std::time::{Duration, Instant};

use farebox_page_tests::{Browser, PATIENCE, Rails, Shop};
use farebox_sandbox_stripe::{Fault, StripeConfig};
use serde_json::json;

const GOOD: &str = "4242424242424242";
const DECLINED: &str = "4000000000000002";
const TOLD: &str = "To get to the other side.";

/// Fills in a card, as soon as the page takes one.
async fn fill(browser: &Browser, number: &str) {
    browser.find(".panel .pay:enabled").await;
    for (name, text) in [("number", number), ("exp", "1230"), ("cvc", "123")] {
        let field = browser.find(&format!("input[name={name}]")).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }
}

/// Protects: a browser gets what it pays for, as a page of its own, for one charge; and loading it
/// again, or going back and forth, charges nothing.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn a_card_pays_once_and_opens_the_resource() {
    let (shop, browser) = (Shop::open(Rails::Card).await, Browser::start().await);
    browser.open("about:blank").await;
    browser.open(&shop.joke()).await;
    fill(&browser, GOOD).await;
    browser.find(".pay").await.click().await.unwrap();
    browser.until(TOLD).await;
    assert_eq!(
        browser.client().current_url().await.unwrap().as_str(),
        shop.joke()
    );
    assert_eq!(
        (shop.stripe.total("usd"), shop.stripe.charged().len()),
        (50, 1)
    );

    browser.client().refresh().await.unwrap();
    browser.until("$0.50").await;
    browser.client().back().await.unwrap();
    browser.client().forward().await.unwrap();
    browser.find(".pay").await;
    assert_eq!((shop.stripe.charged().len(), shop.served()), (1, 1));
    let complaints = browser.complaints().await;
    let refused: Vec<_> = complaints
        .iter()
        .filter(|c| c.contains("Content Security"))
        .collect();
    assert!(
        refused.is_empty(),
        "the page does what its policy forbids: {refused:?}"
    );
}

/// Protects: an impatient payer.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn a_double_click_pays_once() {
    let config = StripeConfig::default().latency(Duration::from_millis(300));
    let shop = Shop::with(Rails::Card, config).await;
    let browser = Browser::start().await;
    browser.open(&shop.joke()).await;
    fill(&browser, GOOD).await;
    browser
        .run("const pay = document.querySelector('.pay'); pay.click(); pay.click(); pay.form.requestSubmit();")
        .await;
    browser.until(TOLD).await;
    assert_eq!(shop.stripe.charged().len(), 1);
}

/// Protects: a payer whose card is declined hears what to do, and can do it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn a_declined_card_can_be_replaced() {
    let (shop, browser) = (Shop::open(Rails::Card).await, Browser::start().await);
    browser.open(&shop.joke()).await;
    fill(&browser, "4242").await;
    browser.find(".pay").await.click().await.unwrap();
    browser.until("card number is incomplete").await;
    fill(&browser, DECLINED).await;
    browser.find(".pay").await.click().await.unwrap();
    browser.until("use another payment method").await;
    browser.picture("declined").await;
    assert!(shop.stripe.charged().is_empty());
    fill(&browser, GOOD).await;
    browser.find(".pay").await.click().await.unwrap();
    browser.until(TOLD).await;
    assert_eq!(shop.stripe.charged().len(), 1);
}

/// Protects: whoever has no mouse.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn the_keyboard_is_enough() {
    let (shop, browser) = (Shop::open(Rails::All).await, Browser::start().await);
    browser.open(&shop.joke()).await;
    browser.find("input[name=number]").await;
    let tab = "\u{e004}";
    // The first tab; there and back with the arrows; then the fields, and Enter.
    let first = [tab, "\u{e014}", "\u{e012}", tab];
    for keys in first
        .into_iter()
        .chain([GOOD, tab, "1230", tab, "123", "\u{e007}"])
    {
        let focused = browser.client().active_element().await.unwrap();
        focused.send_keys(keys).await.unwrap();
    }
    browser.until(TOLD).await;
    assert_eq!(shop.stripe.charged().len(), 1);
}

/// Protects: whoever hears the page or has no mouse: an error is an alert, nothing stays locked, and the
/// focus is where it was.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn an_error_leaves_the_keyboard_where_it_was() {
    let (shop, browser) = (Shop::open(Rails::Card).await, Browser::start().await);
    browser.open(&shop.joke()).await;
    fill(&browser, DECLINED).await;
    shop.entrance.close();
    let state = "return [document.querySelector('.panel').ariaBusy,
        document.querySelectorAll('#farebox :disabled').length > 0,
        document.activeElement.name || document.activeElement.className,
        document.getElementById('farebox-alert').hidden]";
    let field = browser.client().active_element().await.unwrap();
    field.send_keys("\u{e007}").await.unwrap();
    browser.until("Paying…").await;
    assert_eq!(browser.run(state).await[0], "true");
    assert_eq!(browser.run(state).await[1], true);
    shop.entrance.open();
    browser.until("use another payment method").await;
    // Until the fresh challenge is there, nothing can be pressed.
    browser.find(".panel .pay:enabled").await;
    assert_eq!(
        browser.run(state).await,
        json!(["false", false, "cvc", false])
    );
    let role = "return document.getElementById('farebox-alert').getAttribute('role')";
    assert_eq!(browser.run(role).await, "alert");

    shop.entrance.close();
    browser.find(".panel .pay").await.click().await.unwrap();
    browser.until("Paying…").await;
    shop.entrance.open();
    browser.until("use another payment method").await;
    browser.find(".panel .pay:enabled").await;
    assert_eq!(browser.run(state).await[2], "pay", "the button has it back");
}

/// Protects: money that was taken while the answer got lost: the page asks again with the same
/// credential, and is served.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn an_unknown_outcome_is_waited_for() {
    let (shop, browser) = (Shop::open(Rails::Card).await, Browser::start().await);
    shop.stripe.fault(Fault::DropAfterCommit);
    shop.failures.store(1, std::sync::atomic::Ordering::SeqCst);
    browser.open(&shop.joke()).await;
    fill(&browser, GOOD).await;
    browser.find(".pay").await.click().await.unwrap();
    browser.until(TOLD).await;
    assert_eq!((shop.stripe.charged().len(), shop.served()), (1, 1));
}

/// Protects: whoever loads the page again while it pays.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn a_reload_during_payment_loses_nothing() {
    let (shop, browser) = (Shop::open(Rails::Card).await, Browser::start().await);
    browser.open(&shop.joke()).await;
    fill(&browser, GOOD).await;
    shop.till.close();
    browser.find(".pay").await.click().await.unwrap();
    // The charge is under way, and nothing is answered before the page has been left.
    let intents = |shop: &Shop| {
        let requests = shop.stripe.requests().into_iter();
        requests
            .filter(|r| r.method == "POST" && r.path == "/v1/payment_intents")
            .count()
    };
    let leaves = "addEventListener('beforeunload', () => navigator.sendBeacon('/left'));
        setTimeout(() => location.reload(), 0)";
    let deadline = Instant::now() + PATIENCE;
    let wait = async || {
        assert!(
            Instant::now() < deadline,
            "the page neither pays nor leaves"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    while intents(&shop) == 0 {
        wait().await;
    }
    let answer = async {
        while shop.left() == 0 {
            wait().await;
        }
        shop.till.open();
    };
    // The driver answers when the next page is there.
    tokio::join!(browser.run(leaves), answer);
    browser.until(TOLD).await;
    assert_eq!((shop.stripe.charged().len(), shop.served()), (1, 1));
}

/// Protects: browsers whose settings forbid service workers.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn without_a_service_worker_the_resource_is_shown_all_the_same() {
    let (shop, browser) = (Shop::open(Rails::Card).await, Browser::start().await);
    browser
        .before_pages("Object.defineProperty(navigator, 'serviceWorker', { value: undefined });")
        .await;
    browser.open(&shop.joke()).await;
    fill(&browser, GOOD).await;
    browser.find(".pay").await.click().await.unwrap();
    browser.until(farebox_page_tests::JOKE).await;
    assert_eq!((shop.stripe.charged().len(), shop.served()), (1, 1));
}
