//! How a request reached the server: what its realm is, and whether it may carry payment.

use std::net::SocketAddr;

use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::{HeaderName, Request, Version, header::AUTHORIZATION},
    routing::get,
};
use farebox_http::{Hosts, Network, PaymentLayer, Transport};
use tower::ServiceExt;

use crate::support::{Answer, REALM, Shop, pay};

const HOSTS: [&str; 2] = ["one.example", "two.example:8443"];

fn router(layer: PaymentLayer) -> Router {
    Router::new().route("/joke", get(|| async { "ha" }).route_layer(layer))
}

async fn send(router: &Router, request: Request<Body>) -> Answer {
    Answer::of_response(router.clone().oneshot(request).await.unwrap()).await
}

fn hosted(uri: &str, host: Option<&str>) -> axum::http::request::Builder {
    let request = Request::get(uri);
    match host {
        Some(host) => request.header("host", host),
        None => request,
    }
}

/// Protects: a client cannot choose a realm that the operator did not list, in any version's
/// spelling of the host.
#[tokio::test]
async fn only_a_listed_host_is_a_realm() {
    let shop = Shop::open().await;
    let hosts = Hosts::parse(HOSTS).unwrap();
    let router = router(PaymentLayer::new(shop.gate("GET /joke")).hosts(hosts));
    for (uri, host, realm) in [
        ("/joke", Some("one.example"), "one.example"),
        ("/joke", Some("ONE.example:443"), "one.example"),
        ("/joke", Some("one.example:80"), "one.example"),
        ("/joke", Some("two.example:8443"), "two.example:8443"),
        ("/joke", Some("two.example"), REALM),
        ("/joke", Some("evil.example"), REALM),
        ("/joke", Some("one.example.evil.example"), REALM),
        ("/joke", None, REALM),
        // HTTP/2 has the authority in the target.
        ("https://one.example/joke", None, "one.example"),
        ("https://one.example:443/joke", None, "one.example"),
        ("https://evil.example/joke", None, REALM),
        (
            "https://one.example/joke",
            Some("one.example"),
            "one.example",
        ),
        ("https://one.example/joke", Some("two.example:8443"), REALM),
    ] {
        let request = hosted(uri, host).version(Version::HTTP_2);
        let answer = send(&router, request.body(Body::empty()).unwrap()).await;
        let challenges = answer.challenges();
        assert!(
            challenges.iter().all(|c| c.realm == realm),
            "{uri} {host:?}"
        );
    }
    let twice = hosted("/joke", Some("one.example")).header("host", "one.example");
    let answer = send(&router, twice.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.challenge("token").realm, REALM);
}

/// Protects: what was asked of one host pays for nothing at another.
#[tokio::test]
async fn a_challenge_is_paid_under_its_own_realm() {
    let shop = Shop::open().await;
    let hosts = Hosts::parse(["one.example", "two.example"]).unwrap();
    let router = router(PaymentLayer::new(shop.gate("GET /joke")).hosts(hosts));
    let ask = |host| hosted("/joke", Some(host)).body(Body::empty()).unwrap();
    let challenge = send(&router, ask("one.example")).await.challenge("token");
    let header = pay(&challenge, "good-1").to_header().unwrap();
    for (host, status) in [
        ("two.example", 402),
        ("other.example", 402),
        ("one.example", 200),
    ] {
        let mut request = ask(host);
        request
            .headers_mut()
            .insert(AUTHORIZATION, header.parse().unwrap());
        let answer = send(&router, request).await;
        assert_eq!(answer.status, status, "{host}");
        if status == 402 {
            answer.is_refused("invalid-challenge", &challenge);
        }
    }
    assert_eq!(shop.moved(), 1);
}

/// Protects: a challenge leaves only where a trusted proxy says TLS, or to this machine.
#[tokio::test]
async fn only_a_trusted_proxy_is_believed() {
    let shop = Shop::open().await;
    let proxies = ["10.0.0.0/8", "127.0.0.9"].map(|n| Network::parse(n).unwrap());
    let layer = PaymentLayer::new(shop.gate("GET /joke"))
        .transport(Transport::proxied(proxies))
        .hosts(Hosts::parse(["one.example"]).unwrap());
    let router = router(layer);
    let (https, http) = (
        ("x-forwarded-proto", "https"),
        ("x-forwarded-proto", "http"),
    );
    let standard = ("forwarded", "for=192.0.2.1;proto=https;host=one.example");
    let host = ("x-forwarded-host", "one.example");
    for (peer, headers, realm) in [
        // The proxy says TLS, in either spelling; IPv4 may come mapped.
        ("10.0.0.1:9", &[https][..], Some(REALM)),
        ("[::ffff:10.0.0.1]:9", &[https, host], Some("one.example")),
        ("10.0.0.1:9", &[standard], Some("one.example")),
        // It does not, or says nothing that can be read.
        ("10.0.0.1:9", &[http], None),
        ("10.0.0.1:9", &[host], None),
        ("10.0.0.1:9", &[], None),
        (
            "10.0.0.1:9",
            &[("forwarded", "for=192.0.2.1;proto=\"https")],
            None,
        ),
        ("10.0.0.1:9", &[("forwarded", "for=192.0.2.1"), https], None),
        // Anybody else may say what he likes.
        ("192.0.2.1:9", &[https, host], None),
        ("192.0.2.1:9", &[standard], None),
        // This machine, directly; what it says of others is not believed.
        ("127.0.0.1:9", &[], Some(REALM)),
        ("[::1]:9", &[standard], Some(REALM)),
        // A proxy on this machine, once it is listed.
        ("127.0.0.9:9", &[http], None),
        ("127.0.0.9:9", &[standard], Some("one.example")),
    ] {
        let mut request = Request::get("/joke").body(Body::empty()).unwrap();
        for (name, value) in headers {
            let name = HeaderName::from_static(name);
            request.headers_mut().append(name, value.parse().unwrap());
        }
        let peer: SocketAddr = peer.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = send(&router, request).await;
        let got = answer.challenges().first().map(|c| c.realm.clone());
        assert_eq!(got.as_deref(), realm, "{peer} {headers:?}");
        assert_eq!(answer.status, if realm.is_some() { 402 } else { 403 });
    }
    let unknown = Request::get("/joke").header("x-forwarded-proto", "https");
    let answer = send(&router, unknown.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, 403, "no peer is known");
}
