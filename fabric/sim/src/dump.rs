//! The world as text.

use std::fmt::Write;

use cluster_api::QUARANTINED;
use fabric_api::{BalancedPort, FilterRule, Power};

use crate::state::{Machine, State};

/// Sorted, without times, one item per line.
pub(crate) fn dump(state: &State) -> String {
    let mut text = String::new();
    let mut line = |parts: &[String]| {
        let parts: Vec<&str> = parts
            .iter()
            .map(String::as_str)
            .filter(|part| !part.is_empty())
            .collect();
        writeln!(text, "{}", parts.join(" ")).expect("a string takes all that is written to it");
    };
    line(&[format!("stamp {}", if state.stamp { "up" } else { "down" })]);
    for network in state.networks.values() {
        let subnets: Vec<&str> = network
            .subnets
            .iter()
            .map(|subnet| subnet.name.as_str())
            .collect();
        line(&[format!(
            "network {} uplink={} subnets={}",
            network.id,
            network.uplink,
            subnets.join(",")
        )]);
        for route in &network.routes {
            line(&[format!("  route {} via {}", route.to, route.via)]);
        }
        for (subnet, filter) in network
            .subnets
            .iter()
            .filter_map(|subnet| Some((subnet, subnet.filter.as_ref()?)))
        {
            let rules = |rules: &[FilterRule]| -> String {
                let letters = rules.iter().map(|rule| if rule.allow { 'a' } else { 'd' });
                letters.collect()
            };
            line(&[format!(
                "  filter {} in={} out={}",
                subnet.name,
                rules(&filter.inbound),
                rules(&filter.outbound)
            )]);
        }
        for balancer in &network.balancers {
            let ports = balancer.ports.iter().map(balanced_port);
            let mut parts = vec![format!("  balancer {} {:?}", balancer.address, balancer.side)];
            parts.extend(ports);
            parts.extend(balancer.sources.iter().map(|range| format!("from={range}")));
            line(&parts);
        }
    }
    for machine in state.machines.values() {
        line(&machine_line(machine));
    }
    for disk in state.disks.values() {
        let attached = disk.attached.as_ref();
        line(&[
            format!("volume {} bytes={}", disk.spec.id, disk.spec.bytes),
            attached
                .map(|machine| format!("machine={machine}"))
                .unwrap_or_default(),
        ]);
    }
    for (uid, cluster) in &state.clusters {
        if cluster.nodes.is_empty() && cluster.objects.is_empty() && !state.api_ready(uid) {
            continue;
        }
        line(&[format!(
            "cluster {uid} api={}",
            if state.api_ready(uid) { "ready" } else { "away" }
        )]);
        for node in cluster.nodes.values() {
            let seen = &node.seen;
            line(&[
                format!("  node {}", seen.name),
                if seen.ready { "Ready" } else { "NotReady" }.into(),
                if seen.cordoned { "cordoned" } else { "" }.into(),
                seen.labels.get(QUARANTINED.0).cloned().unwrap_or_default(),
                seen.kubelet_version.clone(),
                seen.pod_range
                    .as_ref()
                    .map(|range| format!("pods={range}"))
                    .unwrap_or_default(),
                if node.serving_pending {
                    "serving=pending"
                } else {
                    ""
                }
                .into(),
                if seen.taints.is_empty() {
                    String::new()
                } else {
                    format!("taints={}", seen.taints.join(","))
                },
            ]);
        }
        for name in cluster.objects.keys() {
            line(&[format!("  object {name}")]);
        }
    }
    text
}

fn balanced_port(port: &BalancedPort) -> String {
    let machines: Vec<String> = port.machines.iter().map(ToString::to_string).collect();
    format!(
        "{:?}/{}->{}={}{}",
        port.protocol,
        port.port,
        port.target,
        machines.join(","),
        if port.sticky { ",sticky" } else { "" }
    )
}

fn machine_line(machine: &Machine) -> Vec<String> {
    let label = |name: &str| {
        let value = machine.spec.labels.get(name);
        value.map(|value| format!("{name}={value}")).unwrap_or_default()
    };
    let life = match (machine.power, machine.up, machine.ready) {
        (Power::Partial, ..) => "partial",
        (Power::Stopped, ..) => "stopped",
        (Power::Running, false, _) => "booting",
        (Power::Running, true, false) => "up",
        (Power::Running, true, true) => "ready",
    };
    vec![
        format!("machine {} {life} image={}", machine.spec.id, machine.spec.image),
        label("cluster"),
        label("role"),
        machine
            .spec
            .labels
            .get("node")
            .map(|node| format!("node={node}"))
            .unwrap_or_else(|| format!("host={}", machine.spec.hostname)),
        machine
            .address()
            .map(|address| format!("address={address}"))
            .unwrap_or_default(),
        format!(
            "generation={}",
            machine.in_force.as_ref().map_or(0, |config| config.generation)
        ),
    ]
}
