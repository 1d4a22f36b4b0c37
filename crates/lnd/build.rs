//! Compiles the .proto files in pure Rust: no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["lightning.proto", "router.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .build_server(std::env::var_os("CARGO_FEATURE_SERVER").is_some())
        // Both carry a preimage; their Debug is written by hand.
        .skip_debug(["lnrpc.Invoice", "lnrpc.Payment"])
        .compile_fds(files)?;
    Ok(())
}
