//! JSON-RPC 2.0 over HTTP/1.1. Straight on hyper, because a connection that is cut without an
//! answer is one of the things to be shown.

use std::{future::pending, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    error::RpcError,
    faults::{Fault, Planned},
    methods::{self, Endpoint, Params},
    node::Node,
};

/// The largest request body read.
const BODY_LIMIT: usize = 4 << 20;

/// Ends a connection without an answer.
#[derive(Debug)]
struct Disconnected;

impl std::fmt::Display for Disconnected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("disconnected on purpose")
    }
}

impl std::error::Error for Disconnected {}

/// Why a request gets something else than its JSON answer.
#[derive(Debug)]
enum Cut {
    Disconnect,
    Status(StatusCode),
}

/// Accepts connections until dropped; dropping it cuts them all.
pub(crate) async fn serve(listener: TcpListener, node: Arc<Node>, beat: Duration) {
    let mut connections = JoinSet::new();
    let mut clock = tokio::time::interval(beat.max(Duration::from_millis(1)));
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let node = Arc::clone(&node);
                connections.spawn(async move {
                    let service = service_fn(move |request| handle(Arc::clone(&node), request));
                    // An error here is a client that went away, or a fault asked for.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
            Some(_) = connections.join_next() => {}
            _ = clock.tick() => node.tick(),
        }
    }
}

async fn handle(
    node: Arc<Node>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Disconnected> {
    if request.method() != Method::POST {
        return Ok(status(StatusCode::METHOD_NOT_ALLOWED));
    }
    let endpoint = Endpoint::at(request.uri().path());
    let Ok(body) = Limited::new(request.into_body(), BODY_LIMIT)
        .collect()
        .await
    else {
        return Ok(status(StatusCode::PAYLOAD_TOO_LARGE));
    };
    match answer(&node, endpoint, &body.to_bytes()).await {
        Ok(value) => {
            let mut response = Response::new(Full::from(value.to_string()));
            let json = header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            Ok(response)
        }
        Err(Cut::Status(code)) => Ok(status(code)),
        Err(Cut::Disconnect) => Err(Disconnected),
    }
}

fn status(code: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = code;
    response
}

/// Answers one request or a batch of them.
async fn answer(node: &Node, endpoint: Endpoint, body: &[u8]) -> Result<Value, Cut> {
    match serde_json::from_slice(body) {
        Ok(Value::Array(batch)) if !batch.is_empty() => {
            let mut replies = Vec::with_capacity(batch.len());
            for request in batch {
                replies.push(one(node, endpoint, request).await?);
            }
            Ok(replies.into())
        }
        Ok(request @ Value::Object(_)) => one(node, endpoint, request).await,
        Ok(_) => Ok(reply(
            Value::Null,
            Err(RpcError::new(-32600, "Invalid request")),
        )),
        Err(_) => Ok(reply(
            Value::Null,
            Err(RpcError::new(-32700, "Parse error")),
        )),
    }
}

async fn one(node: &Node, endpoint: Endpoint, mut request: Value) -> Result<Value, Cut> {
    let id = request.get("id").cloned().unwrap_or_default();
    let Some(method) = request
        .get("method")
        .and_then(Value::as_str)
        .map(str::to_owned)
    else {
        return Ok(reply(id, Err(RpcError::new(-32600, "Invalid request"))));
    };
    let params = Params::new(request.get_mut("params").map(Value::take));
    let planned = node.faults().arrive(&method);
    if let Some(Planned {
        fault,
        after: false,
    }) = planned
    {
        return strike(fault, id).await;
    }
    let result = match params {
        Ok(params) => methods::call(node, endpoint, &method, &params).await,
        Err(error) => Err(error),
    };
    match planned {
        Some(Planned { fault, .. }) => strike(fault, id).await,
        None => Ok(reply(id, result)),
    }
}

async fn strike(fault: Fault, id: Value) -> Result<Value, Cut> {
    match fault {
        Fault::Error { code, message } => Ok(reply(id, Err(RpcError::new(code, message)))),
        Fault::Status(code) => {
            let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Err(Cut::Status(code))
        }
        Fault::Hang => pending().await,
        Fault::Disconnect => Err(Cut::Disconnect),
    }
}

fn reply(id: Value, result: Result<Value, RpcError>) -> Value {
    match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(error) => json!({ "jsonrpc": "2.0", "id": id, "error": error.json() }),
    }
}
