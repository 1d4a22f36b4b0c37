//! Compiles the .proto file in pure Rust: no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["node.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .build_server(std::env::var_os("CARGO_FEATURE_SERVER").is_some())
        // Both carry a preimage; their Debug is written by hand.
        .skip_debug(["cln.XpayResponse", "cln.ListpaysPays"])
        .compile_fds(files)?;
    Ok(())
}
