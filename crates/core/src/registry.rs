//! Which rails a binary contains.
//!
//! A plugin is one `static`, reachable through two doors: `inventory` (link time) and an explicit
//! list that names it. Linked is not offered: registration makes a rail buildable, and only
//! configuration or code offers it.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    config::{self, Invalid, did_you_mean},
    intent::IntentSpec,
    method::{Method, Rail, Typed},
    payer::{Payer, TypedPayer, Wallet},
    session::{SessionPayer, SessionWallet, TypedSessionPayer},
};

/// Builds a method from its configuration. Pure: [`Method::connect`] does the I/O.
pub type BuildMethod = fn(&Value) -> Result<Arc<dyn Method>, Invalid>;

/// Builds a payer from its configuration. Pure.
pub type BuildPayer = fn(&Value) -> Result<Arc<dyn Payer>, Invalid>;

/// Builds a payer of sessions from its configuration. Pure.
pub type BuildSessionPayer = fn(&Value) -> Result<Arc<dyn SessionPayer>, Invalid>;

/// A rail that a binary contains. Make one with [`plugin!`](crate::plugin!).
pub struct Plugin {
    /// What configuration and people call it: `tempo/charge`. Usually the wire pair.
    pub name: &'static str,
    /// The method on the wire.
    pub method: &'static str,
    /// The intent on the wire.
    pub intent: &'static str,
    /// The package it comes from.
    pub package: &'static str,
    /// That package's version.
    pub version: &'static str,
    /// An example of its configuration, the keys under `[rails.<rail>]`, as TOML.
    pub example: &'static str,
    /// The server's side.
    pub build: BuildMethod,
    /// The client's side, if the package has one.
    pub wallet: Option<BuildPayer>,
    /// The client's side of a session, if the package has one.
    pub session_wallet: Option<BuildSessionPayer>,
}

impl Plugin {
    /// The part of the name before the slash: the key under `[rails]`.
    pub fn rail(&self) -> &'static str {
        self.name
            .split_once('/')
            .map_or(self.name, |(rail, _)| rail)
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Plugin({} from {} {})",
            self.name, self.package, self.version
        )
    }
}

/// A plugin submitted at link time. Made by [`plugin!`](crate::plugin!).
#[doc(hidden)]
#[derive(Debug)]
pub struct Linked(pub &'static Plugin);

inventory::collect!(Linked);

/// Why plugins cannot be registered or found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// Two packages claim one name.
    #[error("{name} is registered twice, by the packages {first} and {second}; drop one of them")]
    Duplicate {
        /// The contested name.
        name: String,
        /// Who came first.
        first: &'static str,
        /// Who came second.
        second: &'static str,
    },
    /// Nobody claims the name.
    #[error(
        "no rail {name} in this binary{hint}. Either its Cargo feature is off, or its crate is \
         only named in Cargo.toml: mention it in code (`use the_crate as _;`)"
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is instead.
        hint: String,
    },
}

/// The rails a process can build, by name, in a fixed order.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    plugins: BTreeMap<&'static str, &'static Plugin>,
}

impl Registry {
    /// Adds a plugin. The same `static` may come through both doors.
    pub fn with(mut self, plugin: &'static Plugin) -> Result<Self, RegistryError> {
        match self.plugins.insert(plugin.name, plugin) {
            Some(old) if !std::ptr::eq(old, plugin) => Err(RegistryError::Duplicate {
                name: plugin.name.to_owned(),
                first: old.package,
                second: plugin.package,
            }),
            _ => Ok(self),
        }
    }

    /// Adds everything that was linked in. The order of `inventory` changes with LTO, so names
    /// decide the order here.
    pub fn with_linked(self) -> Result<Self, RegistryError> {
        inventory::iter::<Linked>
            .into_iter()
            .try_fold(self, |registry, l| registry.with(l.0))
    }

    /// The plugins, by name.
    pub fn plugins(&self) -> impl Iterator<Item = &'static Plugin> + '_ {
        self.plugins.values().copied()
    }

    /// The plugin called `name`.
    pub fn get(&self, name: &str) -> Result<&'static Plugin, RegistryError> {
        self.plugins.get(name).copied().ok_or_else(|| {
            let known: Vec<&str> = self.plugins.keys().copied().collect();
            RegistryError::Unknown {
                name: name.to_owned(),
                hint: did_you_mean(name, &known),
            }
        })
    }
}

