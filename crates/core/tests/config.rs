//! What a typed configuration reports: everything, each problem with its key and the remedy.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use farebox_core::{Plugin, Registry, SecretSource, config, prelude::*};
use serde_json::{Value, json};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Pull,
    Push,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    endpoint: String,
    key: SecretSource,
    #[serde(default)]
    port: u16,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    backend: String,
    key: Option<SecretSource>,
    chain_id: Option<u64>,
    #[serde(default)]
    strict: bool,
    #[serde(default)]
    modes: Vec<Mode>,
    #[serde(default)]
    peers: Vec<Node>,
    node: Option<Node>,
    #[serde(default)]
    minimums: BTreeMap<String, String>,
}

impl Config {
    /// What there is of it, so that no field is there for nothing.
    fn size(&self) -> usize {
        let nodes = self.peers.iter().chain(&self.node);
        let nodes =
            nodes.map(|n| n.key.read("key").map_or(n.endpoint.len(), |_| 0) + usize::from(n.port));
        let chain = self.chain_id.map_or(0, |_| 1) + usize::from(self.strict);
        chain + nodes.sum::<usize>() + self.modes.len() + self.minimums.len()
    }
}

fn problems(value: Value) -> Vec<(String, String)> {
    let invalid = config::read::<Config>(&value).unwrap_err();
    let issues = invalid.into_issues().into_iter();
    issues.map(|i| (i.key, i.problem)).collect()
}

fn keys(value: Value) -> Vec<String> {
    problems(value).into_iter().map(|(key, _)| key).collect()
}

