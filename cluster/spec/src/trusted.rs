//! Roles of trusted access: what a resource of the stamp may be given in a cluster (`az aks trustedaccess`). Which resources a stamp has that
//! act by themselves decides which roles there are: user-assigned identities.

/// What a source of trusted access is: a resource type.
pub const TRUSTED_SOURCE: &str = "Microsoft.ManagedIdentity/userAssignedIdentities";

/// A role that a cluster can give to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedRole {
    /// Its last word: letters, digits and `-`.
    pub name: &'static str,
    /// All that it permits, in the whole cluster.
    pub rules: &'static [TrustedRule],
}

/// A rule of a role, in Kubernetes' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedRule {
    /// E.g. `get`.
    pub verbs: &'static [&'static str],
    /// Groups of the API; empty for a rule about paths.
    pub groups: &'static [&'static str],
    /// Resources in those groups; empty for a rule about paths.
    pub resources: &'static [&'static str],
    /// Paths that are no resources.
    pub paths: &'static [&'static str],
}

impl TrustedRule {
    const fn of(
        groups: &'static [&'static str],
        resources: &'static [&'static str],
        verbs: &'static [&'static str],
    ) -> Self {
        Self {
            verbs,
            groups,
            resources,
            paths: &[],
        }
    }
}

const READ: &[&str] = &["get", "list", "watch"];

/// All roles. None of them reads secrets, changes rights, or lets its holder be somebody else.
pub const TRUSTED_ROLES: &[TrustedRole] = &[
    TrustedRole {
        name: "reader",
        rules: &[
            TrustedRule::of(
                &[""],
                &[
                    "configmaps",
                    "endpoints",
                    "events",
                    "limitranges",
                    "namespaces",
                    "nodes",
                    "persistentvolumeclaims",
                    "persistentvolumes",
                    "pods",
                    "pods/log",
                    "replicationcontrollers",
                    "resourcequotas",
                    "serviceaccounts",
                    "services",
                ],
                READ,
            ),
            TrustedRule::of(
                &["apps"],
                &["daemonsets", "deployments", "replicasets", "statefulsets"],
                READ,
            ),
            TrustedRule::of(&["autoscaling"], &["horizontalpodautoscalers"], READ),
            TrustedRule::of(&["batch"], &["cronjobs", "jobs"], READ),
            TrustedRule::of(&["networking.k8s.io"], &["ingresses", "networkpolicies"], READ),
            TrustedRule::of(&["policy"], &["poddisruptionbudgets"], READ),
        ],
    },
    TrustedRole {
        name: "metrics-reader",
        rules: &[
            TrustedRule::of(&[""], &["nodes", "pods"], READ),
            TrustedRule::of(&[""], &["nodes/metrics", "nodes/stats"], &["get"]),
            TrustedRule::of(&["metrics.k8s.io"], &["nodes", "pods"], &["get", "list"]),
            TrustedRule {
                verbs: &["get"],
                groups: &[],
                resources: &[],
                paths: &["/metrics"],
            },
        ],
    },
    TrustedRole {
        name: "scaler",
        rules: &[
            TrustedRule::of(&["apps"], &["deployments", "replicasets", "statefulsets"], READ),
            TrustedRule::of(
                &["apps"],
                &["deployments/scale", "replicasets/scale", "statefulsets/scale"],
                &["get", "patch", "update"],
            ),
        ],
    },
];

impl TrustedRole {
    /// As requests name it: `{type of the source}/{name}`.
    pub fn full_name(&self) -> String {
        format!("{TRUSTED_SOURCE}/{}", self.name)
    }

    /// The role that a request names, ignoring case.
    pub fn named(full_name: &str) -> Option<&'static Self> {
        let (source, name) = full_name.rsplit_once('/')?;
        let mut all = TRUSTED_ROLES.iter();
        all.find(|role| source.eq_ignore_ascii_case(TRUSTED_SOURCE) && role.name.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_found_by_its_full_name() {
        for role in TRUSTED_ROLES {
            assert_eq!(TrustedRole::named(&role.full_name()), Some(role));
            assert_eq!(TrustedRole::named(&role.full_name().to_uppercase()), Some(role));
            assert_eq!(TrustedRole::named(role.name), None);
        }
        assert_eq!(
            TrustedRole::named("Microsoft.DataProtection/backupVaults/reader"),
            None
        );
    }

    #[test]
    fn no_role_reads_secrets_or_changes_rights() {
        for rule in TRUSTED_ROLES.iter().flat_map(|role| role.rules) {
            for verb in ["*", "create", "delete", "impersonate", "bind", "escalate"] {
                assert!(!rule.verbs.contains(&verb), "{rule:?}");
            }
            for resource in [
                "*",
                "secrets",
                "serviceaccounts/token",
                "pods/exec",
                "nodes/proxy",
            ] {
                assert!(!rule.resources.contains(&resource), "{rule:?}");
            }
            assert!(!rule.groups.contains(&"*") && !rule.groups.contains(&"rbac.authorization.k8s.io"));
        }
    }
}
