//! Addresses of a node's pods, and their translation.

use std::net::Ipv4Addr;

use agent_protocol::File;
use cluster_spec::{ClusterSpec, PodNetworking};
use serde_json::{Value, json};

use crate::{BootstrapError, NodePlace, object, words};

const CNI_FILE: &str = "/etc/cni/net.d/10-landfall.conflist";
/// The assigned addresses. Removed at the machine's start, like the pods.
const LEASES: &str = "/run/landfall/cni";
/// The bridge of kubenet's pods.
const BRIDGE: &str = "cbr0";

/// The CNI configuration; none for `none`.
pub(crate) fn cni(spec: &ClusterSpec, node: &NodePlace) -> Result<Option<File>, BootstrapError> {
    let default_route = json!([{ "dst": "0.0.0.0/0" }]);
    let range = || {
        node.pod_range
            .ok_or_else(|| BootstrapError::NoPodRange(node.node_name.clone()))
    };
    let plugin: Value = match spec.network.plugin {
        PodNetworking::None => return Ok(None),
        PodNetworking::Kubenet => json!({
            "type": "bridge", "bridge": BRIDGE, "isGateway": true, "ipMasq": false, "hairpinMode": true,
            "portIsolation": true,
            "ipam": { "type": "host-local", "dataDir": LEASES, "ranges": [[{ "subnet": range()? }]], "routes": default_route }
        }),
        PodNetworking::AzureOverlay => json!({
            "type": "ptp", "ipMasq": false,
            "ipam": { "type": "host-local", "dataDir": LEASES, "ranges": [[{ "subnet": range()? }]], "routes": default_route }
        }),
        PodNetworking::AzureFlat => {
            let block = range()?;
            json!({
                "type": "ptp", "ipMasq": false,
                "ipam": {
                    "type": "host-local", "dataDir": LEASES,
                    // The node itself is its pods' gateway: the subnet's own gateway must not become a local
                    // address.
                    "ranges": [[{
                        "subnet": spec.network.node_range, "rangeStart": block.network(), "rangeEnd": block.broadcast(),
                        "gateway": node.address
                    }]],
                    "routes": default_route
                }
            })
        }
    };
    let list = json!({
        "cniVersion": "1.0.0", "name": "landfall",
        "plugins": [plugin, { "type": "portmap", "capabilities": { "portMappings": true } }]
    });
    Ok(Some(object(CNI_FILE, &list)))
}

/// Setup commands for pods' addresses, besides translation.
pub(crate) fn setup(spec: &ClusterSpec) -> Vec<Vec<String>> {
    match spec.network.plugin {
        // Pods have addresses of the subnet: their node answers ARP requests for them, without a delay.
        PodNetworking::AzureFlat => vec![words([
            "sysctl",
            "-qw",
            "net.ipv4.conf.eth0.proxy_arp=1",
            "net.ipv4.neigh.eth0.proxy_delay=0",
        ])],
        // Pods of a bridge reach each other through the node: the bridge's ports are isolated and the node
        // answers ARP requests for all pods. Otherwise, on a host without br_netfilter, the answer of a
        // service's pod to a neighbour would never be translated back. With br_netfilter, a service's packets
        // would be sent straight over the bridge and lost: so it is off here, and all hosts behave alike.
        PodNetworking::Kubenet => vec![
            words([
                "sh",
                "-c",
                "for hook in iptables ip6tables arptables; do file=/proc/sys/net/bridge/bridge-nf-call-$hook; \
                 [ ! -f $file ] || echo 0 > $file || exit 1; done",
            ]),
            words([
                "sh",
                "-c",
                "ip link show cbr0 >/dev/null 2>&1 || ip link add cbr0 type bridge",
            ]),
            words([
                "sysctl",
                "-qw",
                "net.ipv4.conf.cbr0.proxy_arp_pvlan=1",
                "net.ipv4.neigh.cbr0.proxy_delay=0",
                // Packets that enter and leave by the bridge do so on purpose: no ICMP redirects.
                "net.ipv4.conf.all.send_redirects=0",
                "net.ipv4.conf.cbr0.send_redirects=0",
            ]),
        ],
        PodNetworking::AzureOverlay | PodNetworking::None => Vec::new(),
    }
}

/// Source translation on the node: outside the cluster's ranges pods appear under their node's address.
///
/// kubenet and overlay: except between pods. Flat: except in the VNET. In a cluster without outbound traffic
/// pods reach the cluster's own ranges and its API server, and other connections are rejected: here, so that
/// they are told apart from the node's own; what a node lets out all the same ends at the VNET's router
/// (`NetworkSpec::egress`).
pub(crate) fn nat(spec: &ClusterSpec, node: &NodePlace, vip: Ipv4Addr) -> String {
    let profile = &spec.network;
    let (translate, forbid) = match (profile.plugin, profile.pod_range.or(node.pod_range)) {
        (PodNetworking::None, _) | (_, None) => (String::new(), String::new()),
        (_, Some(from)) => {
            let inside = profile.pod_range.unwrap_or(profile.vnet_range);
            let translate = format!("ip saddr {from} ip daddr != {inside} oifname \"eth0\" masquerade");
            let space: Vec<String> = profile.space().iter().map(ToString::to_string).collect();
            let vnet = space.join(", ");
            let own = match profile.pod_range {
                Some(pods) => format!("{vip}, {vnet}, {pods}"),
                None => format!("{vip}, {vnet}"),
            };
            let forbid = if profile.outbound {
                String::new()
            } else {
                format!(
                    "ip saddr {from} ip daddr != {{ {own} }} oifname \"eth0\" reject with icmp admin-prohibited"
                )
            };
            (translate, forbid)
        }
    };
    // Declared, deleted, declared again, so that loading is idempotent.
    format!(
        r#"table ip landfall
delete table ip landfall
table ip landfall {{
  chain forward {{
    type filter hook forward priority filter; policy accept;
    {forbid}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    {translate}
  }}
}}
"#
    )
}
