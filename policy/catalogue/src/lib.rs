//! The version catalogue: Kubernetes releases with their ends of support, fixed vulnerabilities of managed components, and known issues, as data
//! with a source for each entry; and what follows from it for a version and for what runs.
//!
//! One catalogue is part of the program (`data/catalogue.toml`). Another one can take its place without a new program, where it is signed with a key that the
//! stamp trusts and has a greater serial ([`signed`]). [`windows`] tells how long a minor is supported (rules V1, V2, V4, R6 and R7 of the
//! support policies), [`bill`] reads bills of materials, [`cves`] compares both.
//!
//! Pure: today's date is an argument, nothing is fetched. Always true of a [`Catalogue`]: all of it was checked when it was read ([`Catalogue::parse`]): versions can be compared,
//! entries name components that are there, texts and lists are bounded. A vulnerability that the catalogue does not have is not known here: an answer says
//! which components it was asked about.
//!
//! Called by: `policy/issues`, `providers/containerservice`, and the binary.

pub mod bill;
mod check;
pub mod cves;
mod model;
pub mod signed;
mod versions;
pub mod windows;

pub use model::{
    Catalogue, CatalogueError, Component, Count, Cve, Flag, Issue, Minor, Mitigation, On, Patch, Predicate,
    Range, Threshold, Upstream,
};
pub use versions::Scheme;

/// The largest catalogue, bytes.
pub const MOST: usize = 1 << 20;
/// The layout of catalogues that this release reads.
pub const FORMAT: u32 = 1;
