//! The contract of the edge with its clients, checked in process over the memory store.

#![expect(clippy::unwrap_used, reason = "the helpers of these tests panic as tests do")]

mod access;
mod bad_input;
mod budgets;
mod fixture;
mod groups;
mod headers;
mod listener;
mod operations;
mod published;
mod resources;
mod slow;
mod tags;
mod tokens;
