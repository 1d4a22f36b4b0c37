//! The tower layer.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use farebox_engine::Gate;
#[cfg(feature = "ws")]
use futures_core::Stream;
use http::{Request, Response};
use http_body::Body;
use tower::{Layer, Service};

use super::{
    admit::{Admitted, Settings, admit},
    conclude::conclude,
    limit::ChallengeLimit,
    stream::Pace,
    transport::Transport,
};
#[cfg(feature = "ws")]
use super::{
    stream::Event,
    ws::{Acceptor, Call, is_upgrade},
};
use crate::Hosts;

/// Puts a price on a service.
///
/// The scope of a credential is the gate's route and not the layer's place, so a gate should stand
/// before the handlers of that one route: `get(joke).route_layer(PaymentLayer::new(gate))`, which
/// leaves a method that is not served its 405 where `layer` would ask for money. Where a session is
/// offered it must be `get(joke).layer(…)`: vouchers, top-ups and closes come as `POST` without a body
/// to the same address, and behind `route_layer` they would find a 405. Put the layers that
/// authenticate, limit rates or log outside it, and nothing that retries inside it.
#[derive(Clone, Debug)]
pub struct PaymentLayer {
    gate: Arc<Gate>,
    settings: Arc<Settings>,
    #[cfg(feature = "ws")]
    sockets: Option<Acceptor>,
}

impl PaymentLayer {
    /// Everything under the layer is behind `gate`.
    pub fn new(gate: impl Into<Arc<Gate>>) -> Self {
        Self {
            gate: gate.into(),
            settings: Arc::default(),
            #[cfg(feature = "ws")]
            sockets: None,
        }
    }

    /// The largest request body that is read before anything is paid, in bytes; 2 MiB unless set.
    /// A longer one is answered 413.
    #[must_use]
    pub fn body_limit(self, bytes: usize) -> Self {
        self.change(|settings| settings.body_limit = bytes)
    }

    /// The largest response that is kept for a request repeated under its `Idempotency-Key`, in
    /// bytes of its body; 64 KiB unless set. A longer one is passed on, and not kept.
    #[must_use]
    pub fn reply_limit(self, bytes: usize) -> Self {
        self.change(|settings| settings.reply_limit = bytes)
    }

    /// How requests reach the server.
    #[must_use]
    pub fn transport(self, transport: Transport) -> Self {
        self.change(|settings| settings.transport = transport)
    }

    /// The hosts that are realms of their own: a request for one of them is challenged under its
    /// name. Any other is under the engine's realm, whatever its `Host` says.
    #[must_use]
    pub fn hosts(self, hosts: Hosts) -> Self {
        self.change(|settings| settings.hosts = hosts)
    }

    /// How many challenges one client may leave unpaid; without, as many as it likes, which on
    /// Lightning mints as many invoices. [`ChallengeLimit::by_peer`] knows clients by their addresses,
    /// also behind proxies that [`Transport::proxied`] lists. Beyond the limit the answer is 429 with `Retry-After`. A credential is never refused for it, but one that does
    /// not hold then gets no fresh challenge.
    #[must_use]
    pub fn limit_challenges(self, limit: ChallengeLimit) -> Self {
        self.change(|settings| settings.challenges = Some(limit))
    }

    /// Gives browsers a page to pay on, where a rail has a part of one; see
    /// [`Page`](super::page::Page).
    #[cfg(feature = "page")]
    #[must_use]
    pub fn page(self, page: super::page::Page) -> Self {
        self.change(|settings| settings.page = Some(page))
    }

    /// How metered streams behave while nothing is to be sent.
    #[must_use]
    pub fn pace(self, pace: Pace) -> Self {
        self.change(|settings| settings.pace = pace)
    }

    /// Serves WebSockets too, at the same address: `handler` answers each with a stream of messages,
    /// which is charged as server-sent events are. See [`ws`](super::ws).
    ///
    /// The request that opens a socket does not reach what is under the layer.
    #[cfg(feature = "ws")]
    #[must_use]
    pub fn websocket<H, S, T, E>(mut self, handler: H) -> Self
    where
        H: Fn(Call) -> S + Send + Sync + 'static,
        S: Stream<Item = Result<T, E>> + Send + 'static,
        T: Into<Event> + 'static,
        E: fmt::Display + 'static,
    {
        self.sockets = Some(Acceptor::new(handler));
        self
    }

    fn change(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }
}

impl<S> Layer<S> for PaymentLayer {
    type Service = PaymentService<S>;

    fn layer(&self, inner: S) -> PaymentService<S> {
        PaymentService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service with a price; made by [`PaymentLayer`].
///
/// It works over any request and response bodies that can be read and made from [`Bytes`], such as
/// axum's.
#[derive(Clone, Debug)]
pub struct PaymentService<S> {
    inner: S,
    layer: PaymentLayer,
}

/// What [`PaymentService`] answers with.
pub struct PaymentFuture<T>(Pin<Box<dyn Future<Output = T> + Send>>);

impl<T> Future for PaymentFuture<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.0.as_mut().poll(cx)
    }
}

impl<T> fmt::Debug for PaymentFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PaymentFuture")
    }
}

impl<S, B, R> Service<Request<B>> for PaymentService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Body + From<Bytes> + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    R: Body + From<Bytes> + Send + 'static,
    R::Data: Send,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = PaymentFuture<Result<Response<R>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The service that was polled ready is the one to call.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let layer = self.layer.clone();
        PaymentFuture(Box::pin(async move {
            let (gate, settings) = (&layer.gate, &*layer.settings);
            #[cfg(feature = "ws")]
            let request = match layer.sockets {
                Some(sockets) => {
                    let (parts, body) = request.into_parts();
                    if is_upgrade(&parts) {
                        let answer = sockets.accept(gate, settings, parts).await;
                        return Ok(answer.map(R::from));
                    }
                    Request::from_parts(parts, body)
                }
                None => request,
            };
            let Admitted { request, ticket } = match admit(gate, settings, request).await {
                Ok(admitted) => admitted,
                Err(answer) => return Ok(answer.map(R::from)),
            };
            match inner.call(request).await {
                Ok(response) => Ok(conclude(gate, settings, ticket, response).await),
                Err(error) => {
                    ticket.give_back(gate).await;
                    Err(error)
                }
            }
        }))
    }
}
