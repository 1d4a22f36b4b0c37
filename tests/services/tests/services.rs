//! The services come up, go away and come back with what was written.

use farebox_test_services::{Postgres, Redis, free_port};

#[test]
#[ignore = "needs redis-server"]
fn redis_comes_back_with_what_was_written() {
    let mut redis = Redis::start();
    assert!(redis.command("SET k v").starts_with("+OK"));
    redis.restart();
    assert!(redis.command("GET k").contains("\r\nv\r\n"));
    redis.set_read_only(true);
    assert!(redis.command("SET k w").starts_with("-READONLY"));
    redis.set_read_only(false);
    assert!(redis.command("SET k w").starts_with("+OK"));
}

#[test]
#[ignore = "needs postgres"]
fn postgres_comes_back_with_what_was_written() {
    let mut postgres = Postgres::start();
    postgres.sql("CREATE TABLE t (k text)");
    postgres.restart();
    postgres.sql("INSERT INTO t VALUES ('v')");
    assert_eq!(postgres.sql("SELECT k FROM t"), "v");
    postgres.set_read_only(true);
    postgres.pause();
    postgres.resume();
    postgres.set_read_only(false);
    assert!(postgres.database().ends_with("/farebox_0"));
}

/// Protects: servers that start at the same time, here and in other processes, from each other's ports.
#[test]
fn ports_are_given_once() {
    let ports: std::collections::BTreeSet<u16> = (0..50).map(|_| free_port()).collect();
    assert_eq!(ports.len(), 50);
}
