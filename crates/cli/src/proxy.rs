//! Passing a paid request to the server behind.

use std::time::Duration;

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    response::{IntoResponse as _, Response},
};
use farebox::{
    http::{
        Metered,
        server::{BODY_LIMIT, is_event_stream},
    },
    wire::Challenge,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use reqwest::{Client, Url, redirect::Policy};

use crate::failure::Failure;

/// A server behind this one.
#[derive(Debug)]
pub(crate) struct Upstream {
    client: Client,
    base: Url,
    body_limit: usize,
}

/// Headers that concern one connection (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Whether a header is between the payer and this server. A credential is as good as money.
fn is_payments(name: &HeaderName) -> bool {
    name == "accept-payment" || name.as_str().starts_with("payment-")
}

impl Upstream {
    /// What all upstreams share. It follows no redirect, decodes no body and asks no proxy: what
    /// the upstream says is what the payer gets.
    pub(crate) fn client() -> Result<Client, Failure> {
        Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(10))
            .build()
            .map_err(Failure::general)
    }

    /// `body_limit`: the largest request body that is passed on, in bytes; the layer's own unless
    /// said.
    pub(crate) fn new(
        client: Client,
        base: &str,
        body_limit: Option<usize>,
    ) -> Result<Self, Failure> {
        let base = Url::parse(base).map_err(|error| {
            Failure::usage(format!("an upstream's URL cannot be used: {error}"))
        })?;
        Ok(Self {
            client,
            base,
            body_limit: body_limit.unwrap_or(BODY_LIMIT),
        })
    }

    /// Asks the upstream and answers with its status, headers and body, as they come. What a session
    /// pays for and streams events is metered event by event.
    pub(crate) async fn forward(&self, mut request: Request) -> Response {
        let Some(metered) = request.extensions_mut().remove::<Metered>() else {
            return self.ask(request).await;
        };
        // Events that are compressed cannot be told apart.
        let headers = request.headers_mut();
        headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
        let response = self.ask(request).await;
        if !response.status().is_success() || !is_event_stream(response.headers()) {
            return response;
        }
        match metered.event_stream(response) {
            Ok(metered) => metered.map(Body::new),
            Err(unpaid) => unpaid.into_response(),
        }
    }

    async fn ask(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let Some(url) = self.url(parts.uri.path(), parts.uri.query()) else {
            return (
                StatusCode::BAD_REQUEST,
                "the path cannot be passed on as it is\n",
            )
                .into_response();
        };
        let mut headers = parts.headers;
        end_to_end(&mut headers);
        // The client writes its own, for the upstream's host and the body as it is sent.
        headers.remove(header::HOST);
        headers.remove(header::CONTENT_LENGTH);
        let mut outgoing = self.client.request(parts.method, url).headers(headers);
        // In memory already: the layer has read it to compare digests.
        match to_bytes(body, self.body_limit).await {
            Ok(body) if body.is_empty() => {}
            Ok(body) => outgoing = outgoing.body(body),
            Err(_) => {
                return (StatusCode::BAD_REQUEST, "the body could not be read\n").into_response();
            }
        }
        match outgoing.send().await {
            Ok(response) => answer(response),
            Err(error) => {
                // Without the URL: it may hold a password.
                let error = error.without_url();
                tracing::warn!(%error, "the upstream did not answer");
                (
                    StatusCode::BAD_GATEWAY,
                    "the server behind this one did not answer\n",
                )
                    .into_response()
            }
        }
    }

    /// The upstream's URL for a path. `None` if the path would be another one there: `..` must not
    /// lead from a route that was paid for to one that was not.
    fn url(&self, path: &str, query: Option<&str>) -> Option<Url> {
        if climbs(path) {
            return None;
        }
        let prefix = self.base.path().trim_end_matches('/');
        let path = format!("{prefix}{path}");
        let mut url = self.base.clone();
        url.set_path(&path);
        url.set_query(query);
        (url.path() == path).then_some(url)
    }
}

fn answer(response: reqwest::Response) -> Response {
    if response.status() == StatusCode::PAYMENT_REQUIRED {
        // Its challenges stay here, and who has paid here must not be told to pay again: this is a
        // server behind that does not serve, and the payment may be presented once more.
        tracing::warn!("the upstream asks for payment itself");
        let text = "the server behind this one asks for payment itself\n";
        return (StatusCode::BAD_GATEWAY, text).into_response();
    }
    // As a body and not as a stream: it knows its length, without which it could not be kept.
    let response: http::Response<reqwest::Body> = response.into();
    let (status, mut headers) = (response.status(), response.headers().clone());
    end_to_end(&mut headers);
    let mut answer = Response::new(Body::new(response.into_body()));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}

/// Removes what concerns this connection, or the payment.
fn end_to_end(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    let payments: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_payments(name))
        .cloned()
        .collect();
    for name in payments {
        headers.remove(name);
    }
    for name in [header::AUTHORIZATION, header::WWW_AUTHENTICATE] {
        let kept: Vec<HeaderValue> = headers
            .get_all(&name)
            .iter()
            .filter(|value| !speaks_of_payment(value))
            .cloned()
            .collect();
        headers.remove(&name);
        for value in kept {
            headers.append(&name, value);
        }
    }
}

/// Whether a path has a segment `.` or `..` for a server that decodes it first. Some decode the
/// separators too, and some leave out what follows a `;`.
fn climbs(path: &str) -> bool {
    let path = path.to_ascii_lowercase().replace("%2e", ".");
    let path = path.replace("%2f", "/").replace("%5c", "\\");
    path.split(['/', '\\'])
        .map(|segment| segment.split(';').next().unwrap_or_default())
        .any(|segment| matches!(segment, "." | ".."))
}

