//! The offline stand-ins of every rail, and `farebox sandbox`, which runs them for others.

use std::{io::Write as _, path::Path};

use farebox::OfferSpec;
use serde_json::{Map, Value, json};

use crate::{args::Sandbox, failure::Failure, signals::Signals};

/// The realm that the examples of this command sell under.
const REALM: &str = "127.0.0.1";

/// A well-known development key; worthless on any real chain.
#[cfg(all(feature = "proof", not(feature = "tempo")))]
const PROOF_KEY: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";

/// Running stand-ins. Dropping them stops them.
pub(crate) struct Sandboxes {
    #[cfg(feature = "tempo")]
    tempo: farebox_sandbox_tempo::Chain,
    #[cfg(feature = "stripe")]
    stripe: farebox_sandbox_stripe::Stripe,
    #[cfg(feature = "lightning")]
    lightning: farebox_sandbox_lightning::Lightning,
}

impl Sandboxes {
    /// Starts one for each rail of this binary, on free ports of this machine.
    pub(crate) async fn start() -> Result<Self, Failure> {
        Ok(Self {
            #[cfg(feature = "tempo")]
            tempo: farebox_sandbox_tempo::Chain::start(Default::default())
                .await
                .map_err(Failure::general)?,
            #[cfg(feature = "stripe")]
            stripe: farebox_sandbox_stripe::Stripe::start(Default::default())
                .await
                .map_err(Failure::general)?,
            #[cfg(feature = "lightning")]
            lightning: farebox_sandbox_lightning::Lightning::start(Default::default())
                .await
                .map_err(Failure::general)?,
        })
    }

    /// What a seller configures: the tables `[rails.<rail>]`.
    pub(crate) fn rails(&self) -> Map<String, Value> {
        #[allow(unused_mut, reason = "a binary may have no rail")]
        let mut rails = Map::new();
        #[cfg(feature = "tempo")]
        rails.insert(
            "tempo".into(),
            json!({
                "rpc_url": self.tempo.url(),
                "chain_id": self.tempo.chain_id(),
                "currency": farebox_sandbox_tempo::PATH_USD.to_string(),
                "recipient": account(2).0,
            }),
        );
        #[cfg(feature = "proof")]
        rails.insert("proof".into(), proof());
        #[cfg(feature = "stripe")]
        rails.insert(
            "stripe".into(),
            json!({
                "secret_key": self.stripe.secret_key(),
                "network_id": "internal",
                "payment_method_types": ["card"],
                "api_base": self.stripe.url(),
                "publishable_key": self.stripe.publishable_key(),
                "stripe_js": self.stripe.stripe_js(),
            }),
        );
        #[cfg(feature = "lightning")]
        rails.insert("lightning".into(), {
            let seller = self.lightning.seller();
            lnd(seller, seller.invoice_macaroon_path())
        });
        rails
    }

    /// The same with what sessions need beside: a key that settles, and a node that may pay refunds.
    fn rails_with_sessions(&self) -> Map<String, Value> {
        #[allow(unused_mut, reason = "a binary may have no rail")]
        let mut rails = self.rails();
        #[cfg(feature = "tempo")]
        if let Some(tempo) = rails.get_mut("tempo") {
            tempo["session"] = json!({
                "operator_key": account(2).1,
                "fee_token": farebox_sandbox_tempo::ALPHA_USD.to_string(),
            });
        }
        #[cfg(feature = "lightning")]
        rails.insert("lightning".into(), {
            let seller = self.lightning.seller();
            lnd(seller, seller.admin_macaroon_path())
        });
        rails
    }

    /// What a payer configures: the tables `[wallets.<rail>]`.
    pub(crate) fn wallets(&self) -> Map<String, Value> {
        #[allow(unused_mut, reason = "a binary may have no rail")]
        let mut wallets = Map::new();
        #[cfg(feature = "tempo")]
        wallets.insert(
            "tempo".into(),
            json!({
                "private_key": account(1).1,
                "rpc_url": self.tempo.url(),
                "chain_id": self.tempo.chain_id(),
            }),
        );
        #[cfg(all(feature = "proof", feature = "tempo"))]
        wallets.insert("proof".into(), json!({ "private_key": account(1).1 }));
        #[cfg(all(feature = "proof", not(feature = "tempo")))]
        wallets.insert("proof".into(), json!({ "private_key": PROOF_KEY }));
        #[cfg(feature = "stripe")]
        wallets.insert(
            "stripe".into(),
            json!({ "secret_key": self.stripe.secret_key(), "api_base": self.stripe.url() }),
        );
        #[cfg(feature = "lightning")]
        wallets.insert("lightning".into(), {
            let agent = self.lightning.agent();
            lnd(agent, agent.admin_macaroon_path())
        });
        wallets
    }
}

