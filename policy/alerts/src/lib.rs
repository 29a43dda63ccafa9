//! Alerts of a stamp: which are open, decided from facts. Pure.
//!
//! ```text
//!  facts ──► rules ──► findings ──► fold ──► what opens, stays, changes, closes ──► records
//! ```
//!
//! A rule ([`Rule`]) has a severity, a condition over [`Facts`], a remedy and a closing condition, both as data and as texts. A condition has two
//! limits: one that opens an alert, and a milder one that keeps it open, so that a value at a limit does not open and close it in turn.
//!
//! Always true: the same facts and the same records give the same changes; an alert closes by itself once its rule finds nothing, and nobody
//! closes it by hand; however many clusters there are, a rule has at most [`ALONE`] alerts of clusters, and one that tells of all where there are more;
//! a fact that is not known neither opens nor closes anything.
//!
//! Called by: the service, for the whole stamp, when facts have changed and at most once a minute.

mod facts;
mod rules;
mod step;

pub use facts::{AgentFacts, CertificateFact, ClusterFact, DiskFact, Facts, ImageFact, StoreFacts};
pub use rules::{Finding, Level, RULES, Rule};
pub use step::{ALONE, Change, step};

#[cfg(test)]
mod tests;
