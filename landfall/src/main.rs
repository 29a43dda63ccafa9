//! The `landfall` binary. (being written)
fn main() {}
