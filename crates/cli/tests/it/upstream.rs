//! A server behind, for one request.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
};

use crate::common::Running;

/// It is asked once, and answers when it is told to.
pub(crate) struct Upstream {
    pub(crate) port: u16,
    asked: Receiver<Asked>,
}

/// What it was asked, and who waits for the answer.
pub(crate) struct Asked {
    pub(crate) request: String,
    stream: TcpStream,
}

impl Upstream {
    /// `end` is what the request ends with.
    pub(crate) fn open(end: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, asked) = channel();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(end.as_bytes()) {
                let mut some = [0; 1024];
                let n = stream.read(&mut some).unwrap();
                assert_ne!(n, 0, "the request broke off");
                request.extend_from_slice(&some[..n]);
            }
            let request = String::from_utf8(request).unwrap();
            // Nobody waits any more where the test has failed.
            let _ = sender.send(Asked { request, stream });
        });
        Self { port, asked }
    }

    /// Waits until it is asked by what `payer` pays for.
    pub(crate) fn asked(&self, payer: &mut Running) -> Asked {
        payer.until("the upstream to be asked", |_| self.asked.try_recv().ok())
    }
}

impl Asked {
    pub(crate) fn answer(mut self, answer: &str) {
        self.stream.write_all(answer.as_bytes()).unwrap();
    }
}