/// Whether the scheme `Payment` is anywhere in a header's list, or may be once the header is joined
/// with the next of its name, for which it must end within quotes.
fn speaks_of_payment(value: &HeaderValue) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    for byte in value.as_bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    quoted || !Challenge::parse_all([value.as_bytes()]).is_empty()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    fn upstream(base: &str) -> Upstream {
        Upstream::new(Client::new(), base, None).unwrap()
    }

    /// Protects: a paid path cannot be used to reach another path of the upstream.
    #[test]
    fn a_path_arrives_as_it_was_paid_for_or_not_at_all() {
        let plain = upstream("http://127.0.0.1:9000");
        let joined = |u: &Upstream, path| u.url(path, Some("a=b")).map(|url| url.to_string());
        let good = Some("http://127.0.0.1:9000/joke/1?a=b".to_owned());
        assert_eq!(joined(&plain, "/joke/1"), good);
        let good = Some("http://127.0.0.1:9000/a..b/.x%2fy;z?a=b".to_owned());
        assert_eq!(joined(&plain, "/a..b/.x%2fy;z"), good);
        let below = upstream("http://127.0.0.1:9000/api/");
        let good = Some("http://127.0.0.1:9000/api/joke?a=b".to_owned());
        assert_eq!(joined(&below, "/joke"), good);
        for path in [
            "/joke/../admin",
            "/joke/%2e%2e/admin",
            "/joke/./x",
            "/joke/..",
            "/joke/.%2E/admin",
            "/joke/..%2fadmin",
            "/joke/x%2F..%2F..%2Fadmin",
            "/joke/%2e%2e%5cadmin",
            "/joke/..;a=b/admin",
            "/a\\..\\b",
        ] {
            assert_eq!(joined(&plain, path), None, "{path}");
            assert_eq!(joined(&below, path), None, "{path}");
        }
    }

    /// Protects: a credential never reaches the upstream, nor an upstream's receipt the payer.
    #[test]
    fn payment_and_connection_headers_stay_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "payment abc"),
            ("authorization", "Bearer token"),
            ("payment-authorization", "Payment abc"),
            ("payment-receipt", "abc"),
            ("payment-session", "abc"),
            ("payment-session-snapshot", "abc"),
            ("accept-payment", "tempo/charge"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("content-type", "text/plain"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        end_to_end(&mut headers);
        let mut left: Vec<_> = headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_bytes()))
            .collect();
        left.sort_unstable();
        let bearer = ("authorization", &b"Bearer token"[..]);
        assert_eq!(left, [bearer, ("content-type", b"text/plain")]);
    }

    /// Protects: neither a tab nor a place in a list, nor a quote that another line closes, brings
    /// an upstream's challenge to a payer.
    #[test]
    fn payment_hides_in_no_list() {
        let challenge = r#"id="i", realm="r", method="m", intent="c", request="e30""#;
        for name in [header::AUTHORIZATION, header::WWW_AUTHENTICATE] {
            for values in [
                vec![format!("Payment\t{challenge}")],
                vec!["pAyMeNt".to_owned()],
                vec![", Payment abc".to_owned()],
                vec![format!(r#"Bearer realm="x", Payment {challenge}"#)],
                vec![format!(
                    "Negotiate abc==,Payment {challenge}, Basic realm=x"
                )],
                vec![
                    r#"Bearer realm="x"#.to_owned(),
                    format!(r#"y", Payment {challenge}"#),
                ],
            ] {
                let mut headers = HeaderMap::new();
                headers.append(
                    &name,
                    HeaderValue::from_static("Basic realm=\"a, Payment b\""),
                );
                for value in &values {
                    headers.append(&name, HeaderValue::from_str(value).unwrap());
                }
                end_to_end(&mut headers);
                let left: Vec<_> = headers.get_all(&name).iter().collect();
                assert_eq!(left, [r#"Basic realm="a, Payment b""#], "{values:?}");
            }
        }
    }

    /// Protects: an upstream's response that says how long it is can be kept for a payer who lost it.
    #[tokio::test]
    async fn a_known_length_is_passed_on() {
        use std::io::{Read as _, Write as _};

        use axum::body::HttpBody as _;

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let answers = ["content-length: 4\r\n\r\njoke", "\r\njoke"];
        let server = std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
                let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n";
                stream
                    .write_all(format!("{head}{answer}").as_bytes())
                    .unwrap();
            }
        });
        for length in [Some(4), None] {
            let request = Request::new(Body::empty());
            let response = upstream(&base).forward(request).await;
            assert_eq!(response.body().size_hint().exact(), length);
            assert_eq!(to_bytes(response.into_body(), 9).await.unwrap(), "joke");
        }
        server.join().unwrap();
    }

    /// Protects: a body that the layer let through from being too long for the way on.
    #[tokio::test]
    async fn the_configured_body_limit_is_the_proxys_too() {
        let ask = async |limit: usize| {
            // Nothing answers on port 1.
            let upstream = Upstream::new(Client::new(), "http://127.0.0.1:1", Some(limit));
            let request = Request::post("/a").body(Body::from("12345")).unwrap();
            upstream.unwrap().forward(request).await.status()
        };
        assert_eq!(ask(5).await, StatusCode::BAD_GATEWAY);
        assert_eq!(ask(4).await, StatusCode::BAD_REQUEST);
    }
}
