//! What the recipes of clusters have to know about this host: its size, and whom it asks for names.

use std::net::IpAddr;

use cluster_addons::AddonOptions;
use fabric_api::Uplink;
use service::KubernetesRecipes;

use crate::{host, stamp::Settings};

/// The recipes of this release, on this host.
pub(super) fn of_this_host(settings: &Settings) -> KubernetesRecipes {
    let upstream_dns = match settings.uplink {
        Uplink::Host => host_dns(),
        Uplink::None => Vec::new(),
    };
    KubernetesRecipes {
        addons: AddonOptions { upstream_dns },
        host_cores: u32::try_from(host::cores()).unwrap_or(u32::MAX),
        // A generous guess where it cannot be known, since it only bounds what is reserved.
        host_memory_mib: host::memory_mib().unwrap_or(8192),
    }
}

/// The host's own name servers that a machine can reach, too: not those on loopback.
fn host_dns() -> Vec<IpAddr> {
    // Where a local resolver stands in between, systemd keeps the real ones here.
    ["/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .map(|text| name_servers(&text))
        .find(|servers| !servers.is_empty())
        .unwrap_or_default()
}

fn name_servers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| line.strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok())
        // CoreDNS takes at most 15; machines have no IPv6 yet.
        .filter(|address| address.is_ipv4() && !address.is_loopback())
        .take(3)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_on_loopback_are_of_no_use_to_a_machine() {
        let text = "# x\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver ::1\noptions edns0\n";
        assert_eq!(name_servers(text), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    }
}
