//! The arrows between the crates, from `cargo metadata`, and the other rules that hold for the
//! whole tree. See "The house" in the guide.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

fn root() -> PathBuf {
    // Tests run in their package's folder.
    Path::new("../..").canonicalize().unwrap()
}

fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(args)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Each package of the workspace: where it is, and which others it depends on. Development
/// dependencies do not count: tests may look down as well as up.
fn packages() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let metadata = cargo(&["metadata", "--format-version", "1", "--no-deps", "--locked"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let names: BTreeSet<String> = packages.iter().map(|p| text(&p["name"])).collect();
    let package = |package: &Value| {
        let manifest = PathBuf::from(text(&package["manifest_path"]));
        let folder = manifest
            .parent()
            .unwrap()
            .strip_prefix(root())
            .unwrap()
            .to_owned();
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let dependencies = dependencies.filter(|d| d["kind"].as_str() != Some("dev"));
        let dependencies = dependencies
            .map(|d| text(&d["name"]))
            .filter(|d| names.contains(d));
        (
            text(&package["name"]),
            (folder.to_str().unwrap().to_owned(), dependencies.collect()),
        )
    };
    packages.iter().map(package).collect()
}

/// What a package in this folder may depend on within the workspace.
fn allowed(folder: &str, name: &str) -> Vec<&'static str> {
    const RAILS: [&str; 4] = [
        "farebox-lightning",
        "farebox-proof",
        "farebox-stripe",
        "farebox-tempo",
    ];
    const STORES: [&str; 3] = [
        "farebox-store-postgres",
        "farebox-store-redis",
        "farebox-store-sqlite",
    ];
    const SANDBOXES: [&str; 3] = [
        "farebox-sandbox-lightning",
        "farebox-sandbox-stripe",
        "farebox-sandbox-tempo",
    ];
    match folder {
        "crates/wire" | "crates/grpc" | "crates/sandbox/tempo" | "crates/sandbox/stripe" => vec![],
        "crates/cln" | "crates/lnd" => vec!["farebox-grpc"],
        "crates/sandbox/lightning" => vec!["farebox-cln", "farebox-lnd"],
        "crates/core" => vec!["farebox-wire"],
        "crates/engine" | "crates/client" => vec!["farebox-core", "farebox-wire"],
        "plugins/lightning" => vec![
            "farebox-cln",
            "farebox-core",
            "farebox-grpc",
            "farebox-lnd",
            "farebox-wire",
        ],
        // The Tempo rail answers zero-amount challenges with the proof rail's functions.
        "plugins/tempo" => vec!["farebox-core", "farebox-wire", "farebox-proof"],
        _ if folder.starts_with("plugins/") => vec!["farebox-core", "farebox-wire"],
        "crates/http" | "crates/jsonrpc" => {
            vec![
                "farebox-client",
                "farebox-core",
                "farebox-engine",
                "farebox-wire",
            ]
        }
        "crates/testkit" => vec!["farebox-core", "farebox-engine", "farebox-wire"],
        "crates/farebox" => {
            let below = [
                "farebox-client",
                "farebox-core",
                "farebox-engine",
                "farebox-http",
                "farebox-jsonrpc",
            ];
            [&below[..], &RAILS, &STORES, &["farebox-wire"]].concat()
        }
        // It shows what users call: the facade's parts, and each rail's own functions.
        "crates/conformance" => [&RAILS[..], &["farebox"]].concat(),
        "crates/cli" => [&["farebox"][..], &SANDBOXES].concat(),
        _ if folder.starts_with("examples/") => vec!["farebox"],
        // Tests are at the top.
        _ if folder.starts_with("tests/") => [
            &RAILS[..],
            &STORES,
            &SANDBOXES,
            &[
                "farebox",
                "farebox-cli",
                "farebox-client",
                "farebox-core",
                "farebox-engine",
                "farebox-http",
                "farebox-jsonrpc",
            ],
            &[
                "farebox-test-services",
                "farebox-link-outside",
                "farebox-cln",
                "farebox-grpc",
                "farebox-lnd",
                "farebox-testkit",
                "farebox-wire",
            ],
        ]
        .concat(),
        _ => panic!("{name} in {folder} has no place; give it one here"),
    }
}

/// Protects: arrows run one way. The engine and the transports never name a rail, and a rail never
/// names the engine, a transport or a store.
#[test]
fn arrows_run_one_way() {
    for (name, (folder, dependencies)) in packages() {
        let allowed = allowed(&folder, &name);
        let wrong: Vec<_> = dependencies
            .iter()
            .filter(|d| !allowed.contains(&d.as_str()))
            .collect();
        assert!(
            wrong.is_empty(),
            "{name} ({folder}) must not depend on {wrong:?}"
        );
    }
}

