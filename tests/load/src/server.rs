//! The servers: this same program, once per process.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use axum::{Router, routing::get};
use farebox::{OfferSpec, config::Config};
use farebox_sandbox_tempo::{Chain, PATH_USD, dev_account};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::{Problem, stores::Place};

/// Serves one free route and one per rail, until it is killed.
pub(crate) async fn serve(path: &str) -> Result<(), Problem> {
    let config = Config::service(&fs::read_to_string(path)?)?;
    let server = &config.server;
    server.connect().await?;
    let handler = || async { "a joke worth its price\n" };
    let paid = |rail: &str, amount: &str| {
        let offer = OfferSpec::new(format!("{rail}/charge"), amount);
        server.paid(format!("GET /{rail}"), [offer])
    };
    let app = Router::new()
        .route("/free", get(handler))
        .route("/proof", get(handler).route_layer(paid("proof", "0")?))
        .route("/tempo", get(handler).route_layer(paid("tempo", "0.01")?));
    let listener = TcpListener::bind(config.listen).await?;
    println!("{}", listener.local_addr()?);
    let _reconciler = server.engine().spawn_reconciler(Duration::from_secs(10));
    axum::serve(listener, app).await?;
    Ok(())
}

/// Processes on one store. Dropping it ends them.
pub(crate) struct Servers {
    children: Vec<Child>,
    pub(crate) addresses: Vec<String>,
    _folder: TempDir,
}

impl Servers {
    pub(crate) async fn start(
        chain: &Chain,
        place: &Place,
        processes: usize,
    ) -> Result<Self, Problem> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("config.toml");
        let (recipient, _) = dev_account(2).ok_or("no such account")?;
        let rail = json!({
            "chain_id": chain.chain_id(),
            "currency": PATH_USD.to_string(),
            "recipient": recipient.to_string(),
        });
        let mut tempo = rail.clone();
        tempo["rpc_url"] = json!(chain.url());
        let config = json!({
            "listen": "127.0.0.1:0",
            "realm": "127.0.0.1",
            "secrets": ["a secret for measurements only, of 32 bytes and more"],
            "store": place.url(),
            "rails": { "proof": rail, "tempo": tempo },
        });
        fs::write(&path, toml::to_string(&config)?)?;
        let mut servers = Self {
            children: Vec::new(),
            addresses: Vec::new(),
            _folder: folder,
        };
        for _ in 0..processes {
            let mut child = Command::new(std::env::current_exe()?)
                .arg(&path)
                .stdout(Stdio::piped())
                .spawn()?;
            let output = child.stdout.take().ok_or("no output")?;
            servers.children.push(child);
            let mut address = String::new();
            BufReader::new(output).read_line(&mut address)?;
            if address.trim().is_empty() {
                return Err("a server did not start".into());
            }
            servers.addresses.push(address.trim().to_owned());
        }
        Ok(servers)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself, and nobody is left to tell.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
