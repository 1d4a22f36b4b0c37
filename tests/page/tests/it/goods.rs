//! What is bought arrives, whatever it is and however late.

use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use farebox_page_tests::{Browser, FILE_SIZE, JOKE, PATIENCE, Rails, Shop};
use serde_json::json;

const NO_WORKERS: &str = "Object.defineProperty(navigator, 'serviceWorker', { value: undefined });";

/// Pays with a good card.
pub(crate) async fn pay(browser: &Browser) {
    for (name, text) in [
        ("number", "4242424242424242"),
        ("exp", "1230"),
        ("cvc", "123"),
    ] {
        let field = browser.find(&format!("input[name={name}]")).await;
        field.send_keys(text).await.unwrap();
    }
    browser.find(".pay").await.click().await.unwrap();
}

/// Protects: whoever loads the page again while nobody knows what became of the payment: they are
/// not asked to pay again, and get what they paid for in the end.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn a_reload_while_the_outcome_is_unknown_waits() {
    let (shop, browser) = (Shop::open(Rails::Card).await, Browser::start().await);
    shop.failures.store(usize::MAX, SeqCst);
    browser.open(&shop.joke()).await;
    pay(&browser).await;
    browser.until("The server answered 502").await;
    browser.run("setTimeout(() => location.reload(), 0)").await;
    browser.until("Do not pay again").await;
    // It has asked by itself several times by now.
    shop.failures.store(0, SeqCst);
    browser.until(JOKE).await;
    assert_eq!((shop.stripe.charged().len(), shop.served()), (1, 1));
}

/// Protects: the same where nothing has kept the credential: a warning comes before the price.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn a_payment_that_was_lost_sight_of_is_warned_of() {
    let (shop, browser) = (Shop::open(Rails::Card).await, Browser::start().await);
    browser.before_pages(NO_WORKERS).await;
    shop.failures.store(usize::MAX, SeqCst);
    browser.open(&shop.joke()).await;
    pay(&browser).await;
    browser.until("The server answered 502").await;
    browser.run("setTimeout(() => location.reload(), 0)").await;
    let text = browser.until("its outcome is not known").await;
    assert!(!text.contains("$0.50"), "{text}");
    browser.find(".notice .pay").await.click().await.unwrap();
    browser.until("$0.50").await;
}

/// Protects: a payment whose worker the browser ends: the page presents it again, and whoever loads
/// the page is warned.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn a_worker_may_end_at_any_time() {
    let (shop, browser) = (Shop::open(Rails::Card).await, Browser::start().await);
    browser.cdp("ServiceWorker.enable", json!({})).await;
    shop.failures.store(usize::MAX, SeqCst);
    browser.open(&shop.joke()).await;
    pay(&browser).await;
    browser.until("The server answered 502").await;
    browser.cdp("ServiceWorker.stopAllWorkers", json!({})).await;
    browser.run("setTimeout(() => location.reload(), 0)").await;
    let text = browser.until("for this page was under way").await;
    assert!(!text.contains("$0.50"), "{text}");

    browser.find(".notice .pay").await.click().await.unwrap();
    pay(&browser).await;
    browser.until("The server answered 502").await;
    browser.cdp("ServiceWorker.stopAllWorkers", json!({})).await;
    shop.failures.store(0, SeqCst);
    browser.until(JOKE).await;
    assert_eq!(shop.served(), 1);
}

/// Protects: two windows that pay for one address at the same time: each gets what it has paid for.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn two_windows_pay_for_themselves() {
    let (shop, browser) = (Shop::open(Rails::Card).await, Browser::start().await);
    shop.failures.store(usize::MAX, SeqCst);
    browser.open(&shop.joke()).await;
    let client = browser.client();
    let first = client.window().await.unwrap();
    let second = client.new_window(false).await.unwrap().handle;
    client.switch_to_window(second.clone()).await.unwrap();
    browser.open(&shop.joke()).await;
    for window in [&first, &second] {
        client.switch_to_window(window.clone()).await.unwrap();
        pay(&browser).await;
        browser.until("The server answered 502").await;
    }
    shop.failures.store(0, SeqCst);
    for window in [first, second] {
        client.switch_to_window(window).await.unwrap();
        browser.until(JOKE).await;
    }
    assert_eq!((shop.stripe.charged().len(), shop.served()), (2, 2));
}

/// Protects: a download that was paid for, to its last byte.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn a_download_arrives_whole() {
    let (shop, browser) = (Shop::open(Rails::Card).await, Browser::start().await);
    let folder = tempfile::tempdir().unwrap();
    let to = json!({ "behavior": "allow", "downloadPath": folder.path() });
    browser.cdp("Browser.setDownloadBehavior", to).await;
    browser.open(&format!("{}/file", shop.url)).await;
    pay(&browser).await;
    browser.until("The download has started").await;
    let file = folder.path().join("goods.bin");
    let deadline = Instant::now() + PATIENCE;
    while !file.exists() {
        assert!(Instant::now() < deadline, "no download");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let size = std::fs::metadata(&file).unwrap().len();
    assert_eq!(size, u64::try_from(FILE_SIZE).unwrap());
    assert_eq!(shop.stripe.charged().len(), 1);
}

/// Protects: a sound or a film, which a browser's player asks for a second time, also when the worker
/// that brought it has ended since.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn a_sound_can_be_heard() {
    let (shop, browser) = (Shop::open(Rails::Card).await, Browser::start().await);
    browser.open(&format!("{}/sound", shop.url)).await;
    pay(&browser).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let media = "const media = document.querySelector('video, audio');
            return media ? [media.readyState, media.error?.message ?? null, media.duration] : null";
        let state = browser.client().execute(media, Vec::new()).await;
        let state = state.unwrap_or_default();
        if state[0] == 4 {
            assert_eq!((&state[1], &state[2]), (&json!(null), &json!(2)));
            break;
        }
        assert!(Instant::now() < deadline, "{state}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    browser.cdp("ServiceWorker.enable", json!({})).await;
    browser.cdp("ServiceWorker.stopAllWorkers", json!({})).await;
    // What a player asks for when it seeks.
    let again = "const done = arguments[arguments.length - 1];
        const again = new Audio(location.href);
        again.addEventListener('durationchange', () => { again.currentTime = 1.5; });
        again.addEventListener('seeked', () => done([again.duration, again.currentTime]));
        again.addEventListener('error', () => done(again.error.message));";
    let again = browser.client().execute_async(again, Vec::new()).await;
    assert_eq!(again.unwrap(), json!([2, 1.5]));
    assert_eq!(shop.stripe.charged().len(), 1);
}

/// Protects: a redirect that was paid for.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn a_redirect_is_followed() {
    let (shop, browser) = (Shop::open(Rails::Card).await, Browser::start().await);
    redirected(&shop, &browser).await;
}

/// Protects: the same where there is no worker, and nothing says where it leads.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn a_redirect_is_followed_without_a_worker() {
    let (shop, browser) = (Shop::open(Rails::Card).await, Browser::start().await);
    browser.before_pages(NO_WORKERS).await;
    redirected(&shop, &browser).await;
}

async fn redirected(shop: &Shop, browser: &Browser) {
    browser.open(&format!("{}/away", shop.url)).await;
    pay(browser).await;
    browser.until("You are there.").await;
    let address = browser.client().current_url().await.unwrap();
    assert_eq!(address.path(), "/there");
    assert_eq!(shop.stripe.charged().len(), 1);
}
