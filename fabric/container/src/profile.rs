//! What a machine may do, by its role, as parts of its OCI configuration. Pure.
//!
//! | | control plane | node |
//! |---|---|---|
//! | runs | programs of Kubernetes and the agent | containers, which may be privileged |
//! | capabilities | [`CONTROL_PLANE_CAPABILITIES`] | all of the service but [`WITHHELD`] |
//! | system calls | all but [`DENIED`] and [`DENIED_TO_CONTROL_PLANES`] | all but [`DENIED`] |
//! | devices | those of every container | also `/dev/fuse`, `/dev/net/tun`, loop devices; `/dev/kmsg` is empty |
//! | control groups, `/proc/sys` | read-only | writable, but not sysctls of the whole host |
//! | forwarding | off | on |
//!
//! # What holds, and what is a hurdle
//! A filter of system calls and withheld capabilities cannot be taken off: every process inherits them. Devices
//! are bounded on the group above the machine ([`crate::devices`]) where control groups are of version 1. What
//! is read-only or masked in a node holds for pods that have it as a `hostPath`; root of a node, and a
//! privileged pod, mount `/proc` anew or detach the filter of devices of version 2. A node mounts filesystems
//! and is root of the host's user namespace: it is no boundary, whatever is withheld here.

use fabric_api::{CONTROL_PLANE, MachineSpec, ROLE_LABEL};
use serde_json::{Value, json};

/// What a machine is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A member of a control plane. It runs no containers.
    ControlPlane,
    /// A node, or a machine of no known role: it must be able to run containers.
    Node,
}

/// Capabilities of a control plane: files of any owner, the API's port, rules and addresses of its
/// interfaces, announcements of its VIP.
const CONTROL_PLANE_CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
];

/// Capabilities that no node has: what they permit is the host's alone, and a node works without.
///
/// Not `CAP_SYS_MODULE` and `CAP_DAC_READ_SEARCH`: all they permit beyond other capabilities are calls of
/// [`DENIED`], and network plugins ask for the first one, so that their pods would not start. Not
/// `CAP_SYS_BOOT`: in a process namespace of its own, a machine restarts itself. Not `CAP_BPF` and
/// `CAP_PERFMON`: runc needs the first one for devices in version 2 of control groups, and `CAP_SYS_ADMIN`
/// comprises both.
const WITHHELD: &[&str] = &[
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_BLOCK_SUSPEND",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_SYSLOG",
    "CAP_SYS_PACCT",
    "CAP_SYS_RAWIO",
    "CAP_SYS_TIME",
    "CAP_WAKE_ALARM",
];

/// System calls that no machine makes: they change or read the whole host. Unknown ones are skipped by runc.
///
/// Not in the list, because a node needs them: `bpf` (devices in version 2 of control groups), `keyctl` and
/// `add_key` (runc), `perf_event_open` (network plugins on eBPF), `mount` and its like, `quotactl`, `reboot`.
const DENIED: &[&str] = &[
    // Modules.
    "create_module",
    "delete_module",
    "finit_module",
    "init_module",
    // Another kernel.
    "kexec_file_load",
    "kexec_load",
    // Handles lead to files of a filesystem that are not mounted here, such as the host's.
    "open_by_handle_at",
    // The host's clock, its swap space, accounting and log.
    "acct",
    "clock_settime",
    "settimeofday",
    "stime",
    "swapoff",
    "swapon",
    "syslog",
    // Ports of devices.
    "ioperm",
    "iopl",
    // Outdated, or mostly of use to those who exploit faults of the kernel.
    "_sysctl",
    "lookup_dcookie",
    "nfsservctl",
    "uselib",
    "userfaultfd",
    "vm86",
    "vm86old",
];

/// System calls of programs that make containers or look into other processes.
const DENIED_TO_CONTROL_PLANES: &[&str] = &[
    "add_key",
    "bpf",
    "chroot",
    "fanotify_init",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "keyctl",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "perf_event_open",
    "pidfd_getfd",
    "pivot_root",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "setns",
    "umount",
    "umount2",
    "unshare",
];

/// Flags of `clone` that make namespaces (`linux/sched.h`: mount, cgroup, uts, ipc, user, pid, net).
const NAMESPACES: [u64; 7] = [
    0x0002_0000,
    0x0200_0000,
    0x0400_0000,
    0x0800_0000,
    0x1000_0000,
    0x2000_0000,
    0x4000_0000,
];

/// "No such system call": the C library then uses `clone`, whose flags a filter can see.
const ENOSYS: u32 = 38;

/// Not visible: the host's memory, keys, timers, power and hardware.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Read-only in every machine: the host's hardware and filesystems.
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger"];

/// Read-only in a node: sysctls that the kernel has once. Those below `net` are the machine's own. Each pod
/// has a `/proc` of its own, for sysctls of its namespaces.
const READ_ONLY_IN_NODES: &[&str] = &[
    "/proc/sys/abi",
    "/proc/sys/debug",
    "/proc/sys/dev",
    "/proc/sys/fs",
    "/proc/sys/kernel",
    "/proc/sys/user",
    "/proc/sys/vm",
];

