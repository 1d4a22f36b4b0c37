//! WebSockets that are paid for as they speak.

use std::time::Duration;

use farebox_client::session::{Answer, Call, Courier, Presentation, SessionError};
use farebox_core::wire::{Challenge, Credential, Receipt};
use futures_util::{SinkExt, StreamExt};
use http::{
    HeaderValue, Method, StatusCode, Version,
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE},
};
use reqwest::{Client, Request, Upgraded, Url};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};

use super::{
    client::{SessionClient, finish},
    courier::HttpCourier,
    error::SessionCallError,
    listen::{Heard, Till},
    talk::{Frame, Order, Talk, WAITING, accepted, refused},
};

/// The largest message that is read, in bytes.
const LIMIT: usize = 1024 * 1024;

/// How long a credential may take to be answered.
const PATIENCE: Duration = Duration::from_secs(30);

type Socket = WebSocketStream<Upgraded>;

/// A WebSocket whose messages are paid for, one unit each, as they come.
///
/// Dropping it closes it.
#[derive(Debug)]
pub struct PaidSocket {
    heard: mpsc::Receiver<Result<Heard, SessionCallError>>,
    orders: mpsc::Sender<Order>,
    receipt: Option<Receipt>,
}

impl PaidSocket {
    /// The next message; `None` at the end.
    pub async fn recv(&mut self) -> Option<Result<String, SessionCallError>> {
        loop {
            match self.heard.recv().await? {
                Ok(Heard::Event(event)) => return Some(Ok(event.data)),
                Ok(Heard::Receipt(receipt)) => self.receipt = Some(*receipt),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Sends a message to the server's handler.
    ///
    /// # Errors
    /// If the socket is closed.
    pub async fn send(&self, text: impl Into<String>) -> Result<(), SessionCallError> {
        let order = Order::Say(text.into());
        let sent = self.orders.send(order).await;
        sent.map_err(|_| SessionCallError::Broken("it is closed".to_owned()))
    }

    /// Asks the server to stop and say what was spent, and reads what is left until it has. The
    /// channel stays open.
    ///
    /// # Errors
    /// If the server says something false, or goes without a receipt.
    pub async fn stop(mut self) -> Result<Receipt, SessionCallError> {
        let _ = self.orders.send(Order::Stop).await;
        while let Some(message) = self.recv().await {
            message?;
        }
        let lost = || SessionCallError::Broken("it ended without a receipt".to_owned());
        self.receipt.ok_or_else(lost)
    }
}

/// Credentials go over the socket, and challenges come over HTTP.
#[derive(Clone)]
pub(super) struct SocketCourier {
    http: HttpCourier,
    orders: mpsc::Sender<Order>,
}

impl Courier for SocketCourier {
    async fn ask(&self) -> Result<Vec<Challenge>, String> {
        self.http.ask().await
    }

    async fn deliver_at(&self, resource: &str, credential: &Credential) -> Answer {
        self.http.deliver_at(resource, credential).await
    }

    async fn deliver(&self, credential: &Credential) -> Answer {
        let gone = || Answer::Lost("the socket is closed".to_owned());
        let text = match credential.to_header() {
            Ok(text) => text,
            Err(error) => return Answer::Lost(error.to_string()),
        };
        let (reply, answer) = oneshot::channel();
        if self.orders.send(Order::Pay(text, reply)).await.is_err() {
            return gone();
        }
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| gone()),
            Err(_) => Answer::Lost("the server does not answer".to_owned()),
        }
    }
}

impl SessionClient {
    /// Opens a WebSocket that is paid from a session. `url` is its `ws` or `http` form: what it
    /// costs is asked for over HTTP first.
    ///
    /// # Errors
    /// See [`SessionCallError`].
    pub async fn socket(&self, url: Url) -> Result<PaidSocket, SessionCallError> {
        let url = http_form(url);
        let courier = self.courier(&url);
        let mut call = self.call(&url).await?;
        loop {
            let presentation = call.next(&courier).await?;
            let text = presentation.credential().to_header().map_err(broken);
            let socket = async { Ok((connect(self.http(), &url).await?, text?)) };
            let (mut socket, text) = match socket.await {
                Ok(opened) => opened,
                // The credential goes over the socket, so that the server has not seen it.
                Err(error) => return Err(unsent(call, presentation, error).await),
            };
            let answer = match authorize(&mut socket, &text).await {
                Ok(answer) => answer,
                Err(why) => Answer::Lost(why),
            };
            let answer = completed(answer, &courier).await;
            let accepted = match call.answered(presentation, answer).await {
                Err(SessionError::Unreachable(why)) => return Err(SessionCallError::Lost(why)),
                other => other?,
            };
            if accepted {
                return Ok(run(socket, call, courier));
            }
        }
    }
}

/// Tells a call that its credential was not presented because of `error`.
async fn unsent(
    mut call: Call,
    presentation: Presentation,
    error: SessionCallError,
) -> SessionCallError {
    let answer = Answer::Unsent(error.to_string());
    match call.answered(presentation, answer).await {
        Ok(_) | Err(SessionError::Unreachable(_)) => error,
        // Of a deposit it is not known whether it was presented before.
        Err(other) => other.into(),
    }
}

/// A refusal in a frame brings no challenge along, so one is asked for.
async fn completed(answer: Answer, courier: &HttpCourier) -> Answer {
    match answer {
        Answer::Refused {
            status, problem, ..
        } => Answer::Refused {
            status,
            problem,
            challenges: courier.ask().await.unwrap_or_default(),
        },
        other => other,
    }
}

fn run(socket: Socket, call: Call, http: HttpCourier) -> PaidSocket {
    let (tell, heard) = mpsc::channel(WAITING);
    let (orders, taken) = mpsc::channel(WAITING);
    let courier = SocketCourier {
        http,
        orders: orders.clone(),
    };
    // On its own task, so that it is paid for while the caller is busy with it.
    tokio::spawn(async move {
        let mut talk = Talk::new(Till::new(call), courier, tell);
        let result = talk.talk(socket, taken).await;
        let (till, unheard, tell) = talk.into_parts();
        if let Some(call) = till.rest().await {
            finish(*call).await;
        }
        for heard in unheard {
            if tell.send(Ok(heard)).await.is_err() {
                return;
            }
        }
        if let Err(error) = result {
            let _ = tell.send(Err(error)).await;
        }
    });
    PaidSocket {
        heard,
        orders,
        receipt: None,
    }
}

fn http_form(mut url: Url) -> Url {
    let scheme = match url.scheme() {
        "ws" => "http",
        "wss" => "https",
        _ => return url,
    };
    // The url crate lets special schemes become each other.
    let _ = url.set_scheme(scheme);
    url
}

pub(super) fn broken(error: impl std::fmt::Display) -> SessionCallError {
    SessionCallError::Broken(error.to_string())
}

/// The handshake (RFC 6455, 4.1), by the client that makes the other requests too.
async fn connect(client: &Client, url: &Url) -> Result<Socket, SessionCallError> {
    let key = generate_key();
    let mut request = Request::new(Method::GET, url.clone());
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_KEY, key.parse().map_err(broken)?);
    let response = client.execute(request).await;
    let response = response.map_err(|error| broken(error.without_url()))?;
    let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT);
    let expected = derive_accept_key(key.as_bytes());
    if response.status() != StatusCode::SWITCHING_PROTOCOLS
        || accept.is_none_or(|accept| accept.as_bytes() != expected.as_bytes())
    {
        let status = response.status();
        return Err(broken(format!("the server opens no WebSocket ({status})")));
    }
    let upgraded = response.upgrade().await;
    let upgraded = upgraded.map_err(|error| broken(error.without_url()))?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMIT))
        .max_frame_size(Some(LIMIT));
    Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await)
}

pub(super) fn authorization(credential: &str) -> Message {
    let frame = json!({ "mpp": "authorization", "authorization": credential });
    Message::text(frame.to_string())
}

/// Presents the first credential, before which the server says nothing else.
async fn authorize(socket: &mut Socket, credential: &str) -> Result<Answer, String> {
    let text = |error: tungstenite::Error| error.to_string();
    socket.send(authorization(credential)).await.map_err(text)?;
    let reply = async {
        while let Some(message) = socket.next().await {
            let Message::Text(message) = message.map_err(text)? else {
                continue;
            };
            match serde_json::from_str(&message) {
                Ok(Frame::PaymentReceipt { data }) => return Ok(accepted(data)),
                Ok(Frame::PaymentError { status, message }) => {
                    return Ok(refused(status, &message));
                }
                _ => {}
            }
        }
        Err("the socket was closed".to_owned())
    };
    let reply = tokio::time::timeout(PATIENCE, reply).await;
    reply.unwrap_or_else(|_| Err("the server does not answer".to_owned()))
}
