//! Which stores a binary can open.
//!
//! A store is pluggable as a rail is: its crate declares one `static` [`StoreDriver`] for the
//! schemes of its URLs, reachable through `inventory` (link time) and through an explicit list
//! that names it. Linked is not used: only a URL opens a store.

use std::{collections::BTreeMap, fmt, future::Future, sync::Arc};

use async_trait::async_trait;

use crate::{
    config::{Invalid, did_you_mean},
    refusal::Fault,
    registry::RegistryError,
    store::{Durability, Store},
};

/// A store by URL, as its author writes it: reading the URL is pure, opening it is I/O.
pub trait Backend: Sized + Send + Sync + 'static {
    /// What is opened.
    type Store: Store;

    /// Checks the URL. Reaches nothing.
    ///
    /// # Errors
    /// What is wrong with it, under no key. The text must not repeat the URL, which may hold a
    /// password.
    fn read(url: &str) -> Result<Self, Invalid>;

    /// Opens the store and makes it ready for use, tables and all. It may be called again after
    /// it failed.
    ///
    /// # Errors
    /// A fault whose text names no password.
    fn open(&self) -> impl Future<Output = Result<Self::Store, Fault>> + Send;
}

/// A store that can be opened. Every [`Backend`] is one.
#[async_trait]
pub trait Opener: Send + Sync + 'static {
    /// Opens the store.
    async fn open(&self) -> Result<Arc<dyn Store>, Fault>;
}

#[async_trait]
impl<B: Backend> Opener for B {
    async fn open(&self) -> Result<Arc<dyn Store>, Fault> {
        let store = Backend::open(self).await?;
        Ok(Arc::new(store))
    }
}

/// Reads a store's URL. Pure: [`Opener::open`] does the I/O.
pub type ReadUrl = fn(&str) -> Result<Arc<dyn Opener>, Invalid>;

/// A kind of store that a binary contains. Make one with [`store_driver!`](crate::store_driver!).
pub struct StoreDriver {
    /// The schemes of its URLs: `redis`, `rediss`.
    pub schemes: &'static [&'static str],
    /// Whether what it opens outlives the process; the engine asks before the store is open.
    pub durability: Durability,
    /// The package it comes from.
    pub package: &'static str,
    /// That package's version.
    pub version: &'static str,
    /// An example of its URL.
    pub example: &'static str,
    /// Reads a URL of one of the schemes.
    pub read: ReadUrl,
}

impl fmt::Debug for StoreDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schemes = self.schemes.join(", ");
        let (package, version) = (self.package, self.version);
        write!(f, "StoreDriver({schemes} from {package} {version})")
    }
}

/// A driver submitted at link time. Made by [`store_driver!`](crate::store_driver!).
#[doc(hidden)]
#[derive(Debug)]
pub struct LinkedDriver(pub &'static StoreDriver);

inventory::collect!(LinkedDriver);

/// The stores a process can open, by scheme, in a fixed order.
#[derive(Clone, Debug, Default)]
pub struct StoreDrivers {
    drivers: BTreeMap<&'static str, &'static StoreDriver>,
}

impl StoreDrivers {
    /// Adds a driver. The same `static` may come through both doors.
    ///
    /// # Errors
    /// If two packages claim one scheme.
    pub fn with(mut self, driver: &'static StoreDriver) -> Result<Self, RegistryError> {
        for &scheme in driver.schemes {
            match self.drivers.insert(scheme, driver) {
                Some(old) if !std::ptr::eq(old, driver) => {
                    return Err(RegistryError::Duplicate {
                        name: format!("{scheme}:"),
                        first: old.package,
                        second: driver.package,
                    });
                }
                _ => {}
            }
        }
        Ok(self)
    }

    /// Adds everything that was linked in.
    ///
    /// # Errors
    /// If two packages claim one scheme.
    pub fn with_linked(self) -> Result<Self, RegistryError> {
        inventory::iter::<LinkedDriver>
            .into_iter()
            .try_fold(self, |drivers, linked| drivers.with(linked.0))
    }

    /// The schemes, sorted.
    pub fn schemes(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.drivers.keys().copied()
    }

    /// The driver for `scheme`; schemes are compared without case, as in every URL.
    pub fn get(&self, scheme: &str) -> Option<&'static StoreDriver> {
        self.drivers
            .get(scheme.to_ascii_lowercase().as_str())
            .copied()
    }

    /// `; did you mean …? known: …`, for a scheme that is none of these.
    pub fn hint(&self, scheme: &str) -> String {
        let known: Vec<&str> = self.schemes().collect();
        did_you_mean(scheme, &known)
    }
}