fn only(value: Value) -> (String, String) {
    let mut all = problems(value);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn is(key: &str, problem: &str) -> (String, String) {
    (key.to_owned(), problem.to_owned())
}

/// Protects: who wrote a value of the wrong type from searching for the key.
#[test]
fn a_wrong_type_is_reported_under_its_key() {
    let with = |key: &str, value: Value| {
        let mut all = json!({ "backend": "lnd" });
        all[key] = value;
        only(all)
    };
    assert_eq!(
        with("chain_id", json!("4217")),
        is("chain_id", "is text; give a whole number")
    );
    assert_eq!(
        with("chain_id", json!(-1)),
        is("chain_id", "is a negative number; give a whole number")
    );
    assert_eq!(
        with("chain_id", json!(1.5)),
        is(
            "chain_id",
            "is a number with a fraction; give a whole number"
        )
    );
    assert_eq!(
        with("strict", json!("yes")),
        is("strict", "is text; give true or false")
    );
    assert_eq!(
        with("backend", json!(["lnd"])),
        is("backend", "is a list; give text in quotes")
    );
    assert_eq!(
        with("node", json!("cln")),
        is("node", "is text; give a table of keys")
    );
    assert_eq!(
        with("minimums", json!({ "usd": 5 })),
        is("minimums.usd", "is a number; give text in quotes")
    );
    let node = json!({ "endpoint": "e", "key": "k", "port": 70000 });
    assert_eq!(
        with("node", node),
        is(
            "node.port",
            "is a number; give a whole number from 0 to 65535"
        )
    );
}

/// Protects: a nested key from being taken for the key of the same name further out.
#[test]
fn nested_keys_have_their_whole_path() {
    assert_eq!(
        only(json!({ "backend": "cln", "node": { "key": "k" } })),
        is("node.endpoint", "is missing; give text in quotes")
    );
    assert_eq!(
        only(json!({ "backend": "cln", "node": { "endpont": "e", "endpoint": "e", "key": "k" } })),
        is(
            "node.endpont",
            "unknown key; did you mean `endpoint`? known: `endpoint`, `key`, `port`"
        )
    );
    let peers = json!([{ "endpoint": "e", "key": "k" }, { "endpoint": 5, "key": { "evn": "K" } }]);
    let found = problems(json!({ "backend": "cln", "peers": peers }));
    assert_eq!(
        found,
        [
            is("peers[1].endpoint", "is a number; give text in quotes"),
            is(
                "peers[1].key",
                "is no secret; give a string, { env = \"NAME\" } or { file = \"path\" }"
            ),
        ]
    );
}

/// Protects: a reader from mending one problem only to be told the next.
#[test]
fn one_problem_hides_no_other() {
    assert_eq!(
        keys(json!({
            "bakend": "lnd",
            "chain_id": "4217",
            "key": 5,
            "modes": ["pul", "push", "psh"],
            "node": { "port": "9736" },
            "peers": [{}],
            "strict": 1,
        })),
        [
            "bakend",
            "chain_id",
            "key",
            "modes[0]",
            "modes[2]",
            "node.port",
            "node.endpoint",
            "node.key",
            "peers[0].endpoint",
            "peers[0].key",
            "strict",
            "backend",
        ]
    );
}

/// Protects: a secret that was written in the wrong place from the log.
#[test]
fn no_problem_repeats_a_value() {
    let secret = || json!("hunter2, expected `x`");
    for value in [
        json!({ "backend": "lnd", "chain_id": secret() }),
        json!({ "backend": "lnd", "modes": [secret()] }),
        json!({ "backend": "lnd", "node": secret() }),
        json!({ "backend": [secret()], "key": [secret()] }),
        json!({ "backend": "lnd", "key": { "value": secret() } }),
        json!([secret()]),
        secret(),
    ] {
        for (key, problem) in problems(value) {
            assert!(!problem.contains("hunter2"), "{key}: {problem}");
        }
    }
}

/// Protects: what is right is read as it is.
#[test]
fn what_is_right_is_read() {
    let node = json!({ "endpoint": "e", "key": { "env": "K" }, "port": 1 });
    let value = json!({
        "backend": "lnd", "key": "k", "chain_id": 1, "strict": true, "modes": ["pull", "push"],
        "peers": [node], "node": node, "minimums": { "usd": "1" },
    });
    let config: Config = config::read(&value).unwrap();
    assert_eq!((config.backend.as_str(), config.size()), ("lnd", 9));
    assert!(config.key.is_some());
}

struct Card;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Nothing {}

impl Card {
    fn new(config: Config) -> Result<Self, Invalid> {
        let mut issues = Vec::new();
        if config.chain_id.is_none() {
            issues.push(Issue::new("chain_id", "is missing or zero; give 4217"));
        }
        if config.minimums.is_empty() {
            issues.push(Issue::new("minimums", "are missing; give some"));
        }
        Invalid::unless_empty(issues)?;
        assert!(config.node.is_none(), "no stand-in reaches a constructor");
        Ok(Self)
    }
}

impl Rail<Charge> for Card {
    const METHOD: &'static str = "shapecard";
    type Details = Nothing;
    type Payload = Nothing;
    type Settler = NoSettler;

    async fn quote(&self, _: &ChargeTerms) -> Result<Quote<Charge, Nothing>, NoQuote> {
        Err(NoQuote::Declined("nothing is sold".into()))
    }

    async fn verify(
        &self,
        _: &Presented<'_>,
        _: &Ask<Charge, Nothing>,
        _: Nothing,
    ) -> Result<Plan<Once, Never>, Refusal> {
        Err(Rejection::rail("nothing", "nothing is sold").into())
    }

    fn settler(&self) -> &NoSettler {
        &NoSettler
    }
}

plugin! {
    static CARD = Charge: Card::new,
        example: "backend = \"lnd\"   # a node\n# chain_id = 4217\n[node]\nendpoint = \"https://n\"\n";
}

fn build(value: Value) -> Vec<(String, String)> {
    let plugin: &Plugin = Registry::default()
        .with(&CARD)
        .unwrap()
        .get("shapecard/charge")
        .unwrap();
    let invalid = (plugin.build)(&value).err().unwrap();
    let issues = invalid.into_issues().into_iter();
    issues.map(|i| (i.key, i.problem)).collect()
}

/// Protects: the example of a rail, which says best what to give.
#[test]
fn a_rail_says_what_to_give_as_in_its_example() {
    let found = build(json!({ "chain_id": "5m", "node": { "key": "k" } }));
    for problem in [
        is("chain_id", "is text; give a whole number, such as 4217"),
        is(
            "node.endpoint",
            "is missing; give text in quotes, such as \"https://n\"",
        ),
        is(
            "backend",
            "is missing; give text in quotes, such as \"lnd\"",
        ),
    ] {
        assert!(found.contains(&problem), "{problem:?} is not in {found:?}");
    }
}

/// Protects: what the constructor has to say from being hidden by a wrong type, and a key from two
/// problems.
#[test]
fn the_constructor_looks_at_what_can_be_read() {
    let found = build(json!({ "backend": "lnd", "chain_id": "1", "node": {} }));
    let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["chain_id", "node.endpoint", "node.key", "minimums"]);
}
