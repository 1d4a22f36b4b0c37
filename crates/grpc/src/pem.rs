//! Where a certificate or a key comes from.

use std::fmt;
use std::path::PathBuf;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::SetupError;

/// Certificates or a key in PEM form: a text, or a file that is read again for each connection.
/// `Debug` shows a file's path and no text.
#[derive(Clone)]
pub struct Pem(From);

#[derive(Clone)]
enum From {
    Text(Zeroizing<Vec<u8>>),
    File(PathBuf),
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            From::Text(_) => f.write_str("Pem([redacted])"),
            From::File(path) => f.debug_tuple("Pem").field(path).finish(),
        }
    }
}

impl Pem {
    /// A text that stays as it is.
    #[must_use]
    pub fn text(text: impl Into<Vec<u8>>) -> Self {
        Self(From::Text(Zeroizing::new(text.into())))
    }

    /// A file that may change.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(From::File(path.into()))
    }

    /// Checks that there is a certificate in it.
    ///
    /// # Errors
    ///
    /// [`SetupError::File`] or [`SetupError::Certificate`].
    pub fn check_certificate(&self) -> Result<(), SetupError> {
        self.certificates().map(drop)
    }

    /// Checks that there is a private key in it.
    ///
    /// # Errors
    ///
    /// [`SetupError::File`] or [`SetupError::Key`].
    pub fn check_key(&self) -> Result<(), SetupError> {
        self.key().map(drop)
    }

    /// All its certificates, of which there is at least one.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, SetupError> {
        let pem = self.read()?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            _ => Err(SetupError::Certificate),
        }
    }

    pub(crate) fn key(&self) -> Result<PrivateKeyDer<'static>, SetupError> {
        PrivateKeyDer::from_pem_slice(&self.read()?).map_err(|_| SetupError::Key)
    }

    fn read(&self) -> Result<Zeroizing<Vec<u8>>, SetupError> {
        match &self.0 {
            From::Text(text) => Ok(text.clone()),
            From::File(path) => match std::fs::read(path) {
                Ok(pem) => Ok(Zeroizing::new(pem)),
                Err(source) => Err(SetupError::File {
                    path: path.clone(),
                    source,
                }),
            },
        }
    }
}
