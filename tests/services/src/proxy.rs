//! A TCP proxy whose connections can be cut, in the middle of an answer if need be.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
};

/// Forwards connections to a port, until it is told to cut them.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Where new connections lead.
    target: AtomicU16,
    connections: Mutex<Vec<TcpStream>>,
    /// Of the request with this in it, the answer is swallowed and its connection cut.
    lost: Mutex<Option<Vec<u8>>>,
    closed: AtomicBool,
}

impl Proxy {
    /// A proxy in front of `port` on 127.0.0.1.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            shared: Arc::default(),
        };
        proxy.lead_to(port);
        let shared = proxy.shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.closed.load(Ordering::SeqCst) {
                    break;
                }
                let port = shared.target.load(Ordering::SeqCst);
                if let Ok(server) = TcpStream::connect(("127.0.0.1", port)) {
                    shared.join(client, server);
                }
            }
        });
        proxy
    }

    /// Its own port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Has new connections lead to `port`, as a name does after a failover. Others stay as they are.
    pub fn lead_to(&self, port: u16) {
        self.shared.target.store(port, Ordering::SeqCst);
    }

    /// Cuts every connection. New ones are accepted.
    pub fn cut(&self) {
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            // It may be closed already.
            drop(connection.shutdown(Shutdown::Both));
        }
    }

    /// Has the next request in which `text` is carried out and its answer lost: it is swallowed, and
    /// the connection is cut.
    pub fn lose_answer_to(&self, text: &str) {
        *self.shared.lost.lock().unwrap() = Some(text.into());
    }
}

impl Shared {
    fn join(self: &Arc<Self>, client: TcpStream, server: TcpStream) {
        let mut connections = self.connections.lock().unwrap();
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
            connections.push(stream.try_clone().unwrap());
        }
        drop(connections);
        let (requests, answers) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let (shared, lose) = (self.clone(), Arc::new(AtomicBool::new(false)));
        std::thread::spawn({
            let lose = lose.clone();
            move || {
                copy(requests, server, |request| {
                    if shared.is_to_be_lost(request) {
                        lose.store(true, Ordering::SeqCst);
                    }
                    true
                });
            }
        });
        std::thread::spawn(move || copy(answers, client, |_| !lose.load(Ordering::SeqCst)));
    }

    /// Whether this is the request whose answer is to be lost.
    fn is_to_be_lost(&self, request: &[u8]) -> bool {
        let mut lost = self.lost.lock().unwrap();
        let text = lost.take_if(|text| request.windows(text.len()).any(|part| part == *text));
        text.is_some()
    }
}

/// Copies until one side ends, or what came may not `pass`.
fn copy(mut from: TcpStream, mut to: TcpStream, pass: impl Fn(&[u8]) -> bool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let read = buffer.get(..read).unwrap_or_default();
        if !pass(read) || to.write_all(read).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        drop(stream.shutdown(Shutdown::Both));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes the listener, which then sees that it is closed.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}
