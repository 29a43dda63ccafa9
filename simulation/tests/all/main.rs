//! All tests of the whole control plane: one program, as each links everything.

mod certificates;
mod fuzz;
mod generated;
mod resources;
mod roles;
mod scenarios;
mod security_groups;
mod stand;
mod tenants;
mod wrong_requests;