/// Every file with this extension that belongs to the project.
fn files(extension: &str) -> Vec<PathBuf> {
    let listed = Command::new("git")
        .current_dir(root())
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output();
    let paths: Vec<PathBuf> = match listed {
        Ok(output) if output.status.success() => {
            let listed = String::from_utf8(output.stdout).unwrap();
            listed.lines().map(|line| root().join(line)).collect()
        }
        // A source archive has no repository.
        _ => {
            let mut found = Vec::new();
            for folder in ["crates", "plugins", "examples", "tests"] {
                walk(&root().join(folder), &mut found);
            }
            found
        }
    };
    let wanted = |path: &PathBuf| path.extension().is_some_and(|e| e == extension);
    paths
        .into_iter()
        .filter(wanted)
        .filter(|path| path.exists())
        .collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_owned();
        if path.is_dir() && name != "target" && name != "node_modules" {
            walk(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

/// Protects: a feature that names a rail changes what is linked, in the facade and the command,
/// and never how anything else behaves.
#[test]
fn only_the_facade_and_the_command_know_which_rails_are_on() {
    for path in files("rs") {
        let name = relative(&path);
        let may = ["crates/farebox/", "crates/cli/", "tests/"]
            .iter()
            .any(|p| name.starts_with(p));
        let text = fs::read_to_string(&path).unwrap();
        for rail in ["tempo", "stripe", "lightning", "proof"] {
            let found = text.contains(&format!("feature = \"{rail}\""));
            assert!(may || !found, "{name} asks whether `{rail}` is on");
        }
    }
}

/// Protects: a file can be read in one sitting.
#[test]
fn files_stay_under_500_lines() {
    let long: Vec<_> = files("rs")
        .into_iter()
        .map(|path| {
            (
                fs::read_to_string(&path).unwrap().lines().count(),
                relative(&path),
            )
        })
        .filter(|(lines, _)| *lines > 500)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

/// Protects: whoever knows one rail finds their way in the next.
#[test]
fn rails_have_the_same_files() {
    let mut rails = 0;
    for (name, (folder, _)) in packages() {
        let Some(_) = folder
            .strip_prefix("plugins/")
            .filter(|p| !p.starts_with("store-"))
        else {
            continue;
        };
        rails += 1;
        let source = root().join(&folder).join("src");
        for file in ["lib.rs", "config.rs"] {
            let module = source.join(file.trim_end_matches(".rs")).join("mod.rs");
            assert!(
                source.join(file).exists() || module.exists(),
                "{name} has no {file}"
            );
        }
        // A rail of several intents has a folder for each.
        let intents: Vec<PathBuf> = ["charge", "session"]
            .map(|intent| source.join(intent))
            .into_iter()
            .filter(|folder| folder.exists())
            .collect();
        let rooms = if intents.is_empty() {
            vec![source]
        } else {
            intents
        };
        for room in rooms {
            let text = ["lib.rs", "mod.rs"].map(|file| fs::read_to_string(room.join(file)));
            let text = text.into_iter().flatten().collect::<String>();
            let mut expected = vec!["quote.rs", "verify.rs", "wallet.rs"];
            // A rail whose proof is the payment has nothing to settle.
            if !text.contains("NoSettler") {
                expected.push("settle.rs");
            }
            for file in expected {
                let module = room.join(file.trim_end_matches(".rs")).join("mod.rs");
                let there = room.join(file).exists() || module.exists();
                assert!(there, "{name}: {} has no {file}", room.display());
            }
        }
    }
    assert!(rails >= 4);
}

/// Protects: what a server without rails pulls in.
#[test]
fn the_core_with_axum_stays_small() {
    let tree = cargo(&[
        "tree",
        "--locked",
        "-p",
        "farebox",
        "--no-default-features",
        "--features",
        "axum",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    let crates: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|n| !n.is_empty())
        .collect();
    let others: BTreeSet<_> = crates
        .iter()
        .filter(|name| !name.starts_with("farebox"))
        .collect();
    assert!(crates.len() < 80, "{} crates: {others:?}", crates.len());
    for rail in ["alloy", "tonic", "reqwest", "lightning-invoice"] {
        assert!(
            !crates.contains(rail),
            "{rail} is in the tree of a server without rails"
        );
    }
}
