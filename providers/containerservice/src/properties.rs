//! The schemas of clusters and pools: the table `properties.tsv` and its trees.

use std::sync::LazyLock;

use arm_kernel::schema::{Node, Schema, Table};

use crate::formats::PATTERNS;

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(include_str!("properties.tsv"), PATTERNS));

/// The body of `managedClusters`, for the compatibility page.
pub(crate) const CLUSTER_SCHEMA: Schema = Schema {
    title: "ManagedCluster",
    table: || &TABLE,
    resource: "cluster",
};

/// The body of `managedClusters/agentPools`, for the compatibility page.
pub(crate) const POOL_SCHEMA: Schema = Schema {
    title: "AgentPool",
    table: || &TABLE,
    resource: "pool",
};

/// The body of `managedClusters/agentPools`.
pub(crate) static POOL: LazyLock<Node> = LazyLock::new(|| TABLE.tree("pool"));

/// The body of `managedClusters`. The items of `agentPoolProfiles` have the members of a pool's `properties`.
pub(crate) static CLUSTER: LazyLock<Node> = LazyLock::new(|| {
    let mut root = TABLE.tree("cluster");
    let pool = TABLE
        .tree("pool")
        .members
        .remove("properties")
        .map(|node| node.members);
    let profiles = root
        .members
        .get_mut("properties")
        .and_then(|node| node.members.get_mut("agentPoolProfiles"))
        .expect("the table has agentPoolProfiles");
    profiles
        .members
        .extend(pool.expect("the table has a pool's properties"));
    root
});

/// The members of `agentPoolProfiles[]`.
pub(crate) fn pool_members() -> &'static Node {
    CLUSTER
        .at(&["properties", "agentPoolProfiles"])
        .expect("the table has agentPoolProfiles")
}

#[cfg(test)]
mod tests {
    use arm_kernel::schema::{Access, Class, Kind};

    use super::*;

    #[test]
    fn the_table_parses_and_every_line_makes_sense() {
        assert!(TABLE.properties.len() > 480);
        assert!(
            CLUSTER
                .at(&["properties", "agentPoolProfiles", "count"])
                .is_some()
        );
        assert!(POOL.at(&["properties", "count"]).is_some());
        for property in TABLE.properties.iter() {
            let path = property.path;
            if property.class == Class::Default {
                assert!(!property.accepts.is_empty(), "{path}: accepts nothing");
            }
            if !property.choices.is_empty() {
                for accepted in &property.accepts {
                    assert!(
                        property.choices.contains(accepted),
                        "{path}: {accepted} is no value of the API"
                    );
                }
            }
            if property.class == Class::Group && property.access != Access::ReadOnly {
                assert!(
                    matches!(property.kind, Kind::Object | Kind::ObjectsByName | Kind::Objects),
                    "{path}: has no members and no class"
                );
            }
        }
    }

    #[test]
    fn versions_bound_a_property() {
        let find = |path: &str| {
            TABLE
                .properties
                .iter()
                .find(|property| property.path == path)
                .unwrap()
        };
        let fips = TABLE
            .properties
            .iter()
            .find(|property| property.resource == "cluster" && property.path == "properties.enableFIPS")
            .unwrap();
        assert!(fips.is_in("2026-08-01") && !fips.is_in("2026-06-01"));
        let docker = find("properties.networkProfile.dockerBridgeCidr");
        assert!(docker.is_in("2020-11-01") && !docker.is_in("2026-06-01"));
    }
}
