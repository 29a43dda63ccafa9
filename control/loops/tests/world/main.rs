//! The loops in a world of virtual time: scenarios with golden transcripts, and crashes at every step.
#![expect(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "in a test, a panic is the report"
)]

mod crashes;
mod recipes;
mod script;
mod stage;
mod tripwire;
mod world;
