//! A node machine, and its node object.

use std::{collections::BTreeMap, net::Ipv4Addr};

use agent_protocol::{Command, LEVEL, MachineConfig, Probe, Process, Task};
use cluster_addons::Image;
use cluster_api::NodeWish;
use cluster_pki::{ClusterPki, Subject};
use cluster_spec::{ClusterSpec, PoolSpec, node_image_version, vm_size};
use jiff::Timestamp;

use crate::{
    API_PORT, BootstrapError, NodePlace, containerd, extras, images, kubeconfig, kubelet, object, pair,
    paths::CA_FILE,
    plain, pods,
    process::{HANG_SECONDS, PATH},
    proxy, volumes, words,
};

const NAT_FILE: &str = "/etc/landfall/nat.nft";

/// The configuration of a node machine.
///
/// # Errors
/// When a certificate cannot be made, the size is unknown, or a pod range is missing.
pub fn node_config(
    spec: &ClusterSpec,
    pool: &PoolSpec,
    node: &NodePlace,
    pki: &ClusterPki,
    vip: Ipv4Addr,
    now: Timestamp,
    generation: u64,
) -> Result<MachineConfig, BootstrapError> {
    let size = vm_size(&pool.vm_size).ok_or_else(|| BootstrapError::UnknownSize(pool.vm_size.clone()))?;
    let server = format!("https://{vip}:{API_PORT}");
    let user = format!("system:node:{}", node.node_name);
    let kubelet_client = pki
        .cluster
        .issue(&Subject::client(&user).group("system:nodes"), now)?;
    let proxy_client = pki.cluster.issue(&Subject::client("system:kube-proxy"), now)?;

    let mut files = vec![
        plain(CA_FILE, pki.trusted_cluster()),
        object(
            kubelet::KUBECONFIG,
            &kubeconfig::component(&server, CA_FILE, &user, kubelet::IDENTITY),
        ),
        object(kubelet::CONFIG, &kubelet::config(spec, pool, node, size)),
        object(
            proxy::KUBECONFIG,
            &kubeconfig::component(&server, CA_FILE, "system:kube-proxy", proxy::IDENTITY),
        ),
        object(proxy::CONFIG, &proxy::config(spec, node)),
        plain(containerd::CONFIG, containerd::config()),
        plain(NAT_FILE, pods::nat(spec, node, vip)),
    ];
    files.extend(pair(kubelet::IDENTITY, &kubelet_client));
    files.extend(pair(proxy::IDENTITY, &proxy_client));
    files.extend(pods::cni(spec, node)?);
    files.extend(volumes::file(spec, node, size));
    files.extend(node.registry.iter().flat_map(containerd::registry));
    files.extend(extras::files(spec));

    let labels = kubelet::own_labels(&node_labels(spec, pool, node));
    let mut processes = vec![
        process(
            "containerd",
            words(["--config", containerd::CONFIG]),
            &[containerd::CONFIG],
            1,
            Probe::Unix {
                path: containerd::SOCKET.to_owned(),
            },
        ),
        Process {
            // It exits without a container runtime, and each start is an event of the node.
            after: words(["containerd"]),
            ..process(
                "kubelet",
                kubelet::flags(node, &labels, pki.signings()),
                &[kubelet::CONFIG, kubelet::KUBECONFIG, CA_FILE],
                3,
                Probe::Http {
                    url: "http://127.0.0.1:10248/healthz".to_owned(),
                    ca: None,
                    identity: None,
                },
            )
        },
        Process {
            // What it shows to the API server it reads again by itself, but only from time to time.
            restart: pki.signings().into(),
            ..process(
                "kube-proxy",
                vec![format!("--config={}", proxy::CONFIG)],
                &[proxy::CONFIG, proxy::KUBECONFIG, CA_FILE],
                2,
                Probe::Http {
                    url: "http://127.0.0.1:10256/livez".to_owned(),
                    ca: None,
                    identity: None,
                },
            )
        },
    ];
    processes.extend(volumes::process(spec));
    Ok(MachineConfig {
        generation,
        level: LEVEL,
        role: "node".to_owned(),
        files,
        setup: setup(spec),
        processes,
        // The pause image first: no pod can start without it.
        tasks: [images::PAUSE, images::BUSYBOX]
            .into_iter()
            .chain(cluster_addons::images())
            .map(import)
            .chain(extras::tasks(spec))
            .collect(),
    })
}

