//! The calls that users make.

use std::{future::Future, time::Duration};

use farebox_client::{Payment, Purse};
use farebox_core::wire::Receipt;
use reqwest::{RequestBuilder, Response};

use super::{drive, error::PayError};
use crate::PAYMENT_RECEIPT;

/// How hard to try, and what the HTTP client can be trusted with.
#[derive(Clone, Debug)]
pub struct PayOptions {
    pub(crate) attempts: u32,
    pub(crate) max_wait: Duration,
    pub(crate) no_redirects: bool,
}

impl Default for PayOptions {
    fn default() -> Self {
        Self {
            attempts: 4,
            max_wait: Duration::from_secs(10),
            no_redirects: false,
        }
    }
}

impl PayOptions {
    /// How often a credential is presented in all before the outcome counts as unknown; 4 times
    /// unless set, and once at least.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// The longest wait between two attempts; 10 s unless set. A server that asks for more with
    /// `Retry-After` is not asked again.
    #[must_use]
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// The reqwest client was built with `redirect::Policy::none()`, which is best for paying. Then
    /// credentials may go into `Payment-Authorization`, which reqwest would otherwise carry to another
    /// host. It does not carry `Authorization` there, but it does from `https` to `http` of the same
    /// host and port.
    #[must_use]
    pub fn client_follows_no_redirects(mut self) -> Self {
        self.no_redirects = true;
        self
    }
}

/// Paying for one request.
pub trait PayExt: Sized {
    /// Sends the request; if the answer is a 402, pays and sends it again with the credential, to
    /// the URL that asked. The response is whatever the server answers, a 4xx included.
    ///
    /// The credential replaces an `Authorization` of the request's own.
    ///
    /// # Errors
    /// See [`PayError`]; only [`PayError::NotAccepted`] and [`PayError::OutcomeUnknown`] come
    /// after a payment, and [`PayError::Client`] where a wallet lost track of one.
    fn pay(self, purse: &Purse) -> impl Future<Output = Result<Response, PayError>> + Send {
        self.pay_with(purse, PayOptions::default())
    }

    /// [`pay`](Self::pay) with options.
    ///
    /// # Errors
    /// As [`pay`](Self::pay).
    fn pay_with(
        self,
        purse: &Purse,
        options: PayOptions,
    ) -> impl Future<Output = Result<Response, PayError>> + Send;

    /// Presents a payment made before, after [`PayError::OutcomeUnknown`]. The request must be the
    /// one that was paid for: same URL, same body.
    ///
    /// # Errors
    /// As [`pay`](Self::pay); nothing more is paid.
    fn present(
        self,
        payment: Payment,
        options: PayOptions,
    ) -> impl Future<Output = Result<Response, PayError>> + Send;
}

impl PayExt for RequestBuilder {
    async fn pay_with(self, purse: &Purse, options: PayOptions) -> Result<Response, PayError> {
        let (mut client, request) = self.build_split();
        drive::pay(
            &mut client,
            request.map_err(PayError::Request)?,
            purse,
            &options,
        )
        .await
    }

    async fn present(self, payment: Payment, options: PayOptions) -> Result<Response, PayError> {
        let (mut client, request) = self.build_split();
        drive::present(
            &mut client,
            request.map_err(PayError::Request)?,
            payment,
            &options,
        )
        .await
    }
}

/// Reading receipts.
pub trait ReceiptExt {
    /// The receipt of a paid response. `None` if there is none, or none that can be read.
    fn receipt(&self) -> Option<Receipt>;
}

impl ReceiptExt for Response {
    fn receipt(&self) -> Option<Receipt> {
        Receipt::parse(self.headers().get(PAYMENT_RECEIPT)?.to_str().ok()?).ok()
    }
}
