//! The capabilities and limits of this process, which bound those of machines.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// Capability names in the order of their numbers (`linux/capability.h`).
const NAMES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// More open files than any node needs; systemd's own limit for services.
const FILES_WISH: u64 = 1_048_576;

/// The capabilities and limits for machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Capabilities.
    pub(crate) capabilities: Vec<&'static str>,
    /// Open files of a process.
    pub(crate) open_files: u64,
}

impl Limits {
    /// Reads them from the running process.
    pub(crate) fn of_this_process() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let capabilities = capabilities(&status);
        let own = getrlimit(Resource::Nofile).maximum.unwrap_or(FILES_WISH);
        // Only CAP_SYS_RESOURCE may raise a hard limit.
        let open_files = if capabilities.contains(&"CAP_SYS_RESOURCE") {
            own.max(FILES_WISH)
        } else {
            own
        };
        Self {
            capabilities,
            open_files,
        }
    }
}

/// The capabilities that are both in the bounding and the permitted set, from `/proc/self/status`.
fn capabilities(status: &str) -> Vec<&'static str> {
    let mask = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .unwrap_or(0)
    };
    let have = mask("CapBnd") & mask("CapPrm");
    NAMES
        .iter()
        .enumerate()
        .filter(|(number, _)| have >> number & 1 == 1)
        .map(|(_, name)| *name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_by_number() {
        let all = capabilities("CapPrm:\t000001fffeffffff\nCapBnd:\t000001fffeffffff\n");
        assert_eq!(all.len(), 40);
        assert!(!all.contains(&"CAP_SYS_RESOURCE"));
        assert!(all.contains(&"CAP_CHECKPOINT_RESTORE"));
        assert_eq!(capabilities("CapPrm:\t3\nCapBnd:\t1\n"), ["CAP_CHOWN"]);
        assert!(capabilities("").is_empty());
    }
}
