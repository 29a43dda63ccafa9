//! The schemas of tenants' networks: the table `properties.tsv` and its trees.

use std::sync::LazyLock;

use arm_kernel::{
    TAGS,
    schema::{Node, Pattern, Schema, Table},
};

const PATTERNS: &[Pattern] = &[
    TAGS,
    Pattern::of("description", |text| {
        let long = text.chars().count() > 140 || text.chars().any(char::is_control);
        if long {
            Err("a text of at most 140 characters")
        } else {
            Ok(())
        }
    }),
];

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(include_str!("properties.tsv"), PATTERNS));

const fn schema(title: &'static str, resource: &'static str) -> Schema {
    Schema {
        title,
        table: || &TABLE,
        resource,
    }
}

pub(super) const VNET_SCHEMA: Schema = schema("VirtualNetwork", "vnet");
pub(super) const SUBNET_SCHEMA: Schema = schema("Subnet", "subnet");
pub(super) const GROUP_SCHEMA: Schema = schema("NetworkSecurityGroup", "nsg");
pub(super) const RULE_SCHEMA: Schema = schema("SecurityRule", "rule");

pub(super) static VNET: LazyLock<Node> = LazyLock::new(|| TABLE.tree("vnet"));
pub(super) static SUBNET: LazyLock<Node> = LazyLock::new(|| TABLE.tree("subnet"));
pub(super) static GROUP: LazyLock<Node> = LazyLock::new(|| TABLE.tree("nsg"));
pub(super) static RULE: LazyLock<Node> = LazyLock::new(|| TABLE.tree("rule"));
