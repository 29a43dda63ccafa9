//! The provider as the edge sees it, over a store in memory: requests in, answers and records out.

#[cfg(test)]
mod access;
mod backups;
mod bodies;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod derived;
#[cfg(test)]
mod empty;
mod groups;
#[cfg(test)]
mod history;
mod lifecycle;
mod maintenance;
#[cfg(test)]
mod nodes;
mod power;
#[cfg(test)]
mod properties;
mod quotas;
mod refusals;
mod requests;
#[cfg(test)]
mod stamp;
mod states;
mod upgrades;
#[cfg(test)]
mod versions;
