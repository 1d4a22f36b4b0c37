//! Farebox records in Redis or Valkey.
