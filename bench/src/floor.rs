//! The floor: the same programs with the same flags, as bare processes, with nothing of ours around them.
//!
//! Certificates, files, network namespaces and the file systems' lower layers are made before the
//! measurement. Then the control plane's programs are started by a shell in a chroot, the node's by a shell
//! as first process of a container that `runc` runs; the two are started at the same time. All objects have
//! fixed names under `lfbench`, so that remains of an interrupted run are removed by the next.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use agent_protocol::{
    MachineConfig,
    programs::{BACKUP, ETCD},
};
use anyhow::{Context, Result, bail};
use base_env::{Clock, Env};
use cluster_bootstrap::{ControlPlaneAddresses, ControlPlanePlace, NodePlace};
use cluster_pki::ClusterPki;
use cluster_spec::ClusterSpec;
use serde_json::{Value, json};

use crate::kube::{Kube, Milestones};

/// Where the floor's processes meet: a namespace with a bridge, and one namespace each.
const HUB: &str = "lfbench-hub";
const CONTROL_PLANE: &str = "lfbench-cp";
const NODE: &str = "lfbench-node";
/// An unrouted range (RFC 6598); it exists in the floor's own namespaces only.
const CONTROL_PLANE_ADDRESS: Ipv4Addr = Ipv4Addr::new(100, 127, 255, 10);
const VIP: Ipv4Addr = Ipv4Addr::new(100, 127, 255, 11);
const HUB_ADDRESS: &str = "100.127.255.1";

/// One prepared floor, good for one round.
pub(crate) struct Floor {
    root: PathBuf,
    runc_root: PathBuf,
    control_plane: MachineConfig,
    endpoint: cluster_api::Endpoint,
    child: Option<Child>,
}

impl Floor {
    /// Makes all prerequisites: certificates, files, mounts, namespaces.
    pub(crate) fn prepare(env: &Env, spec: &ClusterSpec, layers: &[PathBuf], scratch: &Path) -> Result<Self> {
        sweep(scratch);
        let now = env.clock.now();
        let pki = ClusterPki::generate(now)?;
        let vnet = Ipv4Addr::from(u32::from(spec.network.control_plane_range.network()) + 4);
        let at = ControlPlaneAddresses {
            vip: VIP,
            stamp: CONTROL_PLANE_ADDRESS,
            vnet,
        };
        let node_address = Ipv4Addr::from(u32::from(spec.network.node_range.network()) + 4);
        let node = NodePlace {
            node_name: "aks-nodepool1-00000000-vmss000000".into(),
            address: node_address,
            pod_range: Some("10.244.0.0/24".parse()?),
            subscription: "00000000-0000-0000-0000-000000000000".into(),
            machine: "floor".into(),
            host_cores: 2,
            host_memory_mib: 8192,
            own_disk: false,
            registry: None,
        };
        let place = ControlPlanePlace::alone("floor", at);
        let mut control_plane = cluster_bootstrap::control_plane_config(spec, &pki, &place, now, 1)?;
        // Without the agent's own programs.
        control_plane.processes.retain(|process| process.name != BACKUP);
        for process in &mut control_plane.processes {
            // A bare etcd has no prepared data.
            if process.name == ETCD {
                process.argv = cluster_bootstrap::bare_etcd(&place);
            }
        }
        let node_config = cluster_bootstrap::node_config(spec, &spec.pools[0], &node, &pki, VIP, now, 1)?;
        let endpoint = cluster_bootstrap::admin_endpoint(&pki, VIP, now)?;

        let floor = Self {
            root: scratch.to_owned(),
            runc_root: scratch.join("runc"),
            control_plane,
            endpoint,
            child: None,
        };
        network(spec, vnet, node_address)?;
        for (name, config) in [("cp", &floor.control_plane), ("node", &node_config)] {
            let merged = floor.mount(name, layers)?;
            write_files(&merged, config)?;
            fs::write(merged.join("floor.sh"), script(config))?;
        }
        fs::write(
            floor.root.join("node/config.json"),
            serde_json::to_vec(&bundle(&floor.root.join("node")))?,
        )?;
        Ok(floor)
    }

