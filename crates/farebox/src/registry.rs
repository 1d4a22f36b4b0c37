//! Which rails this build contains.

use farebox_core::{Plugin, Registry, RegistryError};

/// Every rail that a Cargo feature of this crate switched on, named so that no linker can lose it.
pub static BUILTIN: &[&Plugin] = &[
    #[cfg(feature = "lightning")]
    &farebox_lightning::CHARGE,
    #[cfg(feature = "proof")]
    &farebox_proof::CHARGE,
    #[cfg(feature = "stripe")]
    &farebox_stripe::CHARGE,
    #[cfg(feature = "tempo")]
    &farebox_tempo::CHARGE,
];

/// [`BUILTIN`] and whatever else was linked in.
///
/// # Errors
/// If two packages claim one name.
pub fn registry() -> Result<Registry, RegistryError> {
    let builtin = BUILTIN
        .iter()
        .try_fold(Registry::default(), |registry, plugin| {
            registry.with(plugin)
        });
    builtin?.with_linked()
}
