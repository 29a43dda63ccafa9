//! The schemas of tenants' disks and snapshots: the table `properties.tsv` and its trees.

use std::sync::LazyLock;

use arm_kernel::{
    TAGS,
    schema::{Node, Pattern, Schema, Table},
};

const PATTERNS: &[Pattern] = &[
    TAGS,
    Pattern::of("short", |text| {
        if text.chars().count() > 80 || text.chars().any(char::is_control) {
            Err("a text of at most 80 characters")
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

pub(super) const DISK_SCHEMA: Schema = schema("Disk", "disk");
pub(super) const SNAPSHOT_SCHEMA: Schema = schema("DiskSnapshot", "snapshot");

pub(super) static DISK: LazyLock<Node> = LazyLock::new(|| TABLE.tree("disk"));
pub(super) static SNAPSHOT: LazyLock<Node> = LazyLock::new(|| TABLE.tree("snapshot"));
