//! Named network namespaces, in the directory of `ip netns`.

use std::path::Path;

use crate::Inner;

/// The directory of `ip netns`.
pub(crate) const DIRECTORY: &str = "/run/netns";

/// The state of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// Nothing.
    Absent,
    /// A file that is not a namespace: its creation or removal was interrupted.
    Broken,
    /// A namespace.
    Live,
}

/// Checks a name.
pub(crate) fn look(name: &str) -> Namespace {
    const NSFS_MAGIC: u64 = 0x6e73_6673;
    match rustix::fs::statfs(Inner::namespace_path(name)) {
        Ok(found) if found.f_type as u64 == NSFS_MAGIC => Namespace::Live,
        Ok(_) => Namespace::Broken,
        Err(_) => Namespace::Absent,
    }
}

/// All names.
pub(crate) fn all() -> std::io::Result<Vec<String>> {
    crate::files::names_in(Path::new(DIRECTORY))
}

/// Whether the host has a network link of this name.
pub(crate) fn host_has_link(name: &str) -> std::io::Result<bool> {
    // Not /sys/class/net: it shows the links of the namespace in which it was mounted.
    let table = std::fs::read_to_string("/proc/self/net/dev")?;
    Ok(table
        .lines()
        .filter_map(|line| line.split_once(':'))
        .any(|(link, _)| link.trim() == name))
}
