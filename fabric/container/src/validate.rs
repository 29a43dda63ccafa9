//! Refuses invalid specifications before any change. All values end up in scripts, paths and mount options,
//! so spaces, commas and `..` are not allowed.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    path::{Component, Path},
};

use fabric_api::{
    Attach, BalancedPort, Balancer, FabricError, MachineSpec, NetworkSpec, Protocol, Side, StampNetwork,
    VolumeSpec,
};

use crate::{ContainerConfig, disk};

/// Limit of a machine's seed files in bytes.
const SEED_MAX: usize = 4 << 20;

/// Step of volume sizes in bytes, and the largest size.
const VOLUME_STEP: u64 = 1 << 20;
const VOLUME_MAX: u64 = 32 << 40;

pub(crate) fn config(config: &ContainerConfig) -> Result<(), FabricError> {
    if !word(&config.stamp, 32, "-") || config.stamp.starts_with('-') {
        return Err(invalid(
            "stamp name",
            "use 1 to 32 of a-z, 0-9 and -, not - first",
        ));
    }
    for (what, path) in [
        ("state directory", &config.state_dir),
        ("run directory", &config.run_dir),
    ] {
        plain_path(what, path)?;
    }
    let prefix = config.network.range.prefix_len();
    if prefix > 28 || config.network.range.network() != config.network.range.addr() {
        return Err(invalid(
            "stamp network",
            "use a network address with at most 28 bits",
        ));
    }
    Ok(())
}

pub(crate) fn identity(what: &str, id: &str) -> Result<(), FabricError> {
    if word(id, 12, "") {
        Ok(())
    } else {
        Err(invalid(&format!("{what} id"), "use 1 to 12 of a-z and 0-9"))
    }
}

pub(crate) fn network(spec: &NetworkSpec, stamp: &StampNetwork) -> Result<(), FabricError> {
    identity("network", spec.id.as_str())?;
    let mut names = BTreeSet::new();
    for subnet in &spec.subnets {
        if !word(&subnet.name, 40, "-") || !names.insert(&subnet.name) {
            return Err(invalid("subnet name", "use 1 to 40 of a-z, 0-9 and -, each once"));
        }
        if !subnet.range.contains(&subnet.gateway) {
            return Err(invalid(
                &format!("gateway of subnet {}", subnet.name),
                "it is outside the subnet's range",
            ));
        }
        let filters = subnet.filter.iter();
        let mut rules = filters.flat_map(|filter| filter.inbound.iter().chain(&filter.outbound));
        if rules.any(|rule| {
            let mut ports = rule.from_ports.iter().chain(&rule.to_ports);
            ports.any(|range| range.first > range.last)
        }) {
            return Err(invalid(
                &format!("filter of subnet {}", subnet.name),
                "a range of ports ends before it begins",
            ));
        }
    }
    if !stamp.range.contains(&spec.uplink) {
        return Err(invalid("uplink address", "it is outside the stamp's network"));
    }
    let mut taken = BTreeSet::new();
    for balancer in &spec.balancers {
        let what = format!("balancer {}", balancer.address);
        balancer_address(spec, stamp, balancer).map_err(|why| invalid(&what, why))?;
        for port in &balancer.ports {
            balanced_port(spec, port).map_err(|why| invalid(&format!("{what}, port {}", port.port), why))?;
            if !taken.insert((balancer.address, port.protocol, port.port)) {
                return Err(invalid(
                    &format!("{what}, port {}", port.port),
                    "use each protocol and port of an address once",
                ));
            }
        }
    }
    Ok(())
}

/// The reason why a balancer cannot have its address.
fn balancer_address(
    spec: &NetworkSpec,
    stamp: &StampNetwork,
    balancer: &Balancer,
) -> Result<(), &'static str> {
    let address = balancer.address;
    match balancer.side {
        Side::Stamp if stamp.vips().contains(&address) => Ok(()),
        Side::Stamp => Err("use one of the stamp's VIPs, which are the upper half of its range"),
        Side::Subnet => {
            let mut subnets = spec.subnets.iter();
            let subnet = subnets
                .find(|subnet| subnet.range.contains(&address))
                .ok_or("use an address of one of the VNET's subnets")?;
            let reserved = [subnet.gateway, subnet.range.network(), subnet.range.broadcast()];
            if reserved.contains(&address) {
                Err("use an address that is neither the subnet's gateway nor its first or last one")
            } else {
                Ok(())
            }
        }
    }
}

/// The reason why a port is invalid.
fn balanced_port(spec: &NetworkSpec, port: &BalancedPort) -> Result<(), &'static str> {
    match port.protocol {
        Protocol::Tcp | Protocol::Udp => {}
        Protocol::Any | Protocol::Icmp | Protocol::Esp | Protocol::Ah => return Err("use TCP or UDP"),
    }
    if port.port == 0 || port.target == 0 {
        return Err("use ports from 1 to 65535, at the address and at the machines");
    }
    let inside = |machine: &Ipv4Addr| spec.subnets.iter().any(|subnet| subnet.range.contains(machine));
    if port.machines.iter().all(inside) {
        Ok(())
    } else {
        Err("use machines that are in the VNET's subnets")
    }
}

