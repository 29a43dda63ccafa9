//! Roles, and the decision.

use serde::{Deserialize, Serialize};

use crate::{Scope, matches};

/// The permissions of a role: actions without the excluded ones. Data actions are those on a resource's data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Permission {
    /// Patterns of actions.
    pub actions: Vec<String>,
    /// Patterns of the actions that are excluded from these.
    pub not_actions: Vec<String>,
    /// Patterns of actions on data.
    pub data_actions: Vec<String>,
    /// Patterns of the data actions that are excluded from these.
    pub not_data_actions: Vec<String>,
}

impl Permission {
    /// Whether it permits any action or data action.
    pub fn is_some(&self) -> bool {
        !self.actions.is_empty() || !self.data_actions.is_empty()
    }

    /// Whether it permits an action.
    pub fn permits(&self, action: &str) -> bool {
        named(&self.actions, &self.not_actions, action)
    }

    /// Whether it permits an action on data.
    pub fn permits_data(&self, action: &str) -> bool {
        named(&self.data_actions, &self.not_data_actions, action)
    }
}

fn named(patterns: &[String], not: &[String], action: &str) -> bool {
    let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, action));
    any(patterns) && !any(not)
}

/// A grant of one assignment: the permissions of its role, at its scope and below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant<'a> {
    /// Where.
    pub scope: Scope,
    /// The permissions of the role.
    pub permissions: &'a [Permission],
}

impl Grant<'_> {
    /// Whether it permits an action at a scope.
    pub fn gives(&self, action: &str, at: &Scope) -> bool {
        self.scope.contains(at) && self.permissions.iter().any(|one| one.permits(action))
    }

    /// The same for a data action.
    pub fn gives_data(&self, action: &str, at: &Scope) -> bool {
        self.scope.contains(at) && self.permissions.iter().any(|one| one.permits_data(action))
    }
}

/// Whether one of these grants permits an action at a scope. An action that one role excludes may be
/// permitted by another.
pub fn granted(grants: &[Grant<'_>], action: &str, at: &Scope) -> bool {
    grants.iter().any(|grant| grant.gives(action, at))
}

/// The same for a data action.
pub fn granted_data(grants: &[Grant<'_>], action: &str, at: &Scope) -> bool {
    grants.iter().any(|grant| grant.gives_data(action, at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::built_in_roles;

    fn permission(actions: &[&str], not: &[&str]) -> Permission {
        let texts = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        Permission {
            actions: texts(actions),
            not_actions: texts(not),
            ..Permission::default()
        }
    }

    fn scope(text: &str) -> Scope {
        Scope::parse(text).unwrap()
    }

    #[test]
    fn what_is_taken_out_of_one_role_may_be_in_another() {
        let most = [permission(&["*"], &["N/secrets/*"])];
        let secrets = [permission(&["N/secrets/read"], &[])];
        let at = scope("/subscriptions/s/resourceGroups/g");
        let grant = |scope, permissions| Grant { scope, permissions };
        let all = [grant(scope("/"), &most[..])];
        assert!(granted(&all, "N/things/delete", &at) && !granted(&all, "N/secrets/read", &at));
        let both = [
            grant(scope("/"), &most[..]),
            grant(scope("/subscriptions/s"), &secrets[..]),
        ];
        assert!(granted(&both, "N/secrets/read", &at) && !granted(&both, "N/secrets/write", &at));
        assert!(!granted(&both, "N/secrets/read", &scope("/subscriptions/other")));
        assert!(!granted(&[], "N/things/read", &at), "by absence");
        assert!(!granted_data(&all, "N/things/read", &at), "data is apart");
    }

    proptest! {
        #[test]
        fn more_is_never_less(
            which in proptest::collection::vec((0_usize..30, 0_usize..4), 0..4),
            more in (0_usize..30, 0_usize..4),
            action in 0_usize..6,
            at in 0_usize..4,
        ) {
            let scopes = ["/", "/subscriptions/a", "/subscriptions/a/resourceGroups/g", "/subscriptions/b"];
            let actions = [
                "Microsoft.ContainerService/managedClusters/read",
                "Microsoft.ContainerService/managedClusters/write",
                "Microsoft.ContainerService/managedClusters/listClusterUserCredential/action",
                "Microsoft.Authorization/roleAssignments/write",
                "Microsoft.Resources/subscriptions/resourceGroups/delete",
                "Microsoft.Network/virtualNetworks/subnets/join/action",
            ];
            let roles = built_in_roles();
            let grant = |(role, at): (usize, usize)| Grant {
                scope: scope(scopes[at]),
                permissions: &roles[role % roles.len()].permissions,
            };
            let few: Vec<Grant<'_>> = which.iter().copied().map(grant).collect();
            let mut many = few.clone();
            many.push(grant(more));
            let (action, at) = (actions[action], scope(scopes[at]));
            prop_assert!(!granted(&few, action, &at) || granted(&many, action, &at));
            // At scopes below, at least the same.
            let below = scope(&format!("{}/resourceGroups/g/providers/N/t/x", "/subscriptions/a"));
            if at.contains(&below) {
                prop_assert!(!granted(&few, action, &at) || granted(&few, action, &below));
            }
        }
    }
}
