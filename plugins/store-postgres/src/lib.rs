//! Farebox records in PostgreSQL.
