//! The scope of support: what is covered, what is not, and what goes as well as it goes (C1 to C6). Shown, not argued.

use crate::{Area, Profile};

/// How far support goes for a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    /// It is supported.
    Covered,
    /// Installation and configuration, no more.
    Basic,
    /// As well as it goes.
    BestEffort,
    /// It is not supported.
    NotCovered,
}

impl Cover {
    /// As in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Covered => "Covered",
            Self::Basic => "Basic",
            Self::BestEffort => "BestEffort",
            Self::NotCovered => "NotCovered",
        }
    }
}

/// A subject of questions to support.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// The rule.
    pub rule: &'static str,
    /// What it is about, for people.
    pub title: &'static str,
    /// The area of a cluster that it belongs to, if it is one of a cluster's own.
    pub area: Option<Area>,
    /// How far support goes.
    pub cover: Cover,
    /// The profiles that say so.
    pub profiles: &'static [Profile],
}

const MANAGED: &[Profile] = &[Profile::Aks, Profile::Arc, Profile::Hci];
const HYBRID: &[Profile] = &[Profile::Arc, Profile::Hci];
const AKS: &[Profile] = &[Profile::Aks];
const ENGINE: &[Profile] = &[Profile::HubEngine];
const ALL_BUT_HUB: &[Profile] = &[Profile::Aks, Profile::Arc, Profile::Hci, Profile::HubEngine];

const fn subject(
    rule: &'static str,
    title: &'static str,
    area: Option<Area>,
    cover: Cover,
    profiles: &'static [Profile],
) -> Subject {
    Subject {
        rule,
        title,
        area,
        cover,
        profiles,
    }
}

/// All subjects.
pub const SUBJECTS: &[Subject] = &[
    subject(
        "C1",
        "connectivity to the API server and the other components of Kubernetes",
        Some(Area::ControlPlane),
        Cover::Covered,
        ALL_BUT_HUB,
    ),
    subject(
        "C1",
        "the control plane: its management, uptime and operation",
        Some(Area::ControlPlane),
        Cover::Covered,
        MANAGED,
    ),
    subject("C1", "etcd", Some(Area::Etcd), Cover::Covered, MANAGED),
    subject(
        "C1",
        "backups of etcd that nobody has to ask for",
        Some(Area::Etcd),
        Cover::Covered,
        AKS,
    ),
    subject(
        "C1",
        "load balancers, volumes and network of the platform, as the cluster uses them",
        Some(Area::Integration),
        Cover::Covered,
        ALL_BUT_HUB,
    ),
    subject(
        "C1",
        "questions about customization of the API server, etcd and CoreDNS",
        Some(Area::ControlPlane),
        Cover::Covered,
        MANAGED,
    ),
    subject(
        "C1",
        "DNS, packet loss, routing",
        Some(Area::Network),
        Cover::Covered,
        MANAGED,
    ),
    subject(
        "C1",
        "kubenet and Azure CNI, in networks of the service or your own",
        Some(Area::Network),
        Cover::Covered,
        AKS,
    ),
    subject(
        "C1",
        "ingress controllers, and the configuration of ingress and load balancers",
        Some(Area::Network),
        Cover::Covered,
        MANAGED,
    ),
    subject(
        "C1",
        "network performance and latency",
        Some(Area::Network),
        Cover::Covered,
        ALL_BUT_HUB,
    ),
    subject("C1", "network policies", Some(Area::Network), Cover::Covered, AKS),
    subject(
        "C2",
        "how to use Kubernetes",
        None,
        Cover::NotCovered,
        ALL_BUT_HUB,
    ),
    subject(
        "C2",
        "open source that is no part of the cluster, e.g. Istio or Envoy",
        None,
        Cover::NotCovered,
        ALL_BUT_HUB,
    ),
    subject(
        "C2",
        "open source where it meets the platform's provider, e.g. Helm",
        None,
        Cover::BestEffort,
        MANAGED,
    ),
    subject(
        "C2",
        "closed source of others",
        None,
        Cover::NotCovered,
        ALL_BUT_HUB,
    ),
    subject(
        "C2",
        "customization of networks beyond what is documented",
        Some(Area::Network),
        Cover::NotCovered,
        ALL_BUT_HUB,
    ),
    subject(
        "C2",
        "custom CNI plug-ins",
        Some(Area::Network),
        Cover::NotCovered,
        AKS,
    ),
    subject(
        "C2",
        "standing by, and work before anything is wrong",
        None,
        Cover::NotCovered,
        AKS,
    ),
    subject(
        "C3",
        "Flannel and Calico",
        Some(Area::Network),
        Cover::Basic,
        HYBRID,
    ),
    subject(
        "C4",
        "the engine's commands deploy, generate, upgrade and scale",
        None,
        Cover::Covered,
        ENGINE,
    ),
    subject(
        "C4",
        "what the engine makes of the platform: load balancers, security groups, networks, addresses, disks, machines",
        Some(Area::Integration),
        Cover::Covered,
        ENGINE,
    ),
    subject(
        "C4",
        "the base image of disconnected deployments",
        Some(Area::Nodes),
        Cover::Covered,
        ENGINE,
    ),
    subject(
        "C5",
        "production on fewer than three masters and three agents",
        None,
        Cover::NotCovered,
        ENGINE,
    ),
    subject(
        "C6",
        "endpoints that clusters need outside, published and tried",
        Some(Area::Network),
        Cover::Covered,
        MANAGED,
    ),
];

/// What a profile says.
pub fn of(profile: Profile) -> impl Iterator<Item = &'static Subject> {
    SUBJECTS
        .iter()
        .filter(move |subject| subject.profiles.contains(&profile))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_of_the_scope_has_subjects_and_every_area_is_covered() {
        for rule in ["C1", "C2", "C3", "C4", "C5", "C6"] {
            assert!(SUBJECTS.iter().any(|subject| subject.rule == rule), "{rule}");
        }
        let covered = |area: Area| of(Profile::Aks).any(|subject| subject.area == Some(area));
        assert!(
            [Area::ControlPlane, Area::Etcd, Area::Integration, Area::Network]
                .into_iter()
                .all(covered)
        );
        assert_eq!(of(Profile::Hub).count(), 0, "that document says nothing of scope");
    }
}
