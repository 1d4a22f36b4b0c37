//! A paid server made by hand, with nothing of Farebox in it and one defect at a time.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD},
};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

/// A running shop; it sells at every path, on two rails.
pub(crate) struct Shop {
    pub(crate) base: String,
    _runtime: tokio::runtime::Runtime,
}

/// What it knows.
struct Books {
    defect: &'static str,
    issued: Mutex<HashMap<String, Issued>>,
}

struct Issued {
    echo: Map<String, Value>,
    path: String,
    /// Once it was used: the request's `Idempotency-Key`.
    used: Option<String>,
}

impl Shop {
    /// Opens with a defect; `""` is none.
    pub(crate) fn open(defect: &'static str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let books = Books {
            defect,
            issued: Mutex::default(),
        };
        let app = Router::new().fallback(answer).with_state(Arc::new(books));
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = runtime.block_on(listener).unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self {
            base,
            _runtime: runtime,
        }
    }
}

async fn answer(
    State(books): State<Arc<Books>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let shop = books.as_ref();
    match (method, uri.path()) {
        (Method::GET, "/openapi.json") => return shop.discovery(),
        (Method::OPTIONS, _) => return StatusCode::NO_CONTENT.into_response(),
        (Method::HEAD, _) if shop.has("head is served") => return "".into_response(),
        _ if shop.has("everything is free") => return "served".into_response(),
        _ => {}
    }
    let mut response = shop.sell(uri.path(), &headers, &body);
    if let (true, Some(token)) = (shop.has("echoes"), headers.get("authorization")) {
        let token = token.to_str().unwrap_or_default().split(' ').nth(1);
        let json = URL_SAFE_NO_PAD.decode(token.unwrap_or_default());
        let status = response.status();
        let (parts, _) = response.into_parts();
        response = Response::from_parts(parts, json.unwrap_or_default().into());
        *response.status_mut() = status;
    }
    response
}

impl Books {
    fn has(&self, defect: &str) -> bool {
        self.defect == defect
    }

    fn sell(&self, path: &str, headers: &HeaderMap, body: &[u8]) -> Response {
        let refuse = |problem| self.refuse(problem, path, headers, body);
        let values = headers.get_all("authorization").iter();
        let credentials: Vec<&str> = values
            .flat_map(|value| value.to_str().unwrap_or_default().split(','))
            .map(str::trim)
            .filter(|element| element.to_ascii_lowercase().starts_with("payment"))
            .collect();
        let credential = match credentials.as_slice() {
            [] => return refuse("payment-required"),
            [one] => *one,
            [first, ..] if self.has("takes the first of two") => *first,
            _ => return StatusCode::BAD_REQUEST.into_response(),
        };
        if credential.len() > 4096 && self.has("reads little") {
            return StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.into_response();
        }
        let Some((echo, payload)) = read(credential) else {
            return match self.defect {
                "crashes" => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                "refuses for good" => StatusCode::BAD_REQUEST.into_response(),
                _ => refuse("malformed-credential"),
            };
        };
        let id = echo["id"].as_str().unwrap_or_default();
        let mut issued = self.issued.lock().unwrap();
        let proved = payload["type"] == "proof";
        if self.has("believes") && issued.contains_key(id) {
            return self.serve(id);
        }
        let found = issued.get_mut(id).filter(|known| {
            let here = known.path == path || self.has("sells everywhere");
            let digest = known.echo.get("digest").cloned().unwrap_or_default();
            let bound = digest == digest_of(body) || self.has("sells any body");
            (known.echo == echo || self.has("binds nothing")) && here && bound
        });
        let Some(known) = found else {
            drop(issued);
            return refuse("invalid-challenge");
        };
        let key = headers.get("idempotency-key");
        let key = key.map_or("", |key| key.to_str().unwrap_or_default());
        let again = known.used.as_deref() == Some(key) && !key.is_empty();
        match (known.used.is_some(), proved) {
            (true, _) if again && !self.has("forgets keys") => self.serve(id),
            (true, _) if !self.has("sells twice") => {
                let problem = problem("verification-failed", 403);
                (StatusCode::FORBIDDEN, problem).into_response()
            }
            (_, false) => {
                drop(issued);
                refuse("verification-failed")
            }
            _ => {
                known.used = Some(key.to_owned());
                self.serve(id)
            }
        }
    }

