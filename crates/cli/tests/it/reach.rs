//! What `serve` believes about where a request comes from and what it is called.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::Stdio,
};

use crate::common::{Running, farebox, listening, run, stderr};

const CONFIG: &str = r#"
listen  = "127.0.0.1:0"
secrets = ["a secret of 32 bytes, only for tests"]
store   = "memory:"
hosts   = ["api.example.com"]
cors    = ["https://app.example"]
trusted_proxies = ["127.0.0.1"]

[rails.proof]
chain_id = 1337
currency = "0x20c0000000000000000000000000000000000000"
recipient = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"

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

/// An answer, headers in lower case.
pub(crate) fn send(base: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(base.strip_prefix("http://").unwrap()).unwrap();
    let request = format!("{request}\nconnection: close\n\n").replace('\n', "\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.to_ascii_lowercase()
}

/// Protects: replicas agree on the realm without being told, listed hosts are realms too, only the
/// listed proxy is believed, and pages can read what they are asked.
#[test]
fn serve_is_reached_as_configured() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("farebox.toml");
    std::fs::write(&path, CONFIG).unwrap();
    let mut command = farebox(&["serve", "--config", path.to_str().unwrap()]);
    for name in PLATFORM {
        command.env_remove(name);
    }
    let command = command
        .env("FLY_APP_NAME", "the-shop")
        .env("HOSTNAME", "pod-7")
        .env("HOST", "pod-7")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = Running(command.spawn().unwrap());
    let lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let base = lines
        .map(Result::unwrap)
        .find_map(|line| {
            let base = listening(&line)?;
            assert!(line.contains("realm the-shop"), "{line}");
            Some(base)
        })
        .unwrap();
    let asked = |headers: &str| send(&base, &format!("GET /joke HTTP/1.1\n{headers}"));
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
        &base,
        "OPTIONS /joke HTTP/1.1\nhost: x\norigin: https://app.example\n\
         access-control-request-method: GET\naccess-control-request-headers: authorization",
    );
    assert!(preflight.starts_with("http/1.1 200"), "{preflight}");
    assert!(preflight.contains("access-control-allow-headers: authorization"));
    running.0.kill().unwrap();
    let mut log = String::new();
    let mut errors = running.0.stderr.take().unwrap();
    errors.read_to_string(&mut log).unwrap();
    assert!(
        log.contains("FLY_APP_NAME"),
        "the log says whose word it is: {log}"
    );
}

/// Protects: nothing names the realm, and the error says what to set.
#[test]
fn a_missing_realm_is_an_error_that_says_what_to_set() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("farebox.toml");
    std::fs::write(&path, CONFIG).unwrap();
    let mut command = farebox(&["check", path.to_str().unwrap()]);
    for name in PLATFORM {
        command.env_remove(name);
    }
    let output = command.env("HOSTNAME", "pod-7").output().unwrap();
    assert!(!output.status.success());
    let said = stderr(&output);
    assert!(
        said.contains("realm") && said.contains("MPP_REALM"),
        "{said}"
    );
    assert!(!said.contains("pod-7"), "{said}");
    let named = CONFIG.replacen("listen", "realm = \"named.example\"\nlisten", 1);
    std::fs::write(&path, named).unwrap();
    assert!(run(&["check", path.to_str().unwrap()]).status.success());
}

/// Protects: a 402 for five offers fits the 8 KB that proxies and clients take in headers.
#[test]
fn five_offers_fit_the_headers_that_proxies_take() {
    let (_sandbox, printed) = Running::start(&["sandbox", "--json"], |line| {
        serde_json::from_str::<serde_json::Value>(line).ok()
    });
    let mut config = printed["config"].clone();
    config["listen"] = "127.0.0.1:0".into();
    config["realm"] = "payments.some-longer-name.example.com".into();
    let route = &mut config["routes"][0];
    let offers = route["offers"].as_array_mut().unwrap();
    let tempo = offers.iter().find(|offer| offer["rail"] == "tempo/charge");
    let mut dearer = tempo.unwrap().clone();
    dearer["amount"] = "1.25".into();
    offers.push(dearer);
    for offer in offers.iter_mut() {
        offer["description"] = "One report on the weather of the coming week, by the hour".into();
        offer["external_id"] = "order-2f1c9a64-30c4-4b2e-9c53-5f8a1d1f6f10".into();
    }
    assert_eq!(offers.len(), 5);
    let path = route["path"].as_str().unwrap().to_owned();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("farebox.toml");
    std::fs::write(&file, toml::to_string(&config).unwrap()).unwrap();
    let (_serve, base) = Running::start(&["serve", "--config", file.to_str().unwrap()], listening);
    let answer = send(&base, &format!("GET {path} HTTP/1.1\nhost: x"));
    let head = answer.split("\r\n\r\n").next().unwrap();
    assert_eq!(head.matches("www-authenticate: ").count(), 5, "{head}");
    assert!(head.len() < 8 * 1024, "{} bytes:\n{head}", head.len());
}
