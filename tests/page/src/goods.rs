//! What is sold besides jokes: what a browser does not show as a page.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{Html, IntoResponse, Redirect, Response},
};
use tokio::time::sleep;

/// How long the download is, in bytes.
pub const FILE_SIZE: usize = 40 * CHUNK;
const CHUNK: usize = 64 * 1024;

/// A download that takes four seconds.
pub(crate) async fn file() -> Response {
    let chunks = futures_util::stream::unfold(0, |sent| async move {
        if sent == FILE_SIZE {
            return None;
        }
        sleep(Duration::from_millis(100)).await;
        let chunk = Bytes::from(vec![b'x'; CHUNK]);
        Some((Ok::<_, Infallible>(chunk), sent + CHUNK))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"goods.bin\"",
        ),
    ];
    (headers, Body::from_stream(chunks)).into_response()
}

/// Two seconds of silence, as a WAV file.
pub(crate) async fn sound() -> Response {
    let (rate, length) = (8_000_u32, 16_000_u32);
    let mut wav = Vec::new();
    for part in [
        &b"RIFF"[..],
        &(36 + length).to_le_bytes(),
        b"WAVEfmt ",
        &16_u32.to_le_bytes(),
        // Plain samples, one channel, one byte each.
        &[1, 0, 1, 0],
        &rate.to_le_bytes(),
        &rate.to_le_bytes(),
        &[1, 0, 8, 0],
        b"data",
        &length.to_le_bytes(),
    ] {
        wav.extend_from_slice(part);
    }
    wav.resize(wav.len() + 16_000, 0x80);
    ([(header::CONTENT_TYPE, "audio/wav")], wav).into_response()
}

/// Leads to another address.
pub(crate) async fn away() -> Redirect {
    Redirect::to("/there")
}

/// A page below a paid one, whose worker's scope it is in.
pub(crate) async fn free() -> Html<&'static str> {
    Html("<!doctype html><title>Free</title><p>Nothing to pay here.</p>")
}

/// The site's own service worker.
pub(crate) async fn worker() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/javascript"),
        (
            header::HeaderName::from_static("service-worker-allowed"),
            "/",
        ),
    ];
    (headers, "self.addEventListener('fetch', () => {});")
}

/// As if something on the way dropped headers that it does not know.
pub(crate) async fn without_receipt(mut response: Response) -> Response {
    response.headers_mut().remove("payment-receipt");
    response
}
