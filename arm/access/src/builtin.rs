//! The roles that every stamp has (`roles.txt`).

use std::{collections::HashMap, sync::LazyLock};

use crate::Permission;

/// The id of the role with all permissions.
pub const OWNER: &str = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635";

/// A role that every stamp has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltIn {
    /// GUID, the same at every stamp.
    pub id: &'static str,
    /// For people.
    pub name: &'static str,
    /// For people.
    pub description: &'static str,
    /// The permissions; always exactly one.
    pub permissions: Vec<Permission>,
}

static ROLES: LazyLock<Vec<BuiltIn>> = LazyLock::new(|| {
    parse(include_str!("roles.txt")).expect("a test reads the same text, which is part of the program")
});
static BY_ID: LazyLock<HashMap<&'static str, &'static BuiltIn>> =
    LazyLock::new(|| ROLES.iter().map(|role| (role.id, role)).collect());

/// All of them.
pub fn built_in_roles() -> &'static [BuiltIn] {
    &ROLES
}

/// The role with this id, in lower case.
pub fn built_in(id: &str) -> Option<&'static BuiltIn> {
    BY_ID.get(id).copied()
}

fn parse(text: &'static str) -> Result<Vec<BuiltIn>, String> {
    let mut roles: Vec<BuiltIn> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = || format!("line {} of the roles is not understood: {line}", number + 1);
        let (word, rest) = line.split_once(' ').ok_or_else(wrong)?;
        if word == "role" {
            let (id, name) = rest.split_once(' ').ok_or_else(wrong)?;
            roles.push(BuiltIn {
                id,
                name,
                description: "",
                permissions: vec![Permission::default()],
            });
            continue;
        }
        let role = roles.last_mut().ok_or_else(wrong)?;
        let permission = &mut role.permissions[0];
        let patterns = match word {
            "about" => {
                role.description = rest;
                continue;
            }
            "action" => &mut permission.actions,
            "not-action" => &mut permission.not_actions,
            "data" => &mut permission.data_actions,
            "not-data" => &mut permission.not_data_actions,
            _ => return Err(wrong()),
        };
        patterns.push(match rest.strip_prefix('/') {
            Some(rest) => format!("Microsoft.{rest}"),
            None => rest.to_owned(),
        });
    }
    Ok(roles)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::plain_pattern;

    #[test]
    fn the_roles_are_complete_and_tell_each_other_apart() {
        let roles = parse(include_str!("roles.txt")).unwrap();
        let mut seen = HashSet::new();
        for role in &roles {
            assert!(
                seen.insert(role.id) && seen.insert(role.name),
                "{} {}",
                role.id,
                role.name
            );
            let dashes: Vec<usize> = role.id.match_indices('-').map(|(at, _)| at).collect();
            assert!(role.id.len() == 36 && dashes == [8, 13, 18, 23], "{}", role.id);
            assert_eq!(role.id, role.id.to_ascii_lowercase());
            assert!(!role.description.is_empty(), "{}", role.name);
            let permission = &role.permissions[0];
            assert!(!permission.actions.is_empty(), "{}", role.name);
            for pattern in [
                &permission.actions,
                &permission.not_actions,
                &permission.data_actions,
                &permission.not_data_actions,
            ]
            .into_iter()
            .flatten()
            {
                assert!(plain_pattern(pattern), "{}: {pattern}", role.name);
            }
        }
        assert_eq!(built_in(OWNER).map(|role| role.name), Some("Owner"));
        assert!(built_in("none").is_none());
        for wrong in ["action x", "role x", "role i n\nwhat x", "word"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn well_known_roles_permit_what_they_are_known_for() {
        let permits = |name: &str, action: &str| {
            let role = built_in_roles().iter().find(|role| role.name == name).unwrap();
            role.permissions
                .iter()
                .any(|permission| permission.permits(action))
        };
        let cluster = |rest: &str| format!("Microsoft.ContainerService/managedClusters/{rest}");
        for (role, action, expected) in [
            (
                "Owner",
                "Microsoft.Authorization/roleAssignments/write".to_owned(),
                true,
            ),
            (
                "Contributor",
                "Microsoft.Authorization/roleAssignments/write".to_owned(),
                false,
            ),
            (
                "Contributor",
                "Microsoft.Authorization/locks/delete".to_owned(),
                false,
            ),
            (
                "Contributor",
                "Microsoft.Authorization/roleAssignments/read".to_owned(),
                true,
            ),
            ("Contributor", cluster("write"), true),
            ("Contributor", cluster("listClusterAdminCredential/action"), true),
            ("Reader", cluster("read"), true),
            ("Reader", cluster("agentPools/write"), false),
            ("Reader", cluster("listClusterUserCredential/action"), false),
            (
                "User Access Administrator",
                "Microsoft.Authorization/locks/write".to_owned(),
                true,
            ),
            ("User Access Administrator", cluster("write"), false),
            (
                "Role Based Access Control Administrator",
                "Microsoft.Authorization/roleDefinitions/write".to_owned(),
                false,
            ),
            (
                "Azure Kubernetes Service Cluster Admin Role",
                cluster("listClusterAdminCredential/action"),
                true,
            ),
            (
                "Azure Kubernetes Service Cluster Admin Role",
                cluster("runCommand/action"),
                true,
            ),
            (
                "Azure Kubernetes Service Cluster Admin Role",
                cluster("agentPools/read"),
                false,
            ),
            (
                "Azure Kubernetes Service Cluster User Role",
                cluster("listClusterUserCredential/action"),
                true,
            ),
            (
                "Azure Kubernetes Service Cluster User Role",
                cluster("listClusterAdminCredential/action"),
                false,
            ),
            (
                "Azure Kubernetes Service Contributor Role",
                cluster("agentPools/write"),
                true,
            ),
            (
                "Azure Kubernetes Service Contributor Role",
                "Microsoft.Resources/subscriptions/resourceGroups/write".to_owned(),
                false,
            ),
            (
                "Azure Kubernetes Service Namespace Contributor",
                cluster("managedNamespaces/write"),
                true,
            ),
            (
                "Azure Kubernetes Service Namespace User",
                cluster("managedNamespaces/listCredential/action"),
                true,
            ),
            (
                "Azure Kubernetes Service Namespace User",
                cluster("listClusterUserCredential/action"),
                false,
            ),
            (
                "Network Contributor",
                "Microsoft.Network/virtualNetworks/subnets/join/action".to_owned(),
                true,
            ),
            ("Network Contributor", cluster("read"), false),
        ] {
            assert_eq!(permits(role, &action), expected, "{role} {action}");
        }
        let data = |name: &str, action: &str| {
            let role = built_in_roles().iter().find(|role| role.name == name).unwrap();
            role.permissions
                .iter()
                .any(|permission| permission.permits_data(&cluster(action)))
        };
        for (kind, reads_pods, reads_secrets, writes_roles, writes_quotas) in [
            ("Reader", true, false, false, false),
            ("Writer", true, true, false, false),
            ("Admin", true, true, true, false),
            ("Cluster Admin", true, true, true, true),
        ] {
            let role = format!("Azure Kubernetes Service RBAC {kind}");
            let may = |action| data(&role, action);
            assert_eq!(
                (
                    may("pods/read"),
                    may("secrets/read"),
                    may("rbac.authorization.k8s.io/roles/write"),
                    may("resourcequotas/write")
                ),
                (reads_pods, reads_secrets, writes_roles, writes_quotas),
                "{role}"
            );
        }
    }
}
