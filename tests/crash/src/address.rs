//! One address in front of several servers, as a load balancer has it.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::Problem;

/// Connections go to one server after the other; to the next one if one does not listen.
#[derive(Debug)]
pub struct Address {
    address: String,
    task: JoinHandle<()>,
}

impl Address {
    /// In front of `servers`, each `127.0.0.1:…`.
    pub async fn in_front_of(servers: Vec<String>) -> Result<Self, Problem> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?.to_string();
        let (servers, turn) = (Arc::new(servers), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (servers, turn) = (servers.clone(), turn.clone());
                tokio::spawn(async move {
                    for _ in 0..servers.len() {
                        let server = &servers[turn.fetch_add(1, Relaxed) % servers.len()];
                        if let Ok(mut server) = TcpStream::connect(server).await {
                            // However it ends, the client sees the connection end.
                            let _ = copy_bidirectional(&mut client, &mut server).await;
                            return;
                        }
                    }
                });
            }
        });
        Ok(Self { address, task })
    }

    /// `127.0.0.1:…`
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        self.task.abort();
    }
}
