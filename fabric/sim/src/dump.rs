//! The world as text.

use std::fmt::Write;

use fabric_api::Power;

use crate::state::{Machine, State};

/// Sorted, without times, one thing a line.
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
    }
    for machine in state.machines.values() {
        line(&machine_line(machine));
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
