//! Paying with wallets that live elsewhere: in the browser, or on a phone.

use farebox_page_tests::{Browser, JOKE, Rails, Shop};
use serde_json::{Value, json};

/// The invoice that the page shows.
pub(crate) async fn invoice(browser: &Browser) -> String {
    let selector = "a[href^='lightning:']";
    loop {
        browser.find(selector).await;
        // Found and read apart, it may be replaced in between.
        let script = format!("return document.querySelector(\"{selector}\")?.getAttribute('href')");
        if let Some(href) = browser.run(&script).await.as_str() {
            return href.strip_prefix("lightning:").unwrap().to_owned();
        }
    }
}

/// The challenge of the page's n-th part.
pub(crate) async fn challenge(browser: &Browser, part: usize) -> Value {
    let data = "return JSON.parse(document.getElementById('farebox-data').textContent)";
    browser.run(data).await["parts"][part]["challenge"].clone()
}

/// Pays the page's invoice from the sandbox's other node, and gives the preimage.
pub(crate) async fn preimage(shop: &Shop, browser: &Browser) -> String {
    let payload = shop.pay("lightning", &challenge(browser, 1).await).await;
    payload["preimage"].as_str().unwrap().to_owned()
}

pub(crate) async fn open(shop: &Shop, browser: &Browser, tab: usize) {
    browser.open(&shop.joke()).await;
    browser
        .find(&format!("#farebox-{tab}-tab"))
        .await
        .click()
        .await
        .unwrap();
}

/// Protects: a payer whose browser has a wallet presses one button.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn a_lightning_wallet_in_the_browser_pays() {
    let (shop, browser) = (Shop::open(Rails::All).await, Browser::start().await);
    // A wallet that asks this test to pay.
    browser
        .before_pages(
            "window.webln = {
                enable: async () => {},
                sendPayment: (invoice) => new Promise((resolve) => {
                    window.asked = invoice;
                    window.paid = (preimage) => resolve({ preimage });
                }),
            };",
        )
        .await;
    open(&shop, &browser, 1).await;
    let shown = invoice(&browser).await;
    browser
        .find("[data-farebox=webln]")
        .await
        .click()
        .await
        .unwrap();
    browser.until("Waiting for the wallet").await;
    // It waits before it asks, too.
    let asked = browser.value("return window.asked").await;
    assert_eq!(asked, json!(shown));
    let preimage = preimage(&shop, &browser).await;
    browser.run(&format!("window.paid('{preimage}')")).await;
    browser.until(JOKE).await;
    assert_eq!(shop.served(), 1);
    assert!(shop.stripe.charged().is_empty());
}

/// Protects: a payer who scans the code with a phone, and brings the proof; nothing else opens the
/// page, and a wallet that fails charges nothing.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn a_preimage_can_be_pasted() {
    let (shop, browser) = (Shop::open(Rails::All).await, Browser::start().await);
    browser
        .before_pages("window.webln = { enable: async () => { throw new Error('locked'); } };")
        .await;
    open(&shop, &browser, 1).await;
    browser
        .find("[data-farebox=webln]")
        .await
        .click()
        .await
        .unwrap();
    browser.until("did not confirm the payment: locked").await;
    let field = browser.find("input[name=preimage]").await;
    for (text, said) in [
        ("abc", "64 hexadecimal digits"),
        (&"0".repeat(64), "another invoice"),
    ] {
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
        field.send_keys("\u{e007}").await.unwrap();
        browser.until(said).await;
    }
    assert_eq!(shop.served(), 0);
    let preimage = preimage(&shop, &browser).await;
    field.clear().await.unwrap();
    field.send_keys(&preimage).await.unwrap();
    field.send_keys("\u{e007}").await.unwrap();
    browser.until(JOKE).await;
    assert_eq!(shop.served(), 1);
}

/// Protects: a browser's wallet that knows nothing of this protocol sends the one transfer that
/// pays, and its hash opens the page.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn a_wallet_for_tokens_pays() {
    let (shop, browser) = (Shop::open(Rails::All).await, Browser::start().await);
    let account = shop.payer();
    browser
        .before_pages(&format!(
            "window.ethereum = {{ request: ({{ method, params }}) => {{
                if (method === 'eth_requestAccounts') return Promise.resolve(['{account}']);
                if (method === 'eth_chainId') return Promise.resolve('{:#x}');
                return new Promise((resolve) => {{ window.asked = params[0]; window.sent = resolve; }});
            }} }};",
            shop.chain.chain_id()
        ))
        .await;
    open(&shop, &browser, 2).await;
    browser
        .find("[data-farebox=wallet]")
        .await
        .click()
        .await
        .unwrap();
    browser.until("Waiting for the wallet").await;
    let asked = browser.value("return window.asked").await;
    assert_eq!(
        (&asked["from"], &asked["value"]),
        (&json!(account), &json!("0x0"))
    );
    // A wallet signs other transactions than this one, but the call is the same.
    let payload = shop.pay("tempo", &challenge(&browser, 2).await).await;
    let (raw, call) = (
        payload["signature"].as_str().unwrap(),
        asked["data"].as_str().unwrap(),
    );
    assert!(
        raw.contains(call.trim_start_matches("0x")),
        "{call} in {raw}"
    );
    let hash = shop.broadcast(raw).await;
    browser.run(&format!("window.sent('{hash}')")).await;
    browser.until(JOKE).await;
    assert_eq!(shop.served(), 1);
}
