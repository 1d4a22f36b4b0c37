//! What takes too long: prices lapse, and a payment that was made is not lost sight of.

use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use farebox_page_tests::{Browser, JOKE, PATIENCE, Rails, Shop};
use serde_json::json;

use crate::{
    goods::pay,
    wallets::{challenge, invoice, open, preimage},
};

/// Lets a test set the page's clock: to so many milliseconds after it was first read, however long it
/// took to get there; and keeps the challenges of the last renewal.
const SKIPS: &str = "window.skip = 0;
    const now = Date.now;
    let first;
    Date.now = () => {
        first ??= now();
        return window.skip ? first + window.skip : now();
    };
    const parse = DOMParser.prototype.parseFromString;
    DOMParser.prototype.parseFromString = function (...all) {
        const fresh = parse.apply(this, all);
        window.fresh = JSON.parse(fresh.getElementById('farebox-data').textContent).parts;
        return fresh;
    };";

/// A wallet for tokens that does what the test says.
fn wallet(shop: &Shop) -> String {
    format!(
        "window.ethereum = {{ request: ({{ method, params }}) => {{
            if (method === 'eth_requestAccounts') return Promise.resolve(['{}']);
            if (method === 'eth_chainId') return Promise.resolve('{:#x}');
            return new Promise((resolve, reject) => {{ window.sent = resolve; window.no = reject; }});
        }} }};",
        shop.payer(),
        shop.chain.chain_id()
    )
}

async fn press(browser: &Browser, name: &str) {
    let button = browser.find(&format!("[data-farebox={name}]")).await;
    button.click().await.unwrap();
}

/// Protects: whoever reads slowly: the invoice on the page has time left to be paid and presented, and
/// what was typed stays.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn an_invoice_is_replaced_before_it_lapses() {
    let (shop, browser) = (Shop::open(Rails::All).await, Browser::start().await);
    browser.before_pages(SKIPS).await;
    open(&shop, &browser, 1).await;
    let first = invoice(&browser).await;
    let field = browser.find("input[name=preimage]").await;
    field.send_keys("0123").await.unwrap();
    // A minute and a half is left.
    browser.run("window.skip = 215000").await;
    let deadline = Instant::now() + PATIENCE;
    while invoice(&browser).await == first {
        assert!(Instant::now() < deadline, "the invoice stays");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let typed = "const field = document.activeElement; return [field.name, field.value]";
    assert_eq!(browser.run(typed).await, json!(["preimage", "0123"]));
}

/// Protects: a payer whose wallet takes long to open: the fresh invoice is paid, not the lapsed one.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn a_wallet_that_opens_late_pays_the_fresh_invoice() {
    let (shop, browser) = (Shop::open(Rails::All).await, Browser::start().await);
    browser.before_pages(SKIPS).await;
    let webln = "window.webln = {
        enable: () => new Promise((resolve) => { window.unlock = resolve; }),
        sendPayment: (invoice) => new Promise((resolve) => {
            window.asked = invoice;
            window.paid = (preimage) => resolve({ preimage });
        }),
    };";
    browser.before_pages(webln).await;
    open(&shop, &browser, 1).await;
    let first = invoice(&browser).await;
    press(&browser, "webln").await;
    browser.until("Waiting for the wallet").await;
    browser.value("return window.unlock ? true : null").await;
    browser.run("window.skip = 299000").await;
    browser.run("window.unlock()").await;
    browser.until("Confirm within").await;
    let asked = browser.value("return window.asked").await;
    assert_eq!(asked, json!(invoice(&browser).await));
    assert_ne!(asked, json!(first));
    let fresh = browser.run("return window.fresh[1].challenge").await;
    let payload = shop.pay("lightning", &fresh).await;
    let preimage = payload["preimage"].as_str().unwrap();
    browser.run(&format!("window.paid('{preimage}')")).await;
    browser.until(JOKE).await;
    assert_eq!(shop.served(), 1);
}

