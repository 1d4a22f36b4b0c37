//! What the page looks like, and whom it shuts out.

use farebox::http::{Look, server::page::Colors};
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

/// Protects: an operator's own template, logo and colours, which the page's policy lets through.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium and axe-core"]
async fn an_operators_own_look_holds() {
    const LOGO: &[u8] = br##"<svg xmlns="http://www.w3.org/2000/svg" width="36" height="36">
        <rect width="36" height="36" rx="8" fill="#0a7d55"/></svg>"##;
    const TEMPLATE: &str = r#"<!doctype html>
        <html lang="en"><head><meta name="viewport" content="width=device-width">
        <title>{{ heading }}</title>{{ style }}
        <style nonce="{{ nonce }}">.sheet { border-top: 6px solid rgb(1, 2, 3) }</style></head>
        <body><main class="sheet"><header><img src="{{ logo }}" alt="{{ title }}"></header>
        <h1>{{ heading }}</h1>{{ payment }}</main>{{ script }}</body></html>"#;
    let look = Look::new()
        .title("Green Grocer")
        .logo("logo.svg", LOGO)
        .colors(
            Colors::new().accent("#0a7d55"),
            Colors::new().accent("#4fd1a1"),
        )
        .template(TEMPLATE);
    let shop = Shop::looking(Rails::Card, Default::default(), look).await;
    let browser = Browser::start().await;
    for scheme in [Scheme::Light, Scheme::Dark] {
        browser.look(900, 800, scheme).await;
        browser.open(&shop.joke()).await;
        browser.find("input[name=number]").await;
        browser
            .picture(&format!("own-{scheme:?}").to_lowercase())
            .await;
        let seen = "return [document.images[0].naturalWidth,
            getComputedStyle(document.querySelector('main')).borderTopColor]";
        assert_eq!(browser.run(seen).await, json!([36, "rgb(1, 2, 3)"]));
        let found = browser.accessibility().await;
        assert!(found.is_empty(), "{scheme:?}: {found:#?}");
    }
    let refused = browser.complaints().await;
    assert!(
        !refused.iter().any(|c| c.contains("Content Security")),
        "{refused:?}"
    );
}
