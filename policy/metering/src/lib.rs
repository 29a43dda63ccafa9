//! What subscriptions use, summed up by the hour. Pure.
//!
//! A [`Holding`] is what a cluster has at a moment; the [`Ledger`] knows the holdings of all clusters, and adds each up over the time that it
//! lasts. What comes out are the records that the store keeps ([`control_records::metering`]).
//!
//! Always true: each second of a holding is counted once, also where the service dies between two writes, because a record says up to when it
//! counts; a clock that jumps back counts nothing twice; a time in which nobody looked ([`LONGEST_GAP`]) is counted for nobody. What is kept in memory
//! is one holding for each cluster and the present day of each subscription.
//!
//! Called by: the service, apart from all requests.

mod holding;
mod ledger;

pub use holding::{Holding, nodes};
pub use ledger::{LONGEST_GAP, Ledger};
