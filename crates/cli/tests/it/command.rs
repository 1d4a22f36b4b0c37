//! The command as its users see it.

use serde_json::Value;

use crate::{
    common::{
        KEY, Market, PROOF, RAILS, Running, farebox, output, run, send, serve, stderr, stdout,
    },
    upstream::Upstream,
};

/// Protects: every rail of the binary is challenged, paid, receipted and not payable twice.
#[test]
fn the_demo_pays_every_rail_once() {
    let output = run(&["demo", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let lines: Vec<Value> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let offers: Vec<_> = lines
        .iter()
        .map(|line| line["offer"].as_str().unwrap())
        .collect();
    assert_eq!(offers, RAILS);
    for line in &lines {
        assert_eq!(
            (&line["status"], &line["replay"]),
            (&200.into(), &403.into()),
            "{line}"
        );
        assert_eq!(line["receipt"]["reference"], line["reference"]);
        assert_ne!(line["reference"], "");
        assert!(line["ms"].is_u64());
    }
    let table = stdout(&run(&["demo"]));
    assert!(RAILS.iter().all(|rail| table.contains(rail)), "{table}");
}

#[test]
fn rails_lists_what_is_compiled_in() {
    let rails: Value = serde_json::from_str(&stdout(&run(&["rails", "--json"]))).unwrap();
    let names: Vec<_> = rails
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["name"])
        .collect();
    let mut all = [&RAILS[..], &["lightning/session", "tempo/session"]].concat();
    all.sort_unstable();
    assert_eq!(names, all);
}

/// Protects: a rail's example stands as it would in a configuration file.
#[test]
fn rails_prints_an_example_of_the_one_named() {
    let said = stdout(&run(&["rails", "tempo"]));
    assert!(said.contains("# tempo/charge\n[rails.tempo]\n"), "{said}");
    assert!(said.contains("\n[rails.tempo.session]\n"), "{said}");
    assert!(toml::from_str::<Value>(&stdout(&run(&["rails", "tempo/session"]))).is_ok());
    let output = run(&["rails", "tempoo"]);
    assert_eq!(output.status.code(), Some(2));
}

/// Protects: the way into every example: two files that only their owner may read, written when the
/// sandbox says that it runs, and a route that is sold and paid for with them.
#[test]
fn serve_and_pay_read_the_files_of_the_sandbox() {
    let dir = tempfile::tempdir().unwrap();
    let files = ["seller.toml", "wallet.toml"].map(|name| dir.path().join(name));
    let [config, wallet] = [0, 1].map(|n| files[n].to_str().unwrap());
    // One that anybody may read was there before.
    std::fs::write(wallet, "x = 1\n".repeat(1000)).unwrap();
    let args = ["sandbox", "--config", config, "--wallet", wallet];
    let (sandbox, ()) = Running::start(&args, |line| line.starts_with("# Running").then_some(()));
    assert!(!sandbox.to_string().contains("private_key"), "{sandbox}");
    #[cfg(unix)]
    for file in &files {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    // Any free port, instead of the usual one.
    let text = std::fs::read_to_string(config).unwrap();
    let (_serve, base) = serve(dir.path(), &format!("listen = \"127.0.0.1:0\"\n{text}"));
    let paid = run(&["pay", "--wallet", wallet, &format!("{base}/joke")]);
    assert_eq!(
        stdout(&paid),
        "a joke worth its price\n",
        "{}",
        stderr(&paid)
    );
}

/// Protects: wrong input is exit code 2, one answer, nothing started.
#[test]
fn a_wrong_configuration_is_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("farebox.toml");
    std::fs::write(
        &path,
        "realm = \"\"\nsecrets = [\"short\"]\nstor = \"memory:\"\n",
    )
    .unwrap();
    for args in [["check"].as_slice(), &["serve", "--config"]] {
        let output = output(farebox(args).arg(&path));
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(stdout(&output), "");
        let said = stderr(&output);
        for key in ["secrets[0]:", "store:", "realm:", "routes:", "stor:"] {
            assert!(
                said.contains(&format!("\n  {key} ")),
                "{key} is not in {said}"
            );
        }
    }
    assert_eq!(run(&["pay"]).status.code(), Some(2));
    assert_eq!(run(&["check", "/does/not/exist"]).status.code(), Some(2));
}

/// Protects: the body on standard output and nothing else; exit codes that say what became of the
/// money.
#[test]
fn pay_pays_within_limits_and_says_so() {
    let market = Market::open();
    for rail in ["tempo", "stripe", "lightning", "proof/charge"] {
        let output = market.pay(&["--rail", rail]);
        assert_eq!(
            stdout(&output),
            "a joke worth its price\n",
            "{rail}: {}",
            stderr(&output)
        );
        assert_eq!(stderr(&output), "");
        assert!(output.status.success());
    }
    let output = market.pay(&["--rail", "tempo", "--max", "0.01", "-i", "-v"]);
    assert!(output.status.success(), "{}", stderr(&output));
    for said in [
        "HTTP/1.1 200 OK",
        "payment-receipt: ",
        "* counted as spent: 0.01 ",
    ] {
        assert!(
            stderr(&output).contains(said),
            "{said} is not in {}",
            stderr(&output)
        );
    }

    // Not with the Tempo wallet, which would answer the free challenge instead.
    let over = market.pay(&["--rail", "stripe", "--max", "0.49"]);
    assert_eq!((over.status.code(), stdout(&over).as_str()), (Some(4), ""));
    assert!(stderr(&over).contains("--max"), "{}", stderr(&over));
    let none = run(&["pay", &market.url]);
    assert_eq!(none.status.code(), Some(4), "{}", stderr(&none));
    let missing = run(&["pay", &market.url.replace("/joke", "/none")]);
    assert_eq!(missing.status.code(), Some(3));
    let dir = market.dir.path().join("none.toml");
    let unread = run(&["pay", "--wallet", dir.to_str().unwrap(), &market.url]);
    assert_eq!(unread.status.code(), Some(2));

    let paid: Value = serde_json::from_str(&stdout(&market.pay(&["--json"]))).unwrap();
    assert_eq!(
        (&paid["status"], &paid["spent"][0]["amount"]),
        (&200.into(), &"10000".into())
    );
    let inspected: Value =
        serde_json::from_str(&stdout(&run(&["inspect", "--json", &market.url]))).unwrap();
    assert_eq!(
        inspected["challenges"].as_array().unwrap().len(),
        RAILS.len()
    );
}

/// Protects: the upstream gets the request and never the credential; the payer gets the upstream's
/// answer and this server's receipt.
#[test]
fn serve_gates_an_upstream() {
    let upstream = Upstream::open("the question");
    let port = upstream.port;
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        r#"
listen = "127.0.0.1:0"
realm = "127.0.0.1"
secrets = ["a secret of 32 bytes, only for tests"]
store = "memory:"
{PROOF}
[[routes]]
path = "/ask/{{*rest}}"
method = "POST"
upstream = "http://127.0.0.1:{port}/api"
offers = [{{ rail = "proof/charge", amount = "0" }}]
"#
    );
    let (_serve, base) = serve(dir.path(), &config);
    let url = format!("{base}/ask/me/any?thing=1");
    let mut pay = farebox(&["pay", &url, "-d", "the question", "-H", "X-Mine: yes", "-i"]);
    let mut payer = Running::of(pay.env("FAREBOX_PROOF_PRIVATE_KEY", KEY));
    let upstream = upstream.asked(&mut payer);
    let asked = upstream.request.to_lowercase();
    upstream.answer(
        "HTTP/1.1 201 Created\r\ncontent-type: text/x-answer\r\npayment-receipt: forged\r\n\
         connection: close\r\ncontent-length: 10\r\n\r\nthe answer",
    );
    let output = payer.output();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), "the answer");
    let headers = stderr(&output);
    assert!(headers.contains("201 Created") && headers.contains("content-type: text/x-answer"));
    assert_eq!(headers.matches("payment-receipt: ").count(), 1);
    assert!(!headers.contains("forged"), "{headers}");
    assert!(
        asked.starts_with("post /api/ask/me/any?thing=1 http/1.1\r\n"),
        "{asked}"
    );
    assert!(
        asked.contains("x-mine: yes") && asked.ends_with("the question"),
        "{asked}"
    );
    for header in ["authorization:", "accept-payment:", "payment"] {
        assert!(!asked.contains(header), "{asked}");
    }
}

