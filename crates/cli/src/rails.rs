//! `farebox rails`: what this binary contains.

use comfy_table::{Table, presets};
use serde_json::json;

use crate::failure::Failure;

pub(crate) fn run(as_json: bool) -> Result<(), Failure> {
    let registry = farebox::registry().map_err(Failure::general)?;
    if as_json {
        let rails: Vec<_> = registry
            .plugins()
            .map(|plugin| {
                json!({
                    "name": plugin.name,
                    "method": plugin.method,
                    "intent": plugin.intent,
                    "package": plugin.package,
                    "version": plugin.version,
                    "wallet": has_wallet(plugin),
                })
            })
            .collect();
        println!("{}", json!(rails));
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["name", "method", "intent", "package", "version", "wallet"]);
    for plugin in registry.plugins() {
        let wallet = if has_wallet(plugin) { "yes" } else { "no" };
        table.add_row([
            plugin.name,
            plugin.method,
            plugin.intent,
            plugin.package,
            plugin.version,
            wallet,
        ]);
    }
    println!("{table}");
    Ok(())
}

fn has_wallet(plugin: &farebox::core::Plugin) -> bool {
    plugin.wallet.is_some() || plugin.session_wallet.is_some()
}
