//! The OCI configuration of a machine. Pure.

use std::path::Path;

use fabric_api::MachineSpec;
use serde_json::{Value, json};

use crate::{
    agent,
    cgroup::{CPU_PERIOD, Limit},
    disk,
    limits::Limits,
    profile::Role,
};

/// The path of the agent inside a machine. The directory with it is bind-mounted, not the file: after an
/// upgrade a running machine sees the new file.
const AGENT: &str = "/opt/landfall/agent/landfall-agent";

/// The path in configurations of machines from earlier releases.
const OLD_AGENT: &str = "/usr/local/bin/landfall-agent";

/// Inputs of the configuration.
pub(crate) struct Bundle<'a> {
    pub(crate) spec: &'a MachineSpec,
    /// The machine's directory.
    pub(crate) dir: &'a Path,
    pub(crate) namespace: &'a Path,
    /// The machine's control group.
    pub(crate) cgroup: &'a str,
    pub(crate) limit: Limit,
    pub(crate) limits: &'a Limits,
    /// Whether the host's control groups are of version 2 alone.
    pub(crate) unified: bool,
    /// Whether the kernel has POSIX message queues.
    pub(crate) message_queues: bool,
}

impl Bundle<'_> {
    /// `config.json`.
    pub(crate) fn config(&self) -> Value {
        let role = Role::of(self.spec);
        let caps = role.capabilities(&self.limits.capabilities);
        json!({
            "ociVersion": "1.0.2",
            "hostname": self.spec.hostname,
            "root": { "path": self.dir.join(disk::ROOT), "readonly": false },
            "process": {
                "terminal": false,
                "user": { "uid": 0, "gid": 0 },
                "cwd": "/",
                "args": [AGENT],
                "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"],
                "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
                "rlimits": [{
                    "type": "RLIMIT_NOFILE",
                    "hard": self.limits.open_files,
                    "soft": self.limits.open_files,
                }],
                "noNewPrivileges": role.no_new_privileges(),
                // No oomScoreAdj: without CAP_SYS_RESOURCE even writing the current value fails.
            },
            "mounts": self.mounts(role),
            "linux": {
                "namespaces": [
                    { "type": "pid" },
                    { "type": "ipc" },
                    { "type": "uts" },
                    { "type": "mount" },
                    { "type": "cgroup" },
                    { "type": "network", "path": self.namespace },
                ],
                "cgroupsPath": self.cgroup,
                // The limits visible in the machine; the effective ones are set on the group above.
                "resources": {
                    "cpu": { "period": CPU_PERIOD, "quota": u64::from(self.limit.cpu_millis) * CPU_PERIOD / 1000 },
                    "memory": { "limit": self.limit.memory_mib << 20 },
                    "pids": { "limit": self.limit.tasks },
                    "devices": role.device_rules(self.unified),
                },
                "devices": role.devices(),
                "seccomp": role.seccomp(std::env::consts::ARCH),
                "sysctl": self.sysctls(role),
                // No mount propagation in either direction. A node shares its mounts among its own pods with
                // `mount --make-rshared /`; runc's "rshared" would be different.
                "rootfsPropagation": "rprivate",
                "maskedPaths": role.masked(),
                "readonlyPaths": role.read_only(),
            },
        })
    }

    fn mounts(&self, role: Role) -> Vec<Value> {
        let mount = |to: &str, kind: &str, options: &[&str]| json!({ "destination": to, "type": kind, "source": kind, "options": options });
        let mut mounts = vec![
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount(
                "/dev",
                "tmpfs",
                &["nosuid", "strictatime", "mode=755", "size=65536k"],
            ),
            mount(
                "/dev/pts",
                "devpts",
                &[
                    "nosuid",
                    "noexec",
                    "newinstance",
                    "ptmxmode=0666",
                    "mode=0620",
                    "gid=5",
                ],
            ),
            mount(
                "/dev/shm",
                "tmpfs",
                &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
            ),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            // Seen from the machine's own cgroup namespace, its subtree is the whole hierarchy.
            mount(
                "/sys/fs/cgroup",
                "cgroup",
                &["nosuid", "noexec", "nodev", "relatime", role.groups()],
            ),
            mount("/run", "tmpfs", &["nosuid", "nodev", "mode=755"]),
            mount("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
        ];
        if self.message_queues {
            mounts.push(mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
        }
        mounts.extend(disk::VOLUMES.iter().map(|(name, to)| {
            json!({
                "destination": to,
                "type": "bind",
                "source": disk::volume(self.dir, name),
                "options": ["rbind", "rw"],
            })
        }));
        let parent = |path: &Path| path.parent().unwrap_or(Path::new("/")).to_owned();
        let program = self.dir.join(agent::DIRECTORY).join(agent::PROGRAM);
        for (to, source) in [
            (parent(Path::new(AGENT)), parent(&program)),
            (OLD_AGENT.into(), program),
        ] {
            mounts.push(json!({
                "destination": to,
                "type": "bind",
                "source": source,
                "options": ["bind", "ro", "nosuid", "nodev"],
            }));
        }
        mounts
    }

    fn sysctls(&self, role: Role) -> Value {
        let mut sysctls = serde_json::Map::new();
        sysctls.insert("net.ipv4.ip_forward".into(), json!(role.forwards()));
        // A pod's packet may arrive at another interface than the one its answer leaves from.
        for place in ["all", "default"]
            .into_iter()
            .chain(self.spec.nics.iter().map(|card| card.name.as_str()))
        {
            sysctls.insert(format!("net.ipv4.conf.{place}.rp_filter"), json!("0"));
        }
        Value::Object(sysctls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fabric_api::{CONTROL_PLANE, MachineId, ROLE_LABEL};

    fn spec() -> MachineSpec {
        MachineSpec {
            id: MachineId::from("m1"),
            hostname: "host1".into(),
            image: "1.36.3".into(),
            cpu_millis: 1500,
            memory_mib: 512,
            disk_gib: None,
            nics: Vec::new(),
            seed_files: [("/etc/token".to_owned(), "secret-token".to_owned())].into(),
            labels: Default::default(),
        }
    }

    fn config(spec: &MachineSpec) -> Value {
        Bundle {
            spec,
            dir: Path::new("/state/machines/m1"),
            namespace: Path::new("/run/netns/x"),
            cgroup: "/lf-x/m1/machine",
            limit: Limit {
                cpu_millis: 1500,
                cpu_weight: 100,
                memory_mib: 512,
                swaps: false,
                tasks: 16_384,
                io_weight: 100,
            },
            limits: &Limits {
                capabilities: vec!["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_SYS_TIME"],
                open_files: 20_000,
            },
            unified: true,
            message_queues: false,
        }
        .config()
    }

    #[test]
    fn limits_come_from_the_specification_and_secrets_stay_out() {
        let config = config(&spec());
        assert_eq!(config["linux"]["resources"]["cpu"]["quota"], 150_000);
        assert_eq!(config["linux"]["resources"]["memory"]["limit"], 536_870_912);
        assert_eq!(config["linux"]["resources"]["pids"]["limit"], 16_384);
        assert_eq!(config["process"]["rlimits"][0]["hard"], 20_000);
        assert_eq!(
            config["process"]["capabilities"]["bounding"],
            json!(["CAP_CHOWN", "CAP_SYS_ADMIN"])
        );
        let text = config.to_string();
        assert!(text.contains(r#""destination":"/opt/landfall/agent","options":["bind","ro","nosuid","nodev"],"source":"/state/machines/m1/agent""#));
        assert_eq!(config["process"]["args"], json!([AGENT]));
        assert!(!text.contains("secret-token"));
        assert!(!text.contains("mqueue"));
        for (_, to) in disk::VOLUMES {
            assert!(text.contains(&format!("\"destination\":\"{to}\"")));
        }
    }
    #[test]
    fn a_control_plane_gets_less_than_a_node() {
        let node = config(&spec());
        let mut spec = spec();
        spec.labels
            .insert(ROLE_LABEL.to_owned(), CONTROL_PLANE.to_owned());
        let control_plane = config(&spec);
        let groups = |config: &Value| {
            let mounts = config["mounts"].as_array().unwrap();
            let groups = mounts.iter().find(|mount| mount["type"] == "cgroup").unwrap();
            groups["options"].as_array().unwrap().last().cloned()
        };
        assert_eq!(
            (groups(&node), groups(&control_plane)),
            (Some(json!("rw")), Some(json!("ro")))
        );
        let of = |config: &Value, pointer: &str| config.pointer(pointer).cloned().unwrap_or_default();
        for (pointer, of_node, of_control_plane) in [
            ("/process/noNewPrivileges", json!(false), json!(true)),
            (
                "/process/capabilities/permitted",
                json!(["CAP_CHOWN", "CAP_SYS_ADMIN"]),
                json!(["CAP_CHOWN"]),
            ),
            ("/linux/sysctl/net.ipv4.ip_forward", json!("1"), json!("0")),
            ("/linux/devices/0/path", json!("/dev/kmsg"), json!(null)),
            (
                "/linux/seccomp/defaultAction",
                json!("SCMP_ACT_ALLOW"),
                json!("SCMP_ACT_ALLOW"),
            ),
        ] {
            assert_eq!(of(&node, pointer), of_node, "{pointer}");
            assert_eq!(of(&control_plane, pointer), of_control_plane, "{pointer}");
        }
        // Without this line, a rule for devices would be one for more than it names.
        for config in [&node, &control_plane] {
            assert_eq!(config["linux"]["resources"]["devices"][0]["allow"], false);
        }
    }
}
