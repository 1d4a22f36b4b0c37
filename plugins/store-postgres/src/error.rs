//! PostgreSQL's errors as faults: the code and what it means. The server's own words hold values.

use farebox_core::Fault;
use sqlx::Error;

pub(crate) const UNDEFINED_TABLE: &str = "42P01";

/// The server's five characters, if it was the server that failed.
pub(crate) fn code(error: &Error) -> Option<String> {
    let code = error.as_database_error()?.code()?;
    Some(code.into_owned())
}

/// Whether the server says that it has undone everything: serialization failure or deadlock.
pub(crate) fn rolled_back(error: &Error) -> bool {
    matches!(code(error).as_deref(), Some("40001" | "40P01"))
}

/// Whether the server takes no writes, as one that is no longer the primary does not.
pub(crate) fn read_only(error: &Error) -> bool {
    code(error).as_deref() == Some("25006")
}

pub(crate) fn fault(error: &Error) -> Fault {
    let Some(code) = code(error) else {
        return match error {
            Error::PoolTimedOut => Fault::unavailable(
                "all connections to PostgreSQL are taken, or none can be made to a primary",
            ),
            Error::Io(cause) => Fault::unavailable("PostgreSQL cannot be reached")
                .caused_by(cause.kind().to_string()),
            Error::Tls(_) => Fault::unavailable("PostgreSQL cannot be reached over TLS"),
            Error::PoolClosed | Error::WorkerCrashed | Error::Protocol(_) => {
                Fault::unavailable("the connection to PostgreSQL broke")
            }
            _ => Fault::new("PostgreSQL answered something unexpected"),
        };
    };
    let fault = match code.as_str() {
        "42501" => Fault::new("PostgreSQL does not permit what a store needs"),
        "3D000" => Fault::new("PostgreSQL does not have the database"),
        "25006" => Fault::unavailable("PostgreSQL takes no writes"),
        "55P03" | "57014" => Fault::unavailable("PostgreSQL takes too long"),
        _ => match code.get(..2) {
            Some("28") => Fault::new("PostgreSQL does not know the user or password"),
            Some("53") => Fault::unavailable("PostgreSQL has no room or no connection left"),
            // Rolled back again and again, lost connections, a server that goes or comes.
            Some("08" | "40" | "57" | "58") => Fault::unavailable("PostgreSQL is away"),
            _ => Fault::new("PostgreSQL failed"),
        },
    };
    fault.caused_by(code)
}
