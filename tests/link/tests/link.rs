//! Which rails are in a binary must depend on its features and on nothing else: not on the
//! profile, not on what the linker drops, not on the order LTO leaves.
//!
//! Each feature is built once in the dev profile. In the other profiles everything that the rails
//! pull in would take ten minutes on two cores and prove nothing more: every rail is a `static`
//! made by one macro and named in one array, so a linker that keeps one keeps all. There, one rail
//! stands for that door and a crate that no list names for the other, `inventory`, with the profile
//! as it is. `FAREBOX_LINK_FULL=1` builds all rails in all profiles, for a release.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::{
    io::{self, Write as _},
    process::{Command, Stdio},
};

const RAILS: [&str; 4] = ["lightning", "proof", "stripe", "tempo"];

/// What the probe prints, built with these features in this profile.
fn linked(profile: &str, features: &[&str]) -> Vec<String> {
    let features = features.join(",");
    // Not captured, as what `eprintln!` says is: for `tests/suites` and whoever else waits.
    let building = format!("building {profile} with [{features}]\n");
    io::stderr().write_all(building.as_bytes()).unwrap();
    let output = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--locked",
            "--message-format",
            "json-render-diagnostics",
        ])
        .args(["--no-default-features", "--features", &features])
        .args(["--profile", profile])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{profile} with [{features}] does not build"
    );
    let messages = String::from_utf8(output.stdout).unwrap();
    let binary = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(str::to_owned))
        .expect("cargo names the binary");
    let output = Command::new(binary).output().unwrap();
    assert!(output.status.success());
    let names = String::from_utf8(output.stdout).unwrap();
    names.lines().map(str::to_owned).collect()
}

/// The rails of these features and the one that is linked in, in the registry's order.
fn expected(features: &[&str]) -> Vec<String> {
    let rails = [features, &["outside"]].concat();
    let mut rails: Vec<_> = rails.iter().map(|rail| format!("{rail}/charge")).collect();
    for rail in ["lightning", "tempo"] {
        if features.contains(&rail) {
            rails.push(format!("{rail}/session"));
        }
    }
    rails.sort_unstable();
    rails
}

/// One test, one build after the other: they share a target directory.
///
/// Protects: a feature brings its rail and no other (the Tempo rail uses the proof crate, which is
/// not thereby a rail of the server), and no profile loses one.
#[test]
fn a_binary_has_the_rails_of_its_features() {
    for features in [
        &[][..],
        &["lightning"],
        &["proof"],
        &["stripe"],
        &["tempo"],
        &RAILS,
    ] {
        assert_eq!(
            linked("dev", features),
            expected(features),
            "dev, {features:?}"
        );
    }
    let full = std::env::var_os("FAREBOX_LINK_FULL").is_some();
    let features = if full { &RAILS[..] } else { &["proof"] };
    for profile in ["release", "fat"] {
        assert_eq!(
            linked(profile, features),
            expected(features),
            "{profile}, {features:?}"
        );
    }
}