fn process(name: &str, flags: Vec<String>, restart_on: &[&str], stop_order: u8, probe: Probe) -> Process {
    let mut argv = vec![format!("/usr/local/bin/{name}")];
    argv.extend(flags);
    Process {
        name: name.to_owned(),
        argv,
        env: BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]),
        probe: Some(probe),
        restart_on: restart_on.iter().map(|path| (*path).to_owned()).collect(),
        stop_order,
        grace_seconds: 10,
        hang_seconds: Some(HANG_SECONDS),
        ..Process::default()
    }
}

fn import(image: Image) -> Task {
    let file = format!("/opt/landfall/images/{}.tar", image.name);
    Task {
        name: format!("import-{}", image.name),
        argv: words([
            "/usr/local/bin/ctr",
            "--namespace",
            "k8s.io",
            "images",
            "import",
            // Imported by the client itself: containerd's transfer service needs three times the processor
            // time for the same archive, at the cost of API servers that start at the same time.
            // API server that starts beside it has to do without.
            "--local",
            // Never garbage-collected: it cannot be pulled again.
            "--label",
            "io.cri-containerd.pinned=pinned",
            &file,
        ]),
    }
}

/// On a cgroup v2 host a group with processes cannot have children with controllers: all running processes
/// are moved to a leaf, and the controllers that a kubelet needs must be available. On v1 this file does not
/// exist and nothing is done.
const LEAF: &str = "root=/sys/fs/cgroup; [ -f $root/cgroup.controllers ] || exit 0; mkdir -p $root/init || exit 1; \
    for pid in $(cat $root/cgroup.procs); do echo $pid >> $root/init/cgroup.procs; done 2>/dev/null; \
    for controller in $(cat $root/cgroup.controllers); do echo +$controller >> $root/cgroup.subtree_control; done 2>/dev/null; \
    for controller in cpu memory pids; do grep -qw $controller $root/cgroup.subtree_control || exit 1; done";

/// A kubelet requires these values, and would write different ones for the whole host. A machine must not do
/// that: in it, a file with the required value is mounted over each one that differs.
const KERNEL: &str = "place=/run/landfall/kernel; mkdir -p $place; for wish in vm/overcommit_memory=1 vm/panic_on_oom=0 \
    kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do \
    name=${wish%=*}; value=${wish#*=}; [ \"$(cat /proc/sys/$name)\" = $value ] && continue; \
    file=$place/$(echo $name | tr / .); echo $value > $file && mount --bind $file /proc/sys/$name || exit 1; done";

/// A pod with a user namespace of its own (`hostUsers: false`) mounts `/proc` and `/sys`. The kernel permits that only while a `/proc` and a `/sys`
/// of the machine show everything (`mount_too_revealing` in `fs/namespace.c`). Those in place do not: files are mounted over them, by the fabric and above. So
/// there is a second one of each, and over both a file system without anything in it: the kernel counts them, and no path leads to them.
///
/// Where they cannot be mounted, everything else works: the log of `setup` says what does not.
const VISIBLE: &str = "place=/run/landfall/visible; mounted() { grep -q \"^[^ ]* $1 $2 \" /proc/self/mounts; }; \
    all() { mkdir -p $place/proc $place/sys && { mounted $place/proc proc || mount -t proc -o nosuid,nodev,noexec proc $place/proc; } && \
    { mounted $place/sys sysfs || mount -t sysfs -o ro,nosuid,nodev,noexec sysfs $place/sys; } && \
    mount -t tmpfs -o ro,nosuid,nodev,noexec,size=4k,mode=0 none $place; }; \
    mounted $place tmpfs || all || echo 'pods with hostUsers: false do not start: their /proc and /sys are refused'";

