//! Graph through the edge: as clients ask, for those who may and those who may not.

#![expect(clippy::unwrap_used, reason = "the helpers of these tests panic as tests do")]

mod applications;
mod groups;
mod lists;
mod refusals;
mod stamp;
mod users;
