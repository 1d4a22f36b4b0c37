//! `farebox check`: what is wrong with a configuration, or what it offers.

use std::path::Path;

use farebox::{
    PricingContext,
    config::{Answer, Config},
};

use crate::failure::Failure;

/// Reads a configuration, or says everything that is wrong with it.
pub(crate) fn read(path: &Path) -> Result<Config, Failure> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("cannot read the configuration {name}: {error}"))
    })?;
    Config::gateway(&text).map_err(|invalid| Failure::invalid(name, &invalid))
}

/// One line for each offer: route, rail, price, and who answers.
pub(crate) async fn lines(config: &Config) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for route in &config.routes {
        let answer = match &route.answer {
            Answer::Upstream(url) => format!("passed to {url}"),
            Answer::Respond(text) => format!("answered with {} bytes", text.len()),
            _ => "answered by code".to_owned(),
        };
        for offer in route.gate.offers().iter() {
            let name = offer.method().name();
            let scope = route.gate.route();
            let terms = offer
                .terms(PricingContext::new(scope, &route.path, None))
                .await;
            let terms = terms.map_err(Failure::general)?;
            let price = [&terms["amount"], &terms["currency"]].map(|v| v.as_str().unwrap_or(""));
            let line = format!("{scope}  {name}  {}  {answer}", price.join(" ").trim_end());
            lines.push(line);
        }
    }
    Ok(lines)
}

pub(crate) async fn run(path: &Path) -> Result<(), Failure> {
    let config = read(path)?;
    println!(
        "{} holds: {}, realm {}",
        path.display(),
        config.listen,
        config.server.engine().realm()
    );
    for line in lines(&config).await? {
        println!("{line}");
    }
    Ok(())
}
