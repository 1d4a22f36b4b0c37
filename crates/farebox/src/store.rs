//! Stores by URL: which ones this build can open, and opening them when they are first needed.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use farebox_core::{
    Durability, Fault, Issue, Opener, RegistryError, SecretSource, Store, StoreDriver, StoreDrivers,
};
use farebox_engine::MemoryStore;
use tokio::sync::OnceCell;

/// Every store that a Cargo feature of this crate switched on, named so that no linker can lose it.
/// `memory:` is always there.
pub static STORES: &[&StoreDriver] = &[
    #[cfg(feature = "postgres")]
    &farebox_store_postgres::DRIVER,
    #[cfg(feature = "redis")]
    &farebox_store_redis::DRIVER,
    #[cfg(feature = "sqlite")]
    &farebox_store_sqlite::DRIVER,
];

/// The schemes that the features above bring.
const BY_FEATURE: [(&str, &str); 7] = [
    ("postgres", "postgres"),
    ("postgresql", "postgres"),
    ("redis", "redis"),
    ("rediss", "redis"),
    ("sqlite", "sqlite"),
    ("valkey", "redis"),
    ("valkeys", "redis"),
];

/// [`STORES`], and the stores of other packages that were linked in.
///
/// # Errors
/// If two packages claim one scheme.
pub fn stores() -> Result<StoreDrivers, RegistryError> {
    let mut known = STORES.iter().copied();
    known
        .try_fold(StoreDrivers::default(), StoreDrivers::with)?
        .with_linked()
}

/// A store as the configuration chose it.
pub(crate) enum Chosen {
    /// In memory, and open.
    Memory(Arc<dyn Store>),
    /// Somewhere else.
    Late(Arc<Late>),
}

/// What a store's URL looks like here.
pub(crate) fn shape() -> String {
    let examples = STORES.iter().map(|driver| driver.example);
    let durable: Vec<_> = examples.map(|example| format!("`{example}`")).collect();
    let memory = "`memory:`, which forgets payments with the process";
    if durable.is_empty() {
        return format!("give a store's URL, such as {memory}");
    }
    format!(
        "give a store's URL, such as {}, or {memory}",
        durable.join(", ")
    )
}

/// Reads the URL and finds its driver. Nothing is opened. No message repeats the URL, which may
/// hold a password.
pub(crate) fn choose(url: &SecretSource, issues: &mut Vec<Issue>) -> Option<Chosen> {
    let chosen = url.read("store").and_then(|url| find(url.expose()));
    chosen.map_err(|issue| issues.push(issue)).ok()
}

fn find(url: &str) -> Result<Chosen, Issue> {
    if url == "memory:" {
        return Ok(Chosen::Memory(Arc::new(MemoryStore::new())));
    }
    let issue = |problem: String| Issue::new("store", problem);
    let drivers = stores().map_err(|error| issue(error.to_string()))?;
    let Some(scheme) = url.split_once(':').map(|(scheme, _)| scheme) else {
        return Err(issue(format!("is no URL; {}", shape())));
    };
    let Some(driver) = drivers.get(scheme) else {
        return Err(issue(unknown(scheme, &drivers)));
    };
    let opener = (driver.read)(url).map_err(|invalid| {
        // A URL is one value: what is wrong with it is wrong with the key.
        let problems = invalid.into_issues().into_iter().map(|i| i.problem);
        issue(problems.collect::<Vec<_>>().join("; "))
    })?;
    Ok(Chosen::Late(Arc::new(Late::new(opener, driver.durability))))
}

