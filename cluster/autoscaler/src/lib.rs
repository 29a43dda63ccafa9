//! The cluster autoscaler's knowledge: which pool grows for pods that no node takes, and which node goes because nobody needs it.
//!
//! Owns the rules by which the scheduler gives a pod a node ([`Rules`]), as far as they decide about a node; upstream's rules of what may not
//! be taken off a node; the decision ([`decide`]); and what people read of it ([`status`], [`events`]). Nothing of how a cluster is asked, or
//! how a pool gets nodes.
//!
//! Always true: pure; deciding twice from the same things gives the same; a pool stays within its range; what is decided holds for the pods
//! as they are and asks nothing of them; the work grows with the number of pods and of nodes, not with their product, as long as pods that
//! have neighbours to be near to or spread from are few.
//!
//! Called by: the loops (what a look at the cluster found), the planner (what follows from it), records (what is remembered).

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