/// Once per boot, before any process. Each command may be repeated.
fn setup(spec: &ClusterSpec) -> Vec<Command> {
    let mut commands = vec![
        words(["mount", "--make-rshared", "/"]),
        words(["sh", "-c", LEAF]),
        words(["sh", "-c", KERNEL]),
        words(["sh", "-c", VISIBLE]),
        words([
            "sysctl",
            "-qw",
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.default.rp_filter=0",
        ]),
        words(["nft", "-f", NAT_FILE]),
    ];
    commands.extend(pods::setup(spec));
    let commands = commands.into_iter().map(|argv| Command { argv });
    commands.chain(extras::setup(spec)).collect()
}

/// The desired state of the node's object.
pub fn node_wish(spec: &ClusterSpec, pool: &PoolSpec, node: &NodePlace) -> NodeWish {
    NodeWish {
        name: node.node_name.clone(),
        // With flat networking pods have addresses of the subnet; the node has no pod range.
        pod_range: node.pod_range.filter(|_| spec.network.pod_range.is_some()),
        labels: node_labels(spec, pool, node),
        taints: pool.taints.clone(),
        inherited: None,
        takes_pods: true,
        address: Some(node.address),
    }
}

/// A new node of a pool, as the scheduler sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeTemplate {
    /// Its labels, except that of its name.
    pub labels: BTreeMap<String, String>,
    /// Allocatable thousandths of a core.
    pub cpu_millis: u64,
    /// Allocatable bytes of memory.
    pub memory_bytes: u64,
    /// Its limit of disks; `None` if the disk driver is off.
    pub volumes: Option<u32>,
}

/// A new node of a pool before it exists. `None`: its size is not in the catalogue.
pub fn node_template(spec: &ClusterSpec, pool: &PoolSpec) -> Option<NodeTemplate> {
    let size = vm_size(&pool.vm_size)?;
    let (cpu_millis, memory_bytes) = kubelet::allocatable(size, pool.max_pods);
    let place = NodePlace {
        node_name: format!("aks-{}-{}-vmss000000", pool.name, pool.incarnation),
        address: Ipv4Addr::UNSPECIFIED,
        pod_range: None,
        subscription: String::new(),
        machine: String::new(),
        host_cores: size.cores,
        host_memory_mib: size.memory_mib,
        own_disk: true,
        registry: None,
    };
    let mut labels = node_labels(spec, pool, &place);
    let arch = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    // Labels that the kubelet sets itself.
    for (name, value) in [
        ("kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/arch", arch),
    ] {
        labels.insert(name.to_owned(), value.to_owned());
    }
    Some(NodeTemplate {
        labels,
        cpu_millis,
        memory_bytes,
        volumes: (!spec.disks_off).then(|| volumes::most_volumes(size)),
    })
}

