//! All tests of both drivers as one program.
#![expect(clippy::unwrap_used, reason = "the helpers of these tests panic as tests do")]

mod behaviour;
mod size;
