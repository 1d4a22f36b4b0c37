//! `challenge_limit`: whoever never pays does not fill the node with invoices.

use serde_json::json;

use crate::common::{Market, run, send, stderr};

/// The answer to somebody who pays nothing, in lower case.
fn ask(shop: &Market, client: &str) -> String {
    let request = format!("GET /joke HTTP/1.1\nhost: here\nx-client: {client}");
    send(&shop.base, &request).to_ascii_lowercase()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap()
}

/// Protects: the third challenge of a client that pays none is refused with a time to come back, by
/// the binary; whoever pays is never held back, and other clients are not.
#[test]
fn serve_limits_what_is_left_unpaid() {
    let shop = Market::of(|config| {
        config["challenge_limit"] = json!({ "unpaid": 3, "forgive_every": "1h" });
    });
    // What is paid for does not count; the command's look at the price before it pays does.
    for _ in 0..2 {
        let paid = shop.pay(&["--rail", "lightning"]);
        assert!(paid.status.success(), "{}", stderr(&paid));
    }
    assert_eq!(status(&ask(&shop, "a")), "402");
    // Another name changes nothing: an address is what counts.
    let refused = ask(&shop, "b");
    assert_eq!(status(&refused), "429");
    assert!(!refused.contains("www-authenticate"), "{refused}");
    let wait = refused.split("retry-after: ").nth(1).unwrap();
    let wait: u32 = wait.lines().next().unwrap().parse().unwrap();
    assert!((1..=3_600).contains(&wait), "{wait}");

    let shop = Market::of(|config| {
        let limit = json!({ "unpaid": 1, "forgive_every": "1h", "header": "x-client" });
        config["challenge_limit"] = limit;
    });
    for client in ["a", "b"] {
        assert_eq!(status(&ask(&shop, client)), "402", "{client}");
        assert_eq!(status(&ask(&shop, client)), "429", "{client}");
    }
}

/// Protects: the file's author from a limit that counts all clients as one; key and remedy are named.
#[test]
fn check_names_what_is_wrong_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("farebox.toml");
    let text = "challenge_limit = { unpaid = 0 }\ntrusted_proxies = [\"10.0.0.1\"]\n";
    std::fs::write(&path, text).unwrap();
    let checked = run(&["check", path.to_str().unwrap()]);
    assert!(!checked.status.success());
    let said = stderr(&checked);
    for part in [
        "challenge_limit.unpaid",
        "from 1 to",
        "challenge_limit.header",
        "x-real-ip",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
