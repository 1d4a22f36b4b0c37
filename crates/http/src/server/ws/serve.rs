//! From a request that wants a WebSocket to the socket.

use std::{fmt, pin::Pin, sync::Arc};

use axum::extract::{FromRequestParts as _, WebSocketUpgrade, ws::WebSocket};
use bytes::Bytes;
use farebox_core::wire::Problem;
use farebox_engine::Gate;
use futures_core::Stream;
use http::{
    HeaderName, Method, Response,
    header::{CONNECTION, SEC_WEBSOCKET_KEY, UPGRADE},
    request::Parts,
};
use tokio::sync::mpsc;

use super::{
    Call,
    desk::Desk,
    socket::{INBOX, Socket},
};
use crate::{
    credential_header,
    server::{
        admit::{Settings, insecure, realm},
        answer,
        asked::Asked,
        headers,
        stream::{Event, Pace},
    },
};

/// The largest message that is read from a client, in bytes. A longer one ends the connection.
const MESSAGE_LIMIT: usize = 64 * 1024;

type Run =
    dyn Fn(WebSocket, Desk, Pace, Parts) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// Serves sockets, whatever their handler's stream is.
#[derive(Clone)]
pub(crate) struct Acceptor(Arc<Run>);

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}

/// Whether a request wants a WebSocket.
pub(crate) fn is_upgrade(parts: &Parts) -> bool {
    let named = |name: HeaderName, token: &[u8]| {
        let tokens = headers::tokens(&parts.headers, &name);
        tokens.iter().any(|value| value.eq_ignore_ascii_case(token))
    };
    parts.method == Method::GET
        && parts.headers.contains_key(SEC_WEBSOCKET_KEY)
        && named(CONNECTION, b"upgrade")
        && named(UPGRADE, b"websocket")
}

impl Acceptor {
    pub(crate) fn new<H, S, T, E>(handler: H) -> Self
    where
        H: Fn(Call) -> S + Send + Sync + 'static,
        S: Stream<Item = Result<T, E>> + Send + 'static,
        T: Into<Event> + 'static,
        E: fmt::Display + 'static,
    {
        let handler = Arc::new(handler);
        Self(Arc::new(move |socket, desk, pace, parts| {
            let handler = handler.clone();
            let (inbox, messages) = mpsc::channel(INBOX);
            let call = Call {
                uri: parts.uri,
                headers: parts.headers,
                messages,
            };
            let begin = move || handler(call);
            Box::pin(Socket::new(socket, desk, pace, inbox, begin).run())
        }))
    }

    /// Answers a request for a socket, which is served on a task of its own.
    pub(crate) async fn accept(
        &self,
        gate: &Arc<Gate>,
        settings: &Settings,
        mut parts: Parts,
    ) -> Response<Bytes> {
        // A socket's credentials come in its frames.
        headers::take_credential(&mut parts.headers, &credential_header(gate.header()));
        let realm = match realm(settings, &parts) {
            Ok(realm) => realm.map(str::to_owned),
            Err(why) => return insecure(gate, why),
        };
        let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
            Ok(upgrade) => upgrade,
            Err(why) => return answer::simple(&Problem::BadRequest, &why.body_text()),
        };
        let desk = Desk {
            gate: gate.clone(),
            asked: Arc::new(Asked::socket(&parts, realm)),
        };
        let (run, pace) = (self.0.clone(), settings.pace);
        let response = upgrade
            .max_message_size(MESSAGE_LIMIT)
            .max_frame_size(MESSAGE_LIMIT)
            .on_upgrade(move |socket| run(socket, desk, pace, parts));
        response.map(|_empty| Bytes::new())
    }
}
