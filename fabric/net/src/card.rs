//! `ip -batch` scripts of machines' network interfaces.

use std::net::Ipv4Addr;

use fabric_api::{Attach, MachineSpec, NicSpec};

use crate::{Names, subnet_bridge};

/// The hardware address of an interface: computed from its VIP, or else from its address. A VIP that moves to
/// another machine keeps its hardware address, so that neighbours need not learn a new one.
pub fn card_mac(card: &NicSpec) -> String {
    mac(card.extra.first().copied().unwrap_or(card.address.addr()))
}

/// A locally administered unicast hardware address that holds an IPv4 address.
pub fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("0a:6c:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// Lines that attach an interface to its network: run on the host (stamp) or in the VNET's namespace
/// (subnet). The machine's namespace exists; the interface appears in it. `isolated`: its subnet has a
/// filter, so that its frames go to the router only.
pub fn port_script(names: &Names, machine: &MachineSpec, card: &NicSpec, isolated: bool) -> Vec<String> {
    let port = names.port(&machine.id, &card.name);
    let bridge = match &card.attach {
        Attach::Stamp => names.bridge(),
        Attach::Subnet { subnet, .. } => subnet_bridge(subnet),
    };
    let mut script = vec![format!(
        "link add {port} master {bridge} type veth peer name {} address {} netns {}",
        card.name,
        card_mac(card),
        names.machine_namespace(&machine.id)
    )];
    if isolated {
        script.push(isolation(&port, true));
    }
    script.push(format!("link set {port} up"));
    script
}

/// The line that restricts a bridge port to frames from and to the bridge itself, or lifts this.
pub(crate) fn isolation(port: &str, isolated: bool) -> String {
    let word = if isolated { "on" } else { "off" };
    format!("link set {port} type bridge_slave isolated {word}")
}

/// The script that sets addresses and routes inside a machine's new namespace, after all interfaces are
/// attached.
pub fn machine_script(machine: &MachineSpec) -> Vec<String> {
    let mut script = vec!["link set lo up".to_owned()];
    for card in &machine.nics {
        let name = &card.name;
        script.push(format!("address add {} dev {name}", card.address));
        script.extend(
            card.extra
                .iter()
                .map(|address| format!("address add {address}/32 dev {name}")),
        );
        script.push(format!("link set {name} up"));
    }
    // After all interfaces: a route may use a later one.
    for card in &machine.nics {
        let name = &card.name;
        script.extend(
            card.gateway
                .map(|gateway| format!("route replace default via {gateway} dev {name}")),
        );
        script.extend(
            card.routes
                .iter()
                .map(|route| format!("route replace {} via {} dev {name}", route.to.trunc(), route.via)),
        );
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;
    use fabric_api::{MachineId, NetworkId, RouteSpec};

    #[test]
    fn a_control_plane_has_a_card_in_each_network() {
        let card = |name: &str, attach, address: &str| NicSpec {
            name: name.into(),
            attach,
            address: address.parse().unwrap(),
            extra: Vec::new(),
            gateway: None,
            routes: Vec::new(),
            sending: None,
        };
        let mut eth0 = card("eth0", Attach::Stamp, "100.64.16.7/20");
        eth0.extra = vec!["100.64.24.3".parse().unwrap()];
        eth0.gateway = Some("100.64.16.1".parse().unwrap());
        let mut eth1 = card(
            "eth1",
            Attach::Subnet {
                network: NetworkId::from("n1"),
                subnet: "control-plane".into(),
            },
            "10.239.0.4/24",
        );
        eth1.routes = vec![RouteSpec {
            to: "10.224.0.0/12".parse().unwrap(),
            via: "10.239.0.1".parse().unwrap(),
        }];
        let machine = MachineSpec {
            id: MachineId::from("m1"),
            hostname: "m1".into(),
            image: "1.36.3".into(),
            cpu_millis: 1000,
            memory_mib: 512,
            disk_gib: None,
            nics: vec![eth0, eth1],
            seed_files: Default::default(),
            labels: Default::default(),
        };
        let names = Names::new("a");
        assert_eq!(
            machine_script(&machine),
            [
                "link set lo up",
                "address add 100.64.16.7/20 dev eth0",
                "address add 100.64.24.3/32 dev eth0",
                "link set eth0 up",
                "address add 10.239.0.4/24 dev eth1",
                "link set eth1 up",
                "route replace default via 100.64.16.1 dev eth0",
                "route replace 10.224.0.0/12 via 10.239.0.1 dev eth1",
            ]
        );
        let script = port_script(&names, &machine, &machine.nics[0], false);
        // The hardware address follows the VIP.
        assert!(
            script[0].contains("peer name eth0 address 0a:6c:64:40:18:03"),
            "{}",
            script[0]
        );
        assert!(script[0].contains(&format!("master {}", names.bridge())));
        let script = port_script(&names, &machine, &machine.nics[1], false);
        assert!(script[0].contains(&format!("master {}", subnet_bridge("control-plane"))));
        assert_eq!(script.len(), 2);
        // It must never be up and attached without isolation.
        let script = port_script(&names, &machine, &machine.nics[1], true);
        assert!(
            script[1].ends_with("type bridge_slave isolated on") && script[2].ends_with(" up"),
            "{script:?}"
        );
    }
}
