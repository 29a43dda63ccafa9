//! The node's part of the disk driver: a subcommand of the agent's binary, discovered by the kubelet.

use std::collections::BTreeMap;

use agent_protocol::{
    File, Probe, Process,
    programs::{CSI, CsiConfig},
};
use cluster_spec::{ClusterSpec, VmSize};
use cluster_volumes::DRIVER;

use crate::{NodePlace, configuration, members::beside, process::PATH};

const CONFIG: &str = "/etc/landfall/csi-disk.json";
/// The directory of drivers' sockets below the kubelet's `--root-dir`. PersistentVolumes in use name it: it
/// never changes.
const PLUGINS: &str = "/var/lib/kubelet/plugins";
/// The directory in which the kubelet discovers drivers.
const REGISTRY: &str = "/var/lib/kubelet/plugins_registry";
/// The kubelet stops first: it unmounts volumes of pods that end.
const STOP_ORDER: u8 = 2;

/// The number of data disks of a machine of this size: two per core, as Azure's D series, but at least those
/// of its smallest size.
pub(crate) fn most_volumes(size: &VmSize) -> u32 {
    (2 * size.cores).clamp(4, 32)
}

fn socket() -> String {
    format!("{PLUGINS}/{DRIVER}/csi.sock")
}

/// The program's configuration; none if the driver is off.
pub(crate) fn file(spec: &ClusterSpec, node: &NodePlace, size: &VmSize) -> Option<File> {
    let config = CsiConfig {
        driver: DRIVER.to_owned(),
        node: node.node_name.clone(),
        most_volumes: most_volumes(size),
        socket: socket(),
        // See `CsiConfig::registration` about the @.
        registration: format!("{REGISTRY}/landfall@{DRIVER}"),
    };
    (!spec.disks_off).then(|| configuration(CONFIG, &config))
}

/// The program; none if the driver is off.
pub(crate) fn process(spec: &ClusterSpec) -> Option<Process> {
    let probe = Probe::Unix { path: socket() };
    (!spec.disks_off).then(|| Process {
        env: BTreeMap::from([
            // A few threads with few allocations: one arena for all of them.
            ("MALLOC_ARENA_MAX".to_owned(), "1".to_owned()),
            ("PATH".to_owned(), PATH.to_owned()),
        ]),
        ..beside(CSI, CONFIG, Some(probe), STOP_ORDER)
    })
}

#[cfg(test)]
mod tests {
    use cluster_spec::{VM_SIZES, testkit};

    use super::*;

    fn node() -> NodePlace {
        NodePlace {
            node_name: "aks-np1-1-vmss000000".to_owned(),
            address: [10, 224, 0, 4].into(),
            pod_range: None,
            subscription: "s".to_owned(),
            machine: "m".to_owned(),
            own_disk: true,
            host_cores: 16,
            host_memory_mib: 65_536,
        }
    }

    #[test]
    fn a_machine_has_disks_by_its_size() {
        for size in VM_SIZES {
            let disks = most_volumes(size);
            assert!((4..=32).contains(&disks), "{}: {disks}", size.name);
        }
        let of = |cores: u32| {
            most_volumes(&VmSize {
                name: "x",
                cores,
                memory_mib: 0,
                disk_gib: 0,
            })
        };
        assert_eq!([1, 2, 4, 8, 16, 64].map(of), [4, 4, 8, 16, 32, 32]);
    }

    /// Otherwise HTTP rejects the host that the kubelet sends: percent signs may only stand before an `@`.
    #[test]
    fn a_kubelet_can_call_at_the_registration_socket() {
        let file = file(&testkit::cluster(), &node(), &VM_SIZES[0]).unwrap();
        let config: CsiConfig = serde_json::from_str(&file.content).unwrap();
        let (before, host) = config.registration.split_once('@').unwrap();
        assert!(before.starts_with(REGISTRY));
        let plain = |character: char| character.is_ascii_alphanumeric() || ".-".contains(character);
        assert!(!host.is_empty() && host.chars().all(plain), "{host}");
        // The kernel's length limit for socket paths.
        for path in [&config.registration, &config.socket] {
            assert!(path.len() < 108, "{path}");
        }
    }

    #[test]
    fn a_cluster_whose_driver_is_off_has_none() {
        let mut spec = testkit::cluster();
        assert!(file(&spec, &node(), &VM_SIZES[0]).is_some() && process(&spec).is_some());
        spec.disks_off = true;
        assert!(file(&spec, &node(), &VM_SIZES[0]).is_none() && process(&spec).is_none());
    }
}
