//! The pages that may pay.

use std::sync::Arc;

use http::{HeaderValue, Uri, uri::Scheme};

/// Origins whose pages may ask, or every one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins(pub(crate) Listed);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    Every,
    These(Arc<[HeaderValue]>),
}

/// What is no origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{origin}` is no origin; give a scheme and a host, such as \"https://app.example\", or \"*\" \
     alone for every one"
)]
pub struct InvalidOrigin {
    /// Its place in the list.
    pub index: usize,
    /// The text.
    pub origin: String,
}

impl Origins {
    /// Every page of the web. Payment carries its own credential, so this shows nobody anything
    /// that a page could not get by asking from its own server.
    pub fn every() -> Self {
        Self(Listed::Every)
    }

    /// Scheme, host and port as browsers write them: `https://app.example`. `*`, alone, is every
    /// one.
    ///
    /// # Errors
    /// The first that is no origin.
    pub fn parse<O: AsRef<str>>(
        origins: impl IntoIterator<Item = O>,
    ) -> Result<Self, InvalidOrigin> {
        let origins: Vec<O> = origins.into_iter().collect();
        if let [only] = origins.as_slice()
            && only.as_ref() == "*"
        {
            return Ok(Self::every());
        }
        let listed = origins.iter().enumerate().map(|(index, origin)| {
            let origin = origin.as_ref();
            let value = origin.parse().ok().filter(|_| is_origin(origin));
            value.ok_or_else(|| InvalidOrigin {
                index,
                origin: origin.to_owned(),
            })
        });
        Ok(Self(Listed::These(listed.collect::<Result<_, _>>()?)))
    }
}

/// As a browser would write it, for it is compared byte by byte.
fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else {
        return false;
    };
    let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
        return false;
    };
    let default_port = match uri.port_u16() {
        Some(port) => {
            (scheme == &Scheme::HTTPS && port == 443) || (scheme == &Scheme::HTTP && port == 80)
        }
        None => false,
    };
    !default_port
        && !authority.as_str().contains('@')
        && text == format!("{scheme}://{}", authority.as_str().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: an origin that no browser would send is an error and not a rule that never fits.
    #[test]
    fn origins_are_as_browsers_write_them() {
        for good in [
            "https://app.example",
            "http://localhost:5173",
            "https://[::1]:8443",
        ] {
            assert!(Origins::parse([good]).is_ok(), "{good}");
        }
        for bad in [
            "",
            "*",
            "app.example",
            "https://",
            "https://app.example/",
            "https://App.example",
            "https://app.example:443",
            "http://app.example:80",
            "https://u@app.example",
            "https://app.example/x",
            "https://*.example?",
            "null",
        ] {
            let listed = Origins::parse(["https://app.example", bad]);
            assert_eq!(listed.unwrap_err().index, 1, "{bad}");
        }
        assert_eq!(Origins::parse(["*"]).unwrap(), Origins::every());
    }
}
