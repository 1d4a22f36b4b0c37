//! Everything wrong with a configuration is said at once, with the key and the remedy.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use farebox::{
    Server,
    config::{Answer, Config, Wallets, from_env},
};
use serde_json::json;

const GOOD: &str = r#"
realm = "api.example.com"
secrets = ["a secret of 32 bytes, only for tests", "another one of 32 bytes, for tests"]
store = "memory:"

[rails.tempo]
rpc_url = "http://127.0.0.1:8545"
chain_id = 1337
currency = "0x20c0000000000000000000000000000000000000"
recipient = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"

[rails.stripe]
secret_key = "sk_test_0"
network_id = "internal"
payment_method_types = ["card"]

[[routes]]
path = "/joke"
respond = "a joke"
offers = [
  { rail = "tempo/charge", amount = "0.01" },
  { rail = "stripe/charge", amount = "0.50", currency = "usd" },
]

[[routes]]
path = "/files/{*rest}"
method = "POST"
upstream = "http://127.0.0.1:9000/api/"
offers = [{ rail = "tempo/charge", amount = "0.02", description = "a file" }]
"#;

fn problems(text: &str) -> Vec<(String, String)> {
    let invalid = Config::gateway(text).expect_err("it is wrong");
    invalid
        .into_issues()
        .into_iter()
        .map(|issue| (issue.key, issue.problem))
        .collect()
}

fn keys(text: &str) -> Vec<String> {
    problems(text).into_iter().map(|(key, _)| key).collect()
}

/// Protects: card payers behind one proxy from each other: the page's token limit must know them apart.
#[cfg(feature = "page")]
#[test]
fn a_page_with_cards_behind_a_proxy_tells_clients_apart() {
    let cards = GOOD.replace(
        "[rails.stripe]",
        "[rails.stripe]\npublishable_key = \"pk_test_0\"",
    );
    let proxied = format!("trusted_proxies = [\"10.0.0.0/8\"]\n{cards}");
    assert_eq!(keys(&proxied), ["challenge_limit"]);
    for fine in [
        cards.clone(),
        format!("page = false\n{proxied}"),
        format!("challenge_limit = {{ unpaid = 60, header = \"x-real-ip\" }}\n{proxied}"),
        format!("trusted_proxies = [\"10.0.0.0/8\"]\n{GOOD}"),
    ] {
        assert!(Config::gateway(&fine).is_ok(), "{fine}");
    }
}

/// Protects: an unpaid-challenge limit that counts every client as one, or none at all.
#[test]
fn a_limit_on_unpaid_challenges_is_read_or_named() {
    let with = |line: &str| format!("{line}\n{GOOD}");
    let config = Config::gateway(&with("challenge_limit = { unpaid = 3 }")).unwrap();
    let limit = config.challenge_limit.unwrap();
    let minute = std::time::Duration::from_secs(60);
    assert_eq!((limit.unpaid, limit.forgive_every), (3, minute));
    assert_eq!(limit.header, None);
    let header = r#"challenge_limit = { unpaid = 3, forgive_every = "5s", header = "X-Real-IP" }"#;
    let limit = Config::gateway(&with(header)).unwrap().challenge_limit;
    assert_eq!(limit.unwrap().header.as_deref(), Some("x-real-ip"));

    for (line, key, remedy) in [
        ("challenge_limit = 3", "challenge_limit", "give a table"),
        (
            "challenge_limit = {}",
            "challenge_limit.unpaid",
            "give how many",
        ),
        (
            "challenge_limit = { unpaid = 0 }",
            "challenge_limit.unpaid",
            "from 1 to",
        ),
        (
            "challenge_limit = { unpaid = 1, forgive_every = 5 }",
            "challenge_limit.forgive_every",
            "such as \"30s\"",
        ),
        (
            "challenge_limit = { unpaid = 1, header = \"x y\" }",
            "challenge_limit.header",
            "x-real-ip",
        ),
        (
            "challenge_limit = { unpaid = 1, headr = \"x\" }",
            "challenge_limit.headr",
            "mean `header`",
        ),
        (
            "challenge_limit = { unpaid = 1 }\ntrusted_proxies = [\"10.0.0.1\"]",
            "challenge_limit.header",
            "behind a proxy",
        ),
    ] {
        let found = problems(&with(line));
        assert_eq!(found[0].0, key, "{line}: {found:?}");
        assert!(found[0].1.contains(remedy), "{line}: {found:?}");
    }
}

