//! Configuration files: any text is a configuration or a list of what is wrong with it, and neither
//! shows a secret.
#![no_main]

use std::sync::LazyLock;

use farebox::{Registry, config, registry};
use farebox_fuzz::choose;
use libfuzzer_sys::fuzz_target;

/// In places that hold secrets, long enough to be one.
const SECRET: &str = "Planted-0123456789-0123456789-0123456789";
/// And too short, so that there is something to complain about.
const SHORT: &str = "Planted";

/// No rails: each tests its own tables, and would be most of the build.
static REGISTRY: LazyLock<Registry> = LazyLock::new(|| registry().expect("no rail is there twice"));

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = choose(data, 4) else {
        return;
    };
    let Ok(text) = std::str::from_utf8(rest) else {
        return;
    };
    // A device would be read for good, and a planted text of the fuzzer's own is no secret.
    if text.contains("/dev") || text.contains("/proc") || text.contains(SHORT) {
        return;
    }
    let secret = if how % 2 == 0 { SECRET } else { SHORT };
    let file = match how {
        0 => text.to_owned(),
        1 | 2 => format!(
            "realm = \"a.example\"\nsecrets = [\"{secret}\"]\n\
             store = \"redis://user:{secret}@127.0.0.1:6379/0\"\n{text}"
        ),
        _ => format!(
            "realm = \"a.example\"\nsecrets = [\"{secret}\"]\n{text}\n\
             [wallets.tempo]\nprivate_key = \"{secret}\"\n"
        ),
    };
    for read in [config::Config::gateway, config::Config::service] {
        match read(&file) {
            Ok(config) => hides(&format!("{config:?}")),
            Err(invalid) => {
                assert!(!invalid.issues().is_empty(), "a refusal says why");
                hides(&format!("{invalid} {invalid:?}"));
            }
        }
    }
    match config::Wallets::from_toml(&file, &REGISTRY) {
        Ok(wallets) => hides(&format!("{wallets:?}")),
        Err(invalid) => hides(&format!("{invalid} {invalid:?}")),
    }
});

fn hides(shown: &str) {
    assert!(!shown.contains(SHORT), "a secret is shown: {shown}");
}
