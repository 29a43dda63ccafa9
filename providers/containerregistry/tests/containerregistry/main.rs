//! Registries through the edge, with a store in memory.

#![expect(clippy::unwrap_used, reason = "the helpers of these tests panic as tests do")]

mod registries;
mod stamp;
