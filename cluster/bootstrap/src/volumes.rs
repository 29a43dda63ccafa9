//! The node's part of the drivers of disks and shares: one subcommand of the agent's binary for both,
//! discovered by the kubelet.

use std::collections::BTreeMap;

use agent_protocol::{
    File, Probe, Process,
    programs::{CSI, CsiConfig, CsiDriver},
};
use cluster_spec::{ClusterSpec, VmSize};
use cluster_volumes::{DRIVER, FILES};

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

fn socket(driver: &str) -> String {
    format!("{PLUGINS}/{driver}/csi.sock")
}

/// The names of the drivers that are on.
fn names(spec: &ClusterSpec) -> impl Iterator<Item = &'static str> {
    let disks = (!spec.disks_off).then_some(DRIVER);
    let shares = (!spec.files_off).then_some(FILES);
    disks.into_iter().chain(shares)
}

fn driver(name: &str, size: &VmSize) -> CsiDriver {
    let shares = name == FILES;
    CsiDriver {
        driver: name.to_owned(),
        shares,
        // Shares do not count as data disks of the machine.
        most_volumes: if shares { 0 } else { most_volumes(size) },
        socket: socket(name),
        // See `CsiDriver::registration` about the @.
        registration: format!("{REGISTRY}/landfall@{name}"),
    }
}

/// The program's configuration; none if both drivers are off.
pub(crate) fn file(spec: &ClusterSpec, node: &NodePlace, size: &VmSize) -> Option<File> {
    let mut drivers = names(spec).map(|name| driver(name, size));
    let config = CsiConfig {
        node: node.node_name.clone(),
        first: drivers.next()?,
        second: drivers.next(),
    };
    Some(configuration(CONFIG, &config))
}

/// The program; none if both drivers are off.
pub(crate) fn process(spec: &ClusterSpec) -> Option<Process> {
    let path = socket(names(spec).next()?);
    let probe = Probe::Unix { path };
    Some(Process {
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
            registry: None,
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
        let second = config.second.unwrap();
        assert!(second.shares && !config.first.shares);
        for driver in [config.first, second] {
            callable(&driver);
        }
    }

    fn callable(driver: &CsiDriver) {
        let (before, host) = driver.registration.split_once('@').unwrap();
        assert!(before.starts_with(REGISTRY));
        let plain = |character: char| character.is_ascii_alphanumeric() || ".-".contains(character);
        assert!(!host.is_empty() && host.chars().all(plain), "{host}");
        // The kernel's length limit for socket paths.
        for path in [&driver.registration, &driver.socket] {
            assert!(path.len() < 108, "{path}");
        }
    }

    #[test]
    fn a_cluster_whose_drivers_are_off_has_none() {
        let mut spec = testkit::cluster();
        assert!(file(&spec, &node(), &VM_SIZES[0]).is_some() && process(&spec).is_some());
        spec.disks_off = true;
        let file = |spec: &ClusterSpec| file(spec, &node(), &VM_SIZES[0]);
        let config: CsiConfig = serde_json::from_str(&file(&spec).unwrap().content).unwrap();
        assert!(config.first.shares && config.second.is_none());
        spec.files_off = true;
        assert!(file(&spec).is_none() && process(&spec).is_none());
    }
}
