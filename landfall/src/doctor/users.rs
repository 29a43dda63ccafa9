//! Whether pods can have a user namespace of their own (`hostUsers: false`).

use std::fs;

use super::check::Check;

const NAME: &str = "user namespaces";

/// Overlays of mounts that map owners: the root filesystem of each such pod.
const OVERLAYS: (u32, u32) = (5, 19);
/// Filesystems in memory that map owners: tokens of service accounts and secrets.
const MEMORY: (u32, u32) = (6, 3);

/// Read, not tried: a node mounts what such a pod needs itself.
pub(super) fn check() -> Check {
    let limit = fs::read_to_string("/proc/sys/user/max_user_namespaces");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    result(
        limit.ok().and_then(|text| text.trim().parse().ok()),
        release.trim(),
    )
}

/// `limit`: the number of user namespaces that the kernel permits; `None`: it has none at all. `release` is like `6.1.0-28-amd64`.
fn result(limit: Option<u64>, release: &str) -> Check {
    match (limit, version(release)) {
        (None, _) => Check::warning(
            NAME,
            "the kernel has none: pods with hostUsers: false do not start",
            "use a kernel with CONFIG_USER_NS, or do without such pods",
        ),
        (Some(0), _) => Check::warning(
            NAME,
            "switched off: pods with hostUsers: false do not start",
            "sysctl -w user.max_user_namespaces=65536, or do without such pods",
        ),
        (Some(_), Some(version)) if version < OVERLAYS => Check::ok(
            NAME,
            format!("pods with hostUsers: false do not start with Linux {release}, but from 6.3 on"),
        ),
        (Some(_), Some(version)) if version < MEMORY => Check::ok(
            NAME,
            format!(
                "pods with hostUsers: false start with Linux {release} only without volumes in memory (tokens of service accounts, \
                 secrets), from 6.3 on with them"
            ),
        ),
        (Some(_), _) => Check::ok(NAME, "pods with hostUsers: false can have them"),
    }
}

/// Major and minor number of a release of Linux.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_host_is_told_which_pods_start() {
        for (limit, release, verdict, found) in [
            (None, "6.12.0", Verdict::Warning, "has none"),
            (Some(0), "6.12.0", Verdict::Warning, "switched off"),
            (
                Some(9),
                "5.15.0-91-generic",
                Verdict::Ok,
                "do not start with Linux 5.15.0-91-generic",
            ),
            (
                Some(9),
                "6.1.0-28-amd64",
                Verdict::Ok,
                "only without volumes in memory",
            ),
            (Some(9), "6.3", Verdict::Ok, "can have them"),
            (Some(9), "6.12.48+deb13-amd64", Verdict::Ok, "can have them"),
            (Some(9), "7.0.0-rc1", Verdict::Ok, "can have them"),
        ] {
            let check = result(limit, release);
            assert_eq!(check.verdict, verdict, "{release}: {}", check.found);
            assert!(check.found.contains(found), "{release}: {}", check.found);
        }
    }
}
