//! Graph through the edge: requests as clients send them, with and without permission.

#![expect(clippy::unwrap_used, reason = "the helpers of these tests panic as tests do")]

mod applications;
mod groups;
mod lists;
mod refusals;
mod stamp;
mod users;