    fn mount(&self, name: &str, layers: &[PathBuf]) -> Result<PathBuf> {
        let home = self.root.join(name);
        let of = |part: &str| home.join(part);
        for part in ["upper", "work", "rootfs", "containerd", "kubelet", "etcd", "log"] {
            fs::create_dir_all(of(part))?;
        }
        let lower = layers
            .iter()
            .map(|layer| layer.to_string_lossy())
            .collect::<Vec<_>>()
            .join(":");
        let options = format!(
            "lowerdir={lower},upperdir={},workdir={}",
            of("upper").display(),
            of("work").display()
        );
        run(
            "mount",
            &[
                "-t",
                "overlay",
                "-o",
                &options,
                "lfbench",
                &of("rootfs").to_string_lossy(),
            ],
        )?;
        let merged = of("rootfs");
        for (from, to) in [("etcd", "var/lib/etcd"), ("log", "var/log")] {
            fs::create_dir_all(merged.join(to))?;
            run(
                "mount",
                &[
                    "--bind",
                    &of(from).to_string_lossy(),
                    &merged.join(to).to_string_lossy(),
                ],
            )?;
        }
        Ok(merged)
    }

    /// Starts all programs, follows the cluster to a running pod, and stops it.
    pub(crate) async fn round(&mut self, clock: &Arc<dyn Clock>, bound: Duration) -> Result<Milestones> {
        let merged = self.root.join("cp/rootfs");
        let start = clock.monotonic();
        // A new mount namespace for /proc; all its processes are killed with its pid namespace.
        let child = Command::new("ip")
            .args(["netns", "exec", CONTROL_PLANE, "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "sh", "-c"])
            .arg(format!(
                "mount -t proc proc {0}/proc && mount -t devtmpfs dev {0}/dev && exec chroot {0} /bin/sh /floor.sh",
                merged.display()
            ))
            .stdin(Stdio::null())
            .stdout(fs::File::create(self.root.join("cp/console.log"))?)
            .stderr(Stdio::null())
            .spawn()?;
        self.child = Some(child);
        // Files, not pipes: the container keeps its outputs for as long as it runs.
        let console = fs::File::create(self.root.join("node/console.log"))?;
        let status = Command::new("runc")
            .arg("--root")
            .arg(&self.runc_root)
            .args(["run", "--detach", "--bundle"])
            .arg(self.root.join("node"))
            .arg("lfbench-node")
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .status()
            .context("cannot start runc")?;
        if !status.success() {
            bail!(
                "runc ended with {status}; see {}",
                self.root.join("node/console.log").display()
            );
        }
        let endpoint = self.endpoint.clone();
        let clock = clock.clone();
        // Sockets belong to the namespace of the thread that makes them.
        let watcher = std::thread::spawn(move || -> Result<Milestones> {
            let namespace = fs::File::open(format!("/run/netns/{HUB}"))?;
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async { Kube::new(&endpoint)?.follow(&clock, start, bound).await })
        });
        let outcome = tokio::task::spawn_blocking(move || watcher.join()).await?;
        match outcome {
            Ok(milestones) => {
                milestones.with_context(|| format!("the floor; its logs are in {}", self.root.display()))
            }
            Err(_) => bail!("the floor's watcher panicked"),
        }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Killing the namespace's first process ends all of them. It may have ended already.
            let _ended = child.kill();
            let _status = child.wait();
        }
        sweep(&self.root);
    }
}

/// Removes all objects of a floor; errors are ignored, because there may be none.
fn sweep(root: &Path) {
    let quiet = |program: &str, arguments: &[&str]| {
        let _absent = Command::new(program)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    };
    quiet(
        "runc",
        &[
            "--root",
            &root.join("runc").to_string_lossy(),
            "delete",
            "--force",
            "lfbench-node",
        ],
    );
    for part in [
        "cp/rootfs/var/lib/etcd",
        "cp/rootfs/var/log",
        "cp/rootfs",
        "node/rootfs/var/lib/etcd",
        "node/rootfs/var/log",
        "node/rootfs",
    ] {
        quiet(
            "umount",
            &["--lazy", "--recursive", &root.join(part).to_string_lossy()],
        );
    }
    for namespace in [CONTROL_PLANE, NODE, HUB] {
        quiet("ip", &["netns", "delete", namespace]);
    }
    let _absent = fs::remove_dir_all(root);
}