pub(crate) fn machine(spec: &MachineSpec) -> Result<(), FabricError> {
    identity("machine", spec.id.as_str())?;
    if !word(&spec.hostname, 63, "-") || spec.hostname.starts_with('-') || spec.hostname.ends_with('-') {
        return Err(invalid("host name", "use an RFC 1123 label"));
    }
    if spec.cpu_millis < 10 || spec.memory_mib < 8 {
        return Err(invalid("size", "give at least 10 millicores and 8 MiB"));
    }
    let mut names = BTreeSet::new();
    for card in &spec.nics {
        if !word(&card.name, 15, "-") || card.name == "lo" || !names.insert(&card.name) {
            return Err(invalid(
                "network card name",
                "use 1 to 15 of a-z, 0-9 and -, each once",
            ));
        }
        if let Attach::Subnet { network, subnet } = &card.attach {
            identity("network", network.as_str())?;
            if !word(subnet, 40, "-") {
                return Err(invalid("subnet name", "use 1 to 40 of a-z, 0-9 and -"));
            }
        }
    }
    if spec.nics.iter().filter(|card| card.gateway.is_some()).count() > 1 {
        return Err(invalid("default gateway", "only one card may have one"));
    }
    if spec.seed_files.values().map(String::len).sum::<usize>() > SEED_MAX {
        return Err(invalid("seed files", "they are larger than 4 MiB together"));
    }
    for path in spec.seed_files.keys() {
        let plain = Path::new(path).is_absolute()
            && Path::new(path).file_name().is_some()
            && !path.ends_with('/')
            && Path::new(path)
                .components()
                .skip(1)
                .all(|part| matches!(part, Component::Normal(_)));
        if !plain || disk::is_volatile(Path::new(path)) {
            return Err(invalid(
                &format!("seed file {path}"),
                "use an absolute path on the machine's disk",
            ));
        }
    }
    Ok(())
}

pub(crate) fn volume(spec: &VolumeSpec) -> Result<(), FabricError> {
    identity("volume", spec.id.as_str())?;
    if spec.bytes == 0 || !spec.bytes.is_multiple_of(VOLUME_STEP) || spec.bytes > VOLUME_MAX {
        return Err(invalid(
            &format!("size of volume {}", spec.id),
            "use a multiple of 1 MiB that is more than none and at most 32 TiB",
        ));
    }
    if let Some(source) = &spec.source {
        identity("source volume", source.as_str())?;
        if *source == spec.id {
            return Err(invalid(
                &format!("source of volume {}", spec.id),
                "use another volume",
            ));
        }
    }
    Ok(())
}

/// A path that can be written into mount options and scripts without quoting.
pub(crate) fn plain_path(what: &str, path: &Path) -> Result<(), FabricError> {
    let text = path
        .to_str()
        .filter(|text| !text.contains([',', ':', '\\', '"']) && !text.contains(char::is_control));
    if path.is_absolute() && text.is_some() {
        Ok(())
    } else {
        Err(invalid(
            &format!("{what} {}", path.display()),
            "use an absolute path without comma, colon, quote or backslash",
        ))
    }
}

fn word(text: &str, max: usize, also: &str) -> bool {
    (1..=max).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || also.contains(c))
}

