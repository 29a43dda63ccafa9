//! The load balancer annotations of AKS, each with its effect here.
//!
//! Always true: one table; an annotation that is not in it is reported as unknown, so that no user relies on
//! an ignored one.

/// The common prefix.
pub(crate) const PREFIX: &str = "service.beta.kubernetes.io/";

/// Requests an internal load balancer.
pub(crate) const INTERNAL: &str = "azure-load-balancer-internal";
/// The subnet of an internal one.
pub(crate) const SUBNET: &str = "azure-load-balancer-internal-subnet";
/// The requested address.
pub(crate) const ADDRESS: &str = "azure-load-balancer-ipv4";
/// The public IP address of a tenant, by its name.
pub(crate) const PIP_NAME: &str = "azure-pip-name";
/// The group of such an address.
pub(crate) const RESOURCE_GROUP: &str = "azure-load-balancer-resource-group";
/// Permitted clients, Kubernetes' own annotation.
pub(crate) const SOURCES: &str = "load-balancer-source-ranges";
/// Permitted clients, AKS' own annotation.
pub(crate) const IP_RANGES: &str = "azure-allowed-ip-ranges";
/// Permitted clients, by service tags.
pub(crate) const SERVICE_TAGS: &str = "azure-allowed-service-tags";
/// The suffix of an annotation that excludes one port.
const NO_RULE: &str = "_no_lb_rule";

/// The effect of an annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It has its documented effect.
    Effective,
    /// It is kept without effect; the sentence gives the reason.
    NoEffect,
    /// A Service with it gets no load balancer: without its effect, the Service would be a different one.
    Refused,
}

/// An annotation of AKS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Annotation {
    /// Its name without `service.beta.kubernetes.io/`.
    pub name: &'static str,
    /// Its effect.
    pub class: Class,
    /// The reason, or the effect: half a sentence.
    pub about: &'static str,
}

const fn row(name: &'static str, class: Class, about: &'static str) -> Annotation {
    Annotation { name, class, about }
}

