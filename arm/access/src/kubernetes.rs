//! The data action and the scope of a request to a cluster's API. Actions have the form
//! `Microsoft.ContainerService/managedClusters/{group}/{resource}/{read, write, delete, …/action}`, as in
//! AKS, so that its roles have the same meaning here.

use crate::Scope;

/// The prefix of all these actions.
const CLUSTERS: &str = "Microsoft.ContainerService/managedClusters";

/// The attributes of a request to a cluster's API, as in a `SubjectAccessReview`. Absent attributes are
/// empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked<'a> {
    /// E.g. `get`.
    pub verb: &'a str,
    /// API group; empty for the first one.
    pub group: &'a str,
    /// E.g. `pods`.
    pub resource: &'a str,
    /// E.g. `log`.
    pub subresource: &'a str,
    /// Empty for cluster-scoped resources, and for a request to all namespaces.
    pub namespace: &'a str,
    /// A path that is no resource's, e.g. `/metrics`.
    pub path: &'a str,
}

/// The last part of the action of a verb; `None` for a verb that may be several, such as `*`.
fn doing(verb: &str) -> Option<String> {
    Some(match verb {
        "get" | "list" | "watch" | "head" => "read".to_owned(),
        "create" | "update" | "patch" | "post" | "put" => "write".to_owned(),
        "delete" | "deletecollection" => "delete".to_owned(),
        other if plain(other) => format!("{other}/action"),
        _ => return None,
    })
}

/// Whether a word is a single segment of a path, without wildcards.
fn plain(word: &str) -> bool {
    !word.is_empty()
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':'))
}

