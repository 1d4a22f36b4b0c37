//! The ways in which a Tempo charge is handed over, each in both directions.

use std::time::Duration;

use farebox_live_tests::{
    Chain, LOCALNET, Mppx, PAYER, PAYER_KEY, Problem, SELLER, Server, farebox, output, text,
};
use serde_json::{Value, json};

use crate::ensure;

/// Who gets a part of a split payment: the fifth of the usual development accounts.
const AUTHOR: &str = "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65";
/// Who pays fees where the payer does not: the fourth.
const FEE_PAYER: &str = "0x90F79bf6EB2c4f870365E785982E1f101E93b906";
const FEE_PAYER_KEY: &str = "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6";

/// What has to have happened to some accounts, base units.
struct Moved {
    seller: u128,
    author: u128,
    /// Whether it is the fee payer who has paid the network fee, and not the payer.
    sponsored: bool,
}

struct Before {
    seller: u128,
    author: u128,
    payer: u128,
    sponsor: u128,
}

impl Before {
    fn read(chain: &Chain) -> Result<Self, Problem> {
        Ok(Self {
            seller: chain.balance(SELLER)?,
            author: chain.balance(AUTHOR)?,
            payer: chain.balance(PAYER)?,
            sponsor: chain.balance(FEE_PAYER)?,
        })
    }

    fn check(&self, chain: &Chain, moved: &Moved) -> Result<(), Problem> {
        let after = Self::read(chain)?;
        let seller = after.seller - self.seller;
        let author = after.author - self.author;
        ensure((seller, author) == (moved.seller, moved.author), || {
            format!("the seller got {seller} base units, the author {author}")
        })?;
        let fees = (
            self.payer - after.payer - seller - author,
            self.sponsor - after.sponsor,
        );
        let fits = match moved.sponsored {
            true => fees.0 == 0 && fees.1 > 0,
            false => fees.1 == 0,
        };
        ensure(fits, || format!("fees of payer and fee payer: {fees:?}"))
    }
}

fn mppx_pays(more: &str, rail: &str, moved: &Moved) -> Result<(), Problem> {
    let chain = Chain::start(LOCALNET)?;
    let server = Server::offering(&chain, "0.01", more, rail)?;
    let before = Before::read(&chain)?;
    let run = Mppx::run(&chain, &[&server.url, "--rpc-url", &chain.url, "-i", "-v"])?;
    let said = format!("{}{}", text(&run.stdout), text(&run.stderr));
    ensure(run.status.success(), || said.clone())?;
    ensure(said.contains("a joke worth its price"), || said.clone())?;
    before.check(&chain, moved)
}

fn mppx_is_paid(parameters: &Value, moved: &Moved) -> Result<(), Problem> {
    let chain = Chain::start(LOCALNET)?;
    let server = Mppx::offering(&chain, parameters)?;
    let before = Before::read(&chain)?;
    let mut command = farebox()?;
    command
        .args(["pay", &server.url, "--rail", "tempo", "--max", "0.05"])
        .env("FAREBOX_TEMPO_PRIVATE_KEY", PAYER_KEY)
        .env("FAREBOX_TEMPO_RPC_URL", &chain.url)
        .env("FAREBOX_TEMPO_CHAIN_ID", chain.id.to_string());
    let run = output(command, Duration::from_secs(60))?;
    ensure(run.status.success(), || text(&run.stderr))?;
    let body = text(&run.stdout);
    ensure(body.trim_end() == "a joke from the other side", || {
        format!("the body was {body:?}")
    })?;
    before.check(&chain, moved)
}

const WHOLE: Moved = Moved {
    seller: 10_000,
    author: 0,
    sponsored: false,
};

pub(crate) fn mppx_pushes_to_farebox() -> Result<(), Problem> {
    mppx_pays(r#", modes = ["push"]"#, "", &WHOLE)
}

pub(crate) fn mppx_pays_splits_to_farebox() -> Result<(), Problem> {
    let memo = "5a".repeat(32);
    let more = format!(
        r#", splits = [{{ amount = "0.004", recipient = "{AUTHOR}", memo = "0x{memo}" }}]"#
    );
    let moved = Moved {
        seller: 6_000,
        author: 4_000,
        sponsored: false,
    };
    mppx_pays(&more, "", &moved)
}

pub(crate) fn farebox_sponsors_mppx() -> Result<(), Problem> {
    let rail = format!(r#"fee_payer = {{ private_key = "{FEE_PAYER_KEY}" }}"#);
    let moved = Moved {
        sponsored: true,
        ..WHOLE
    };
    mppx_pays("", &rail, &moved)
}

pub(crate) fn farebox_pushes_to_mppx() -> Result<(), Problem> {
    let moved = Moved {
        seller: 20_000,
        ..WHOLE
    };
    mppx_is_paid(&json!({ "supportedModes": ["push"] }), &moved)
}

pub(crate) fn farebox_pays_splits_to_mppx() -> Result<(), Problem> {
    let splits = json!([{ "amount": "0.004", "recipient": AUTHOR }]);
    let moved = Moved {
        seller: 16_000,
        author: 4_000,
        sponsored: false,
    };
    mppx_is_paid(&json!({ "splits": splits }), &moved)
}

pub(crate) fn mppx_sponsors_farebox() -> Result<(), Problem> {
    let moved = Moved {
        seller: 20_000,
        author: 0,
        sponsored: true,
    };
    mppx_is_paid(&json!({ "feePayer": FEE_PAYER_KEY }), &moved)
}