/// All annotations.
pub const ANNOTATIONS: &[Annotation] = &[
    row(
        INTERNAL,
        Class::Effective,
        "the address is one of the nodes' subnet",
    ),
    row(
        SUBNET,
        Class::Effective,
        "the subnet that the address is of: aks-subnet",
    ),
    row(ADDRESS, Class::Effective, "the address, as spec.loadBalancerIP"),
    row(
        SOURCES,
        Class::Effective,
        "who may connect, as spec.loadBalancerSourceRanges",
    ),
    row(IP_RANGES, Class::Effective, "ranges that may connect as well"),
    row(
        SERVICE_TAGS,
        Class::Effective,
        "service tags that may connect: VirtualNetwork, Internet",
    ),
    row(
        "azure-deny-all-except-load-balancer-source-ranges",
        Class::Effective,
        "nobody connects who is in none of the ranges, the VNET included; that is always so here",
    ),
    row(
        PIP_NAME,
        Class::Effective,
        "the public IP address resource of this name; other Services with other ports may have it as well",
    ),
    row(
        RESOURCE_GROUP,
        Class::Effective,
        "the group of azure-pip-name; without it, the group of the nodes",
    ),
    row("azure-pip-name-ipv6", Class::Refused, "there is no IPv6"),
    row(
        "azure-pip-prefix-id",
        Class::Refused,
        "there are no public IP prefixes; name an address with azure-pip-name",
    ),
    row("azure-pip-prefix-id-ipv6", Class::Refused, "there is no IPv6"),
    row("azure-load-balancer-ipv6", Class::Refused, "there is no IPv6"),
    row(
        "azure-additional-public-ips",
        Class::Refused,
        "a Service has one address",
    ),
    row(
        "azure-load-balancer-enable-high-availability-ports",
        Class::Refused,
        "ports are named one by one; list them in spec.ports",
    ),
    row(
        "azure-load-balancer-mode",
        Class::NoEffect,
        "all nodes are behind it",
    ),
    row(
        "azure-load-balancer-configurations",
        Class::NoEffect,
        "there is one load balancer for a cluster",
    ),
    row("azure-dns-label-name", Class::NoEffect, "addresses get no names"),
    row(
        "azure-shared-securityrule",
        Class::NoEffect,
        "no rules of security groups are written for a Service",
    ),
    row(
        "azure-pip-tags",
        Class::NoEffect,
        "give tags to an address of your own, with az, and name it with azure-pip-name",
    ),
    row(
        "azure-pip-ip-tags",
        Class::NoEffect,
        "addresses have no tags of routing",
    ),
    row(
        "azure-load-balancer-tcp-idle-timeout",
        Class::NoEffect,
        "the host's own timeouts go for connections",
    ),
    row(
        "azure-load-balancer-disable-tcp-reset",
        Class::NoEffect,
        "the host's own timeouts go for connections",
    ),
    row(
        "azure-disable-load-balancer-floating-ip",
        Class::NoEffect,
        "nodes always see connections at the node port",
    ),
    row(
        "azure-load-balancer-health-probe-protocol",
        Class::NoEffect,
        NO_PROBES,
    ),
    row(
        "azure-load-balancer-health-probe-request-path",
        Class::NoEffect,
        NO_PROBES,
    ),
    row(
        "azure-load-balancer-health-probe-interval",
        Class::NoEffect,
        NO_PROBES,
    ),
    row(
        "azure-load-balancer-health-probe-num-of-probe",
        Class::NoEffect,
        NO_PROBES,
    ),
    row("azure-pls-create", Class::NoEffect, NO_PRIVATE_LINK),
    row("azure-pls-name", Class::NoEffect, NO_PRIVATE_LINK),
    row("azure-pls-resource-group", Class::NoEffect, NO_PRIVATE_LINK),
    row(
        "azure-pls-ip-configuration-subnet",
        Class::NoEffect,
        NO_PRIVATE_LINK,
    ),
    row(
        "azure-pls-ip-configuration-ip-address-count",
        Class::NoEffect,
        NO_PRIVATE_LINK,
    ),
    row(
        "azure-pls-ip-configuration-ip-address",
        Class::NoEffect,
        NO_PRIVATE_LINK,
    ),
    row("azure-pls-fqdns", Class::NoEffect, NO_PRIVATE_LINK),
    row("azure-pls-proxy-protocol", Class::NoEffect, NO_PRIVATE_LINK),
    row("azure-pls-visibility", Class::NoEffect, NO_PRIVATE_LINK),
    row("azure-pls-auto-approval", Class::NoEffect, NO_PRIVATE_LINK),
];

const NO_PROBES: &str = "nothing is probed: nodes are in rotation by what is known of them";
const NO_PRIVATE_LINK: &str = "there is no private link service";

/// The class and the reason of an annotation, by its name without the prefix. `None`: not an annotation of
/// AKS.
pub(crate) fn class_of(name: &str) -> Option<(Class, &'static str)> {
    if let Some(known) = ANNOTATIONS.iter().find(|known| known.name == name) {
        return Some((known.class, known.about));
    }
    if name.starts_with("port_") {
        return Some(if name.ends_with(NO_RULE) {
            (Class::Effective, "the port is left out")
        } else {
            (Class::NoEffect, NO_PROBES)
        });
    }
    name.starts_with("azure-")
        .then_some((Class::NoEffect, "it is not known"))
}

/// The annotation that excludes a port, without the prefix.
pub(crate) fn no_rule(port: u16) -> String {
    format!("port_{port}{NO_RULE}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_has_one_row_and_a_reason() {
        let names: BTreeSet<_> = ANNOTATIONS.iter().map(|known| known.name).collect();
        assert_eq!(names.len(), ANNOTATIONS.len());
        assert!(ANNOTATIONS.iter().all(|known| !known.about.is_empty()));
    }

    #[test]
    fn what_is_not_in_the_table_is_told_as_unknown_if_it_looks_like_azures() {
        let class = |name: &str| class_of(name).map(|(class, _)| class);
        assert_eq!(class("azure-load-balancer-sky"), Some(Class::NoEffect));
        assert_eq!(class("aws-load-balancer-type"), None);
        assert_eq!(class("port_80_health-probe_interval"), Some(Class::NoEffect));
        assert_eq!(class(&no_rule(80)), Some(Class::Effective));
        assert_eq!(class(PIP_NAME), Some(Class::Effective));
        assert_eq!(class("azure-pip-prefix-id"), Some(Class::Refused));
    }
}
