//! Farebox records in one SQLite file.
