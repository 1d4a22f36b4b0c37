//! Chromium, driven.

use std::{path::PathBuf, sync::Arc, time::Duration};

use fantoccini::{
    Client, ClientBuilder, Locator,
    elements::Element,
    wd::{Capabilities, WebDriverCompatibleCommand},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use url::Url;

use crate::driver::Driver;

/// How long the page may take for anything that is waited for, on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How often a browser is tried to be had, where memory is short or the machine busy.
const ATTEMPTS: usize = 3;

/// Which of its colours a page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `prefers-color-scheme: light`.
    Light,
    /// `prefers-color-scheme: dark`.
    Dark,
}

/// A browser with one window. It ends when it is dropped.
#[derive(Debug)]
pub struct Browser {
    client: Client,
    session: String,
    driver: Arc<Driver>,
    // Goes last, when nobody writes to it.
    _profile: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Where that fails the driver is gone, and its test has failed.
        let _ = self.driver.end(&self.session);
    }
}

impl Browser {
    /// A browser with an empty profile.
    pub async fn start() -> Self {
        let driver = tokio::task::spawn_blocking(Driver::shared).await.unwrap();
        let mut faults = Vec::new();
        for _ in 0..ATTEMPTS {
            let profile = tempfile::tempdir().unwrap();
            let client = ClientBuilder::new(fantoccini_connector())
                .capabilities(capabilities(&profile))
                .connect(&driver.url())
                .await;
            match client {
                Ok(client) => {
                    return Self {
                        session: client.session_id().await.unwrap().unwrap(),
                        client,
                        driver,
                        _profile: profile,
                    };
                }
                Err(fault) => faults.push(fault.to_string()),
            }
        }
        panic!("no browser: {faults:#?}; chromedriver: {}", driver.said());
    }

    /// What drives it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Loads an address.
    pub async fn open(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    /// The element that a CSS selector finds, as soon as there is one and it can be seen.
    pub async fn find(&self, selector: &str) -> Element {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(element) = self.client.find(Locator::Css(selector)).await
                && element.is_displayed().await.unwrap_or(false)
            {
                return element;
            }
            assert!(
                Instant::now() < deadline,
                "no {selector} in {}",
                self.source().await
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the page's text has these words, and gives the text.
    pub async fn until(&self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.text().await;
            if text.contains(words) {
                return text;
            }
            assert!(Instant::now() < deadline, "no {words:?} in {text:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// What can be read on the page; empty while it loads.
    pub async fn text(&self) -> String {
        let Ok(body) = self.client.find(Locator::Css("body")).await else {
            return String::new();
        };
        body.text().await.unwrap_or_default()
    }

    async fn source(&self) -> String {
        self.client.source().await.unwrap_or_default()
    }

    /// What a script gives back.
    pub async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// What a script gives back, once that is not null.
    pub async fn value(&self, script: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // A page that is being left runs no scripts.
            match self.client.execute(script, Vec::new()).await {
                Ok(Value::Null) | Err(_) => {}
                Ok(value) => return value,
            }
            assert!(Instant::now() < deadline, "nothing from {script}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Has the page load itself again, and waits for the next one.
    pub async fn reload(&self) {
        self.run("window.before = true; setTimeout(() => location.reload(), 0)")
            .await;
        self.value("return window.before ? null : true").await;
    }

    /// A command of Chromium's own protocol.
    pub async fn cdp(&self, command: &str, parameters: Value) -> Value {
        let command = Cdp(json!({ "cmd": command, "params": parameters }));
        self.client.issue_cmd(command).await.unwrap()
    }

    /// Runs a script in every page before the page's own.
    pub async fn before_pages(&self, script: &str) {
        let parameters = json!({ "source": script });
        self.cdp("Page.addScriptToEvaluateOnNewDocument", parameters)
            .await;
    }

    /// A window of this size, in these colours.
    pub async fn look(&self, width: u32, height: u32, scheme: Scheme) {
        let value = match scheme {
            Scheme::Light => "light",
            Scheme::Dark => "dark",
        };
        let feature = json!({ "name": "prefers-color-scheme", "value": value });
        self.cdp(
            "Emulation.setEmulatedMedia",
            json!({ "features": [feature] }),
        )
        .await;
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 2, "mobile": width < 600,
        });
        self.cdp("Emulation.setDeviceMetricsOverride", metrics)
            .await;
    }

    /// Keeps a picture of the page in `FAREBOX_SCREENSHOTS`, where that is set.
    pub async fn picture(&self, name: &str) {
        let png = self.client.screenshot().await.unwrap();
        assert!(png.starts_with(b"\x89PNG"), "a picture");
        if let Some(folder) = std::env::var_os("FAREBOX_SCREENSHOTS") {
            std::fs::write(PathBuf::from(folder).join(format!("{name}.png")), png).unwrap();
        }
    }

    /// What axe-core finds wrong with the page: rules and elements.
    pub async fn accessibility(&self) -> Vec<String> {
        let axe = std::fs::read_to_string("peers/node_modules/axe-core/axe.min.js").unwrap();
        self.run(&axe).await;
        let script = "const done = arguments[arguments.length - 1];
            axe.run(document, { resultTypes: ['violations'] }).then(
                (found) => done(found.violations.flatMap((violation) => violation.nodes.map(
                    (node) => `${violation.id}: ${node.target} ${node.failureSummary}`))),
                (error) => done([String(error)]));";
        let found = self.client.execute_async(script, Vec::new()).await.unwrap();
        let found = found.as_array().unwrap().iter();
        found
            .map(|text| text.as_str().unwrap().to_owned())
            .collect()
    }
}

fn fantoccini_connector()
-> impl hyper_util::client::legacy::connect::Connect + Clone + Send + Sync + Unpin + 'static {
    hyper_util::client::legacy::connect::HttpConnector::new()
}

fn capabilities(profile: &tempfile::TempDir) -> Capabilities {
    let arguments = [
        "--headless=new".to_owned(),
        // A container's root has no sandbox, and little shared memory.
        "--no-sandbox".to_owned(),
        "--disable-dev-shm-usage".to_owned(),
        "--disable-gpu".to_owned(),
        "--no-proxy-server".to_owned(),
        format!("--user-data-dir={}", profile.path().display()),
    ];
    let mut capabilities = Capabilities::new();
    capabilities.insert(
        "goog:chromeOptions".to_owned(),
        json!({ "args": arguments }),
    );
    capabilities.insert("goog:loggingPrefs".to_owned(), json!({ "browser": "ALL" }));
    let patience = PATIENCE.as_secs() * 1000;
    capabilities.insert("timeouts".to_owned(), json!({ "script": patience }));
    capabilities
}

#[derive(Debug)]
struct Cdp(Value);

impl WebDriverCompatibleCommand for Cdp {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, url::ParseError> {
        base.join(&format!(
            "session/{}/goog/cdp/execute",
            session.unwrap_or_default()
        ))
    }

    fn method_and_body(&self, _: &Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.0.to_string()))
    }
}

impl Browser {
    /// What the page or the browser has complained of since it was last asked: errors, and what a
    /// policy has refused.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.client.issue_cmd(Log).await.unwrap();
        let entries = log.as_array().unwrap().iter();
        let severe = entries.filter(|entry| entry["level"] == "SEVERE");
        severe.map(|entry| entry["message"].to_string()).collect()
    }
}

#[derive(Debug)]
struct Log;

impl WebDriverCompatibleCommand for Log {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, url::ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &Url) -> (http::Method, Option<String>) {
        (
            http::Method::POST,
            Some(json!({ "type": "browser" }).to_string()),
        )
    }
}
