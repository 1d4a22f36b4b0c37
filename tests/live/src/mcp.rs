//! MCP over stdio: the example of this tree and mppx, each starting the other as its server.

use std::process::Command;

use serde_json::Value;

use crate::{Chain, PATH_USD, PAYER_KEY, Problem, SELLER, built, output, peers, text};

/// mppx calls a tool of `examples/mcp` and pays for it; what it printed.
pub fn mppx_calls(chain: &Chain, tool: &str) -> Result<Value, Problem> {
    let directory = tempfile::tempdir()?;
    let config = format!(
        r#"
realm = "jokes.example"
secrets = ["a secret of 32 bytes, only for tests"]
store = "memory:"

[rails.tempo]
rpc_url = "{rpc}"
chain_id = {id}
currency = "{PATH_USD}"
recipient = "{SELLER}"
"#,
        rpc = chain.url,
        id = chain.id,
    );
    let path = directory.path().join("farebox.toml");
    std::fs::write(&path, config)?;
    let mut command = Command::new("node");
    command
        .current_dir(peers())
        .args(["mcp-client.mjs", &chain.url, PAYER_KEY, tool])
        .arg(built("mcp", "mcp")?)
        .arg("serve")
        .arg(&path);
    Ok(serde_json::from_str(&said(command)?)?)
}

/// `examples/mcp` calls a tool of an MCP server that mppx is in, and pays for it; what it printed.
pub fn farebox_calls(chain: &Chain, tool: &str) -> Result<String, Problem> {
    let directory = tempfile::tempdir()?;
    let wallets = format!(
        r#"
[wallets.tempo]
private_key = "{PAYER_KEY}"
rpc_url = "{rpc}"
chain_id = {id}
"#,
        rpc = chain.url,
        id = chain.id,
    );
    let path = directory.path().join("wallets.toml");
    std::fs::write(&path, wallets)?;
    let mut command = Command::new(built("mcp", "mcp")?);
    command.current_dir(peers()).arg("call").arg(&path).args([
        tool,
        "node",
        "mcp-server.mjs",
        &chain.url,
        SELLER,
    ]);
    said(command)
}

fn said(command: Command) -> Result<String, Problem> {
    let run = output(command)?;
    if run.status.success() {
        Ok(text(&run.stdout))
    } else {
        Err(format!("{}{}", text(&run.stdout), text(&run.stderr)).into())
    }
}