fn unknown(scheme: &str, drivers: &StoreDrivers) -> String {
    let lower = scheme.to_ascii_lowercase();
    if let Some((_, feature)) = BY_FEATURE.iter().find(|(known, _)| *known == lower) {
        let known: Vec<String> = drivers.schemes().map(|s| format!("`{s}:`")).collect();
        let known = known.join(", ");
        let comma = if known.is_empty() { "" } else { ", " };
        return format!(
            "`{lower}:` is not in this build, whose stores are `memory:`{comma}{known}; build it \
             with the feature `{feature}`"
        );
    }
    // Not the scheme itself unless it looks like one: text without a scheme may be a password.
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    if scheme.len() > 16 || !scheme.chars().all(plain) {
        return format!("is no store's URL; {}", shape());
    }
    format!(
        "no store answers to `{lower}:`{}; {}",
        drivers.hint(&lower),
        shape()
    )
}

/// A store that is opened when it is first needed, or by [`Server::connect`](crate::Server).
pub(crate) struct Late {
    opener: Arc<dyn Opener>,
    durability: Durability,
    store: OnceCell<Arc<dyn Store>>,
}

impl Late {
    fn new(opener: Arc<dyn Opener>, durability: Durability) -> Self {
        Self {
            opener,
            durability,
            store: OnceCell::new(),
        }
    }

    /// The store, opened if it was not. What fails is tried again by the next caller.
    pub(crate) async fn store(&self) -> Result<&dyn Store, Fault> {
        let open = async || self.opener.open().await;
        let store = self.store.get_or_try_init(open).await?;
        Ok(store.as_ref())
    }
}

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Late")
            .field("open", &self.store.initialized())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for Late {
    fn durability(&self) -> Durability {
        self.durability
    }

    fn notices(&self) -> Option<&dyn farebox_core::Notices> {
        self.store.get()?.notices()
    }

    async fn get(&self, key: &str) -> Result<Option<String>, Fault> {
        self.store().await?.get(key).await
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<&str>,
        next: Option<&str>,
        keep: Option<Duration>,
    ) -> Result<bool, Fault> {
        let store = self.store().await?;
        store.compare_and_swap(key, expected, next, keep).await
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<(String, String)>, Fault> {
        self.store().await?.scan(prefix).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn problem(url: &str) -> String {
        find(url).map(|_| "found").unwrap_err().problem
    }

    /// Protects: an operator learns what to do, and the log never learns a password.
    #[test]
    fn an_unknown_store_is_explained_without_its_url() {
        assert!(matches!(find("memory:"), Ok(Chosen::Memory(_))));
        for url in ["mysql://me:hunter2@host/db", "hunter2", "hunter2!x:y", ""] {
            let problem = problem(url);
            assert!(!problem.contains("hunter2"), "{problem}");
            assert!(problem.contains("memory:"), "{problem}");
        }
        assert!(problem("mysql://x").contains("`mysql:`"));
    }

    /// Protects: every scheme of a feature's store is one that its absence explains.
    #[test]
    fn every_scheme_has_its_feature() {
        for driver in STORES {
            for scheme in driver.schemes {
                assert!(BY_FEATURE.iter().any(|(s, _)| s == scheme), "{scheme}");
                let found = stores().unwrap().get(scheme);
                assert!(found.is_some_and(|found| std::ptr::eq(found, *driver)));
            }
            assert!(matches!(find(driver.example), Ok(Chosen::Late(_))));
        }
    }

    /// Protects: the remedy for a store that was left out is its feature.
    #[cfg(not(feature = "sqlite"))]
    #[test]
    fn a_store_that_was_left_out_names_its_feature() {
        let problem = problem("sqlite://farebox.db");
        assert!(problem.contains("the feature `sqlite`"), "{problem}");
    }

    /// Protects: a store is opened by its first use, and a failure is not remembered.
    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn a_store_is_opened_when_it_is_needed() {
        let folder = std::env::temp_dir().join(format!("farebox-late-{}", std::process::id()));
        let file = folder.join("farebox.db");
        let Ok(Chosen::Late(late)) = find(&format!("sqlite://{}", file.display())) else {
            panic!("a SQLite file is a store");
        };
        assert!(late.get("k").await.is_err(), "its folder is missing");
        std::fs::create_dir(&folder).unwrap();
        assert_eq!(late.get("k").await.unwrap(), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
