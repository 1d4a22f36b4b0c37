//! The `farebox` command as a library, so that a test can build the same program with other
//! features: a `fn main() -> ExitCode { farebox_cli::main() }` is all of it.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's output is its purpose"
)]

mod args;
mod books;
mod check;
mod demo;
mod discovery;
mod failure;
mod hooks;
mod inspect;
mod pay;
mod proxy;
mod rails;
mod refund;
mod request;
mod sandbox;
mod serve;
mod session;
mod signals;
mod validate;

use std::{io::IsTerminal as _, process::ExitCode};

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use args::{Cli, Command, LogFormat};
use failure::{Failure, printable};

/// Reads the command line, does what it says, and answers with the exit code.
///
/// With the feature `failpoints`, the points named in the variable `FAILPOINTS` are armed (the syntax
/// of the crate `fail`), and a panic anywhere ends the process like a crash.
pub fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    panics_abort();
    #[cfg(feature = "failpoints")]
    let _armed = fail::FailScenario::setup();
    let cli = Cli::parse();
    log(&cli.command);
    // With two providers linked, as LDK brings one, TLS could not choose by itself.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return end(Err(Failure::general(error))),
    };
    let done = runtime.block_on(async {
        match cli.command {
            Command::Demo(json) => demo::run(json.json).await,
            Command::Serve { config, .. } => serve::run(&config).await,
            Command::Check { config } => check::run(&config).await,
            Command::Rails(rails) => rails::run(&rails),
            Command::Pay(pay) => pay::run(pay).await,
            Command::Session { command } => session::run(command).await,
            Command::Inspect(inspect) => inspect::run(inspect).await,
            Command::Validate(validate) => validate::run(validate).await,
            Command::Books(books) => books::run(books).await,
            Command::Reconcile(reconcile) => books::reconcile(reconcile).await,
            Command::Refund(refund) => refund::run(refund).await,
            Command::Sandbox(sandbox) => sandbox::run(&sandbox).await,
        }
    });
    // What is still running (an idle connection, a sandbox) need not be waited for.
    runtime.shutdown_background();
    end(done)
}

/// Logs go where they do not mix with output. The demo and the client speak for themselves.
fn log(command: &Command) {
    let (default, format) = match command {
        Command::Serve { log, .. } => ("info", *log),
        _ => ("error", LogFormat::Text),
    };
    let filter = EnvFilter::try_from_env("FAREBOX_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

fn end(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("farebox: {}", printable(&failure.message));
            }
            ExitCode::from(failure.code)
        }
    }
}

/// A fail point panics where a crash is wanted: on any thread, at once, with nothing unwound or
/// flushed. No backtrace: while one is written, other threads go on.
#[cfg(feature = "failpoints")]
fn panics_abort() {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::abort();
    }));
}
