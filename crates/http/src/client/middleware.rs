//! The client's side as a middleware.

use async_trait::async_trait;
use farebox_client::Purse;
use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next};

use super::{
    drive::{self, Transport},
    error::PayError,
    ext::PayOptions,
};

/// Pays for every request of a `reqwest-middleware` client, as [`PayExt`](super::PayExt) does for
/// one.
///
/// Add it before a retrying middleware (`ClientBuilder::with(pay).with(retry)`), so that retries
/// repeat a request with its credential. The other way round a retry would start a new payment.
///
/// Failures that have to do with payment come as `Error::Middleware`; downcast its source to
/// [`PayError<reqwest_middleware::Error>`](PayError).
#[derive(Clone, Debug)]
pub struct PayMiddleware {
    purse: Purse,
    options: PayOptions,
}

impl PayMiddleware {
    /// Pays from `purse`.
    #[must_use]
    pub fn new(purse: Purse) -> Self {
        Self {
            purse,
            options: PayOptions::default(),
        }
    }

    /// With other options.
    #[must_use]
    pub fn options(mut self, options: PayOptions) -> Self {
        self.options = options;
        self
    }
}

/// The rest of the chain.
struct Chain<'a, 'e> {
    next: Next<'a>,
    extensions: &'e mut Extensions,
}

impl Transport for Chain<'_, '_> {
    type Error = Error;

    async fn send(&mut self, request: Request) -> Result<Response, Error> {
        self.next.clone().run(request, self.extensions).await
    }
}

#[async_trait]
impl Middleware for PayMiddleware {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let mut chain = Chain { next, extensions };
        drive::pay(&mut chain, request, &self.purse, &self.options)
            .await
            .map_err(|error| match error {
                PayError::Request(error) => error,
                other => Error::middleware(other),
            })
    }
}