/// One bridge, three interfaces. The node's default route ends in the hub, which has no other route.
fn network(spec: &ClusterSpec, vnet: Ipv4Addr, node: Ipv4Addr) -> Result<()> {
    for namespace in [HUB, CONTROL_PLANE, NODE] {
        run("ip", &["netns", "add", namespace])?;
        run("ip", &["-n", namespace, "link", "set", "lo", "up"])?;
    }
    let hub = |arguments: &[&str]| run("ip", &[&["-n", HUB][..], arguments].concat());
    hub(&["link", "add", "br0", "type", "bridge"])?;
    let (control_range, node_range) = (spec.network.control_plane_range, spec.network.node_range);
    let first = |range: ipnet::Ipv4Net| Ipv4Addr::from(u32::from(range.network()) + 1);
    for address in [
        format!("{HUB_ADDRESS}/24"),
        format!("{}/{}", first(control_range), control_range.prefix_len()),
        format!("{}/{}", first(node_range), node_range.prefix_len()),
    ] {
        hub(&["address", "add", &address, "dev", "br0"])?;
    }
    hub(&["link", "set", "br0", "up"])?;
    run(
        "ip",
        &["netns", "exec", HUB, "sysctl", "-qw", "net.ipv4.ip_forward=1"],
    )?;
    for (namespace, card) in [(CONTROL_PLANE, "c0"), (NODE, "n0")] {
        hub(&[
            "link", "add", card, "master", "br0", "type", "veth", "peer", "name", "eth0", "netns", namespace,
        ])?;
        hub(&["link", "set", card, "up"])?;
        run("ip", &["-n", namespace, "link", "set", "eth0", "up"])?;
    }
    for address in [
        format!("{CONTROL_PLANE_ADDRESS}/24"),
        format!("{VIP}/32"),
        format!("{vnet}/{}", control_range.prefix_len()),
    ] {
        run(
            "ip",
            &["-n", CONTROL_PLANE, "address", "add", &address, "dev", "eth0"],
        )?;
    }
    run(
        "ip",
        &[
            "-n",
            NODE,
            "address",
            "add",
            &format!("{node}/{}", node_range.prefix_len()),
            "dev",
            "eth0",
        ],
    )?;
    for (namespace, gateway) in [(CONTROL_PLANE, first(control_range)), (NODE, first(node_range))] {
        run(
            "ip",
            &[
                "-n",
                namespace,
                "route",
                "add",
                "default",
                "via",
                &gateway.to_string(),
            ],
        )?;
    }
    Ok(())
}

fn write_files(root: &Path, config: &MachineConfig) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    for file in &config.files {
        let path = root.join(file.path.trim_start_matches('/'));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?;
    }
    Ok(())
}

