//! The provider as the edge sees it, over a store in memory: requests in, answers and records out.

mod backups;
mod bodies;
#[cfg(test)]
mod derived;
mod groups;
#[cfg(test)]
mod history;
mod lifecycle;
mod maintenance;
mod power;
mod refusals;
mod requests;
#[cfg(test)]
mod stamp;
mod states;
mod upgrades;
