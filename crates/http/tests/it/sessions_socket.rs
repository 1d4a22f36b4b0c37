//! WebSockets that are paid from a session, with a server written for the test.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{
        Request, State,
        ws::{Message, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    response::{IntoResponse, Response},
    routing::any,
};
use farebox_client::session::{Answer, SessionError, Store, VolatileStore};
use farebox_core::wire::Credential;
use farebox_http::{PaidSocket, SessionCallError, SessionClient};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::{
    shop::{self, Coins, Seller as _, Server, coins, refusal, sessions},
    support::PATIENCE,
};

/// What the server says once it is paid for the first message.
#[derive(Clone)]
enum Script {
    /// So many messages, each paid for.
    Honest(u32),
    /// These frames, and then it listens. `{channel}` is the channel.
    Fixed(Vec<Value>),
    /// Asks for a voucher, and says so much before it answers it, which it does when it is let.
    Late(u32),
}

struct Hall {
    server: Arc<Server>,
    script: Script,
    /// What a late answer waits for.
    gate: Arc<Semaphore>,
}

struct Open {
    server: Arc<Server>,
    wallet: Coins,
    client: SessionClient,
    url: reqwest::Url,
    gate: Arc<Semaphore>,
}

async fn open(script: Script, max_deposit: u128) -> Open {
    let server = Server::new(1, 10);
    let gate = Arc::new(Semaphore::new(0));
    let hall = Arc::new(Hall {
        server: server.clone(),
        script,
        gate: gate.clone(),
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/talk", listener.local_addr().unwrap());
    let app = Router::new().route("/talk", any(talk)).with_state(hall);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let wallet = Coins::new(&server.chain);
    let store: Arc<dyn Store> = Arc::new(VolatileStore::new());
    let sessions = sessions(&wallet, &store, max_deposit);
    Open {
        client: SessionClient::new(reqwest::Client::new(), sessions),
        url: url.parse().unwrap(),
        server,
        wallet,
        gate,
    }
}

async fn talk(
    State(hall): State<Arc<Hall>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    request: Request,
) -> Response {
    if let Ok(upgrade) = upgrade {
        return upgrade.on_upgrade(move |socket| serve(hall, socket));
    }
    let credential = request.headers().get("authorization");
    let Some(credential) = credential else {
        return refusal(hall.server.refuse("payment-required"));
    };
    let credential = Credential::parse(credential.as_bytes()).unwrap().unwrap();
    match hall.server.take(&credential, 0) {
        Answer::Accepted(receipt) => {
            let receipt = receipt.unwrap().to_header().unwrap();
            ([("payment-receipt", receipt)], "").into_response()
        }
        answer => refusal(answer),
    }
}

fn frame(value: &Value) -> Message {
    Message::text(value.to_string())
}

/// What a frame of the client is answered, and the channel it paid from.
fn answer(server: &Server, text: &str) -> (Value, Option<String>) {
    let said: Value = serde_json::from_str(text).unwrap();
    let credential = said["authorization"].as_str().unwrap();
    let credential = Credential::parse(credential.as_bytes()).unwrap().unwrap();
    match server.take(&credential, 0) {
        Answer::Accepted(receipt) => {
            let receipt = receipt.unwrap();
            let channel = Some(receipt.reference.clone());
            (
                json!({ "mpp": "payment-receipt", "data": *receipt }),
                channel,
            )
        }
        Answer::Refused { problem, .. } => {
            let message = serde_json::to_string(&problem).unwrap();
            (
                json!({ "mpp": "payment-error", "status": 402, "message": message }),
                None,
            )
        }
        _ => (
            json!({ "mpp": "payment-error", "status": 503, "message": "" }),
            None,
        ),
    }
}

async fn serve(hall: Arc<Hall>, mut socket: WebSocket) {
    let server = &hall.server;
    let Some(Ok(Message::Text(text))) = socket.recv().await else {
        return;
    };
    let (reply, channel) = answer(server, &text);
    socket.send(frame(&reply)).await.unwrap();
    let Some(channel) = channel else { return };
    let mut left = 0;
    match &hall.script {
        Script::Honest(messages) => left = *messages,
        Script::Late(_) => {
            let wants = json!({ "channelId": channel, "requiredCumulative": "2" });
            for said in [
                json!({ "mpp": "message", "data": "0" }),
                json!({ "mpp": "payment-need-voucher", "data": wants }),
            ] {
                socket.send(frame(&said)).await.unwrap();
            }
        }
        Script::Fixed(frames) => {
            for said in frames {
                let said = said.to_string().replace("{channel}", &channel);
                if socket.send(Message::text(said)).await.is_err() {
                    return;
                }
            }
        }
    }
    let mut asked = false;
    let mut said = 0;
    loop {
        while left > 0 {
            let books = {
                let mut channels = server.channels.lock().unwrap();
                let books = channels.get_mut(&channel).unwrap();
                let enough = books.accepted > books.spent;
                books.spent += u128::from(enough);
                (*books, enough)
            };
            let (books, enough) = books;
            let out = if enough {
                (left, said, asked) = (left - 1, said + 1, false);
                json!({ "mpp": "message", "data": format!("message {said}") })
            } else if !asked {
                asked = true;
                json!({ "mpp": "payment-need-voucher", "data": {
                    "channelId": channel,
                    "requiredCumulative": (books.spent + 1).to_string(),
                    "acceptedCumulative": books.accepted.to_string(),
                    "deposit": books.deposit.to_string(),
                }})
            } else {
                break;
            };
            if socket.send(frame(&out)).await.is_err() {
                return;
            }
        }
        let ready = matches!(hall.script, Script::Honest(_)) && left == 0;
        let heard = match ready {
            true => None,
            false => match socket.recv().await {
                Some(Ok(Message::Text(text))) => Some(text),
                Some(Ok(_)) => continue,
                _ => return,
            },
        };
        match heard {
            Some(text) if text.contains("authorization") => {
                let (reply, _) = answer(server, &text);
                if let Script::Late(messages) = &hall.script {
                    hall.gate.acquire().await.unwrap().forget();
                    for n in 1..=*messages {
                        let said = json!({ "mpp": "message", "data": n.to_string() });
                        socket.send(frame(&said)).await.unwrap();
                    }
                }
                if socket.send(frame(&reply)).await.is_err() {
                    return;
                }
            }
            Some(text) if !text.contains("payment-close-request") => {
                let echo = json!({ "said": text.as_str() });
                socket.send(frame(&echo)).await.unwrap();
            }
            _ => {
                let receipt = server.receipt(&channel, server.books(&channel));
                let ready = json!({ "mpp": "payment-close-ready", "data": receipt });
                let _ = socket.send(frame(&ready)).await;
                return;
            }
        }
    }
}

async fn all(socket: &mut PaidSocket) -> (u32, Option<SessionCallError>) {
    let mut messages = 0;
    while let Some(message) = socket.recv().await {
        match message {
            Ok(_) => messages += 1,
            Err(error) => return (messages, Some(error)),
        }
    }
    (messages, None)
}

/// Protects: a socket is paid message by message, over top-ups; its channel outlives it and is
/// closed with a refund.
#[tokio::test]
async fn a_socket_is_paid_as_it_speaks() {
    let hall = open(Script::Honest(60), 1_000).await;
    let mut socket = hall.client.socket(hall.url.clone()).await.unwrap();
    let first = socket.recv().await.unwrap().unwrap();
    assert_eq!(first, "message 1");
    let (rest, error) = all(&mut socket).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(rest, 59);
    assert_eq!(hall.wallet.most_signed(), 60);
    let mut socket = hall.client.socket(hall.url.clone()).await.unwrap();
    assert_eq!(all(&mut socket).await.0, 60);
    assert_eq!(hall.server.chain.opens(), 1);
    let closed = &hall.client.close_all().await.unwrap()[0];
    assert_eq!(closed.spent, coins(120));
}

/// Protects: a client may speak too, and stop: the receipt is checked and handed over.
#[tokio::test]
async fn a_client_may_speak_and_stop() {
    let message = json!({ "mpp": "message", "data": "hello" });
    let hall = open(Script::Fixed(vec![message]), 1_000).await;
    let mut socket = hall.client.socket(hall.url.clone()).await.unwrap();
    assert_eq!(socket.recv().await.unwrap().unwrap(), "hello");
    socket.send("how are you").await.unwrap();
    let echo = socket.recv().await.unwrap().unwrap();
    assert_eq!(echo, r#"{"said":"how are you"}"#);
    let receipt = socket.stop().await.unwrap();
    assert_eq!(receipt.extra["acceptedCumulative"], "1");
}

/// Protects: whatever a socket says, no more is signed than what it delivered and one step.
#[tokio::test]
async fn lying_sockets_get_one_step() {
    let message = json!({ "mpp": "message", "data": "x" });
    let need = |channel: &str, required: &str| {
        json!({ "mpp": "payment-need-voucher", "data": {
            "channelId": channel, "requiredCumulative": required,
        }})
    };
    let receipt = json!({ "mpp": "payment-close-ready", "data": {
        "method": "coins", "status": "success", "reference": "{channel}",
        "timestamp": "2026-01-01T00:00:00Z", "acceptedCumulative": "99", "spent": "99",
    }});
    for (name, lie, most) in [
        ("asks for all", vec![need("{channel}", "10")], 1),
        ("asks past the deposit", vec![need("{channel}", "9999")], 1),
        ("another channel", vec![need("c77", "2")], 1),
        ("nonsense", vec![need("{channel}", "2.5")], 1),
        ("asks for ever", vec![need("{channel}", "2"); 500], 2),
        ("forges a receipt", vec![receipt], 1),
        ("an unknown frame", vec![json!({ "mpp": "give-me-all" })], 1),
    ] {
        let script = [vec![message.clone()], lie].concat();
        let hall = open(Script::Fixed(script), 1_000).await;
        let mut socket = hall.client.socket(hall.url.clone()).await.unwrap();
        let reading = tokio::time::timeout(PATIENCE, all(&mut socket));
        let (messages, error) = reading.await.expect("it ends");
        assert!(error.is_some(), "{name}");
        assert_eq!(messages, 1, "{name}");
        assert!(hall.wallet.most_signed() <= most, "{name}: {error:?}");
        assert_eq!(hall.server.chain.only().1.deposit, 10, "{name}");
    }
}

/// Protects: a socket that is not read while it pays keeps nobody from the channel, and nothing that
/// it said is lost.
#[tokio::test]
async fn a_socket_that_nobody_reads_blocks_no_close() {
    let hall = open(Script::Late(50), 1_000).await;
    let mut socket = hall.client.socket(hall.url.clone()).await.unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    while hall.wallet.most_signed() < 2 {
        assert!(std::time::Instant::now() < deadline, "it pays");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // It is answered once the close waits for it, so that nothing else is paid before.
    let closing = tokio::time::timeout(PATIENCE, hall.client.close_all());
    let (closed, ()) = tokio::join!(biased; closing, async { hall.gate.add_permits(1) });
    let closed = closed.expect("it ends").unwrap();
    assert_eq!((closed[0].spent, closed[0].refunded), (coins(0), coins(10)));
    for n in 0..=50 {
        let message = socket.recv().await.unwrap().unwrap();
        assert_eq!(message, n.to_string());
    }
}

/// Protects: where no WebSocket opens, nothing was presented, and nothing is due for it.
#[tokio::test]
async fn a_socket_that_does_not_open_costs_nothing() {
    let shop = shop::open(shop::Script::Honest(0), 1_000).await;
    let url: reqwest::Url = format!("{}/joke", shop.base).parse().unwrap();
    // Without a channel a deposit was signed, which the next call presents.
    let failed = shop.client.socket(url.clone()).await;
    assert!(
        matches!(
            failed,
            Err(SessionCallError::Session(
                SessionError::OutcomeUnknown { .. }
            ))
        ),
        "{failed:?}"
    );
    shop.client.send(shop.get("/joke")).await.unwrap();
    for _ in 0..5 {
        let failed = shop.client.socket(url.clone()).await;
        assert!(
            matches!(failed, Err(SessionCallError::Broken(_))),
            "{failed:?}"
        );
    }
    let channel = shop.sessions().channels().await.unwrap().remove(0);
    assert_eq!(channel.due, coins(1));
    assert_eq!(shop.wallet.most_signed(), 2, "one step, again and again");
    assert_eq!(shop.shop.server.chain.opens(), 1);
}

/// Protects: a socket that is refused is not paid by another deposit.
#[tokio::test]
async fn a_channel_that_is_closing_pays_no_socket() {
    let hall = open(Script::Honest(3), 1_000).await;
    let mut socket = hall.client.socket(hall.url.clone()).await.unwrap();
    assert_eq!(all(&mut socket).await.0, 3);
    let (id, _) = hall.server.chain.only();
    hall.server
        .channels
        .lock()
        .unwrap()
        .get_mut(&id)
        .unwrap()
        .accepted = 1_000;
    let refused = hall.client.socket(hall.url.clone()).await;
    assert!(
        matches!(
            refused,
            Err(SessionCallError::Session(SessionError::NotAccepted { .. }))
        ),
        "{refused:?}"
    );
    assert_eq!(hall.server.chain.opens(), 1);
    assert!(hall.wallet.most_signed() <= 4);
}
