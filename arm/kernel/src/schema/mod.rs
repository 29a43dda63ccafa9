//! Schemas of bodies: the property table, the walk of a body along it, and the problems it finds. Pure.

mod problems;
mod table;
mod versions;
mod walk;

pub use problems::Problems;
pub use table::{Access, Class, Kind, Node, Pattern, Property, Table};
pub use versions::{keep, prune};
pub use walk::{Clean, clean};

/// A type's body, for the compatibility page.
#[derive(Clone, Copy)]
pub struct Schema {
    /// Its name in the API specification, e.g. `ManagedCluster`.
    pub title: &'static str,
    /// The table.
    pub table: fn() -> &'static Table,
    /// Which body of the table.
    pub resource: &'static str,
}