    fn serve(&self, id: &str) -> Response {
        let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap();
        let mut receipt = json!({
            "status": "success", "method": "tempo", "reference": id, "timestamp": now,
        });
        match self.defect {
            "says failed" => receipt["status"] = "failed".into(),
            "names another rail" => receipt["method"] = "stripe".into(),
            "refers to nothing" => receipt["reference"] = "".into(),
            _ => {}
        }
        let cache = match self.defect {
            "paid is public" => "max-age=60",
            _ => "private",
        };
        let receipt = URL_SAFE_NO_PAD.encode(receipt.to_string());
        let headers = [("cache-control", cache), ("payment-receipt", &receipt)];
        (headers, "served").into_response()
    }

    fn refuse(&self, kind: &str, path: &str, headers: &HeaderMap, body: &[u8]) -> Response {
        let mut said = problem(kind, 402);
        match self.defect {
            "another status inside" => said = problem(kind, 400),
            "no problem at all" => said = "<h1>Payment Required</h1>".to_owned(),
            "shows its source" => said.push_str("thread 'main' panicked at src/shop.rs:7"),
            _ => {}
        }
        let kind = match self.defect {
            "no problem at all" => "text/html",
            _ => "application/problem+json",
        };
        let kind = [("content-type", kind)];
        let mut response = (StatusCode::PAYMENT_REQUIRED, kind, said).into_response();
        let mut set = |name: &'static str, value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            response.headers_mut().append(name, value);
        };
        if !self.has("may be stored") {
            set("cache-control", "no-store");
        }
        if self.has("receipts nothing") {
            set("payment-receipt", "e30");
        }
        let accept = headers.get("accept-payment");
        let accept = accept.map_or("", |value| value.to_str().unwrap_or_default());
        for rail in self.ranked(accept) {
            let challenge = self.challenge(rail, path, body);
            if self.has("sets a cookie") {
                set("set-cookie", &format!("challenge={}", challenge["id"]));
            }
            if !self.has("asks for nothing") {
                set("www-authenticate", &self.header(challenge));
            }
        }
        response
    }

    /// The rails by `Accept-Payment`; both where it cannot be read or nothing is left.
    fn ranked(&self, accept: &str) -> Vec<&'static str> {
        const RAILS: [&str; 2] = ["stripe", "tempo"];
        let mut ranges = Vec::new();
        for element in accept.split(',').map(str::trim) {
            let (range, q) = element.split_once(";q=").unwrap_or((element, "1"));
            match (range.split_once('/'), q.parse::<f32>()) {
                (Some((method, intent)), Ok(q)) if !method.is_empty() && q <= 1.0 => {
                    ranges.push((method, intent, q));
                }
                _ => return RAILS.to_vec(),
            }
        }
        let quality = |rail: &str| {
            let exact = |range: &&(&str, &str, f32)| range.0 == rail && range.1 == "charge";
            let method = |range: &&(&str, &str, f32)| range.0 == rail;
            let any = |range: &&(&str, &str, f32)| range.0 == "*";
            let found = ranges.iter().find(exact);
            let found = found.or_else(|| ranges.iter().find(method));
            let found = found.or_else(|| ranges.iter().find(any));
            found.map_or(0.0, |range| range.2)
        };
        let mut rails = RAILS.to_vec();
        if RAILS.iter().any(|rail| quality(rail) > 0.0) {
            rails.retain(|rail| quality(rail) > 0.0 || self.has("offers what is unwanted"));
            rails.sort_by(|a, b| quality(b).total_cmp(&quality(a)));
        }
        rails
    }

    fn challenge(&self, rail: &'static str, path: &str, body: &[u8]) -> Map<String, Value> {
        let mut issued = self.issued.lock().unwrap();
        let number = match self.defect {
            "numbers by rail" => rail.len(),
            _ => issued.len(),
        };
        let id = format!("challenge-number-{number}");
        let token = "0x20c0000000000000000000000000000000000000";
        let mut request = match rail {
            "tempo" => json!({
                "amount": "0", "currency": token, "methodDetails": {"chainId": 1337},
                "recipient": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
            }),
            _ => json!({
                "amount": "50", "currency": "usd",
                "methodDetails": {"networkId": "internal", "paymentMethodTypes": ["card"]},
            }),
        };
        if self.has("asks in decimals") && rail == "stripe" {
            request["amount"] = "0.50".into();
        }
        let life = match self.defect {
            "lapsed" => Duration::minutes(-1),
            _ => Duration::minutes(5),
        };
        let expires = (OffsetDateTime::now_utc() + life).format(&Rfc3339).unwrap();
        // serde_json sorts members, which is canonical for these.
        let request = match self.defect {
            "pads" => URL_SAFE.encode(format!("{request} ").trim_end().to_owned() + " "),
            "writes loosely" => {
                URL_SAFE_NO_PAD.encode(serde_json::to_vec_pretty(&request).unwrap())
            }
            _ => URL_SAFE_NO_PAD.encode(request.to_string()),
        };
        let opaque = match self.defect {
            "opaque is deep" => json!({ "n": { "n": 1 } }),
            _ => json!({ "n": "1" }),
        };
        let mut echo = Map::from_iter([
            ("id".to_owned(), id.clone().into()),
            ("realm".to_owned(), "127.0.0.1".into()),
            ("method".to_owned(), rail.into()),
            ("intent".to_owned(), "charge".into()),
            ("request".to_owned(), request.into()),
            ("expires".to_owned(), expires.into()),
            (
                "opaque".to_owned(),
                URL_SAFE_NO_PAD.encode(opaque.to_string()).into(),
            ),
        ]);
        match self.defect {
            "shouts" => echo["method"] = rail.to_uppercase().into(),
            "is nowhere" => echo["realm"] = "".into(),
            _ => {}
        }
        if !body.is_empty() {
            let digest = match self.defect {
                "digests nothing" => digest_of(b"nothing"),
                _ => digest_of(body),
            };
            echo.insert("digest".to_owned(), digest);
        }
        let path = path.to_owned();
        let used = None;
        let kept = Issued {
            echo: echo.clone(),
            path,
            used,
        };
        issued.entry(id).or_insert(kept);
        echo
    }

    fn header(&self, challenge: Map<String, Value>) -> String {
        let params: Vec<String> = challenge
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let twice = match self.defect {
            "says it twice" => ", id=\"another\"",
            _ => "",
        };
        format!("Payment {}{twice}", params.join(", "))
    }

    fn discovery(&self) -> Response {
        let amount = match self.defect {
            "advertises less" => "10",
            _ => "50",
        };
        let offers = json!([
            {"method": "stripe", "intent": "charge", "amount": amount, "currency": "usd"},
            {"method": "tempo", "intent": "charge", "amount": "0"},
        ]);
        let operation = json!({
            "x-payment-info": {"offers": offers},
            "responses": {"402": {"description": "Payment Required"}},
        });
        let document = json!({
            "openapi": "3.1.0",
            "info": {"title": "shop", "version": "1"},
            "paths": {"/{thing}": {"post": operation}},
        });
        let headers = [
            ("cache-control", "max-age=60"),
            ("access-control-allow-origin", "*"),
        ];
        (headers, document.to_string()).into_response()
    }
}

/// Both members of a credential.
fn read(credential: &str) -> Option<(Map<String, Value>, Map<String, Value>)> {
    let token = credential.split_once(' ')?.1.trim();
    let json = URL_SAFE_NO_PAD.decode(token).ok()?;
    let mut value: Map<String, Value> = serde_json::from_slice(&json).ok()?;
    let Some(Value::Object(echo)) = value.remove("challenge") else {
        return None;
    };
    let Some(Value::Object(payload)) = value.remove("payload") else {
        return None;
    };
    (token.len() < 64 * 1024 && echo.contains_key("id")).then_some((echo, payload))
}

fn digest_of(body: &[u8]) -> Value {
    match body {
        [] => Value::Null,
        body => format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body))).into(),
    }
}

fn problem(kind: &str, status: u16) -> String {
    let kind = format!("https://paymentauth.org/problems/{kind}");
    json!({ "type": kind, "title": "Refused", "status": status }).to_string()
}