/// The work of an agent as a script: set-up steps, then all processes at once.
fn script(config: &MachineConfig) -> String {
    let quote = |argv: &[String]| {
        argv.iter()
            .map(|word| format!("'{}'", word.replace('\'', r"'\''")))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut lines =
        vec!["export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    lines.extend(config.setup.iter().map(|command| quote(&command.argv)));
    for process in &config.processes {
        let environment: Vec<_> = process
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        // Restarted as an agent would: its dependencies may start later than it.
        lines.push(format!(
            "(while :; do env -i PATH=\"$PATH\" {} {} >>/var/log/{}.log 2>&1; sleep 0.1; done) &",
            quote(&environment),
            quote(&process.argv),
            process.name
        ));
    }
    for task in &config.tasks {
        lines.push(format!(
            "(until {} >/dev/null 2>&1; do sleep 0.05; done) &",
            quote(&task.argv)
        ));
    }
    lines.push("wait".to_owned());
    lines.join("\n")
}

/// The smallest OCI bundle that a node runs in.
fn bundle(home: &Path) -> Value {
    let capabilities: Vec<&str> = vec![
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
        "CAP_SYS_TIME",
        "CAP_SYS_TTY_CONFIG",
        "CAP_MKNOD",
        "CAP_LEASE",
        "CAP_AUDIT_WRITE",
        "CAP_AUDIT_CONTROL",
        "CAP_SETFCAP",
        "CAP_SYSLOG",
        "CAP_BLOCK_SUSPEND",
        "CAP_AUDIT_READ",
    ];
    let bind = |from: &str, to: &str| json!({ "destination": to, "type": "bind", "source": home.join(from), "options": ["rbind", "rw"] });
    json!({
        "ociVersion": "1.0.2",
        "hostname": "aks-nodepool1-00000000-vmss000000",
        "root": { "path": "rootfs" },
        "process": {
            "terminal": false, "cwd": "/", "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/sh", "/floor.sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666", "mode=0620"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm" },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue" },
            { "destination": "/dev/kmsg", "type": "bind", "source": "/dev/kmsg", "options": ["bind", "rw"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "rw"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "rw"] },
            { "destination": "/run", "type": "tmpfs", "source": "tmpfs" },
            { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" },
            bind("containerd", "/var/lib/containerd"),
            bind("kubelet", "/var/lib/kubelet"),
            bind("log", "/var/log"),
        ],
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "cgroup" },
                { "type": "network", "path": format!("/run/netns/{NODE}") }
            ],
            "cgroupsPath": "/lfbench/node",
            "rootfsPropagation": "rshared",
            "resources": { "devices": [{ "allow": true, "access": "rwm" }] }
        }
    })
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "{program} {arguments:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The cluster that floor and product both make: kubenet, one node.
pub(crate) fn spec(version: &str) -> Result<ClusterSpec> {
    use cluster_spec::{DEFAULT_VM_SIZE, NetworkProfile, PodNetworking, PoolMode, PoolSpec};
    Ok(ClusterSpec {
        name: "floor".into(),
        resource_group: "bench".into(),
        location: "local".into(),
        node_resource_group: "MC_bench_floor_local".into(),
        fqdn: "floor.hcp.local.landfall.internal".into(),
        kubernetes_version: version.into(),
        network: NetworkProfile {
            plugin: PodNetworking::Kubenet,
            vnet_range: "10.224.0.0/12".parse()?,
            node_range: "10.224.0.0/16".parse()?,
            control_plane_range: "10.239.255.240/28".parse()?,
            pod_range: Some("10.244.0.0/16".parse()?),
            service_range: "10.0.0.0/16".parse()?,
            dns_service_ip: Ipv4Addr::new(10, 0, 0, 10),
            outbound: true,
            vnet: None,
            policy: Default::default(),
        },
        pools: vec![PoolSpec {
            name: "nodepool1".into(),
            count: 1,
            vm_size: DEFAULT_VM_SIZE.into(),
            mode: PoolMode::System,
            kubernetes_version: version.into(),
            image: None,
            max_pods: 110,
            labels: std::collections::BTreeMap::new(),
            taints: Vec::new(),
            os_disk_gib: 128,
            incarnation: "floor".into(),
            surge: 1,
            unavailable: 0,
            drain_minutes: cluster_spec::DRAIN_MINUTES,
            soak_minutes: 0,
            undrainable: Default::default(),
            removed: Default::default(),
            renewed: None,
            subnet: None,
            stopped: false,
            autoscale: None,
        }],
        disable_local_accounts: false,
        tier: cluster_spec::Tier::Free,
        restore: None,
        stopped: false,
        archived: false,
        access: Default::default(),
        issuer: None,
        workload_identity: false,
        directory: None,
        // The drivers of disks and shares are a program of Landfall's.
        disks_off: true,
        files_off: true,
        snapshots_off: true,
        ingress: Default::default(),
        autoscaler: Default::default(),
        rotations: Default::default(),
        forced_until: None,
        emulated: None,
    })
}