/// Protects: a rail that nothing can stand in for from being called a route without offers.
#[test]
fn a_broken_rail_is_not_a_missing_offer() {
    let text = r#"
realm = "api.example.com"
secrets = ["a secret of 32 bytes, only for tests"]
store = "memory:"

[rails.lightning]
backend = "cln"
cln = { endpoint = "http://127.0.0.1:9736", ca_cert = "a", client_cert = "b", client_key = "c" }

[[routes]]
path = "/joke"
respond = "a joke"
offers = [{ rail = "lightning/charge", amount = "21" }]
"#;
    let expected = ["endpoint", "ca_cert", "client_cert", "client_key"]
        .map(|key| format!("rails.lightning.cln.{key}"));
    assert_eq!(keys(text), expected);
}

#[test]
fn a_good_configuration_is_read() {
    let config = Config::gateway(GOOD).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8402");
    let scopes: Vec<_> = config.routes.iter().map(|r| r.gate.route()).collect();
    assert_eq!(scopes, ["GET /joke", "POST /files/{*rest}"]);
    assert_eq!(config.routes[0].gate.offers().iter().len(), 2);
    assert_eq!(config.routes[0].answer, Answer::Respond("a joke".into()));
    let upstream = Answer::Upstream("http://127.0.0.1:9000/api".into());
    assert_eq!(config.routes[1].answer, upstream);
}

/// Protects: the list of the first light, in one answer and not one by one.
#[test]
fn every_problem_is_reported_at_once() {
    let amounts = ["0x10", "1e3", "+1", "", "0.0000001"];
    let offers: Vec<String> = amounts
        .map(|a| format!("{{ rail = \"tempo/charge\", amount = \"{a}\" }}"))
        .to_vec();
    let text = format!(
        r#"
realm = "api.example.com"
secrets = ["too short"]
store = "memory:"
[rails.tempo]
rpc_url = "http://127.0.0.1:8545"
chain_id = 1337
currency = "0x20c0000000000000000000000000000000000000"
recipient = "nobody"
[rails.lightning]
backend = "lnd"
endpoint = "https://127.0.0.1:10009"
tls_cert = {{ file = "/does/not/exist/tls.cert" }}
macaroon = "00"
network = "regtest"
[rails.paypal]
[[routes]]
path = "/joke"
respond = "a joke"
offers = [{}, {{ rail = "tempo/sesion", amount = "1" }}]
"#,
        offers.join(", ")
    );
    let found = problems(&text);
    let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "secrets[0]",
            "rails.lightning.tls_cert",
            "rails.paypal",
            "rails.tempo.recipient",
            "routes[0].offers[0].amount",
            "routes[0].offers[1].amount",
            "routes[0].offers[2].amount",
            "routes[0].offers[3].amount",
            "routes[0].offers[4].amount",
            "routes[0].offers[5].rail",
        ]
    );
    let problem = |key: &str| &found.iter().find(|(k, _)| k == key).unwrap().1;
    assert!(problem("secrets[0]").contains("is 9 bytes long; give at least 32"));
    assert!(problem("rails.lightning.tls_cert").contains("/does/not/exist/tls.cert"));
    assert!(problem("rails.paypal").contains("its Cargo feature is off"));
    assert!(problem("rails.paypal").contains("`stripe`"));
    assert!(problem("rails.tempo.recipient").contains("40 hexadecimal digits"));
    assert!(problem("routes[0].offers[4].amount").contains("6 digits"));
    assert!(problem("routes[0].offers[5].rail").contains("tempo/charge"));
}

/// Protects: a typing error names the key that was meant, at every level.
#[test]
fn unknown_keys_name_the_nearest_known_one() {
    for (from, to, key, meant) in [
        ("realm", "relm", "relm", "realm"),
        ("recipient", "recipent", "rails.tempo.recipent", "recipient"),
        (
            "network_id",
            "netwrk_id",
            "rails.stripe.netwrk_id",
            "network_id",
        ),
        ("respond", "respnd", "routes[0].respnd", "respond"),
        (
            "description",
            "descripton",
            "routes[1].offers[0].descripton",
            "description",
        ),
        (
            "amount = \"0.02\"",
            "amout = \"0.02\"",
            "routes[1].offers[0].amout",
            "amount",
        ),
    ] {
        let found = problems(&GOOD.replacen(from, to, 1));
        let problem = found.iter().find(|(k, _)| k == key);
        let (_, problem) = problem.unwrap_or_else(|| panic!("{key} is not in {found:?}"));
        assert!(
            problem.contains(&format!("did you mean `{meant}`?")),
            "{problem}"
        );
    }
}

