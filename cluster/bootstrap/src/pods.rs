//! How pods of a node get addresses, and under which address they leave it.

use std::net::Ipv4Addr;

use agent_protocol::File;
use cluster_spec::{ClusterSpec, PodNetworking};
use serde_json::{Value, json};

use crate::{BootstrapError, NodePlace, object};

const CNI_FILE: &str = "/etc/cni/net.d/10-landfall.conflist";

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
            "type": "bridge", "bridge": "cbr0", "isGateway": true, "ipMasq": false, "hairpinMode": true, "mtu": 1500,
            "ipam": { "type": "host-local", "ranges": [[{ "subnet": range()? }]], "routes": default_route }
        }),
        PodNetworking::AzureOverlay => json!({
            "type": "ptp", "ipMasq": false, "mtu": 1500,
            "ipam": { "type": "host-local", "ranges": [[{ "subnet": range()? }]], "routes": default_route }
        }),
        PodNetworking::AzureFlat => {
            let block = range()?;
            json!({
                "type": "ptp", "ipMasq": false, "mtu": 1500,
                "ipam": {
                    "type": "host-local",
                    // The node itself is its pods' gateway: the subnet's own gateway must not become a local address.
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

/// Source translation on the node: pods appear under their node's address outside the cluster's ranges.
///
/// kubenet and overlay: everywhere but among pods. Flat: everywhere but in the VNET. A cluster without outbound traffic
/// still reaches its own API server.
pub(crate) fn nat(spec: &ClusterSpec, node: &NodePlace, vip: Ipv4Addr) -> String {
    let profile = &spec.network;
    let from = profile.pod_range.or(node.pod_range);
    let inside = profile.pod_range.unwrap_or(profile.vnet_range);
    let rule = match (profile.plugin, from) {
        (PodNetworking::None, _) | (_, None) => String::new(),
        (_, Some(from)) if profile.outbound => {
            format!("ip saddr {from} ip daddr != {inside} oifname \"eth0\" masquerade")
        }
        (_, Some(from)) => {
            let control_plane = profile.control_plane_range;
            format!("ip saddr {from} ip daddr {{ {vip}, {control_plane} }} oifname \"eth0\" masquerade")
        }
    };
    // Declared, flushed, declared again: the same result however often it is loaded.
    format!(
        "table ip landfall\ndelete table ip landfall\ntable ip landfall {{\n  chain postrouting {{\n    \
         type nat hook postrouting priority srcnat; policy accept;\n    {rule}\n  }}\n}}\n"
    )
}