fn invalid(what: &str, why: &str) -> FabricError {
    FabricError::Invalid {
        what: what.to_owned(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fabric_api::MachineId;

    fn spec() -> MachineSpec {
        MachineSpec {
            id: MachineId::from("m1"),
            hostname: "aks-pool1-12345678-vmss000000".into(),
            image: "1.36.3".into(),
            cpu_millis: 1000,
            memory_mib: 512,
            disk_gib: None,
            nics: Vec::new(),
            seed_files: [("/etc/landfall/seed.json".to_owned(), "{}".to_owned())].into(),
            labels: Default::default(),
        }
    }

    #[test]
    fn what_could_leave_its_place_is_refused() {
        assert!(machine(&spec()).is_ok());
        for path in [
            "etc/x",
            "/etc/../x",
            "/",
            "/etc/",
            "/run/x",
            "/proc/1/x",
            "/etc/./x/..",
            "",
        ] {
            let mut spec = spec();
            spec.seed_files = [(path.to_owned(), String::new())].into();
            assert!(machine(&spec).is_err(), "{path}");
        }
        for id in ["", "../x", "a b", "A", "0123456789abc", "a/b", "a\nb"] {
            let mut spec = spec();
            spec.id = MachineId::from(id);
            assert!(machine(&spec).is_err(), "{id}");
        }
        for hostname in ["", "-a", "a.b", "a\nb"] {
            let mut spec = spec();
            spec.hostname = hostname.into();
            assert!(machine(&spec).is_err(), "{hostname}");
        }
        assert!(plain_path("x", Path::new("/a,b")).is_err());
        assert!(plain_path("x", Path::new("a")).is_err());
        assert!(plain_path("x", Path::new("/a b")).is_ok());
    }

    #[test]
    fn a_volume_has_a_whole_size_and_is_no_copy_of_itself() {
        let of = |id: &str, bytes: u64, source: Option<&str>| {
            let spec = VolumeSpec {
                id: id.into(),
                bytes,
                source: source.map(Into::into),
                shared: false,
                labels: Default::default(),
            };
            volume(&spec)
                .map_err(|error| error.to_string())
                .err()
                .unwrap_or_default()
        };
        for bytes in [1 << 20, 5 << 30, 32 << 40] {
            assert_eq!(of("v1", bytes, None), "");
        }
        assert_eq!(of("v1", 1 << 20, Some("v2")), "");
        for bytes in [0, 1, (1 << 20) + 512, (32 << 40) + (1 << 20)] {
            let error = of("v1", bytes, None);
            assert!(
                error.starts_with("invalid size of volume v1: use a multiple of 1 MiB"),
                "{error}"
            );
        }
        assert_eq!(
            of("v1", 1 << 20, Some("v1")),
            "invalid source of volume v1: use another volume"
        );
        for id in ["", "../x", "V1", "0123456789abc"] {
            assert!(of(id, 1 << 20, None).starts_with("invalid volume id: "), "{id}");
            let error = of("v1", 1 << 20, Some(id));
            assert!(error.starts_with("invalid source volume id: "), "{id}: {error}");
        }
    }

    #[test]
    fn a_balancer_has_an_address_of_its_side_and_each_port_once() {
        let stamp = StampNetwork {
            range: "100.64.16.0/20".parse().unwrap(),
            uplink: fabric_api::Uplink::None,
        };
        let balancers = |address: &str, side: Side, ports: &[(Protocol, u16, u16, &str)]| {
            let ports = ports
                .iter()
                .map(|(protocol, port, target, machine)| BalancedPort {
                    protocol: *protocol,
                    port: *port,
                    target: *target,
                    machines: [machine.parse().unwrap()].into(),
                    sticky: false,
                });
            let balancer = Balancer {
                address: address.parse().unwrap(),
                side,
                ports: ports.collect(),
                sources: Vec::new(),
            };
            let spec = NetworkSpec {
                id: fabric_api::NetworkId::from("na"),
                address_space: vec!["10.224.0.0/12".parse().unwrap()],
                subnets: vec![fabric_api::SubnetSpec {
                    name: "nodes".into(),
                    range: "10.224.0.0/16".parse().unwrap(),
                    gateway: "10.224.0.1".parse().unwrap(),
                    filter: None,
                    serves: None,
                }],
                reserved: Vec::new(),
                routes: Vec::new(),
                uplink: "100.64.16.10".parse().unwrap(),
                balancers: vec![balancer],
                egress: None,
            };
            network(&spec, &stamp)
                .map_err(|error| error.to_string())
                .err()
                .unwrap_or_default()
        };
        let http = (Protocol::Tcp, 80, 30080, "10.224.0.4");
        let dns = (Protocol::Udp, 80, 30053, "10.224.0.4");
        assert_eq!(balancers("100.64.24.5", Side::Stamp, &[http, dns]), "");
        assert_eq!(balancers("10.224.255.250", Side::Subnet, &[http]), "");
        for (address, side) in [
            ("100.64.16.5", Side::Stamp),
            ("100.64.32.5", Side::Stamp),
            ("10.224.0.9", Side::Stamp),
            ("100.64.24.5", Side::Subnet),
            ("10.225.0.9", Side::Subnet),
            ("10.224.0.1", Side::Subnet),
            ("10.224.0.0", Side::Subnet),
            ("10.224.255.255", Side::Subnet),
        ] {
            let error = balancers(address, side, &[http]);
            assert!(
                error.starts_with(&format!("invalid balancer {address}: use ")),
                "{error}"
            );
        }
        for ports in [
            &[http, http][..],
            &[(Protocol::Any, 80, 30080, "10.224.0.4")],
            &[(Protocol::Icmp, 80, 30080, "10.224.0.4")],
            &[(Protocol::Tcp, 80, 0, "10.224.0.4")],
            &[(Protocol::Tcp, 80, 30080, "10.230.0.4")],
        ] {
            let error = balancers("100.64.24.5", Side::Stamp, ports);
            assert!(
                error.starts_with("invalid balancer 100.64.24.5, port 80: use "),
                "{error}"
            );
        }
    }
}
