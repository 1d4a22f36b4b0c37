//! The adapter by which the cross-SDK conformance suite drives Farebox.

fn main() {}
