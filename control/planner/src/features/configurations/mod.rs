//! What machines are configured with.

pub(crate) mod inputs;
