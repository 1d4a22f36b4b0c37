//! The page that a browser gets, as far as it can be seen without a browser.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode, header::AUTHORIZATION},
    routing::{get, post},
};
use farebox_core::{
    Ask, Offer, Typed, compose,
    prelude::*,
    wire::{Credential, Payload},
};
use farebox_http::{ChallengeLimit, Look, Page, PaymentLayer};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{rails::Token, support::Shop};

mod prepared;

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

#[derive(Serialize, Deserialize, Default)]
struct Nothing {}

#[derive(Serialize, Deserialize)]
struct Card {
    card: String,
}

/// A rail with a part of a page, whose tokens only the seller can make.
#[derive(Default)]
struct CardRail {
    minted: Arc<AtomicUsize>,
    settler: NoSettler,
}

impl Rail<Charge> for CardRail {
    const METHOD: &'static str = "card";
    type Details = Nothing;
    type Payload = Token;
    type Settler = NoSettler;

    async fn quote(&self, terms: &ChargeTerms) -> Result<Quote<Charge, Nothing>, NoQuote> {
        let request = ChargeRequest {
            amount: Amount::new(5),
            currency: "pts".to_owned(),
            recipient: None,
            description: terms.description.clone(),
            external_id: None,
        };
        Ok(Quote::new(request, Nothing {}))
    }

    async fn verify(
        &self,
        cx: &Presented<'_>,
        _: &Ask<Charge, Nothing>,
        payload: Token,
    ) -> Result<Plan<Once, Never>, Refusal> {
        if payload.token != format!("for-{}", cx.challenge.id) {
            return Err(Rejection::verification("no such token").into());
        }
        Ok(Plan::paid(ProofKey::of("card", &payload.token), "paid"))
    }

    fn settler(&self) -> &NoSettler {
        &self.settler
    }

    fn page(&self, challenge: &Challenge, _: &Ask<Charge, Nothing>) -> Option<PagePart> {
        let part = PagePart::new("Card <b>", "5 pts")
            .html("<p id=\"{{ id }}evil\">{{ evil }} {{ price }}</p>")
            .script("// the rail's script")
            .library("https://js.example/v1/")
            .scripts(["https://more.example"])
            .frames(["https://frames.example"])
            .connects(["https://api.example"])
            .data(&json!({ "evil": "</script><script>alert(1)</script>" }));
        (!challenge.id.is_empty()).then_some(part)
    }

    async fn prepare(
        &self,
        cx: &Presented<'_>,
        ask: &Ask<Charge, Nothing>,
        collected: Payload,
    ) -> Result<Payload, Refusal> {
        let Card { card } = collected
            .decode()
            .map_err(|_| Rejection::malformed("no card"))?;
        assert_eq!(
            (card.as_str(), ask.request.amount),
            ("4242", Amount::new(5))
        );
        self.minted.fetch_add(1, SeqCst);
        let token = Token {
            token: format!("for-{}", cx.challenge.id),
        };
        Ok(Payload::from_value(&token).unwrap())
    }
}

struct Stall {
    shop: Shop,
    minted: Arc<AtomicUsize>,
    router: Router,
}

impl Stall {
    async fn open(page: Option<Page>) -> Self {
        Self::limited(page, None).await
    }

    async fn limited(page: Option<Page>, limit: Option<ChallengeLimit>) -> Self {
        let shop = Shop::open().await;
        let rail = CardRail::default();
        let minted = rail.minted.clone();
        let method: Arc<dyn farebox_core::Method> = Arc::new(Typed::<_, Charge>::new(rail));
        let paid = |route: &str| {
            let terms = ChargeTerms::amount("5").description("A <i>joke</i>");
            let offer = Offer::new::<Charge>(method.clone(), terms).unwrap();
            let gate = shop.engine.gate(route, compose([offer]).unwrap()).unwrap();
            let layer = match &page {
                Some(page) => PaymentLayer::new(gate).page(page.clone()),
                None => PaymentLayer::new(gate),
            };
            match &limit {
                Some(limit) => layer.limit_challenges(limit.clone()),
                None => layer,
            }
        };
        // A handler that says no in the payment layer's words.
        let sour = || async {
            let headers = [
                ("content-type", "application/problem+json"),
                ("farebox-page", "refused"),
            ];
            (StatusCode::BAD_REQUEST, headers, "{}")
        };
        let router = Router::new()
            .route(
                "/joke",
                get(|| async { "a joke" }).route_layer(paid("GET /joke")),
            )
            .route(
                "/poem",
                get(|| async { "a poem" }).route_layer(paid("GET /poem")),
            )
            .route("/sour", get(sour).route_layer(paid("GET /sour")))
            .route(
                "/ask",
                post(|| async { "an answer" }).route_layer(paid("POST /ask")),
            );
        let plain = PaymentLayer::new(shop.gate("GET /plain"));
        let plain = match &page {
            Some(page) => plain.page(page.clone()),
            None => plain,
        };
        let router = router.route("/plain", get(|| async { "plain" }).route_layer(plain));
        Self {
            shop,
            minted,
            router,
        }
    }