/// Protects: money is never read from a float.
#[test]
fn an_amount_is_text() {
    let found = problems(&GOOD.replacen("\"0.01\"", "0.01", 1));
    assert_eq!(found[0].0, "routes[0].offers[0].amount");
    assert!(found[0].1.contains("in quotes"), "{found:?}");
    assert_eq!(found.len(), 1);
}

#[test]
fn routes_that_cannot_be_served_are_refused() {
    for (from, to, key) in [
        ("path = \"/joke\"", "path = \"joke\"", "routes[0].path"),
        ("path = \"/joke\"", "path = \"/:joke\"", "routes[0].path"),
        ("path = \"/joke\"", "path = \"/{joke\"", "routes[0].path"),
        (
            "path = \"/joke\"",
            "path = \"/files/{*other}\"",
            "routes[1].path",
        ),
        (
            "path = \"/joke\"\n",
            "path = \"/joke\"\nmethod = \"get\"\n",
            "routes[0].method",
        ),
        ("respond = \"a joke\"\n", "", "routes[0]"),
        (
            "\"http://127.0.0.1:9000/api/\"",
            "\"127.0.0.1:9000\"",
            "routes[1].upstream",
        ),
        ("store = \"memory:\"", "store = \"mysql://x\"", "store"),
        ("realm =", "listen = \"0.0.0.0:80\"\nrealm =", "listen"),
        ("realm =", "listen = \"80\"\nrealm =", "listen"),
        ("realm = \"api.example.com\"", "realm = \"a|b\"", "realm"),
        ("[rails.stripe]", "[rails.stripe.x]", "rails.stripe.x"),
    ] {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD, "{from}");
        assert!(
            keys(&text).iter().any(|found| found == key),
            "{to}: {:?}",
            problems(&text)
        );
    }
}

/// Protects: what only this machine may reach needs no proxy, and what others reach names one.
#[test]
fn a_public_address_needs_a_trusted_proxy() {
    let text = GOOD.replacen(
        "realm =",
        "listen = \"0.0.0.0:8402\"\ntrusted_proxies = [\"10.0.0.0/8\"]\nrealm =",
        1,
    );
    assert_eq!(Config::gateway(&text).unwrap().trusted_proxies.len(), 1);
    assert_eq!(
        keys(&text.replace("10.0.0.0/8", "10.0.0.0/33")),
        ["trusted_proxies[0]", "listen"]
    );
}

/// Protects: hosts, pages and sizes are read, and what no browser or client would send is refused.
#[test]
fn hosts_origins_and_sizes_are_read_or_named() {
    let with = |more: &str| GOOD.replacen("realm =", &format!("{more}\nrealm ="), 1);
    let good = "hosts = [\"API.example.com\", \"localhost:8402\"]\ncors = \"*\"\nbody_limit = 9000000\nreply_limit = 4096";
    let config = Config::gateway(&with(good)).unwrap();
    let hosts: Vec<_> = config.server.hosts().realms().collect();
    assert_eq!(hosts, ["api.example.com", "localhost:8402"]);
    assert_eq!(config.cors, Some(farebox::http::Origins::every()));
    assert_eq!(
        (config.body_limit, config.reply_limit),
        (Some(9_000_000), Some(4096))
    );
    assert!(Config::gateway(GOOD).unwrap().cors.is_none());
    for (wrong, expected) in [
        ("hosts = [\"api.example.com\", \"https://b\"]", "hosts[1]"),
        ("hosts = \"api.example.com\"", "hosts"),
        ("hosts = [7]", "hosts[0]"),
        ("cors = [\"https://app.example\", \"*\"]", "cors[1]"),
        ("cors = [\"app.example\"]", "cors[0]"),
        ("cors = true", "cors"),
        ("cors = [\"https://app.example\", 7]", "cors[1]"),
        ("body_limit = \"2 MiB\"", "body_limit"),
        ("body_limit = 1073741825", "body_limit"),
        ("reply_limit = -1", "reply_limit"),
        ("reply_limit = \"1 MiB\"", "reply_limit"),
        ("reply_limit = 16777217", "reply_limit"),
        ("host = [\"a.example\"]", "host"),
    ] {
        assert_eq!(keys(&with(wrong)), [expected], "{wrong}");
    }
}

