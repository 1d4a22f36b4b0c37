//! Paid WebSockets: credentials, pieces and receipts in frames.

use farebox_core::wire::Receipt;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message},
};

use crate::{
    booth::{Booth, credential, open, voucher},
    support::PATIENCE,
};

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// How a socket ended.
#[derive(Debug, PartialEq)]
enum Got {
    Frame(Value),
    Closed(u16),
}

impl Socket {
    async fn open(booth: &Booth) -> Self {
        let url = format!("ws://{}/stream", booth.address);
        Self(connect_async(url).await.unwrap().0)
    }

    async fn say(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    async fn pay(&mut self, booth: &Booth, act: Value) {
        let credential = booth.credential("/stream", act).await;
        self.say(json!({"mpp": "authorization", "authorization": credential}))
            .await;
    }

    async fn next(&mut self) -> Got {
        loop {
            let message = timeout(PATIENCE, self.0.next()).await.unwrap();
            match message.unwrap() {
                Ok(Message::Text(text)) => return Got::Frame(serde_json::from_str(&text).unwrap()),
                Ok(Message::Close(frame)) => return Got::Closed(frame.unwrap().code.into()),
                Ok(_) | Err(Error::Io(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The data of the next frame, of this kind.
    async fn frame(&mut self, kind: &str) -> Value {
        match self.next().await {
            Got::Frame(mut frame) if frame["mpp"] == kind => frame["data"].take(),
            other => panic!("{other:?} and not {kind}"),
        }
    }

    async fn receipt(&mut self, kind: &str) -> Receipt {
        serde_json::from_value(self.frame(kind).await).unwrap()
    }
}

/// Protects: the whole life of a socket: paid, exhausted, resumed, asked to close, closed.
#[tokio::test]
async fn a_socket_is_paid_for_by_the_message() {
    let booth = Booth::chits().await;
    let feed = booth.behind.feed();
    for piece in ["one", "two\n\nevent: payment-receipt", "three"] {
        feed.send(Ok(piece.into())).unwrap();
    }
    let mut socket = Socket::open(&booth).await;
    socket.pay(&booth, open("a", 20, 4)).await;
    assert_eq!(socket.receipt("payment-receipt").await.reference, "a");
    assert_eq!(socket.frame("message").await, "one");
    assert_eq!(
        socket.frame("message").await,
        "two\n\nevent: payment-receipt"
    );
    let need = socket.frame("payment-need-voucher").await;
    assert_eq!(need["requiredCumulative"], "6");
    let challenge = booth.challenge("/stream").await;
    let authorization = credential(&challenge, voucher("a", 8));
    socket
        .say(json!({"mpp": "authorization", "authorization": authorization}))
        .await;
    assert_eq!(
        socket.receipt("payment-receipt").await.extra["acceptedCumulative"],
        "8"
    );
    assert_eq!(socket.frame("message").await, "three");
    socket.say(json!({"mpp": "payment-close-request"})).await;
    let ready = socket.receipt("payment-close-ready").await;
    assert_eq!(ready.extra["spent"], "6");
    assert_eq!(
        ready.extra["challengeId"],
        challenge.id.as_str(),
        "of the latest credential"
    );
    let close = json!({"action": "close", "channel": "a", "signature": "signed"});
    socket.pay(&booth, close).await;
    socket.receipt("payment-receipt").await;
    assert_eq!(socket.next().await, Got::Closed(1000));
    assert!(booth.state("a").await.closed);
    assert_eq!(booth.spent("a").await, 6);
}

/// Protects: every credential in a socket is answered, and one that is refused ends it.
#[tokio::test]
async fn a_refused_credential_ends_a_socket() {
    let booth = Booth::chits().await;
    let forged = json!({"action": "open", "channel": "a", "deposit": 9, "signature": "forged"});
    for (frame, status) in [
        (
            json!({"mpp": "authorization", "authorization": "Payment !!"}),
            402,
        ),
        (
            json!({"mpp": "authorization", "authorization": "Bearer x"}),
            402,
        ),
        (json!({"mpp": "nonsense"}), 400),
        (
            json!({"mpp": "authorization", "authorization": booth.credential("/stream", forged).await}),
            402,
        ),
        (
            json!({"mpp": "authorization", "authorization": booth.credential("/plain", open("a", 9, 9)).await}),
            402,
        ),
    ] {
        let mut socket = Socket::open(&booth).await;
        socket.say(frame.clone()).await;
        let Got::Frame(error) = socket.next().await else {
            panic!("{frame}")
        };
        assert_eq!(
            (&error["mpp"], &error["status"]),
            (&json!("payment-error"), &json!(status))
        );
        assert!(error["message"].is_string());
        assert_eq!(socket.next().await, Got::Closed(1008), "{frame}");
    }
}

/// Protects: what was sent before a refused voucher is receipted.
#[tokio::test]
async fn a_refused_voucher_leaves_a_receipt() {
    let booth = Booth::chits().await;
    let feed = booth.behind.feed();
    feed.send(Ok("one".into())).unwrap();
    let mut socket = Socket::open(&booth).await;
    socket.pay(&booth, open("a", 20, 4)).await;
    socket.frame("payment-receipt").await;
    assert_eq!(socket.frame("message").await, "one");
    socket.pay(&booth, voucher("a", 2)).await;
    let Got::Frame(error) = socket.next().await else {
        panic!("an error")
    };
    assert_eq!(error["mpp"], "payment-error");
    assert_eq!(
        socket.receipt("payment-close-ready").await.extra["spent"],
        "2"
    );
    assert_eq!(socket.next().await, Got::Closed(1008));
    booth.given_back("a").await;
}

/// Protects: a client cannot have any number of credentials wait.
#[tokio::test]
async fn a_socket_queues_so_many_credentials() {
    let booth = Booth::chits().await;
    let mut socket = Socket::open(&booth).await;
    let frame = json!({"mpp": "authorization", "authorization": "Payment !!"}).to_string();
    for _ in 0..100 {
        socket.0.feed(Message::text(frame.clone())).await.unwrap();
    }
    // The server may be gone before it has read them all.
    let _ = socket.0.flush().await;
    let mut last = None;
    while let Got::Frame(frame) = socket.next().await {
        assert_eq!(frame["mpp"], "payment-error");
        last = Some(frame);
    }
    assert!(last.is_some());
}

/// Protects: who does not pay is let go, and who sends too much is not read.
#[tokio::test]
async fn sockets_have_limits() {
    let booth = Booth::paced("chit", 200, 15_000).await;
    let mut silent = Socket::open(&booth).await;
    assert_eq!(silent.next().await, Got::Closed(1008));
    let mut loud = Socket::open(&booth).await;
    let _ = loud.0.send(Message::text("x".repeat(65 * 1024))).await;
    let end = timeout(PATIENCE, loud.0.next()).await.unwrap();
    assert!(
        matches!(end, None | Some(Err(_) | Ok(Message::Close(_)))),
        "{end:?}"
    );
}

/// Protects: a socket that its client leaves gives back what it held.
#[tokio::test]
async fn a_socket_that_is_left_gives_back() {
    let booth = Booth::purses().await;
    let feed = booth.behind.feed();
    feed.send(Ok("one".into())).unwrap();
    let mut socket = Socket::open(&booth).await;
    socket.pay(&booth, open("a", 1000, 0)).await;
    socket.frame("payment-receipt").await;
    assert_eq!(socket.frame("message").await, "one");
    drop(socket);
    booth.given_back("a").await;
    assert_eq!(booth.spent("a").await, 2);
}
