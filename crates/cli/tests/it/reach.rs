//! What `serve` believes about where a request comes from and what it is called.

use std::process::Command;

use crate::common::{Market, PROOF, Running, farebox, listening, output, send, stderr};

const CONFIG: &str = r#"
listen  = "127.0.0.1:0"
secrets = ["a secret of 32 bytes, only for tests"]
store   = "memory:"
hosts   = ["api.example.com"]
cors    = ["https://app.example"]
trusted_proxies = ["127.0.0.1"]

[[routes]]
path = "/joke"
respond = "a joke"
offers = [{ rail = "proof/charge", amount = "0" }]
"#;

const PLATFORM: [&str; 7] = [
    "MPP_REALM",
    "FLY_APP_NAME",
    "HEROKU_APP_NAME",
    "RAILWAY_PUBLIC_DOMAIN",
    "RENDER_EXTERNAL_HOSTNAME",
    "VERCEL_URL",
    "WEBSITE_HOSTNAME",
];

/// A command without a word of the platform's, and a configuration for it.
fn alone(command: &[&str], config: &str) -> (Command, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("farebox.toml");
    std::fs::write(&path, format!("{config}{PROOF}")).unwrap();
    let mut command = farebox(command);
    command.arg(path);
    for name in PLATFORM {
        command.env_remove(name);
    }
    (command, dir)
}

/// Protects: replicas agree on the realm without being told, listed hosts are realms too, only the
/// listed proxy is believed, and pages can read what they are asked.
#[test]
fn serve_is_reached_as_configured() {
    let (mut command, _dir) = alone(&["serve", "--config"], CONFIG);
    command
        .env("FLY_APP_NAME", "the-shop")
        .env("HOSTNAME", "pod-7")
        .env("HOST", "pod-7");
    let (mut running, base) = Running::begin(&mut command, |line| {
        let base = listening(line)?;
        assert!(line.contains("realm the-shop"), "{line}");
        Some(base)
    });
    let send = |request: &str| send(&base, request).to_ascii_lowercase();
    let asked = |headers: &str| send(&format!("GET /joke HTTP/1.1\n{headers}"));
    let direct = asked("host: evil.example");
    assert!(direct.starts_with("http/1.1 402"), "{direct}");
    assert!(direct.contains("realm=\"the-shop\""), "{direct}");
    let listed = asked("host: API.example.com:443\norigin: https://app.example");
    assert!(listed.contains("realm=\"api.example.com\""), "{listed}");
    assert!(listed.contains("access-control-allow-origin: https://app.example"));
    assert!(listed.contains("access-control-expose-headers: www-authenticate"));
    let forwarded = asked("host: x\nx-forwarded-proto: https\nx-forwarded-host: api.example.com");
    assert!(
        forwarded.contains("realm=\"api.example.com\""),
        "{forwarded}"
    );
    let plain = asked("host: x\nx-forwarded-proto: http\norigin: https://app.example");
    assert!(plain.starts_with("http/1.1 403"), "{plain}");
    assert!(!plain.contains("www-authenticate: "), "{plain}");
    assert!(plain.contains("access-control-allow-origin: https://app.example"));
    let preflight = send(
        "OPTIONS /joke HTTP/1.1\nhost: x\norigin: https://app.example\n\
         access-control-request-method: GET\naccess-control-request-headers: authorization",
    );
    assert!(preflight.starts_with("http/1.1 200"), "{preflight}");
    assert!(preflight.contains("access-control-allow-headers: authorization"));
    running.child.kill().unwrap();
    let log = stderr(&running.output());
    assert!(
        log.contains("FLY_APP_NAME"),
        "the log says whose word it is: {log}"
    );
}

/// Protects: nothing names the realm, and the error says what to set.
#[test]
fn a_missing_realm_is_an_error_that_says_what_to_set() {
    let (mut command, _dir) = alone(&["check"], CONFIG);
    let refused = output(command.env("HOSTNAME", "pod-7"));
    assert!(!refused.status.success());
    let said = stderr(&refused);
    assert!(
        said.contains("realm") && said.contains("MPP_REALM"),
        "{said}"
    );
    assert!(!said.contains("pod-7"), "{said}");
    let named = CONFIG.replacen("listen", "realm = \"named.example\"\nlisten", 1);
    let (mut command, _dir) = alone(&["check"], &named);
    assert!(output(&mut command).status.success());
}

/// Protects: a 402 for five offers fits the 8 KB that proxies and clients take in headers.
#[test]
fn five_offers_fit_the_headers_that_proxies_take() {
    let market = Market::of(|config| {
        config["realm"] = "payments.some-longer-name.example.com".into();
        let offers = config["routes"][0]["offers"].as_array_mut().unwrap();
        let tempo = offers.iter().find(|offer| offer["rail"] == "tempo/charge");
        let mut dearer = tempo.unwrap().clone();
        dearer["amount"] = "1.25".into();
        offers.push(dearer);
        for offer in offers.iter_mut() {
            offer["description"] =
                "One report on the weather of the coming week, by the hour".into();
            offer["external_id"] = "order-2f1c9a64-30c4-4b2e-9c53-5f8a1d1f6f10".into();
        }
        assert_eq!(offers.len(), 5);
    });
    let answer = send(&market.base, "GET /joke HTTP/1.1\nhost: x").to_ascii_lowercase();
    let head = answer.split("\r\n\r\n").next().unwrap();
    assert_eq!(head.matches("www-authenticate: ").count(), 5, "{head}");
    assert!(head.len() < 8 * 1024, "{} bytes:\n{head}", head.len());
}
