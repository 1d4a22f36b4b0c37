//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Paid HTTP on any rail: sell a route, pay for one, see how it works.
#[derive(Debug, Parser)]
#[command(name = "farebox", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Pay one endpoint on every rail of this binary, offline, and try each proof twice
    Demo(Json),
    /// Serve the paid routes of a configuration file
    #[command(after_long_help = SERVE_HELP)]
    Serve {
        /// The configuration file, TOML
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// How to log, on standard error; FAREBOX_LOG says how much: `info`, `farebox=debug`
        #[arg(long, value_enum, default_value_t, env = "FAREBOX_LOG_FORMAT")]
        log: LogFormat,
    },
    /// Check a configuration file without starting anything
    #[command(after_long_help = CHECK_HELP)]
    Check {
        /// The configuration file, TOML
        #[arg(value_name = "FILE")]
        config: PathBuf,
    },
    /// List the rails in this binary, or print an example of one's configuration
    Rails(Rails),
    /// Request a URL and pay for it if that is asked
    #[command(after_long_help = PAY_HELP)]
    Pay(Pay),
    /// List and close the channels that `farebox pay` has left open
    Session {
        #[command(subcommand)]
        command: Session,
    },
    /// Show what a URL asks for, without paying
    Inspect(Inspect),
    /// Check that a URL speaks the protocol as drafted, whoever serves it
    #[command(after_long_help = VALIDATE_HELP)]
    Validate(Validate),
    /// List the payments of a server's store, for matching with what the rails say
    #[command(after_long_help = BOOKS_HELP)]
    Books(Books),
    /// Finish what a crash or a lost answer left open: one run, beside a server or without one
    #[command(after_long_help = RECONCILE_HELP)]
    Reconcile(Reconcile),
    /// Give back what a payment was charged, all of it or a part, on rails that can (Stripe)
    #[command(after_long_help = REFUND_HELP)]
    Refund(Refund),
    /// Run the offline stand-ins of every rail; print or write how to reach them
    Sandbox(Sandbox),
}

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Json {
    /// Machine-readable output: JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Rails {
    /// Print an example of this rail's configuration: `tempo`, or `tempo/session`
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Machine-readable output: JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where the stand-ins' files go; what is not written is printed.
#[derive(Clone, Debug, Args)]
pub(crate) struct Sandbox {
    /// Write the seller's configuration here, for `farebox serve --config FILE`
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Write the payer's wallets here, for `farebox pay --wallet FILE`
    #[arg(long, value_name = "FILE")]
    pub(crate) wallet: Option<PathBuf>,
    /// Print one JSON object with what is not written to a file
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a request is made of, by curl's names.
#[derive(Clone, Debug, Args)]
pub(crate) struct Request {
    /// What to request: http:// or https://
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// The HTTP method; GET, or POST with a body
    #[arg(short = 'X', long = "request", value_name = "METHOD")]
    pub(crate) method: Option<String>,
    /// A header, `Name: value`; repeatable
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub(crate) headers: Vec<String>,
    /// The body; @FILE reads a file and @- standard input
    #[arg(short = 'd', long = "data", value_name = "DATA")]
    pub(crate) data: Option<String>,
}

/// What to pay with, and how much at most.
#[derive(Clone, Debug, Args)]
pub(crate) struct Wallet {
    /// Pay on this rail only: `tempo`, or `tempo/charge`
    #[arg(long, value_name = "RAIL")]
    pub(crate) rail: Option<String>,
    /// The most to pay, in the currency's usual unit: `0.05`, `0.50usd`, `100sat`; repeatable
    #[arg(long, value_name = "AMOUNT[CURRENCY]")]
    pub(crate) max: Vec<String>,
    /// A file with `[wallets.<rail>]` tables. None is read unless named here
    #[arg(long, value_name = "FILE")]
    pub(crate) wallet: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Pay {
    #[command(flatten)]
    pub(crate) request: Request,
    /// Print the response's status and headers to standard error
    #[arg(short = 'i', long)]
    pub(crate) include: bool,
    /// Say what is asked, paid and received, on standard error
    #[arg(short = 'v', long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) wallet: Wallet,
    #[command(flatten)]
    pub(crate) session: FromSession,
    /// Print one JSON object, the body included, instead of the body; of an event stream, one for
    /// each event before it
    #[arg(long)]
    pub(crate) json: bool,
}

/// How sessions are paid from.
#[derive(Clone, Debug, Args)]
pub(crate) struct FromSession {
    /// Pay from a session, or not at all
    #[arg(long)]
    pub(crate) session: bool,
    /// The most that a channel may hold, top-ups included, written as --max and as much unless said;
    /// repeatable. Sessions are chosen where one is offered
    #[arg(long, value_name = "AMOUNT[CURRENCY]")]
    pub(crate) max_deposit: Vec<String>,
    /// What a channel is opened with, where the server leaves it to the payer: as much as it suggests,
    /// or else as much as may be, unless said
    #[arg(long, value_name = "AMOUNT[CURRENCY]")]
    pub(crate) deposit: Vec<String>,
    /// Close the channel after the call and get back what is left in it. Sessions are chosen where
    /// one is offered
    #[arg(long)]
    pub(crate) close: bool,
    #[command(flatten)]
    pub(crate) channels: Channels,
}

/// Where channels are remembered.
#[derive(Clone, Debug, Args)]
pub(crate) struct Channels {
    /// The file of open channels; `farebox/channels.json` among the user's data unless named
    #[arg(long, value_name = "FILE", env = "FAREBOX_CHANNELS")]
    pub(crate) channels: Option<PathBuf>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Session {
    /// List the open channels
    List {
        #[command(flatten)]
        channels: Channels,
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Close some and get back what is left in them
    #[command(after_long_help = CLOSE_HELP)]
    Close(Close),
    /// Give some up that can be neither used nor closed, with all that is left in them
    #[command(after_long_help = FORGET_HELP)]
    Forget {
        /// Which, by its id or the beginning of it; repeatable
        #[arg(value_name = "CHANNEL", required = true)]
        channel: Vec<String>,
        #[command(flatten)]
        channels: Channels,
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Close {
    /// Which, by its id or the beginning of it; repeatable
    #[arg(value_name = "CHANNEL", required_unless_present = "all")]
    pub(crate) channel: Vec<String>,
    /// All of them
    #[arg(long, conflicts_with = "channel")]
    pub(crate) all: bool,
    /// A header of the requests to the server, `Name: value`; repeatable
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub(crate) headers: Vec<String>,
    /// A file with `[wallets.<rail>]` tables. None is read unless named here
    #[arg(long, value_name = "FILE")]
    pub(crate) wallet: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) channels: Channels,
    /// One JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) request: Request,
    /// Machine-readable output: JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Validate {
    #[command(flatten)]
    pub(crate) request: Request,
    /// Pay once and see what that opens, and try to pay a single base unit where more is asked
    #[arg(long)]
    pub(crate) pay: bool,
    /// Another paid URL of the same server, which the payment must not open
    #[arg(long, value_name = "URL")]
    pub(crate) other: Option<String>,
    #[command(flatten)]
    pub(crate) wallet: Wallet,
    /// Print one JSON object for each check, and one with the sums
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Books {
    /// The configuration file, TOML
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Only payments in this state; repeatable
    #[arg(long, value_name = "STATE", value_parser = STATES)]
    pub(crate) state: Vec<String>,
    /// Only payments presented at least this long ago: `90s`, `1h 30m`, `2d`
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    pub(crate) older_than: Option<Duration>,
    /// One JSON object per line: payments, then `{"channel": …}` and `{"refunded": …}`
    #[arg(long)]
    pub(crate) json: bool,
}

const STATES: [&str; 7] = [
    "reserved",
    "attempted",
    "paid",
    "serving",
    "delivered",
    "returned",
    "declined",
];

#[derive(Clone, Debug, Args)]
pub(crate) struct Reconcile {
    /// The configuration file, TOML
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Machine-readable output: JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Refund {
    /// What the payment's receipt, the books and the rail call it: `pi_…`
    #[arg(value_name = "REFERENCE")]
    pub(crate) reference: String,
    /// The configuration file, TOML
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// How much, in the currency's usual unit: `0.10`. All that is left unless given
    #[arg(long, value_name = "AMOUNT")]
    pub(crate) amount: Option<String>,
    /// A name for this refund, which tells it from another one of the same amount
    #[arg(long, value_name = "NAME")]
    pub(crate) key: Option<String>,
    /// The rail of the payment, `stripe/charge`; found by the reference unless given
    #[arg(long, value_name = "RAIL")]
    pub(crate) rail: Option<String>,
    /// Machine-readable output: JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const SERVE_HELP: &str = "\
It publishes GET /openapi.json, which says what is sold; any other path without a route is 404.
SIGTERM or SIGINT lets what is under way finish, for `shutdown` of [timing]; a second one ends
it at once.

Exit codes:
  0   it was told to end, and did
  1   a rail or the store does not connect, the address cannot be had, or it was told twice
  2   wrong usage or configuration";

const CHECK_HELP: &str = "\
Neither the store nor a rail is reached; files and variables that it names are read.

Exit codes:
  0   it holds
  2   wrong usage or configuration; every problem is said at once";

const BOOKS_HELP: &str = "\
Exit codes:
  0   the books were read
  1   the store cannot be read
  2   wrong usage or configuration, or a `memory:` store, which only the serving process sees";

const RECONCILE_HELP: &str = "\
Exit codes:
  0   the run is over; what is still open is in the output
  1   the store cannot be used
  2   wrong usage or configuration, or a `memory:` store, which only the serving process sees";

const REFUND_HELP: &str = "\
A refund is written down before it is tried, and repeating the command gives the money
back once: the same amount of the same payment is the same refund. To give the same
amount back once more, name it with --key. It may run beside a server.

Exit codes:
  0   the money went back, now or before
  1   it did not: the rail refuses, or cannot be asked
  2   wrong usage or configuration: no such payment, more than is left of it
  6   nobody knows yet; run the same command again, or wait for the reconciler";

const VALIDATE_HELP: &str = "\
One line for each check: pass, fail, warn or skip, the requirements it stands for (by
their ids in spec/requirements.toml of https://github.com/farebox/farebox), its name, and
what was found. About 60 requests are sent, most of them with credentials that nobody paid
for. Nothing is paid without --pay; wallets and limits are those of `farebox pay`.

Exit codes:
  0   nothing failed
  1   a check failed, or the server could not be asked
  2   wrong usage or configuration";

const PAY_HELP: &str = "\
Wallets come from the file named by --wallet and from the environment:
  FAREBOX_<RAIL>_<KEY>        a key of that rail's wallet, FAREBOX_TEMPO_PRIVATE_KEY
  FAREBOX_<RAIL>_<KEY>_FILE   the same, read from a file
`farebox sandbox --wallet FILE` writes wallets for its own stand-ins.

Without --max, a payment may cost up to 1.00 of a currency, or 1000 sat. A currency
is `sat`, an ISO 4217 code, or a token's address (6 decimals).

Where only a session can be paid, or a flag chooses one, the call is paid from a channel,
which stays open for the next call and is remembered in the file that --channels names. A
channel is opened, spent and topped up; it never holds more than --max-deposit, nothing
beyond that is ever signed, and one call, an event stream included, costs --max at most.
An event stream is followed and paid for as it comes, and written without the events that
are about payment. What is left is said on standard error; `farebox session close` and
--close get it back.

Exit codes:
  0   the response is a success (2xx or 3xx)
  1   the request could not be made, or its response not be read
  2   wrong usage or configuration
  3   the response is an error, and nothing was paid
  4   nothing was paid: no wallet, over the limit, or not acceptable
  5   something was paid and the response is still an error; see standard error
  6   nobody knows whether something was paid; do not pay again blindly
  130 an event stream was interrupted; what came of it is paid";

const CLOSE_HELP: &str = "\
The server is asked to close, and the rail is believed about what became of it: until it
confirms, the channel stays in the list as `closing`, and closing it again looks once more.
Wallets are those of `farebox pay`.

Exit codes:
  0   closed
  1   the server could not be asked, or the rail not be read
  2   wrong usage or configuration, or no such channel
  5   the server would not close it; it is still open
  6   asked, and not confirmed yet";

const FORGET_HELP: &str = "\
Nobody is asked and nothing comes back by it: it only strikes the channel off the list, so that
the next call opens another. It is for a server that is gone for good, or that does not take a
deposit that was made. The list has the only copy of what proves a prepaid deposit, and of what
closes a channel; try `farebox session close` first.";