/// Devices of nodes besides those of every container: type, major number, minor number (`None`: all).
/// Volumes are loop devices; their driver makes the nodes.
pub(crate) const NODE_DEVICES: &[(&str, u32, Option<u32>)] = &[
    ("c", 10, Some(200)),
    ("c", 10, Some(229)),
    ("c", 10, Some(237)),
    ("b", 7, None),
];

impl Role {
    /// By the label of the specification.
    pub(crate) fn of(spec: &MachineSpec) -> Self {
        match spec.labels.get(ROLE_LABEL).map(String::as_str) {
            Some(CONTROL_PLANE) => Self::ControlPlane,
            _ => Self::Node,
        }
    }

    /// Those of the service's capabilities that the machine has.
    pub(crate) fn capabilities(self, service: &[&'static str]) -> Vec<&'static str> {
        let has = |name: &&'static str| match self {
            Self::ControlPlane => CONTROL_PLANE_CAPABILITIES.contains(name),
            Self::Node => !WITHHELD.contains(name),
        };
        service.iter().copied().filter(has).collect()
    }

    /// Whether programs may gain rights when they are executed.
    pub(crate) fn no_new_privileges(self) -> bool {
        self == Self::ControlPlane
    }

    /// The filter of system calls. `arch`: of [`std::env::consts::ARCH`].
    pub(crate) fn seccomp(self, arch: &str) -> Value {
        let denied = |names: &[&str]| json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 1 });
        let mut rules = vec![denied(DENIED)];
        if self == Self::ControlPlane {
            rules.push(denied(DENIED_TO_CONTROL_PLANES));
            rules.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }));
            rules.extend(NAMESPACES.map(|flag| {
                json!({
                    "names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
                    "args": [{ "index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ" }],
                })
            }));
        }
        // Calls of an architecture that is not named here would end their process.
        let architectures: &[&str] = match arch {
            "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
            _ => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        };
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures, "syscalls": rules })
    }

    pub(crate) fn masked(self) -> &'static [&'static str] {
        MASKED
    }

    pub(crate) fn read_only(self) -> Vec<&'static str> {
        let more = match self {
            Self::ControlPlane => &["/proc/sys"][..],
            Self::Node => READ_ONLY_IN_NODES,
        };
        READ_ONLY.iter().chain(more).copied().collect()
    }

    /// `rw` or `ro`, for the machine's control groups: a node makes groups for its containers.
    pub(crate) fn groups(self) -> &'static str {
        match self {
            Self::ControlPlane => "ro",
            Self::Node => "rw",
        }
    }

    /// `net.ipv4.ip_forward`.
    pub(crate) fn forwards(self) -> &'static str {
        match self {
            // It has interfaces in two networks, and is no way from one to the other.
            Self::ControlPlane => "0",
            Self::Node => "1",
        }
    }

    /// Rules for devices, besides those that every container may use. `unified`: control groups are of
    /// version 2 alone.
    ///
    /// In version 1 the kernel refuses a group all devices below one that has not all of them, so that no
    /// privileged pod would start: nodes have all at first, less what the group above denies
    /// ([`crate::devices`]).
    pub(crate) fn device_rules(self, unified: bool) -> Vec<Value> {
        let all = |allow: bool| json!({ "allow": allow, "access": "rwm" });
        match (self, unified) {
            (Self::ControlPlane, _) => vec![all(false)],
            (Self::Node, false) => vec![all(true)],
            (Self::Node, true) => {
                let own = NODE_DEVICES.iter().map(|(kind, major, minor)| {
                    let mut rule = json!({ "allow": true, "type": kind, "major": major, "access": "rwm" });
                    if let Some(minor) = minor {
                        rule["minor"] = json!(minor);
                    }
                    rule
                });
                std::iter::once(all(false)).chain(own).collect()
            }
        }
    }

    /// Nodes of devices in `/dev`, besides those of every container.
    pub(crate) fn devices(self) -> Vec<Value> {
        match self {
            Self::ControlPlane => Vec::new(),
            Self::Node => vec![
                // The host's log tells of all machines. A kubelet does not start without the file, and looks
                // there for processes that the kernel killed; it finds an empty log.
                device("/dev/kmsg", 1, 3),
                device("/dev/fuse", 10, 229),
                device("/dev/net/tun", 10, 200),
            ],
        }
    }
}

