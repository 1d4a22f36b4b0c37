//! A page of another origin reads challenges and pays them.

use std::sync::atomic::Ordering::SeqCst;

use axum::{
    Router,
    body::Body,
    http::{Method, Request, header::AUTHORIZATION},
    routing::any,
};
use farebox_http::{Origins, PaymentLayer, cors};
use tower::ServiceExt;

use crate::support::{Answer, Shop, pay};

const PAGE: &str = "https://app.example";

async fn send(router: &Router, request: Request<Body>) -> Answer {
    Answer::of_response(router.clone().oneshot(request).await.unwrap()).await
}

fn preflight(path: &str, origin: &str) -> Request<Body> {
    Request::options(path)
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "accept-payment,authorization,idempotency-key,payment-authorization",
        )
        .body(Body::empty())
        .unwrap()
}

fn names(answer: &Answer, header: &str) -> Vec<String> {
    let mut names: Vec<String> = answer
        .header(header)
        .split(',')
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    names.sort();
    names
}

/// Protects: a page can read what it is asked and what it paid, refusals included.
#[tokio::test]
async fn every_answer_can_be_read_by_the_page() {
    let shop = Shop::open().await;
    let router = shop.router().layer(cors(&Origins::parse([PAGE]).unwrap()));
    let ask = |credential: Option<&str>, origin: &str| {
        let mut request = Request::get("/joke").header("origin", origin);
        if let Some(credential) = credential {
            request = request.header(AUTHORIZATION, credential);
        }
        request.body(Body::empty()).unwrap()
    };
    let asked = send(&router, ask(None, PAGE)).await;
    assert_eq!(asked.status, 402);
    let header = pay(&asked.challenge("token"), "good-1")
        .to_header()
        .unwrap();
    let two = format!("{header}, {header}");
    let wrong = send(&router, ask(Some(&two), PAGE)).await;
    assert_eq!(wrong.status, 400);
    shop.store.off.store(true, SeqCst);
    let down = send(&router, ask(Some(&header), PAGE)).await;
    assert_eq!((down.status, down.header("retry-after")), (503, "2"));
    shop.store.off.store(false, SeqCst);
    let paid = send(&router, ask(Some(&header), PAGE)).await;
    assert_eq!(paid.status, 200);
    let spent = send(&router, ask(Some(&header), PAGE)).await;
    assert_eq!(spent.status, 403);
    for answer in [&asked, &wrong, &down, &paid, &spent] {
        assert_eq!(answer.header("access-control-allow-origin"), PAGE);
        let readable = names(answer, "access-control-expose-headers");
        for name in ["www-authenticate", "payment-receipt", "retry-after"] {
            assert!(readable.contains(&name.to_owned()), "{name}: {answer:?}");
        }
        assert!(
            !answer
                .headers
                .contains_key("access-control-allow-credentials")
        );
    }
    let stranger = send(&router, ask(None, "https://evil.example")).await;
    assert_eq!(stranger.header("access-control-allow-origin"), "");
}

/// Protects: a browser's question costs nothing, and what a payer must send is let through.
#[tokio::test]
async fn a_preflight_is_answered_and_never_charged() {
    let shop = Shop::open().await;
    let open = shop.router().layer(cors(&Origins::every()));
    let listed = shop.router().layer(cors(&Origins::parse([PAGE]).unwrap()));
    for (router, origin) in [(&open, "*"), (&listed, PAGE)] {
        for path in ["/joke", "/ask"] {
            let answer = router.clone().oneshot(preflight(path, PAGE)).await.unwrap();
            assert!(answer.status().is_success(), "{}", answer.status());
            let header = |name| answer.headers()[name].to_str().unwrap();
            assert_eq!(header("access-control-allow-origin"), origin);
            assert_eq!(header("access-control-allow-methods"), "POST");
            let allowed = header("access-control-allow-headers");
            for name in [
                "authorization",
                "payment-authorization",
                "accept-payment",
                "idempotency-key",
            ] {
                assert!(allowed.contains(name), "{name}");
            }
            assert!(
                answer
                    .headers()
                    .get("access-control-allow-credentials")
                    .is_none()
            );
        }
    }
    assert_eq!((shop.calls(), shop.moved()), (0, 0));
}

/// Protects: without the layer a preflight is refused, not answered with a price, and does not
/// reach a handler for free either.
#[tokio::test]
async fn a_preflight_at_a_paid_route_is_no_sale() {
    let shop = Shop::open().await;
    let layer = PaymentLayer::new(shop.gate("* /any"));
    let router = Router::new().route("/any", any(|| async { "served" }).layer(layer));
    let answer = send(&router, preflight("/any", PAGE)).await;
    assert_eq!(answer.status, 403);
    // Any other OPTIONS is a request like all of them.
    let plain = Request::builder().method(Method::OPTIONS).uri("/any");
    let answer = send(&router, plain.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, 402);
}
