//! The provider as the edge sees it, over a store in memory: requests in, answers and records out.

#[cfg(test)]
mod access;
#[cfg(test)]
mod authentication;
#[cfg(test)]
mod autoscaling;
mod backups;
#[cfg(test)]
mod bindings;
mod bodies;
#[cfg(test)]
mod channels;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod credentials;
mod deadlines;
#[cfg(test)]
mod derived;
#[cfg(test)]
mod empty;
mod groups;
#[cfg(test)]
mod history;
#[cfg(test)]
mod identities;
#[cfg(test)]
mod ingress;
#[cfg(test)]
mod kept;
#[cfg(test)]
mod known;
mod lifecycle;
mod maintenance;
#[cfg(test)]
mod namespaces;
mod network_policies;
#[cfg(test)]
mod nodes;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod pool_power;
#[cfg(test)]
mod pool_snapshots;
mod power;
#[cfg(test)]
mod properties;
mod quotas;
mod refusals;
mod requests;
mod rollback;
mod rotation;
#[cfg(test)]
mod stamp;
mod states;
#[cfg(test)]
mod subnets;
mod support;
#[cfg(test)]
mod tickets;
mod upgrades;
#[cfg(test)]
mod versions;