fn device(path: &str, major: u32, minor: u32) -> Value {
    json!({ "path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o600, "uid": 0, "gid": 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Role; 2] = [Role::ControlPlane, Role::Node];

    /// The capabilities of a service on a usual host.
    const SERVICE: &[&str] = &[
        "CAP_CHOWN",
        "CAP_MKNOD",
        "CAP_NET_ADMIN",
        "CAP_SYSLOG",
        "CAP_SYS_ADMIN",
        "CAP_SYS_MODULE",
        "CAP_SYS_RAWIO",
        "CAP_SYS_TIME",
    ];

    fn denied(role: Role) -> Vec<String> {
        let filter = role.seccomp("x86_64");
        let rules = filter["syscalls"].as_array().unwrap();
        let whole = rules.iter().filter(|rule| rule["args"].is_null());
        whole
            .flat_map(|rule| rule["names"].as_array().unwrap())
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn no_machine_has_more_than_the_service() {
        assert_eq!(
            Role::ControlPlane.capabilities(SERVICE),
            ["CAP_CHOWN", "CAP_NET_ADMIN"]
        );
        assert_eq!(
            Role::Node.capabilities(SERVICE),
            [
                "CAP_CHOWN",
                "CAP_MKNOD",
                "CAP_NET_ADMIN",
                "CAP_SYS_ADMIN",
                "CAP_SYS_MODULE"
            ]
        );
        for role in BOTH {
            assert!(role.capabilities(&[]).is_empty());
        }
    }

    #[test]
    fn a_node_makes_containers_and_no_machine_reaches_the_kernel() {
        // What kubelet, containerd, runc, network plugins and the driver of disks call.
        for needed in [
            "bpf",
            "clone",
            "clone3",
            "keyctl",
            "mount",
            "open_tree",
            "perf_event_open",
            "pivot_root",
            "ptrace",
            "reboot",
            "setns",
            "umount2",
            "unshare",
        ] {
            assert!(!denied(Role::Node).iter().any(|call| call == needed), "{needed}");
        }
        for role in BOTH {
            let denied = denied(role);
            for call in [
                "init_module",
                "kexec_load",
                "open_by_handle_at",
                "swapon",
                "syslog",
            ] {
                assert!(denied.iter().any(|denied| denied == call), "{role:?}: {call}");
            }
            // What every program calls, and what this agent and etcd do.
            for call in [
                "clone", "execve", "fork", "kill", "prctl", "seccomp", "sync", "wait4",
            ] {
                assert!(!denied.iter().any(|denied| denied == call), "{role:?}: {call}");
            }
        }
        let text = Role::ControlPlane.seccomp("x86_64").to_string();
        assert_eq!(text.matches("SCMP_CMP_MASKED_EQ").count(), NAMESPACES.len());
        // No flag of a thread or of an ordinary child is among them.
        let usual = 0x0000_ff00 | 0x0001_0000 | 0x000c_0000 | 0x01f0_0000;
        assert!(NAMESPACES.iter().all(|flag| flag & usual == 0));
        assert!(Role::Node.seccomp("aarch64").to_string().contains("AARCH64"));
    }

    #[test]
    fn a_control_plane_changes_no_setting_and_a_node_only_its_own() {
        assert!(Role::ControlPlane.read_only().contains(&"/proc/sys"));
        let node = Role::Node.read_only();
        assert!(node.contains(&"/proc/sys/kernel"));
        // kube-proxy and network plugins write below /proc/sys/net.
        assert!(
            !node
                .iter()
                .any(|path| ["/proc/sys", "/proc/sys/net"].contains(path))
        );
        for role in BOTH {
            assert!(role.masked().iter().all(|path| !role.read_only().contains(path)));
        }
        assert_eq!((Role::ControlPlane.groups(), Role::Node.groups()), ("ro", "rw"));
        assert_eq!((Role::ControlPlane.forwards(), Role::Node.forwards()), ("0", "1"));
    }

    #[test]
    fn a_node_opens_listed_devices_only() {
        let rules = Role::Node.device_rules(true);
        assert_eq!(rules[0], json!({ "allow": false, "access": "rwm" }));
        assert_eq!(rules.len(), 1 + NODE_DEVICES.len());
        // A rule without a number would be one for all.
        for rule in &rules[1..] {
            assert!(rule["type"].is_string() && rule["major"].is_u64(), "{rule}");
        }
        assert_eq!(
            Role::Node.device_rules(false),
            [json!({ "allow": true, "access": "rwm" })]
        );
        for unified in [false, true] {
            let rules = Role::ControlPlane.device_rules(unified);
            assert_eq!(rules, [json!({ "allow": false, "access": "rwm" })]);
        }
        assert!(Role::ControlPlane.devices().is_empty());
        // Not the host's log, which is 1:11.
        let log = &Role::Node.devices()[0];
        assert_eq!(
            (&log["path"], &log["minor"]),
            (&json!("/dev/kmsg"), &json!(3)),
            "{log}"
        );
    }

    #[test]
    fn a_machine_of_no_role_can_run_containers() {
        let mut spec: MachineSpec = serde_json::from_value(json!({
            "id": "m", "hostname": "m", "image": "1.36.3", "cpu_millis": 1000, "memory_mib": 512, "nics": [],
            "seed_files": {}, "labels": {},
        }))
        .unwrap();
        assert_eq!(Role::of(&spec), Role::Node);
        spec.labels.insert(ROLE_LABEL.to_owned(), "node".to_owned());
        assert_eq!(Role::of(&spec), Role::Node);
        spec.labels
            .insert(ROLE_LABEL.to_owned(), CONTROL_PLANE.to_owned());
        assert_eq!(Role::of(&spec), Role::ControlPlane);
    }
}
