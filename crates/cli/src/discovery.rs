//! `GET /openapi.json`: what is sold here, for clients and registries that look before they ask
//! (draft-payment-discovery). It is a hint: the challenge of a 402 is what counts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::State,
    http::{
        StatusCode,
        header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
};
use farebox::{Gate, config::Route, core::Fault, engine::Inbound};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

/// Where the document is.
pub(crate) const PATH: &str = "/openapi.json";

/// How long a document is served before the rails are asked again: a quote may cost an invoice.
const FRESH: Duration = Duration::from_secs(300);

/// The document and when it was made.
pub(crate) struct Discovery {
    title: String,
    routes: Vec<Priced>,
    made: Mutex<Option<(Instant, String)>>,
}

struct Priced {
    method: String,
    path: String,
    gate: Arc<Gate>,
}

impl Discovery {
    pub(crate) fn new(realm: &str, routes: &[Route]) -> Arc<Self> {
        let priced = |route: &Route| Priced {
            method: route.method.clone(),
            path: route.path.clone(),
            gate: route.gate.clone(),
        };
        Arc::new(Self {
            title: realm.to_owned(),
            routes: routes.iter().map(priced).collect(),
            made: Mutex::default(),
        })
    }

    async fn document(&self) -> Result<String, Fault> {
        let mut made = self.made.lock().await;
        match &*made {
            Some((at, document)) if at.elapsed() < FRESH => Ok(document.clone()),
            _ => {
                let document = self.make().await?.to_string();
                *made = Some((Instant::now(), document.clone()));
                Ok(document)
            }
        }
    }

    async fn make(&self) -> Result<Value, Fault> {
        let mut paths = Map::new();
        for route in &self.routes {
            let operation = operation(route).await?;
            // OpenAPI has no word for the rest of a path.
            let path = paths
                .entry(route.path.replace("{*", "{"))
                .or_insert_with(|| json!({}));
            path[route.method.to_ascii_lowercase()] = operation;
        }
        Ok(json!({
            "openapi": "3.1.0",
            "info": {"title": self.title, "version": env!("CARGO_PKG_VERSION")},
            "paths": paths,
        }))
    }
}

/// `GET /openapi.json`.
pub(crate) async fn serve(State(discovery): State<Arc<Discovery>>) -> Response {
    match discovery.document().await {
        Ok(document) => {
            let headers = [
                (CONTENT_TYPE, "application/json"),
                (CACHE_CONTROL, "public, max-age=300"),
                (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            ];
            (headers, document).into_response()
        }
        Err(fault) => {
            tracing::warn!(%fault, "the discovery document cannot be made");
            (StatusCode::SERVICE_UNAVAILABLE, "no rail can quote\n").into_response()
        }
    }
}

async fn operation(route: &Priced) -> Result<Value, Fault> {
    let mut offers = Vec::new();
    for challenge in route.gate.challenges(&Inbound::default()).await? {
        let request = challenge.request.value();
        // The schema is closed, and knows no other intents.
        if !matches!(challenge.intent.as_str(), "charge" | "session") {
            continue;
        }
        let mut offer = json!({
            "intent": challenge.intent,
            "method": challenge.method,
            "amount": request["amount"],
            "currency": request["currency"],
        });
        if let Some(description) = &challenge.description {
            offer["description"] = json!(description);
        }
        offers.push(offer);
    }
    let mut operation = json!({
        "x-payment-info": {"offers": offers},
        "responses": {
            "200": {"description": "Paid for"},
            "402": {"description": "Payment Required"},
        },
    });
    let parameters: Vec<Value> = parameters(&route.path)
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    if matches!(route.method.as_str(), "POST" | "PUT" | "PATCH") {
        operation["requestBody"] = json!({"content": {"*/*": {"schema": {}}}});
    }
    Ok(operation)
}

/// The names between braces, which axum and OpenAPI write alike but for axum's `{*rest}`.
fn parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| {
        let name = segment.strip_prefix('{')?.strip_suffix('}')?;
        Some(name.trim_start_matches('*'))
    })
}
