//! `farebox serve`: paid routes in front of servers that know nothing about payment.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    routing::{MethodFilter, MethodRouter, get, on},
};
use farebox::{
    Engine,
    config::{Answer, Config, Route},
    http::cors,
};
use http::Method;
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use crate::{
    check,
    discovery::{self, Discovery},
    failure::Failure,
    hooks,
    proxy::Upstream,
    signals::Signals,
};

pub(crate) async fn run(path: &Path) -> Result<(), Failure> {
    let config = check::read(path)?;
    config.server.connect().await.map_err(Failure::general)?;
    let app = app(&config)?;
    let mut signals = Signals::listen()?;
    let listener = TcpListener::bind(config.listen).await.map_err(|error| {
        Failure::general(format!("cannot listen on {}: {error}", config.listen))
    })?;
    let address = listener.local_addr()?;
    for line in check::lines(&config).await? {
        println!("{line}");
    }
    let engine = config.server.engine();
    println!("listening on http://{address}, realm {}", engine.realm());
    let reconciler = engine.spawn_reconciler(config.reconcile);
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let (close, closed) = oneshot::channel::<()>();
    let server = axum::serve(listener, app).with_graceful_shutdown(async {
        // Dropped or sent, it says the same.
        let _ = closed.await;
    });
    let mut server = tokio::spawn(server.into_future());
    tokio::select! {
        ended = &mut server => return ended.map_err(Failure::general)?.map_err(Failure::from),
        () = signals.next() => {}
    }
    let ended = tokio::select! {
        () = drain(engine, config.shutdown, close, server) => Ok(()),
        () = signals.next() => Err(Failure::general(
            "told twice to end: what is under way is left to the reconciler",
        )),
    };
    drop(reconciler);
    #[cfg(feature = "lightning-ldk")]
    farebox::rails::lightning::ldk::stop_all().await;
    ended
}

/// Finishes what is under way, within `grace`. Until then the server answers, with 503 to whoever
/// would pay: a connection that is refused says nothing about the payment it may carry.
async fn drain(
    engine: &Engine,
    grace: Duration,
    close: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
) {
    let deadline = Instant::now() + grace;
    tracing::info!(?grace, "draining: no payment is accepted any more");
    let left = engine.drained(grace).await;
    if !left.is_empty() {
        let (settlements, leases) = (left.settlements, left.leases);
        tracing::warn!(
            settlements,
            leases,
            "left to the reconciler and the next process"
        );
    }
    drop(close);
    // Answers on their way out.
    if timeout_at(deadline, server).await.is_err() {
        tracing::warn!("connections were cut");
    }
}

/// Every route of the configuration.
fn app(config: &Config) -> Result<Router, Failure> {
    let client = Upstream::client()?;
    let mut app = Router::new();
    for route in &config.routes {
        app = app.route(&route.path, handler(config, route, &client)?);
    }
    if config
        .routes
        .iter()
        .all(|route| route.path != discovery::PATH)
    {
        let discovery = Discovery::new(config.server.engine().realm(), &config.routes);
        app = app.route(discovery::PATH, get(discovery::serve).with_state(discovery));
    }
    app = app.merge(hooks::router(config));
    // Outermost, so that a page can read refusals too, and no preflight meets a price.
    Ok(match &config.cors {
        Some(origins) => app.layer(cors(origins)),
        None => app,
    })
}

fn handler(
    config: &Config,
    route: &Route,
    client: &reqwest::Client,
) -> Result<MethodRouter, Failure> {
    let method: Method = route.method.parse().map_err(Failure::general)?;
    let filter = MethodFilter::try_from(method).map_err(Failure::general)?;
    let handler = match &route.answer {
        Answer::Upstream(base) => {
            let upstream = Arc::new(Upstream::new(client.clone(), base, config.body_limit)?);
            on(filter, move |request: Request| async move {
                upstream.forward(request).await
            })
        }
        Answer::Respond(text) => {
            let text = text.clone();
            on(filter, move || async move { text })
        }
        _ => return Err(Failure::usage(format!("nothing answers {}", route.path))),
    };
    let paid = config.layer(route);
    if route.offers_sessions() {
        // Vouchers and closes come as POST, whatever the route's method is.
        return Ok(handler.layer(paid));
    }
    // Only what matches a route is paid for: an unknown method stays a 405.
    Ok(handler.route_layer(paid))
}
