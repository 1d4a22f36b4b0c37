//! `farebox check`: what is wrong with a configuration, or what it offers.

use std::path::Path;

use farebox::config::{Answer, Config};

use crate::failure::Failure;

/// Reads a configuration, or says everything that is wrong with it.
pub(crate) fn read(path: &Path) -> Result<Config, Failure> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("cannot read the configuration {name}: {error}"))
    })?;
    Config::gateway(&text).map_err(|invalid| Failure::invalid(name, &invalid))
}

/// One line for each offer: route, rail, terms.
pub(crate) fn lines(config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    for route in &config.routes {
        let answer = match &route.answer {
            Answer::Upstream(url) => format!("passed to {url}"),
            Answer::Respond(text) => format!("answered with {} bytes", text.len()),
            _ => "answered by code".to_owned(),
        };
        for offer in route.gate.offers().iter() {
            let name = offer.method().name();
            lines.push(format!("{}  {name}  {answer}", route.gate.route()));
        }
    }
    lines
}

pub(crate) fn run(path: &Path) -> Result<(), Failure> {
    let config = read(path)?;
    println!("{} holds: {}, realm {}", path.display(), config.listen, config.server.engine().realm());
    for line in lines(&config) {
        println!("{line}");
    }
    Ok(())
}
