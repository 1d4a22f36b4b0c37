//! `farebox rails`: what this binary contains.

use comfy_table::{Table, presets};
use farebox::core::Plugin;
use serde_json::json;

use crate::{args::Rails, failure::Failure};

pub(crate) fn run(args: &Rails) -> Result<(), Failure> {
    let registry = farebox::registry().map_err(Failure::general)?;
    let wanted = |plugin: &&Plugin| match args.name.as_deref() {
        Some(name) => plugin.name == name || plugin.rail() == name,
        None => true,
    };
    let plugins: Vec<&Plugin> = registry.plugins().filter(wanted).collect();
    if let (Some(name), true) = (&args.name, plugins.is_empty()) {
        return Err(Failure::usage(format!(
            "no rail {name} in this binary; `farebox rails` lists those that are"
        )));
    }
    if args.json {
        let rails: Vec<_> = plugins
            .into_iter()
            .map(|plugin| {
                json!({
                    "name": plugin.name,
                    "method": plugin.method,
                    "intent": plugin.intent,
                    "package": plugin.package,
                    "version": plugin.version,
                    "wallet": has_wallet(plugin),
                    "example": example(plugin),
                })
            })
            .collect();
        println!("{}", json!(rails));
        return Ok(());
    }
    if args.name.is_some() {
        for plugin in plugins {
            println!("# {}\n{}", plugin.name, example(plugin));
        }
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["name", "method", "intent", "package", "version", "wallet"]);
    for plugin in plugins {
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

/// The plugin's example as it stands in a configuration file.
fn example(plugin: &Plugin) -> String {
    let rail = plugin.rail();
    let mut text = format!("[rails.{rail}]\n");
    for line in plugin.example.lines() {
        match line.strip_prefix('[') {
            Some(table) => text.push_str(&format!("[rails.{rail}.{table}\n")),
            None => text.push_str(&format!("{line}\n")),
        }
    }
    text
}

fn has_wallet(plugin: &Plugin) -> bool {
    plugin.wallet.is_some() || plugin.session_wallet.is_some()
}