/// A plain request and the whole answer.
fn ask(base: &str, line: &str) -> String {
    send(base, &format!("{line} HTTP/1.1\nhost: x"))
}

/// Protects: the discovery document says what is sold, as the 402 does, and what is not sold asks
/// for no money.
#[test]
fn serve_says_what_it_sells() {
    let market = Market::open();
    let base = &market.base;
    let answer = ask(base, "GET /openapi.json");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    for header in [
        "content-type: application/json",
        "cache-control: public, max-age=300",
        "access-control-allow-origin: *",
    ] {
        assert!(head.contains(header), "{header} is not in {head}");
    }
    let document: Value = serde_json::from_str(body).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
    let operation = &document["paths"]["/joke"]["get"];
    assert!(operation["responses"]["402"].is_object());
    let offers = operation["x-payment-info"]["offers"].as_array().unwrap();
    let mut sold = Vec::new();
    for offer in offers {
        let amount = offer["amount"].as_str().unwrap();
        assert!(
            amount == "0"
                || (!amount.starts_with('0') && amount.bytes().all(|b| b.is_ascii_digit()))
        );
        let known = ["intent", "method", "amount", "currency", "description"];
        assert!(
            offer
                .as_object()
                .unwrap()
                .keys()
                .all(|key| known.contains(&key.as_str()))
        );
        sold.push((
            offer["method"].as_str().unwrap(),
            offer["intent"].as_str().unwrap(),
        ));
    }
    let challenged = ask(base, "GET /joke").to_lowercase();
    assert_eq!(
        challenged.matches("www-authenticate: payment ").count(),
        sold.len()
    );
    for (method, intent) in sold {
        assert!(challenged.contains(&format!("method=\"{method}\", intent=\"{intent}\"")));
    }
    assert!(ask(base, "GET /elsewhere").starts_with("HTTP/1.1 404"));
    assert!(ask(base, "DELETE /joke").starts_with("HTTP/1.1 405"));
}
