//! Which rails this build contains.

use farebox_core::{Linked, Plugin, Registry, RegistryError};

/// Every rail that a Cargo feature of this crate switched on, named so that no linker can lose it.
pub static BUILTIN: &[&Plugin] = &[
    #[cfg(feature = "lightning")]
    &farebox_lightning::CHARGE,
    #[cfg(feature = "lightning")]
    &farebox_lightning::SESSION,
    #[cfg(feature = "proof")]
    &farebox_proof::CHARGE,
    #[cfg(feature = "stripe")]
    &farebox_stripe::CHARGE,
    #[cfg(feature = "tempo")]
    &farebox_tempo::CHARGE,
    #[cfg(feature = "tempo")]
    &farebox_tempo::SESSION,
];

/// Packages whose rails the features above decide on, and nothing else. The Tempo rail brings the
/// proof crate along for its functions; whether its registration then survives is up to the linker.
const BY_FEATURE: [&str; 4] = [
    "farebox-lightning",
    "farebox-proof",
    "farebox-stripe",
    "farebox-tempo",
];

/// [`BUILTIN`], and the rails of other packages that were linked in.
///
/// # Errors
/// If two packages claim one name.
pub fn registry() -> Result<Registry, RegistryError> {
    let linked = inventory::iter::<Linked>.into_iter().map(|linked| linked.0);
    let others = linked.filter(|plugin| !BY_FEATURE.contains(&plugin.package));
    let mut plugins = BUILTIN.iter().copied().chain(others);
    plugins.try_fold(Registry::default(), Registry::with)
}
