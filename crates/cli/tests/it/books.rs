//! Reading a server's books beside it.

use serde_json::Value;

use crate::{
    common::{Running, listening, stderr, stdout},
    operate::{LATE, config, operator, pay, signal},
    upstream::Upstream,
};

/// Protects: the books show what was paid, by state and age, and no secret.
#[test]
fn books_list_payments_beside_a_running_server() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::open("\r\n\r\n");
    let store = format!("sqlite://{}", folder.path().join("books.db").display());
    let config = config(folder.path(), &store, "1s", upstream.port);
    let (serve, base) = Running::start(&["serve", "--config", &config], listening);
    let empty = operator("books", &config, &[]);
    assert!(empty.status.success(), "{}", stderr(&empty));
    assert!(
        stdout(&empty).ends_with("no payments\n"),
        "{}",
        stdout(&empty)
    );
    let mut payer = pay(&base);
    let asked = upstream.asked(&mut payer);
    let lines = |more: &[&str]| {
        let output = operator("books", &config, &[&["--json"], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let lines: Vec<Value> = stdout(&output)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        lines
    };
    let [serving] = lines(&[]).try_into().unwrap();
    assert_eq!(serving["state"], "serving");
    asked.answer(LATE);
    let paid = payer.output();
    let paid: Value = serde_json::from_str(&stdout(&paid)).unwrap();
    let [delivered] = lines(&["--state", "delivered", "--state", "paid"])
        .try_into()
        .unwrap();
    assert_eq!(delivered["state"], "delivered");
    assert_eq!(delivered["method"], "proof/charge");
    assert_eq!(delivered["amount"], "0");
    assert_eq!(delivered["reference"], paid["receipt"]["reference"]);
    assert!(delivered["ageSeconds"].is_u64(), "{delivered}");
    assert_eq!(lines(&["--state", "attempted"]), [Value::Null; 0]);
    assert_eq!(lines(&["--older-than", "1h"]), [Value::Null; 0]);
    let said = stdout(&operator("books", &config, &[]));
    assert!(said.ends_with("1 payment: 1 delivered\n"), "{said}");
    assert!(
        !said.contains("signature") && !said.contains("eyJ"),
        "{said}"
    );
    assert_eq!(
        operator("books", &config, &["--state", "lost"])
            .status
            .code(),
        Some(2)
    );

    let found = operator("reconcile", &config, &["--json"]);
    let found: Value = serde_json::from_str(&stdout(&found)).unwrap();
    assert_eq!(
        (&found["lookedAt"], &found["unknown"]),
        (&0.into(), &0.into())
    );
    let said = stdout(&operator("reconcile", &config, &[]));
    assert!(said.starts_with("0 looked at: "), "{said}");
    signal(&serve, "-TERM");
    assert_eq!(serve.output().status.code(), Some(0));
}