    async fn ask(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    async fn get(&self, path: &str, accept: &str) -> Reply {
        self.ask(
            Request::get(path)
                .header("accept", accept)
                .body(Body::empty())
                .unwrap(),
        )
        .await
    }

    async fn challenge(&self) -> Challenge {
        let header = self.get("/joke", "*/*").await.headers["www-authenticate"].clone();
        Challenge::parse_one(header.to_str().unwrap()).unwrap()
    }

    /// What the page's script does to have a payload prepared.
    async fn prepare(&self, path: &str, challenge: &Challenge, card: &Value) -> Reply {
        let request = Request::get(path).header("farebox-page", "prepare");
        let request = request.header(AUTHORIZATION, credential(challenge, card));
        self.ask(request.body(Body::empty()).unwrap()).await
    }

    async fn present(&self, challenge: &Challenge, payload: &Value) -> Reply {
        let request = Request::get("/joke").header(AUTHORIZATION, credential(challenge, payload));
        self.ask(request.body(Body::empty()).unwrap()).await
    }
}

fn credential(challenge: &Challenge, payload: &Value) -> String {
    let credential = Credential {
        challenge: challenge.clone(),
        payload: Payload::from_value(payload).unwrap(),
        source: None,
    };
    credential.to_header().unwrap()
}

#[derive(Debug)]
struct Reply {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    fn is_page(&self) -> bool {
        self.header("content-type") == "text/html; charset=utf-8"
    }
}

fn page() -> Option<Page> {
    Some(Page::new(Look::new().title("The \"Shop\"")).unwrap())
}

/// Protects: a page is a 402 like any other, for who asks for one; everybody else has what they had.
#[tokio::test]
async fn a_page_is_a_402_for_browsers_only() {
    let stall = Stall::open(page()).await;
    let page = stall.get("/joke", BROWSER).await;
    assert_eq!((page.status, page.is_page()), (402, true), "{page:?}");
    assert!(page.header("www-authenticate").starts_with("Payment "));
    assert_eq!(page.header("cache-control"), "no-store");
    assert_eq!(page.header("vary"), "accept");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert_eq!(page.header("referrer-policy"), "strict-origin");

    let program = stall.get("/joke", "*/*").await;
    assert_eq!(program.status, 402);
    assert_eq!(program.header("content-type"), "application/problem+json");
    assert_eq!(program.header("vary"), "accept");
    // No rail of this route has a part, so there is nothing to show.
    assert!(!stall.get("/plain", BROWSER).await.is_page());
    // The same without the layer's page.
    let without = Stall::open(None).await.get("/joke", BROWSER).await;
    assert_eq!((without.is_page(), without.header("vary")), (false, ""));
}

/// Protects: no text of a rail, an offer or an operator is taken for markup, and nothing runs that
/// was not written here or named by a rail.
#[tokio::test]
async fn nothing_can_be_injected() {
    let stall = Stall::open(page()).await;
    let page = stall.get("/joke", BROWSER).await;
    let html = &page.body;
    assert!(html.contains("A &lt;i&gt;joke&lt;"), "{html}");
    assert!(html.contains("The &quot;Shop&quot;"), "{html}");
    assert!(
        html.contains("<p id=\"farebox-0-evil\">&lt;&#x2f;script&gt;"),
        "{html}"
    );
    assert!(html.contains(r#""evil":"\u003c/script\u003e"#), "{html}");
    assert!(!html.contains("alert(1)</script>"), "{html}");

    let policy = page.header("content-security-policy");
    let nonce = policy
        .split("'nonce-")
        .nth(1)
        .unwrap()
        .split('\'')
        .next()
        .unwrap();
    let scripts = html.matches("<script").count();
    let allowed = html.matches(&format!("nonce=\"{nonce}\"")).count();
    assert_eq!(
        allowed, scripts,
        "each script but the data, and the style: {html}"
    );
    for directive in [
        "default-src 'none'".to_owned(),
        format!("script-src 'nonce-{nonce}' https://js.example/v1/ https://more.example"),
        format!("style-src 'nonce-{nonce}' 'self'"),
        "connect-src 'self' https://api.example".to_owned(),
        "frame-src https://frames.example".to_owned(),
        "base-uri 'none'".to_owned(),
        "form-action 'none'".to_owned(),
        "frame-ancestors 'none'".to_owned(),
    ] {
        assert!(
            policy.split("; ").any(|d| d == directive),
            "{directive}: {policy}"
        );
    }
    let again = stall.get("/joke", BROWSER).await;
    assert!(
        !again.header("content-security-policy").contains(nonce),
        "a nonce is used once"
    );
}

/// Protects: a payer who would lose the request that was priced is told so, and not asked to pay.
#[tokio::test]
async fn a_post_is_explained_and_not_paid() {
    let stall = Stall::open(page()).await;
    let request = Request::post("/ask")
        .header("accept", BROWSER)
        .body(Body::empty())
        .unwrap();
    let page = stall.ask(request).await;
    assert_eq!((page.status, page.is_page()), (402, true));
    assert!(
        page.body
            .contains("POST requests, which a page cannot repeat"),
        "{}",
        page.body
    );
    assert!(!page.body.contains("<script"), "{}", page.body);
}

/// Protects: an outage is told to people as well, and nobody is asked for money meanwhile.
#[tokio::test]
async fn an_outage_is_a_page_without_a_price() {
    let stall = Stall::open(page()).await;
    stall.shop.store.off.store(true, SeqCst);
    // The first to meet the outage tells the engine of it.
    let challenge = stall.challenge().await;
    stall.present(&challenge, &json!({ "token": "x" })).await;
    let page = stall.get("/joke", BROWSER).await;
    assert_eq!((page.status, page.is_page()), (503, true), "{page:?}");
    assert!(page.header("www-authenticate").is_empty() && !page.body.contains("5 pts"));
    assert!(page.body.contains("do not pay again"), "{}", page.body);
    assert!(!page.header("retry-after").is_empty());
}

/// Protects: the worker is served to browsers that fetch one, and may reach nothing but this site.
#[tokio::test]
async fn the_worker_is_served_at_the_resources_own_address() {
    let stall = Stall::open(page()).await;
    let fetch = |path: &str, header: &str| {
        Request::get(path)
            .header(header, "script")
            .body(Body::empty())
            .unwrap()
    };
    let worker = stall
        .ask(fetch("/joke?farebox-worker", "service-worker"))
        .await;
    assert_eq!(
        (worker.status, worker.header("cache-control")),
        (200, "no-store")
    );
    assert!(worker.header("content-type").starts_with("text/javascript"));
    assert_eq!(
        worker.header("content-security-policy"),
        "default-src 'none'; connect-src 'self'"
    );
    assert!(worker.body.contains("addEventListener(\"fetch\""));
    assert_eq!(
        stall
            .ask(fetch("/joke?farebox-worker", "x-other"))
            .await
            .status,
        402
    );
    assert_eq!(
        stall.ask(fetch("/joke", "service-worker")).await.status,
        402
    );
    let without = Stall::open(None).await;
    assert_eq!(
        without
            .ask(fetch("/joke?farebox-worker", "service-worker"))
            .await
            .status,
        402
    );
}

/// Protects: a payer whose handler fails: its words are never taken for the refusal of a payment,
/// which would lose the credential.
#[tokio::test]
async fn a_refusal_is_told_from_a_handlers_answer() {
    let stall = Stall::open(page()).await;
    let refused = stall
        .present(&stall.challenge().await, &json!({ "token": "torn" }))
        .await;
    assert_eq!(
        (refused.status, refused.header("farebox-page")),
        (402, "refused")
    );

    let header = stall.get("/sour", "*/*").await.headers["www-authenticate"].clone();
    let challenge = Challenge::parse_one(header.to_str().unwrap()).unwrap();
    let token = json!({ "token": format!("for-{}", challenge.id) });
    let request = Request::get("/sour").header(AUTHORIZATION, credential(&challenge, &token));
    let sour = stall.ask(request.body(Body::empty()).unwrap()).await;
    assert_eq!((sour.status, sour.header("farebox-page")), (400, ""));
    assert_eq!(sour.header("payment-receipt"), "");
}
