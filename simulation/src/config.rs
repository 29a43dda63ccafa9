//! The names of the simulated stamp.

use arm_edge::Budgets;
use identity::Shape;
use service::Config;

/// The only tenant.
pub const TENANT: &str = "7b9c1c7e-0f5a-4f7a-9c39-6a1f0c5d2e01";
pub(crate) const BASE: &str = "https://arm.sim.test";
pub(crate) const AUDIENCE: &str = "https://management.sim.test/x";
/// The audience of Graph's tokens.
pub(crate) const GRAPH: &str = "https://arm.sim.test/graph";

/// Names and addresses of the stamp.
pub(crate) fn config() -> Config {
    Config {
        name: "simulated".to_owned(),
        location: "local".to_owned(),
        tenant: TENANT.to_owned(),
        tenant_name: "simulated".to_owned(),
        domain: "sim.test".to_owned(),
        names: true,
        base_url: BASE.to_owned(),
        shape: Shape::Aad,
        audience: AUDIENCE.to_owned(),
        limits: control_records::usage::Limits::default(),
        // Thousands of requests come at one moment of virtual time.
        budgets: Budgets::OFF,
        credential_lifetime: std::time::Duration::from_secs(8 * 60 * 60),
        support: Default::default(),
    }
}
