//! SQLite's errors as faults: the code and what it means, never a value.

use farebox_core::Fault;
use rusqlite::{Error, ffi::ErrorCode};

/// What went wrong, to be said of a file or a statement.
pub(crate) fn fault(error: &Error) -> Fault {
    let Some(code) = error.sqlite_error() else {
        return Fault::new("the SQLite store met an unexpected value");
    };
    let passing = match code.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => "the SQLite file is locked",
        ErrorCode::DiskFull => "the disk of the SQLite store is full",
        ErrorCode::ReadOnly => "the SQLite file cannot be written",
        ErrorCode::SystemIoFailure => "the disk of the SQLite store fails",
        ErrorCode::CannotOpen | ErrorCode::PermissionDenied => "the SQLite file cannot be opened",
        ErrorCode::FileLockingProtocolFailed => "the SQLite file cannot be locked",
        ErrorCode::OutOfMemory => "there is no memory left for the SQLite store",
        ErrorCode::NotADatabase => return because("the file is no SQLite database", code),
        ErrorCode::DatabaseCorrupt => return because("the SQLite file is damaged", code),
        ErrorCode::TooBig => return because("a record is too large for SQLite", code),
        _ => return because("the SQLite store failed", code),
    };
    Fault::unavailable(passing).caused_by(code.to_string())
}

fn because(what: &'static str, code: &rusqlite::ffi::Error) -> Fault {
    Fault::new(what).caused_by(code.to_string())
}

/// The same, once for each caller of a transaction that failed as a whole.
pub(crate) fn again(fault: &Fault) -> Fault {
    let again = if fault.retry_after().is_some() {
        Fault::unavailable(fault.what())
    } else {
        Fault::new(fault.what())
    };
    match std::error::Error::source(fault) {
        Some(source) => again.caused_by(source.to_string()),
        None => again,
    }
}
