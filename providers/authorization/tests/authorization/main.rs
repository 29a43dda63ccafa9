//! Authorization through the edge: every route for every kind of principal, and the effects of roles,
//! assignments and locks.

#![expect(clippy::unwrap_used, reason = "the helpers of these tests panic as tests do")]

mod assignments;
mod definitions;
mod lists;
mod locks;
mod matrix;
mod stamp;
