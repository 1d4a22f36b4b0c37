//! Request bodies: read before anything is paid, up to a limit.

use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_LENGTH};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a body was not read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It is longer than the limit.
    TooLarge,
    /// It broke off, or its framing is wrong.
    Broken,
}

/// A body, read or known to be empty.
pub(crate) enum Buffered<B> {
    /// There is none; the value is as it came.
    None(B),
    /// Its bytes.
    Bytes(Bytes),
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read<B>(
    headers: &HeaderMap,
    body: B,
    limit: usize,
) -> Result<Buffered<B>, BodyError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    if body.is_end_stream() {
        return Ok(Buffered::None(body));
    }
    // Refused without reading a byte of it.
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let least = body.size_hint().lower().max(announced.unwrap_or(0));
    if least > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(BodyError::TooLarge);
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(Buffered::Bytes(collected.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge),
        Err(error) => {
            tracing::debug!(error, "a request body was not read");
            Err(BodyError::Broken)
        }
    }
}
