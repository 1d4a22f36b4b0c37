//! The crate `mpp` on both sides of a Tempo charge, through its public API.
//!
//! `farebox-mpp-peer serve RPC_URL CHAIN_ID RECIPIENT OFFER`: a paid `/joke`; `OFFER` is JSON, see
//! [`server::Offer`]. Prints `{"url": …}` once it listens on a free port of the loopback interface.
//!
//! `farebox-mpp-peer pay URL RPC_URL KEY`: pays what `URL` asks for and prints the answer's body.

mod client;
mod server;

type Problem = Box<dyn std::error::Error>;

fn main() -> Result<(), Problem> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match args.as_slice() {
        ["serve", rpc_url, chain_id, recipient, offer] => {
            let offer = serde_json::from_str(offer)?;
            runtime.block_on(server::serve(rpc_url, chain_id.parse()?, recipient, offer))
        }
        ["pay", url, rpc_url, key] => runtime.block_on(client::pay(url, rpc_url, key)),
        _ => Err("usage: serve RPC_URL CHAIN_ID RECIPIENT OFFER | pay URL RPC_URL KEY".into()),
    }
}
