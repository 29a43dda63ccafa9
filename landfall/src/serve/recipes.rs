//! Facts about this host for the recipes of clusters: its size, its name servers, and the address of the
//! token service.

use std::{collections::BTreeSet, net::IpAddr};

use cluster_addons::AddonOptions;
use cluster_bootstrap::{RegistryAccess, TokenAuthority};
use fabric_api::Uplink;
use service::KubernetesRecipes;

use crate::{host, stamp::Settings};

/// The recipes of this release, on this host.
pub(super) fn of_this_host(
    settings: &Settings,
    authority: TokenAuthority,
    registry: RegistryAccess,
) -> KubernetesRecipes {
    let upstream_dns = match settings.uplink {
        // The same name servers that machines get and their firewall permits. CoreDNS takes at most 15.
        Uplink::Host => fabric_container::host_name_servers()
            .into_iter()
            .take(3)
            .map(IpAddr::V4)
            .collect(),
        Uplink::None => Vec::new(),
    };
    KubernetesRecipes {
        addons: AddonOptions {
            upstream_dns,
            authority: format!("{}/", authority.url),
            authority_ca: authority.ca.clone(),
            tenant: authority.tenant.clone(),
            // Known to each cluster's loop.
            images: BTreeSet::new(),
        },
        authority,
        registry: Some(registry),
        host_cores: u32::try_from(host::cores()).unwrap_or(u32::MAX),
        // A generous guess if it is not known, since it only bounds the reservation.
        host_memory_mib: host::memory_mib().unwrap_or(8192),
        disk_limits: fabric_container::disk_limits_possible().is_ok(),
    }
}