/// Protects: money that went out too late to open anything: the wallet's owner is told in time, and is
/// left with what shows the payment, not with an offer to pay again; also when the page is loaded again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn a_transfer_that_comes_too_late_is_kept() {
    let (shop, browser) = (Shop::open(Rails::All).await, Browser::start().await);
    browser.before_pages(SKIPS).await;
    browser.before_pages(&wallet(&shop)).await;
    open(&shop, &browser, 2).await;
    let asked = challenge(&browser, 2).await;
    press(&browser, "wallet").await;
    browser.until("Confirm within 4 minutes.").await;
    browser.run("window.skip = 250000").await;
    browser.until("Confirm within half a minute.").await;
    browser.run("window.skip = 290000").await;
    browser.until("too late to confirm").await;

    // Its owner confirms all the same.
    let payload = shop.pay("tempo", &asked).await;
    let hash = shop.broadcast(payload["signature"].as_str().unwrap()).await;
    shop.ahead.store(301_000, SeqCst);
    browser.value("return window.sent ? true : null").await;
    browser.run(&format!("window.sent('{hash}')")).await;
    let text = browser.until("its price had lapsed").await;
    browser.picture("too-late").await;
    let found = browser.accessibility().await;
    assert!(found.is_empty(), "{found:#?}");
    assert!(text.contains(&hash) && !text.contains("$0.50"), "{text}");
    let focused = "return document.activeElement.getAttribute('role')";
    assert_eq!(browser.run(focused).await, "alert");

    browser.client().refresh().await.unwrap();
    let text = browser.until(&hash).await;
    assert!(!text.contains("$0.50"), "{text}");
    assert_eq!(shop.served(), 0);
    browser.find(".notice .pay").await.click().await.unwrap();
    pay(&browser).await;
    browser.until(JOKE).await;
    browser.client().refresh().await.unwrap();
    let text = browser.until("$0.50").await;
    assert!(!text.contains(&hash), "{text}");
}

/// Protects: the same for an invoice that was paid: its preimage is a secret, and its hash is shown.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn a_preimage_that_comes_too_late_is_not_lost() {
    let (shop, browser) = (Shop::open(Rails::All).await, Browser::start().await);
    open(&shop, &browser, 1).await;
    let asked = challenge(&browser, 1).await;
    let preimage = preimage(&shop, &browser).await;
    shop.ahead.store(301_000, SeqCst);
    let field = browser.find("input[name=preimage]").await;
    field.send_keys(&preimage).await.unwrap();
    field.send_keys("\u{e007}").await.unwrap();
    let text = browser.until("its price had lapsed").await;
    let asked: farebox::wire::Challenge = serde_json::from_value(asked).unwrap();
    let request = asked.request;
    let hash = request.value()["methodDetails"]["paymentHash"].clone();
    assert!(text.contains(hash.as_str().unwrap()), "{text}");
    assert!(!text.contains("$0.50"), "{text}");
    let kept = browser.run("return JSON.stringify(sessionStorage)").await;
    assert!(!kept.to_string().contains(&preimage), "{kept}");
}

/// Protects: a payer who leaves while the wallet is asked; and one who has told the wallet no.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn a_reload_while_a_wallet_is_asked_is_warned_of() {
    let (shop, browser) = (Shop::open(Rails::All).await, Browser::start().await);
    browser.before_pages(&wallet(&shop)).await;
    for (answer, warned) in [(None, true), (Some("window.no({ code: 4001 })"), false)] {
        open(&shop, &browser, 2).await;
        press(&browser, "wallet").await;
        browser.until("Waiting for the wallet").await;
        browser.value("return window.sent ? true : null").await;
        if let Some(answer) = answer {
            browser.run(answer).await;
            browser
                .until("That did not work. Nothing has been charged.")
                .await;
        }
        browser.reload().await;
        let text = browser
            .until(if warned { "Pay all the same" } else { "$0.50" })
            .await;
        assert_eq!(!text.contains("$0.50"), warned, "{text}");
        if warned {
            browser.find(".notice .pay").await.click().await.unwrap();
        }
    }
}
