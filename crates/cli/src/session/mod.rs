//! Paying out of channels, and what is left in them.

mod channels;
mod pay;
mod summary;

use std::{fmt, path::PathBuf, sync::Arc};

use farebox::{
    Amount, Budget,
    client::session::{FileStore, SessionError},
};

use crate::{
    args::Channels,
    failure::{Failure, printable},
    request::decimals,
};

pub(crate) use channels::run;
pub(crate) use pay::{chosen, pay};

impl Channels {
    /// The file, whose folder is made where nobody named one.
    fn store(&self) -> Result<Arc<FileStore>, Failure> {
        let path = match &self.channels {
            Some(path) => path.clone(),
            None => usual()?,
        };
        Ok(Arc::new(FileStore::new(path)))
    }
}

/// Where a user's programs keep their data.
fn usual() -> Result<PathBuf, Failure> {
    let named = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let folder = match cfg!(windows) {
        true => named("LOCALAPPDATA"),
        false => named("XDG_DATA_HOME")
            .or_else(|| std::env::home_dir().map(|home| home.join(".local/share"))),
    };
    let unknown = || Failure::usage("there is no home folder; name a file with --channels");
    let folder = folder.ok_or_else(unknown)?.join("farebox");
    std::fs::create_dir_all(&folder).map_err(|error| {
        Failure::general(format!(
            "cannot make the folder {}: {error}",
            folder.display()
        ))
    })?;
    Ok(folder.join("channels.json"))
}

/// An amount as people write it.
struct Money<'a>(Amount, &'a str);

impl fmt::Display for Money<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(amount, currency) = self;
        match decimals(currency) {
            Some(decimals) => write!(f, "{} {currency}", amount.to_decimal(decimals)),
            None => write!(f, "{amount} base units of {currency}"),
        }
    }
}

/// Nothing is approved by it: listing and closing deposit nothing.
fn no_budget() -> Budget {
    Budget::new([])
}

/// Says something beside the output.
fn note(text: &str) {
    eprintln!("* {}", printable(text));
}

fn failed(error: SessionError) -> Failure {
    let code = match &error {
        SessionError::OutcomeUnknown { .. } | SessionError::Closing => 6,
        SessionError::NotAccepted { .. } => 5,
        SessionError::NoChannel => 2,
        _ => 1,
    };
    Failure::new(code, error.to_string())
}
