//! What the page looks like, and whom it shuts out.

use farebox_page_tests::{Browser, Rails, Scheme, Shop};
use serde_json::json;

/// Protects: whoever cannot see colours, or the page at all.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium and axe-core"]
async fn everybody_can_use_it() {
    let (shop, browser) = (Shop::open(Rails::All).await, Browser::start().await);
    let sizes = [("desktop", 1280, 900), ("phone", 390, 844)];
    for (size, width, height) in sizes {
        for scheme in [Scheme::Light, Scheme::Dark] {
            browser.look(width, height, scheme).await;
            browser.open(&shop.joke()).await;
            browser.find("input[name=number]").await;
            for (n, tab) in ["card", "lightning", "tempo"].into_iter().enumerate() {
                browser
                    .find(&format!("#farebox-{n}-tab"))
                    .await
                    .click()
                    .await
                    .unwrap();
                let name = format!("{size}-{scheme:?}-{tab}").to_lowercase();
                browser.picture(&name).await;
                let found = browser.accessibility().await;
                assert!(found.is_empty(), "{name}: {found:#?}");
                let wide = "return document.documentElement.scrollWidth > innerWidth";
                assert_eq!(browser.run(wide).await, json!(false), "{name} is too wide");
            }
        }
    }
}

/// Protects: whoever has no JavaScript is told so, and not asked for money.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn without_javascript_the_page_explains_itself() {
    let (shop, browser) = (Shop::open(Rails::All).await, Browser::start().await);
    browser
        .cdp(
            "Emulation.setScriptExecutionDisabled",
            json!({ "value": true }),
        )
        .await;
    browser.open(&shop.joke()).await;
    let text = browser.until("Nothing has been charged").await;
    assert!(!text.contains("$0.50"), "{text}");
    browser.picture("no-javascript").await;
}
