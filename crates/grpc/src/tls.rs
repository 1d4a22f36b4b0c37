//! Whom a connection trusts, and who it says it is.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, RootCertStore};

use crate::pin::Pinned;
use crate::{Pem, SetupError};

/// What a connection's TLS is made of.
#[derive(Clone, Debug)]
pub struct Tls(Trust);

#[derive(Clone, Debug)]
enum Trust {
    Pinned(Pem),
    Mutual {
        name: &'static str,
        ca: Pem,
        certificate: Pem,
        key: Pem,
    },
}

impl Tls {
    /// The node must present one of these certificates, byte for byte.
    #[must_use]
    pub const fn pinned(certificates: Pem) -> Self {
        Self(Trust::Pinned(certificates))
    }

    /// The node's certificate must have this name, whatever its address is, and the authority's
    /// signature; it is shown ours, which `key` belongs to.
    #[must_use]
    pub const fn mutual(name: &'static str, ca: Pem, certificate: Pem, key: Pem) -> Self {
        Self(Trust::Mutual {
            name,
            ca,
            certificate,
            key,
        })
    }

    /// The name that the node's certificate must have, where that is not the endpoint's.
    pub(crate) const fn server_name(&self) -> Option<&'static str> {
        match self.0 {
            Trust::Pinned(_) => None,
            Trust::Mutual { name, .. } => Some(name),
        }
    }

    /// The settings by what the files say now.
    pub(crate) fn settings(&self) -> Result<ClientConfig, SetupError> {
        let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(SetupError::Tls)?;
        let mut settings = match &self.0 {
            Trust::Pinned(pem) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Pinned {
                    accepted: pem.certificates()?,
                    provider,
                }))
                .with_no_client_auth(),
            Trust::Mutual {
                ca,
                certificate,
                key,
                ..
            } => {
                let mut roots = RootCertStore::empty();
                for ca in ca.certificates()? {
                    roots.add(ca).map_err(SetupError::Tls)?;
                }
                builder
                    .with_root_certificates(roots)
                    .with_client_auth_cert(certificate.certificates()?, key.key()?)
                    .map_err(SetupError::Tls)?
            }
        };
        settings.alpn_protocols = vec![b"h2".to_vec()];
        Ok(settings)
    }
}