/// One offer for each rail of this binary.
pub(crate) fn offers() -> Vec<OfferSpec> {
    vec![
        #[cfg(feature = "tempo")]
        OfferSpec::new("tempo/charge", "0.01"),
        #[cfg(feature = "stripe")]
        OfferSpec::new("stripe/charge", "0.50").currency("usd"),
        #[cfg(feature = "lightning")]
        OfferSpec::new("lightning/charge", "21"),
        #[cfg(feature = "proof")]
        OfferSpec::new("proof/charge", "0"),
    ]
}

/// One for each rail of this binary that has sessions.
fn sessions() -> Vec<OfferSpec> {
    vec![
        #[cfg(feature = "tempo")]
        OfferSpec::new("tempo/session", "0.001")
            .with("unit", "joke")
            .with("suggested_deposit", "0.05"),
        #[cfg(feature = "lightning")]
        OfferSpec::new("lightning/session", "1").with("unit", "joke"),
    ]
}

/// Address and private key of a development account of the stand-in chain.
#[cfg(feature = "tempo")]
fn account(index: usize) -> (String, String) {
    match farebox_sandbox_tempo::dev_account(index) {
        Some((address, signer)) => (address.to_string(), signer.to_bytes().to_string()),
        None => (String::new(), String::new()),
    }
}

/// Nothing moves, so the local chain's ids do for every seller.
#[cfg(feature = "proof")]
fn proof() -> Value {
    json!({
        "chain_id": 1337,
        "currency": "0x20c0000000000000000000000000000000000000",
        "recipient": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
    })
}

#[cfg(feature = "lightning")]
fn lnd(node: &farebox_sandbox_lightning::NodeHandle, macaroon: &std::path::Path) -> Value {
    json!({
        "backend": "lnd",
        "endpoint": node.endpoint(),
        "tls_cert": { "file": node.tls_cert_path() },
        "macaroon": { "file": macaroon },
        "network": "regtest",
    })
}

/// `farebox sandbox`: writes or prints a configuration and wallets, and runs until it is told to
/// stop.
pub(crate) async fn run(args: &Sandbox) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let sandboxes = Sandboxes::start().await?;
    let values = |offers: Vec<OfferSpec>| offers.iter().map(OfferSpec::to_value).collect();
    let (offers, sessions): (Vec<Value>, Vec<Value>) = (values(offers()), values(sessions()));
    let mut routes =
        vec![json!({ "path": "/joke", "respond": "a joke worth its price\n", "offers": offers })];
    if !sessions.is_empty() {
        let respond = "one joke more\n";
        routes.push(json!({ "path": "/jokes", "respond": respond, "offers": sessions }));
    }
    let seller = json!({
        "realm": REALM,
        "secrets": [secret()?],
        "store": "memory:",
        "rails": sandboxes.rails_with_sessions(),
        "routes": routes,
    });
    let payer = json!({ "wallets": sandboxes.wallets() });
    let mut printed = Map::new();
    for (name, value, file, use_it) in [
        ("config", seller, &args.config, "farebox serve --config"),
        (
            "wallet",
            payer,
            &args.wallet,
            "farebox pay http://127.0.0.1:8402/joke --wallet",
        ),
    ] {
        match file {
            Some(file) => {
                write(file, &toml(&value)?)?;
                if !args.json {
                    println!("# {use_it} {}", file.display());
                }
            }
            None if args.json => drop(printed.insert(name.to_owned(), value)),
            None => println!("# {use_it} FILE\n{}", toml(&value)?),
        }
    }
    if args.json {
        println!("{}", Value::Object(printed));
    } else {
        println!("# Running until interrupted.");
    }
    signals.next().await;
    Ok(())
}

/// Writes a file with secrets in it, for its owner only.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let written = || {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        // One that was there before has the mode that it had.
        #[cfg(unix)]
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        file.write_all(text.as_bytes())
    };
    written().map_err(|error| Failure::usage(format!("cannot write {}: {error}", path.display())))
}

fn toml(value: &Value) -> Result<String, Failure> {
    toml::to_string(value).map_err(Failure::general)
}

/// 32 random bytes as text.
pub(crate) fn secret() -> Result<String, Failure> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(Failure::general)?;
    Ok(STANDARD.encode(bytes))
}
