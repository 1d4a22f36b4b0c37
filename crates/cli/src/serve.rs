//! `farebox serve`: paid routes in front of servers that know nothing about payment.

use std::{net::SocketAddr, path::Path, sync::Arc};

use axum::{
    Router,
    extract::{ConnectInfo, Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, MethodRouter, get, on},
};
use farebox::{
    config::{Answer, Config, Network, Route},
    http::PaymentLayer,
};
use http::{Method, StatusCode};
use tokio::net::TcpListener;

use crate::{
    check,
    discovery::{self, Discovery},
    failure::Failure,
    proxy::Upstream,
};

pub(crate) async fn run(path: &Path) -> Result<(), Failure> {
    let config = check::read(path)?;
    config.server.connect().await.map_err(Failure::general)?;
    let app = app(&config)?;
    let listener = TcpListener::bind(config.listen).await.map_err(|error| {
        Failure::general(format!("cannot listen on {}: {error}", config.listen))
    })?;
    let address = listener.local_addr()?;
    for line in check::lines(&config).await? {
        println!("{line}");
    }
    println!(
        "listening on http://{address}, realm {}",
        config.server.engine().realm()
    );
    let reconciler = config.server.engine().spawn_reconciler(config.reconcile);
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, app)
        .with_graceful_shutdown(interrupted())
        .await?;
    drop(reconciler);
    Ok(())
}

/// Every route of the configuration.
fn app(config: &Config) -> Result<Router, Failure> {
    let client = Upstream::client()?;
    let mut app = Router::new();
    for route in &config.routes {
        app = app.route(&route.path, handler(route, &client)?);
    }
    if config
        .routes
        .iter()
        .all(|route| route.path != discovery::PATH)
    {
        let discovery = Discovery::new(config.server.engine().realm(), &config.routes);
        app = app.route(discovery::PATH, get(discovery::serve).with_state(discovery));
    }
    let trusted: Arc<[Network]> = config.trusted_proxies.clone().into();
    Ok(app.layer(middleware::from_fn_with_state(trusted, only_over_tls)))
}

fn handler(route: &Route, client: &reqwest::Client) -> Result<MethodRouter, Failure> {
    let method: Method = route.method.parse().map_err(Failure::general)?;
    let filter = MethodFilter::try_from(method).map_err(Failure::general)?;
    let handler = match &route.answer {
        Answer::Upstream(base) => {
            let upstream = Arc::new(Upstream::new(client.clone(), base)?);
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
    // Only what matches a route is paid for: an unknown method stays a 405.
    Ok(handler.route_layer(PaymentLayer::new(route.gate.clone())))
}

/// Challenges and credentials travel over TLS or not beyond this machine. This server speaks plain
/// HTTP, so a peer is this machine or a proxy that the operator trusts to have ended TLS.
async fn only_over_tls(
    State(trusted): State<Arc<[Network]>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let peer = peer.ip().to_canonical();
    if peer.is_loopback() || trusted.iter().any(|network| network.contains(peer)) {
        return next.run(request).await;
    }
    tracing::warn!(%peer, "refused: neither this machine nor one of `trusted_proxies`");
    (StatusCode::FORBIDDEN, "payments are taken over TLS only\n").into_response()
}

/// Resolves when the process is asked to end.
pub(crate) async fn interrupted() {
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending::<()>().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}