/// Whether it could be a namespace's name.
fn is_label(word: &str) -> bool {
    plain(word)
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

impl Asked<'_> {
    /// The data action of the request. `None` where it is more than one (`*`) or has no name; such a request
    /// is always refused.
    pub fn data_action(&self) -> Option<String> {
        if !self.path.is_empty() {
            let segments: Vec<&str> = self
                .path
                .split('/')
                .filter(|segment| !segment.is_empty())
                .collect();
            if segments.is_empty() || !segments.iter().all(|segment| plain(segment)) {
                return None;
            }
            return Some(format!("{CLUSTERS}/{}/{}", segments.join("/"), doing(self.verb)?));
        }
        if !plain(self.resource) || !(self.group.is_empty() || plain(self.group)) {
            return None;
        }
        if !(self.subresource.is_empty() || self.subresource.split('/').all(plain)) {
            return None;
        }
        let group = if self.group.is_empty() {
            String::new()
        } else {
            format!("/{}", self.group)
        };
        // An action on a subresource is an action on its resource; the exception is running programs in a
        // pod.
        let rest = match (self.group, self.resource, self.subresource) {
            ("", "pods", "exec") => "pods/exec/action".to_owned(),
            (_, resource, _) => format!("{resource}/{}", doing(self.verb)?),
        };
        Some(format!("{CLUSTERS}{group}/{rest}"))
    }

    /// The scope in this cluster: a namespace, or the cluster as a whole. `None` where the namespace is no
    /// valid name.
    pub fn at(&self, cluster: &str) -> Option<Scope> {
        let place = match self.namespace {
            "" => cluster.to_owned(),
            namespace if is_label(namespace) => format!("{cluster}/namespaces/{namespace}"),
            _ => return None,
        };
        Scope::parse(&place).ok()
    }

    /// The managed namespace that it is done in, where that namespace is one: the resource's own id is a scope of assignments as well. `None` for
    /// what is in no namespace.
    pub fn at_managed(&self, cluster: &str) -> Option<Scope> {
        let named = !self.namespace.is_empty() && self.path.is_empty() && is_label(self.namespace);
        named
            .then(|| Scope::parse(&format!("{cluster}/managedNamespaces/{}", self.namespace)).ok())
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Grant, built_in_roles, granted_data};

    const CLUSTER: &str =
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/c";
    const VERBS: [&str; 8] = [
        "get",
        "list",
        "watch",
        "create",
        "update",
        "patch",
        "delete",
        "deletecollection",
    ];
    const ROLES: [&str; 4] = ["Reader", "Writer", "Admin", "Cluster Admin"];

    fn request(verb: &'static str, what: &'static str) -> Asked<'static> {
        if what.starts_with('/') {
            return Asked {
                verb,
                path: what,
                ..Asked::default()
            };
        }
        let (kind, subresource) = what.split_once('/').unwrap_or((what, ""));
        let (resource, group) = kind.split_once('.').unwrap_or((kind, ""));
        Asked {
            verb,
            group,
            resource,
            subresource,
            ..Asked::default()
        }
    }

    /// The verbs that each role allows on each resource: `r`, `w`, `d` for all verbs that read, write and
    /// delete, `a` for the other verbs. Taken from AKS' description of its roles, not from their patterns.
    const EXPECTED: &[(&str, [&str; 4])] = &[
        ("pods", ["r", "rwd", "rwd", "rwd"]),
        ("pods/log", ["r", "rwd", "rwd", "rwd"]),
        ("pods/status", ["r", "rwd", "rwd", "rwd"]),
        ("pods/eviction", ["r", "rwd", "rwd", "rwd"]),
        ("pods/portforward", ["r", "rwd", "rwd", "rwd"]),
        // The same single action for all verbs.
        ("pods/exec", ["", "rwd", "rwd", "rwd"]),
        ("services", ["r", "rwd", "rwd", "rwd"]),
        ("configmaps", ["r", "rwd", "rwd", "rwd"]),
        ("persistentvolumeclaims", ["r", "rwd", "rwd", "rwd"]),
        ("serviceaccounts", ["r", "rwd", "rwd", "rwd"]),
        ("serviceaccounts/token", ["r", "rwd", "rwd", "rwd"]),
        ("secrets", ["", "rwd", "rwd", "rwd"]),
        ("events", ["r", "rwd", "rwd", "rwd"]),
        ("events.events.k8s.io", ["r", "r", "rwd", "rwd"]),
        ("endpointslices.discovery.k8s.io", ["r", "r", "rwd", "rwd"]),
        ("leases.coordination.k8s.io", ["", "rwd", "rwd", "rwd"]),
        ("limitranges", ["r", "r", "rwd", "rwd"]),
        ("resourcequotas", ["r", "r", "r", "rwd"]),
        ("namespaces", ["r", "r", "r", "rwd"]),
        ("deployments.apps", ["r", "rwd", "rwd", "rwd"]),
        ("deployments.apps/scale", ["r", "rwd", "rwd", "rwd"]),
        ("controllerrevisions.apps", ["r", "r", "rwd", "rwd"]),
        ("jobs.batch", ["r", "rwd", "rwd", "rwd"]),
        ("ingresses.networking.k8s.io", ["r", "rwd", "rwd", "rwd"]),
        ("pods.metrics.k8s.io", ["r", "r", "rwd", "rwd"]),
        ("roles.rbac.authorization.k8s.io", ["", "", "rwd", "rwd"]),
        ("rolebindings.rbac.authorization.k8s.io", ["", "", "rwd", "rwd"]),
        (
            "clusterrolebindings.rbac.authorization.k8s.io",
            ["", "", "rwd", "rwd"],
        ),
        ("nodes", ["", "", "rwd", "rwd"]),
        (
            "customresourcedefinitions.apiextensions.k8s.io",
            ["", "", "rwd", "rwd"],
        ),
        ("widgets.example.com", ["", "", "rwd", "rwd"]),
        ("/metrics", ["", "", "rwd", "rwd"]),
        ("/healthz/etcd", ["", "", "rwd", "rwd"]),
    ];

    fn letter(verb: &str) -> char {
        match verb {
            "get" | "list" | "watch" => 'r',
            "create" | "update" | "patch" => 'w',
            _ => 'd',
        }
    }

    #[test]
    fn every_verb_for_each_role_at_both_scopes() {
        let mut asked = 0;
        for (number, role) in ROLES.iter().enumerate() {
            let name = format!("Azure Kubernetes Service RBAC {role}");
            let role = built_in_roles().iter().find(|one| one.name == name).unwrap();
            let at = |scope: &str| {
                [Grant {
                    scope: Scope::parse(scope).unwrap(),
                    permissions: &role.permissions,
                }]
            };
            let (cluster, namespace) = (at(CLUSTER), at(&format!("{CLUSTER}/namespaces/dev")));
            let other = at(&CLUSTER.replace("/c", "/d"));
            for (what, expected) in EXPECTED {
                for verb in VERBS {
                    let permitted = expected[number].contains(letter(verb));
                    for place in ["dev", "prod", ""] {
                        let asks = Asked {
                            namespace: if what.starts_with('/') { "" } else { place },
                            ..request(verb, what)
                        };
                        let (action, here) = (asks.data_action().unwrap(), asks.at(CLUSTER).unwrap());
                        let why = format!("{name}: {verb} {what} in {place:?}");
                        assert_eq!(granted_data(&cluster, &action, &here), permitted, "{why}");
                        let within = permitted && asks.namespace == "dev";
                        assert_eq!(
                            granted_data(&namespace, &action, &here),
                            within,
                            "{why}, at a namespace"
                        );
                        assert!(!granted_data(&other, &action, &here), "{why}, at another cluster");
                        asked += 3;
                    }
                }
            }
        }
        assert_eq!(asked, 4 * EXPECTED.len() * VERBS.len() * 3 * 3);
    }

    #[test]
    fn verbs_of_their_own_are_actions_that_only_administrators_have() {
        for (verb, what, action) in [
            ("impersonate", "users", "users/impersonate/action"),
            (
                "escalate",
                "clusterroles.rbac.authorization.k8s.io",
                "rbac.authorization.k8s.io/clusterroles/escalate/action",
            ),
            (
                "bind",
                "roles.rbac.authorization.k8s.io",
                "rbac.authorization.k8s.io/roles/bind/action",
            ),
            (
                "approve",
                "signers.certificates.k8s.io",
                "certificates.k8s.io/signers/approve/action",
            ),
        ] {
            let own = request(verb, what).data_action().unwrap();
            assert_eq!(own, format!("{CLUSTERS}/{action}"));
            let who: Vec<&str> = ROLES
                .into_iter()
                .filter(|role| {
                    let name = format!("Azure Kubernetes Service RBAC {role}");
                    let role = built_in_roles().iter().find(|one| one.name == name).unwrap();
                    role.permissions.iter().any(|one| one.permits_data(&own))
                })
                .collect();
            assert_eq!(who, ["Admin", "Cluster Admin"], "{verb} {what}");
        }
    }

    #[test]
    fn a_managed_namespace_is_a_scope_for_what_is_in_it() {
        let at = |namespace: &'static str| {
            let asked = Asked {
                namespace,
                ..request("get", "pods")
            };
            asked.at_managed(CLUSTER)
        };
        let scope = Scope::parse(&format!("{CLUSTER}/managedNamespaces/dev")).unwrap();
        assert_eq!(at("dev"), Some(scope));
        for none in ["", "*", "a/b", ".."] {
            assert_eq!(at(none), None, "{none}");
        }
        assert_eq!(request("get", "/metrics").at_managed(CLUSTER), None);
    }

    #[test]
    fn what_could_be_more_than_one_thing_is_none() {
        for asked in [
            request("*", "pods"),
            request("get", "*"),
            request("get", "pods.*"),
            request("get", "/*"),
            request("get", "/"),
            request("", "pods"),
            request("get", ""),
            request("get/action", "pods"),
            Asked {
                subresource: "*",
                ..request("get", "pods")
            },
        ] {
            assert_eq!(asked.data_action(), None, "{asked:?}");
        }
        for namespace in ["*", "a/b", "..", "..%2f", "a b"] {
            let asked = Asked {
                namespace,
                ..request("get", "pods")
            };
            assert_eq!(asked.at(CLUSTER), None, "{namespace}");
        }
    }
}
