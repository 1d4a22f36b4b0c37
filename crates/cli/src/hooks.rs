//! Calls from outside: `POST <hooks>/<rail>` for each rail that takes them.

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse as _, Response},
    routing::post,
};
use farebox::{
    Engine,
    config::Config,
    engine::{HeedError, Heeded},
};

/// The largest call that is read, bytes.
const LIMIT: usize = 256 * 1024;

/// A router of the rails that take calls, if the configuration says where.
pub(crate) fn router(config: &Config) -> Router {
    let engine = config.server.engine();
    let Some(prefix) = &config.hooks else {
        if !engine.listeners().is_empty() {
            tracing::warn!("a rail takes calls from outside, and `hooks` does not say where");
        }
        return Router::new();
    };
    let route = format!("{}/{{method}}/{{intent}}", prefix.trim_end_matches('/'));
    Router::new()
        .route(&route, post(heed))
        .layer(DefaultBodyLimit::max(LIMIT))
        .with_state(engine.clone())
}

/// 2xx only where nothing is left to do: otherwise the call has to come again.
async fn heed(
    State(engine): State<Engine>,
    Path((method, intent)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let headers: Vec<(&str, &[u8])> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    let name = format!("{method}/{intent}");
    match engine.heed(&name, &headers, &body).await {
        Ok(Heeded::Done) => StatusCode::NO_CONTENT.into_response(),
        Ok(Heeded::Later) => later(),
        Err(HeedError::NoListener(_)) => StatusCode::NOT_FOUND.into_response(),
        Err(HeedError::Unheeded(why)) => {
            tracing::warn!(rail = name, %why, "a call from outside is not heeded");
            (StatusCode::BAD_REQUEST, "not heeded\n").into_response()
        }
        Err(error) => {
            tracing::warn!(rail = name, %error, "a call from outside cannot be followed now");
            later()
        }
    }
}

fn later() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")]).into_response()
}
