//! The knowledge of the cluster autoscaler: which pool grows for unschedulable pods, and which unneeded node
//! is removed.
//!
//! Owns the scheduler's rules that decide whether a node takes a pod ([`Rules`]); upstream's rules of pods
//! that may not be evicted; the decision ([`decide`]); its status and events for users ([`status`],
//! [`events`]). Reading a cluster and making nodes are not part of it.
//!
//! Always true: pure; the same state gives the same decision; a pool stays within its range; a decision never
//! depends on a change of the pods; the work grows with the number of pods and of nodes, not with their
//! product, while pods with affinity to other pods or with spread constraints are few.
//!
//! Called by: the loops (the result of a look at the cluster), the planner (the decision), records (the
//! memory).

mod decide;
mod grow;
mod model;
pub mod quantity;
mod read;
pub mod rules;
mod shrink;
mod tell;
mod world;

pub use decide::decide;
pub use model::{
    Backoff, Budget, Decision, Growth, Memory, Node, Outcome, Pod, Pool, State, Stays, Verdict, Work,
};
pub use rules::Rules;
pub use tell::{events, status};

#[cfg(test)]
mod tests;