/// Protects: linked is not offered, and code speaks of rails as files do.
#[test]
fn a_server_offers_what_it_was_told_to() {
    let server = Server::builder("api.example.com")
        .secret("a secret of 32 bytes, only for tests")
        .store("memory:")
        .rail(
            "proof",
            json!({
                "chain_id": 1337,
                "currency": "0x20c0000000000000000000000000000000000000",
                "recipient": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
            }),
        )
        .build()
        .unwrap();
    assert_eq!(
        server.methods().map(|(name, _)| name).collect::<Vec<_>>(),
        ["proof/charge"]
    );
    assert!(server.gate("GET /who", [("proof/charge", "0")]).is_ok());
    let wrong = server.gate("GET /who", [("tempo/charge", "0"), ("prof/charge", "0")]);
    let wrong = wrong.unwrap_err();
    let keys: Vec<_> = wrong
        .issues()
        .iter()
        .map(|issue| issue.key.as_str())
        .collect();
    assert_eq!(keys, ["offers[0].rail", "offers[1].rail"]);
    assert!(wrong.to_string().contains("did you mean `proof/charge`?"));
}

/// Protects: a rail that was given twice from being one of the two, whichever came last.
#[test]
fn a_method_that_is_given_twice_is_reported() {
    let proof = json!({
        "chain_id": 1337,
        "currency": "0x20c0000000000000000000000000000000000000",
        "recipient": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
    });
    let registry = farebox::registry().unwrap();
    let method = || (registry.get("proof/charge").unwrap().build)(&proof).unwrap();
    let builder = Server::builder("api.example.com")
        .secret("a secret of 32 bytes, only for tests")
        .store("memory:")
        .method(method());
    let twice = builder.method(method()).build().unwrap_err();
    assert_eq!(
        twice.to_string(),
        "proof/charge: is configured twice; drop one of the two"
    );
}

/// Protects: a wrong type and a missing table key are found with their path, values beside them,
/// and what to give is what the rail's example gives.
#[test]
fn keys_of_rails_and_wallets_have_their_path_and_a_remedy() {
    let found = problems(
        &GOOD
            .replace(
                "chain_id = 1337",
                "chain_id = \"1337\"\nsession = { operatr_key = \"k\" }",
            )
            .replace(
                "network_id = \"internal\"",
                "connect = { destinaton = \"acct_1\" }",
            ),
    );
    for (key, problem) in [
        (
            "rails.tempo.chain_id",
            "is text; give a whole number, such as 4217",
        ),
        (
            "rails.tempo.session.operatr_key",
            "unknown key; did you mean `operator_key`?",
        ),
        (
            "rails.stripe.connect.destinaton",
            "unknown key; did you mean `destination`?",
        ),
        (
            "rails.stripe.network_id",
            "is missing; give text in quotes, such as \"internal\"",
        ),
    ] {
        let said = |(k, p): &(String, String)| k == key && p.starts_with(problem);
        assert!(found.iter().any(said), "{key} is not in {found:?}");
    }
    let registry = farebox::registry().unwrap();
    let wallet = "[wallets.tempo]\nchain_id = \"4217\"\nprivate_key = 5";
    let invalid = Wallets::from_toml(wallet, &registry).unwrap_err();
    let keys: Vec<_> = invalid.issues().iter().map(|i| i.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "wallets.tempo.chain_id",
            "wallets.tempo.private_key",
            "wallets.tempo.rpc_url"
        ],
        "{invalid}"
    );
}

#[test]
fn wallets_come_from_tables_and_the_environment() {
    let registry = farebox::registry().unwrap();
    let variables = [
        ("FAREBOX_TEMPO_PRIVATE_KEY", "0x01"),
        ("FAREBOX_TEMPO_CHAIN_ID", "1337"),
        ("FAREBOX_LIGHTNING_MACAROON_FILE", "/m"),
        ("FAREBOX_LOG", "debug"),
        ("FAREBOX_TEMPO_", "x"),
        ("HOME", "/"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let tables = from_env(variables, &registry);
    assert_eq!(
        serde_json::Value::Object(tables),
        json!({
            "tempo": { "private_key": "0x01", "chain_id": 1337 },
            "lightning": { "macaroon": { "file": "/m" } },
        })
    );
    let wrong = Wallets::from_toml("[wallets.temp]\n[wallets.proof]\nkey = 1", &registry);
    let wrong = wrong.unwrap_err().to_string();
    assert!(wrong.contains("did you mean `tempo`?"), "{wrong}");
    assert!(wrong.contains("wallets.proof.key"), "{wrong}");
}
