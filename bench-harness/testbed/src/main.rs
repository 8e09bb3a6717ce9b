//! `cargo testbed`.

fn main() {}
