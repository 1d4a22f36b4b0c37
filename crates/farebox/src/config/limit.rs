//! `challenge_limit`: how many challenges one client may leave unpaid.

use std::time::Duration;

use farebox_core::Issue;
use serde_json::Value;

use super::section::{Section, wrong};
use super::timing;

const KEYS: &[&str] = &["unpaid", "forgive_every", "header"];

const MAX_UNPAID: u64 = 1_000_000;

const HEADER: &str = "give the name of a header that the proxy sets, such as \"x-real-ip\"";

/// How many challenges one client may leave unpaid before the answer is 429. Counted in this
/// process, over all routes together; what is paid for does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnpaidLimit {
    /// How many.
    pub unpaid: u32,
    /// After how long one of them is forgiven.
    pub forgive_every: Duration,
    /// The request header that says who a client is, in lower case; its last value counts. The
    /// peer's address where there is none.
    pub header: Option<String>,
}

impl UnpaidLimit {
    /// Reads the table, if there is one. `proxied`: whether requests come through proxies, whose
    /// address is then that of every client.
    pub(super) fn read(
        table: Option<Value>,
        proxied: bool,
        issues: &mut Vec<Issue>,
    ) -> Option<Self> {
        let mut section = Section::open(table?, "challenge_limit", KEYS, issues);
        let before = issues.len();
        let unpaid = match section.take("unpaid") {
            None => {
                let problem = "is missing; give how many challenges a client may leave unpaid";
                issues.push(Issue::new(section.path("unpaid"), problem));
                0
            }
            Some(value) => {
                let given = value.as_u64().filter(|n| (1..=MAX_UNPAID).contains(n));
                if given.is_none() {
                    let problem =
                        format!("is no such number; give a whole one from 1 to {MAX_UNPAID}");
                    issues.push(Issue::new(section.path("unpaid"), problem));
                }
                given.and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
            }
        };
        let forgive_every = timing::time(&mut section, "forgive_every", issues);
        let header = header(&mut section, proxied, issues);
        section.finish(issues);
        (issues.len() == before).then_some(Self {
            unpaid,
            forgive_every: forgive_every.unwrap_or(Duration::from_secs(60)),
            header,
        })
    }

    /// What counts. Clones of it count together.
    #[cfg(feature = "axum")]
    pub(super) fn counter(&self) -> farebox_http::ChallengeLimit {
        use farebox_http::ChallengeLimit;

        match self.header.clone() {
            None => ChallengeLimit::by_peer(self.unpaid, self.forgive_every),
            Some(header) => ChallengeLimit::new(self.unpaid, self.forgive_every, move |parts| {
                // A client may have sent one of its own; the proxy's comes after it.
                let last = parts.headers.get_all(&header).into_iter().next_back()?;
                Some(last.to_str().ok()?.to_owned())
            }),
        }
    }
}

fn header(section: &mut Section, proxied: bool, issues: &mut Vec<Issue>) -> Option<String> {
    let key = section.path("header");
    match section.take("header") {
        None if proxied => {
            let problem =
                format!("is missing: behind a proxy every client has its address; {HEADER}");
            issues.push(Issue::new(key, problem));
            None
        }
        None => None,
        Some(Value::String(name)) => {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            if name.is_empty() || !name.bytes().all(fits) {
                issues.push(Issue::new(key, format!("`{name}` is no header; {HEADER}")));
            }
            Some(name.to_ascii_lowercase())
        }
        Some(other) => {
            issues.push(Issue::new(key, wrong(&other, HEADER)));
            None
        }
    }
}