/// Configuration value → typed configuration → rail. Called by [`plugin!`](crate::plugin!).
#[doc(hidden)]
pub fn build_rail<C: DeserializeOwned, I: IntentSpec, R: Rail<I>>(
    plugin: &Plugin,
    config: &Value,
    new: fn(C) -> Result<R, Invalid>,
) -> Result<Arc<dyn Method>, Invalid> {
    let rail = config::build(config, plugin.example, new)?;
    Ok(Arc::new(Typed::<R, I>::named(rail, plugin.name)))
}

/// Configuration value → typed configuration → wallet. Called by [`plugin!`](crate::plugin!).
#[doc(hidden)]
pub fn build_wallet<C: DeserializeOwned, I: IntentSpec, W: Wallet<I>>(
    config: &Value,
    new: fn(C) -> Result<W, Invalid>,
) -> Result<Arc<dyn Payer>, Invalid> {
    // The example is of the other side: its macaroon is none to pay with.
    let wallet = config::build(config, "", new)?;
    Ok(Arc::new(TypedPayer::<W, I>::new(wallet)))
}

/// The same for sessions.
#[doc(hidden)]
pub fn build_session_wallet<C: DeserializeOwned, W: SessionWallet>(
    config: &Value,
    new: fn(C) -> Result<W, Invalid>,
) -> Result<Arc<dyn SessionPayer>, Invalid> {
    Ok(Arc::new(TypedSessionPayer::new(config::build(
        config, "", new,
    )?)))
}

/// Declares a rail: a `static` [`Plugin`] that is also submitted at link time.
///
/// ```text
/// plugin! {
///     /// `giftcard/charge`.
///     pub static CHARGE = Charge: GiftCard::new;
/// }
/// plugin! {
///     /// `proof/charge`: `tempo/charge` on the wire, for zero amounts.
///     pub static CHARGE = Charge: Proof::new, wallet: ProofWallet::new,
///         name: "proof/charge", example: include_str!("example.toml");
/// }
/// plugin! {
///     /// `tempo/session`, whose wallet is a `SessionWallet`.
///     pub static SESSION = Session: TempoSession::new, session_wallet: TempoSessionWallet::new;
/// }
/// ```
///
/// `new` is `fn(Config) -> Result<Rail, Invalid>` and pure: what needs I/O goes into
/// [`Rail::connect`](crate::Rail::connect).
#[macro_export]
macro_rules! plugin {
    (
        $(#[$doc:meta])*
        $vis:vis static $static:ident = $intent:ty: $rail:ident :: $new:ident
        $(, wallet: $wallet:ident :: $new_wallet:ident)?
        $(, session_wallet: $session_wallet:ident :: $new_session_wallet:ident)?
        $(, name: $name:literal)?
        $(, example: $example:expr)?;
    ) => {
        $(#[$doc])*
        $vis static $static: $crate::Plugin = $crate::Plugin {
            name: $crate::plugin!(@or $($name)?; {
                const METHOD: &str = <$rail as $crate::Rail<$intent>>::METHOD;
                const INTENT: &str = <$intent as $crate::IntentSpec>::NAME;
                const PAIR: &[u8] =
                    &$crate::__private::pair::<{ METHOD.len() + 1 + INTENT.len() }>(METHOD, INTENT);
                $crate::__private::text(PAIR)
            }),
            method: <$rail as $crate::Rail<$intent>>::METHOD,
            intent: <$intent as $crate::IntentSpec>::NAME,
            package: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            example: $crate::plugin!(@or $($example)?; { "" }),
            build: |config| {
                $crate::registry::build_rail::<_, $intent, $rail>(&$static, config, $rail::$new)
            },
            wallet: $crate::plugin!(@or $({
                Some(|config| {
                    $crate::registry::build_wallet::<_, $intent, $wallet>(config, $wallet::$new_wallet)
                })
            })?; { None }),
            session_wallet: $crate::plugin!(@or $({
                Some(|config| {
                    $crate::registry::build_session_wallet::<_, $session_wallet>(
                        config,
                        $session_wallet::$new_session_wallet,
                    )
                })
            })?; { None }),
        };
        $crate::__private::inventory::submit! { $crate::Linked(&$static) }
    };
    (@or $given:expr; $default:block) => { $given };
    (@or ; $default:block) => { $default };
}
