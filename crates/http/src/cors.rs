//! Browsers: what lets a page of another origin read challenges and pay them.

use std::time::Duration;

use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

use crate::{
    IDEMPOTENT_REPLAYED, PAYMENT_RECEIPT, PAYMENT_SESSION, PAYMENT_SESSION_SNAPSHOT,
    origins::{Listed, Origins},
};

/// A layer that lets pages of these origins pay: they may read `WWW-Authenticate`,
/// `Payment-Receipt`, `Payment-Session`, `Payment-Session-Snapshot`, `Retry-After` and
/// `Idempotent-Replayed`, and send what they ask for,
/// `Authorization`, `Payment-Authorization`, `Accept-Payment` and `Idempotency-Key` among it.
///
/// Put it outside everything else, `Router::layer` as the last: a refusal without its headers is
/// one that a page cannot read, and a preflight is answered here, before anything asks for money.
/// Cookies are not let through; `.allow_credentials(true)` does so for listed origins, and cannot
/// be had together with [`Origins::every`].
///
/// ```
/// use farebox_http::{Origins, cors};
///
/// # fn example(router: axum::Router) -> Result<axum::Router, farebox_http::InvalidOrigin> {
/// let origins = Origins::parse(["https://app.example"])?;
/// Ok(router.layer(cors(&origins)))
/// # }
/// ```
pub fn cors(origins: &Origins) -> CorsLayer {
    let origins = match &origins.0 {
        Listed::Every => AllowOrigin::any(),
        Listed::These(origins) => AllowOrigin::list(origins.iter().cloned()),
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods(AllowMethods::mirror_request())
        // The route decides what it makes of them; a list here would only hide routes' own.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([
            WWW_AUTHENTICATE,
            PAYMENT_RECEIPT,
            RETRY_AFTER,
            IDEMPOTENT_REPLAYED,
            PAYMENT_SESSION,
            PAYMENT_SESSION_SNAPSHOT,
        ])
        .max_age(Duration::from_secs(600))
}
