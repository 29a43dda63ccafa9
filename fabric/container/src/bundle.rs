//! The OCI configuration of a machine. Pure.

use std::path::Path;

use fabric_api::MachineSpec;
use serde_json::{Value, json};

use crate::{
    agent,
    cgroup::{CPU_PERIOD, Limit},
    disk,
    limits::Limits,
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
    /// Whether the kernel has POSIX message queues.
    pub(crate) message_queues: bool,
}

impl Bundle<'_> {
    /// `config.json`.
    pub(crate) fn config(&self) -> Value {
        let caps = &self.limits.capabilities;
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
                "noNewPrivileges": false,
                // No oomScoreAdj: without CAP_SYS_RESOURCE even writing the current value fails.
            },
            "mounts": self.mounts(),
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
                    "devices": [{ "allow": true, "access": "rwm" }],
                },
                "devices": [
                    // The kubelet watches it for out-of-memory kills.
                    device("/dev/kmsg", 1, 11),
                    device("/dev/fuse", 10, 229),
                    device("/dev/net/tun", 10, 200),
                ],
                "sysctl": self.sysctls(),
                // No mount propagation in either direction. A node shares its mounts among its own pods with
                // `mount --make-rshared /`; runc's "rshared" would be different.
                "rootfsPropagation": "rprivate",
                "maskedPaths": ["/proc/kcore"],
                "readonlyPaths": ["/proc/sysrq-trigger"],
            },
        })
    }

    fn mounts(&self) -> Vec<Value> {
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
                &["nosuid", "noexec", "nodev", "relatime", "rw"],
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

    fn sysctls(&self) -> Value {
        let mut sysctls = serde_json::Map::new();
        sysctls.insert("net.ipv4.ip_forward".into(), json!("1"));
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

fn device(path: &str, major: u32, minor: u32) -> Value {
    json!({ "path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o600, "uid": 0, "gid": 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fabric_api::MachineId;

    #[test]
    fn limits_come_from_the_specification_and_secrets_stay_out() {
        let spec = MachineSpec {
            id: MachineId::from("m1"),
            hostname: "host1".into(),
            image: "1.36.3".into(),
            cpu_millis: 1500,
            memory_mib: 512,
            disk_gib: None,
            nics: Vec::new(),
            seed_files: [("/etc/token".to_owned(), "secret-token".to_owned())].into(),
            labels: Default::default(),
        };
        let config = Bundle {
            spec: &spec,
            dir: Path::new("/state/machines/m1"),
            namespace: Path::new("/run/netns/x"),
            cgroup: "/lf-x/m1/machine",
            limit: Limit {
                cpu_millis: 1500,
                cpu_weight: 100,
                memory_mib: 512,
                tasks: 16_384,
            },
            limits: &Limits {
                capabilities: vec!["CAP_CHOWN"],
                open_files: 20_000,
            },
            message_queues: false,
        }
        .config();
        assert_eq!(config["linux"]["resources"]["cpu"]["quota"], 150_000);
        assert_eq!(config["linux"]["resources"]["memory"]["limit"], 536_870_912);
        assert_eq!(config["linux"]["resources"]["pids"]["limit"], 16_384);
        assert_eq!(config["process"]["rlimits"][0]["hard"], 20_000);
        assert_eq!(
            config["process"]["capabilities"]["bounding"],
            json!(["CAP_CHOWN"])
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
}