/// The first text after all that start with `prefix`, if there is one: where a scan of keys in the
/// order of their bytes ends. UTF-8 sorts as its characters do, so the last character that has a
/// successor gets it.
pub fn prefix_end(prefix: &str) -> Option<String> {
    let mut characters: Vec<char> = prefix.chars().collect();
    while let Some(last) = characters.pop() {
        // A range of characters skips the surrogates.
        if let Some(next) = (last..=char::MAX).nth(1) {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}

/// Called by [`store_driver!`](crate::store_driver!).
#[doc(hidden)]
pub fn read_url<B: Backend>(url: &str) -> Result<Arc<dyn Opener>, Invalid> {
    Ok(Arc::new(B::read(url)?))
}

/// Declares a kind of store: a `static` [`StoreDriver`] that is also submitted at link time.
///
/// ```text
/// store_driver! {
///     /// `sqlite:`, one file.
///     pub static DRIVER = Sqlite, schemes: ["sqlite"], example: "sqlite://farebox.db";
/// }
/// ```
///
/// What it opens is [`Durability::Durable`]. A store that is not must not pass for one: the macro
/// has no way to say otherwise, and such a store is given to the server in code.
#[macro_export]
macro_rules! store_driver {
    (
        $(#[$doc:meta])*
        $vis:vis static $static:ident = $backend:ty,
            schemes: [$($scheme:literal),+ $(,)?],
            example: $example:expr;
    ) => {
        $(#[$doc])*
        $vis static $static: $crate::StoreDriver = $crate::StoreDriver {
            schemes: &[$($scheme),+],
            durability: $crate::Durability::Durable,
            package: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            example: $example,
            read: $crate::driver::read_url::<$backend>,
        };
        $crate::__private::inventory::submit! { $crate::driver::LinkedDriver(&$static) }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    static ONE: StoreDriver = driver("one");
    static OTHER: StoreDriver = driver("other");

    const fn driver(package: &'static str) -> StoreDriver {
        StoreDriver {
            schemes: &["shelf", "shelfs"],
            durability: Durability::Durable,
            package,
            version: "1",
            example: "shelf://box",
            read: |_| Err(Invalid::new("", "no shelf")),
        }
    }

    /// Protects: a driver that comes through both doors is one driver, and two packages with one
    /// scheme are told of each other.
    #[test]
    fn a_scheme_has_one_package() {
        let drivers = StoreDrivers::default()
            .with(&ONE)
            .and_then(|d| d.with(&ONE));
        let drivers = drivers.unwrap_or_default();
        assert_eq!(drivers.schemes().collect::<Vec<_>>(), ["shelf", "shelfs"]);
        assert!(drivers.get("SHELF").is_some(), "schemes have no case");
        assert!(drivers.hint("shefl").contains("did you mean `shelf`?"));
        let twice = drivers.with(&OTHER).map(drop).map_err(|e| e.to_string());
        let error = twice.err().unwrap_or_default();
        assert!(error.contains("one and other"), "{error}");
    }

    #[test]
    fn a_prefix_ends_before_the_next_text() {
        assert_eq!(prefix_end("a:").as_deref(), Some("a;"));
        assert_eq!(prefix_end("a\u{d7ff}").as_deref(), Some("a\u{e000}"));
        assert_eq!(prefix_end("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(prefix_end("\u{10ffff}"), None);
        assert_eq!(prefix_end(""), None);
    }
}
