//! Servers killed at every effect, many at once, and stores that go away.