/// AKS' labels of a node, and the pool's own.
fn node_labels(spec: &ClusterSpec, pool: &PoolSpec, node: &NodePlace) -> BTreeMap<String, String> {
    let (cores, memory_gib) =
        vm_size(&pool.vm_size).map_or((0, 0), |size| (size.cores, size.memory_mib / 1024));
    let azure = [
        ("agentpool", pool.name.clone()),
        ("cluster", spec.node_resource_group.clone()),
        ("mode", pool.mode.label().to_owned()),
        ("role", "agent".to_owned()),
        ("managedby", "aks".to_owned()),
        ("os-sku", "Debian".to_owned()),
        (
            "node-image-version",
            node_image_version(&pool.kubernetes_version, pool.image.as_deref()),
        ),
        ("nodepool-type", "VirtualMachineScaleSets".to_owned()),
        ("priority", "regular".to_owned()),
        ("storageprofile", "managed".to_owned()),
        ("storagetier", "Premium_LRS".to_owned()),
        ("sku-cpu", cores.to_string()),
        ("sku-memory", memory_gib.to_string()),
        ("fips_enabled", "false".to_owned()),
        ("network-name", "aks-vnet".to_owned()),
        ("network-subnet", "aks-subnet".to_owned()),
    ];
    let mut labels: BTreeMap<String, String> = azure
        .into_iter()
        .map(|(name, value)| (format!("kubernetes.azure.com/{name}"), value))
        .collect();
    for (name, value) in [
        ("agentpool", pool.name.as_str()),
        ("kubernetes.io/role", "agent"),
        ("node-role.kubernetes.io/agent", ""),
        ("node.kubernetes.io/instance-type", pool.vm_size.as_str()),
        ("beta.kubernetes.io/instance-type", pool.vm_size.as_str()),
        ("topology.kubernetes.io/region", spec.location.as_str()),
        ("failure-domain.beta.kubernetes.io/region", spec.location.as_str()),
        // AKS: machines outside zones have their fault domain, "0".
        ("topology.kubernetes.io/zone", "0"),
        ("failure-domain.beta.kubernetes.io/zone", "0"),
    ] {
        labels.insert(name.to_owned(), value.to_owned());
    }
    let scale_set = node.node_name.rsplit_once("vmss").map_or("", |(pool, _)| pool);
    labels.insert(
        "kubernetes.azure.com/scaleset".to_owned(),
        format!("{scale_set}vmss"),
    );
    labels.extend(pool.labels.clone());
    for value in labels.values_mut() {
        *value = label_value(value);
    }
    labels
}

/// A text as a label value: a kubelet with an invalid label does not start, and names of resource groups may
/// be longer and have other characters. As in AKS: invalid characters become hyphens, the value is cut to 63
/// characters, and a last character that is no letter or digit becomes a `z`. Valid values stay.
fn label_value(text: &str) -> String {
    let mut value: Vec<char> = text
        .chars()
        .map(|own| match own {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' => own,
            _ => '-',
        })
        .take(63)
        .collect();
    for end in [0, value.len().saturating_sub(1)] {
        if let Some(end) = value.get_mut(end).filter(|end| !end.is_ascii_alphanumeric()) {
            *end = 'z';
        }
    }
    value.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the script with a `mount` that only writes lines into the table of mounts, or refuses. Its output.
    fn visible(root: &std::path::Path, refuses: bool) -> String {
        let root = root.display();
        let mount = if refuses {
            "mount() { return 32; }".to_owned()
        } else {
            format!(
                "mount() {{ kind=$2; for last; do :; done; echo \"none $last $kind rw 0 0\" >> {root}/mounts; }}"
            )
        };
        let script = VISIBLE
            .replace("/proc/self/mounts", &format!("{root}/mounts"))
            .replace("/run/landfall/visible", &format!("{root}/visible"));
        let output = std::process::Command::new("sh")
            .args(["-c", &format!("{mount}; {script}")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_second_proc_and_sys_are_mounted_once_and_then_covered() {
        let root = tempfile::tempdir().unwrap();
        let table = root.path().join("mounts");
        let place = root.path().join("visible").display().to_string();
        // A longer name and another kind are others.
        let others = format!("none {place}/proc2 proc rw 0 0\nnone {place} ext4 rw 0 0\n");
        std::fs::write(&table, &others).unwrap();
        let mounted = || -> Vec<String> {
            let table = std::fs::read_to_string(&table).unwrap();
            let lines = table.lines().skip(2).map(|line| line.replace(&place, ""));
            lines.collect()
        };
        assert!(visible(root.path(), true).contains("hostUsers"));
        assert!(mounted().is_empty());
        let all = [
            "none /proc proc rw 0 0",
            "none /sys sysfs rw 0 0",
            "none  tmpfs rw 0 0",
        ];
        for _ in 0..2 {
            assert_eq!(visible(root.path(), false), "");
            assert_eq!(mounted(), all);
        }
        // It was killed before the last step.
        let table_of_before = format!("{others}none {place}/proc proc rw 0 0\n");
        std::fs::write(&table, table_of_before).unwrap();
        assert_eq!(visible(root.path(), false), "");
        assert_eq!(mounted(), all);
    }
}
