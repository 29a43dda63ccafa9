//! Authorization of requests to a cluster's API by role assignments of the stamp:
//! `aadProfile.enableAzureRBAC`.
//!
//! Always true: role assignments apply only in clusters with that setting; decisions follow from the present
//! records, for the cluster of the requesting machine.

use std::sync::Arc;

use agent_api::{AccessReviews, ReviewError, ReviewSpec};
use arm_access::Asked;
use async_trait::async_trait;
use control_records::{ClusterRecord, Role, directory, namespace::NamespaceRecord};
use control_store::{Store, StoreError};
use providers_authorization::RoleAuthorizer;

/// See the module.
pub(crate) struct ClusterReviews {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) roles: Arc<RoleAuthorizer>,
}

impl ClusterReviews {
    /// The cluster of this control plane machine, if role assignments apply in it.
    async fn cluster(&self, machine: &str) -> Result<Option<ClusterRecord>, StoreError> {
        let Some((_, found)) = directory::machine(&*self.store, machine).await? else {
            return Ok(None);
        };
        let assignment = found.value.assignment;
        let Some(assignment) =
            assignment.filter(|assignment| matches!(assignment.role, Role::ControlPlane { .. }))
        else {
            return Ok(None);
        };
        let cluster = directory::cluster(&*self.store, &assignment.cluster).await?;
        let cluster = cluster.map(|cluster| cluster.value);
        Ok(cluster.filter(|cluster| {
            let directory = cluster.spec().directory.as_ref();
            directory.is_some_and(|directory| directory.roles)
        }))
    }

    async fn decide(&self, machine: &str, spec: &ReviewSpec) -> Result<bool, StoreError> {
        let Some(cluster) = self.cluster(machine).await? else {
            tracing::warn!(
                machine,
                "a machine asked about role assignments that do not count in its cluster"
            );
            return Ok(false);
        };
        let asked = asked(spec);
        let id = arm_ids::resource_id(
            &cluster.subscription,
            &cluster.resource_group,
            providers_containerservice::NAMESPACE,
            &[("managedClusters", &cluster.name)],
        );
        let (Some(action), Some(at)) = (asked.data_action(), asked.at(&id)) else {
            return Ok(false);
        };
        if spec.uid.is_empty() {
            return Ok(false);
        }
        if self.roles.may_data(&spec.uid, &action, &at).await? {
            return Ok(true);
        }
        // An assignment at a managed namespace counts as long as it is one.
        let Some(managed) = asked.at_managed(&id) else {
            return Ok(false);
        };
        let key = NamespaceRecord::key(&cluster.uid, asked.namespace);
        if self.store.get(&key).await?.is_none() {
            return Ok(false);
        }
        self.roles.may_data(&spec.uid, &action, &managed).await
    }
}

fn asked(spec: &ReviewSpec) -> Asked<'_> {
    match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (Some(resource), _) => Asked {
            verb: &resource.verb,
            group: &resource.group,
            resource: &resource.resource,
            subresource: &resource.subresource,
            namespace: &resource.namespace,
            path: "",
        },
        (None, Some(path)) => Asked {
            verb: &path.verb,
            path: &path.path,
            ..Asked::default()
        },
        (None, None) => Asked::default(),
    }
}

#[async_trait]
impl AccessReviews for ClusterReviews {
    async fn permits(&self, machine: &str, asked: &ReviewSpec) -> Result<bool, ReviewError> {
        self.decide(machine, asked)
            .await
            .map_err(|error| ReviewError(Box::new(error)))
    }
}

#[cfg(test)]
mod tests {
    use agent_api::{NonResourceAttributes, ResourceAttributes};
    use cluster_spec::{ClusterSpec, DirectoryAccess, testkit};
    use control_records::{
        Assignment, Healing, HostId, MachineRecord, PrincipalRecord,
        access::{AssignmentRecord, Stamped},
    };
    use control_store::{Txn, put_record};
    use jiff::Timestamp;
    use storage_redb::MemoryStore;

    use super::*;

    const ADA: &str = "11111111-0000-4000-8000-000000000001";
    const WRITER: &str = "a7ffa36f-339b-4b5c-8bdf-e2c188b2c0eb";

    fn now() -> Timestamp {
        Timestamp::from_second(1_790_000_000).unwrap()
    }

    fn machine(id: &str, role: Role) -> MachineRecord {
        MachineRecord {
            v: 2,
            id: id.to_owned(),
            image: "1.36.3".to_owned(),
            build: None,
            token_hash: String::new(),
            token_sealed: Vec::new(),
            enrolled_key: None,
            token_used: false,
            host: HostId::first(),
            assignment: Some(Assignment {
                cluster: "uid".to_owned(),
                role,
            }),
            deleting: false,
            work: None,
            emptying: None,
            inherited: None,
            healing: Healing::default(),
            created_at: now(),
        }
    }

    /// A cluster `c`, and a principal that may write in its namespace `dev`.
    async fn stand(roles: bool) -> ClusterReviews {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let spec = ClusterSpec {
            directory: Some(DirectoryAccess {
                tenant: "t".to_owned(),
                admins: Vec::new(),
                roles,
            }),
            ..testkit::cluster()
        };
        let cluster = ClusterRecord::of_spec("uid", &spec, now());
        let member = Role::ControlPlane {
            index: 0,
            address: "100.64.16.9".parse().unwrap(),
        };
        let node = Role::Node {
            pool: "np1".to_owned(),
            incarnation: "1".to_owned(),
            index: 0,
            node_name: "n".to_owned(),
            address: "10.224.0.4".parse().unwrap(),
            pod_range: None,
        };
        let ada = PrincipalRecord {
            kind: "User".to_owned(),
            login: "ada@local".to_owned(),
            ..PrincipalRecord::new(ADA, now())
        };
        let assignment = AssignmentRecord {
            v: 1,
            name: "22222222-0000-4000-8000-000000000002".to_owned(),
            principal: ADA.to_owned(),
            principal_type: "User".to_owned(),
            role: WRITER.to_owned(),
            scope: "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/C/namespaces/dev".to_owned(),
            description: None,
            stamped: Stamped::now(None, "", now()),
        };
        let mut txn = directory::new_cluster(Txn::default(), &cluster);
        txn = directory::new_machine(txn, "uid", &machine("m1", member));
        txn = directory::new_machine(txn, "uid", &machine("n1", node));
        txn = assignment.make(txn);
        store.txn(txn).await.unwrap();
        let key = control_records::key::principal(ADA);
        store
            .txn(Txn::default().with(put_record(key, &ada)))
            .await
            .unwrap();
        ClusterReviews {
            roles: Arc::new(RoleAuthorizer::new(Arc::clone(&store))),
            store,
        }
    }

    fn asks(uid: &str, verb: &str, resource: &str, namespace: &str) -> ReviewSpec {
        ReviewSpec {
            uid: uid.to_owned(),
            resource_attributes: Some(ResourceAttributes {
                verb: verb.to_owned(),
                resource: resource.to_owned(),
                namespace: namespace.to_owned(),
                ..ResourceAttributes::default()
            }),
            non_resource_attributes: None,
        }
    }

    #[tokio::test]
    async fn a_role_at_a_namespace_counts_there_for_its_principal() {
        let reviews = stand(true).await;
        for (uid, verb, resource, namespace, permitted) in [
            (ADA, "create", "pods", "dev", true),
            (ADA, "get", "secrets", "dev", true),
            (&ADA.to_uppercase(), "create", "pods", "dev", true),
            (ADA, "create", "pods", "prod", false),
            (ADA, "list", "pods", "", false),
            (ADA, "update", "resourcequotas", "dev", false),
            (ADA, "*", "pods", "dev", false),
            ("", "create", "pods", "dev", false),
            ("somebody", "create", "pods", "dev", false),
        ] {
            let asked = asks(uid, verb, resource, namespace);
            let said = reviews.permits("m1", &asked).await.unwrap();
            assert_eq!(said, permitted, "{uid} {verb} {resource} {namespace}");
        }
        let path = ReviewSpec {
            uid: ADA.to_owned(),
            resource_attributes: None,
            non_resource_attributes: Some(NonResourceAttributes {
                verb: "get".to_owned(),
                path: "/metrics".to_owned(),
            }),
        };
        assert!(!reviews.permits("m1", &path).await.unwrap());
    }

    #[tokio::test]
    async fn a_role_at_a_managed_namespace_counts_in_it_while_it_is_one() {
        let reviews = stand(true).await;
        let assignment = AssignmentRecord {
            v: 1,
            name: "33333333-0000-4000-8000-000000000003".to_owned(),
            principal: ADA.to_owned(),
            principal_type: "User".to_owned(),
            role: WRITER.to_owned(),
            scope: "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/C/managedNamespaces/prod"
                .to_owned(),
            description: None,
            stamped: Stamped::now(None, "", now()),
        };
        let txn = assignment.make(Txn::default());
        reviews.store.txn(txn).await.unwrap();
        let asked = asks(ADA, "create", "pods", "prod");
        assert!(!reviews.permits("m1", &asked).await.unwrap(), "it is none yet");
        // What is in the record does not matter.
        let key = NamespaceRecord::key("uid", "prod");
        let txn = Txn::default().with(put_record(key, &"prod"));
        reviews.store.txn(txn).await.unwrap();
        assert!(reviews.permits("m1", &asked).await.unwrap());
        let elsewhere = asks(ADA, "create", "pods", "test");
        assert!(!reviews.permits("m1", &elsewhere).await.unwrap());
    }

    #[tokio::test]
    async fn only_control_planes_of_clusters_that_go_by_roles_are_told() {
        let asked = asks(ADA, "create", "pods", "dev");
        let reviews = stand(true).await;
        for machine in ["n1", "gone"] {
            assert!(!reviews.permits(machine, &asked).await.unwrap(), "{machine}");
        }
        assert!(!stand(false).await.permits("m1", &asked).await.unwrap());
    }

    #[tokio::test]
    async fn who_is_disabled_may_nothing() {
        let reviews = stand(true).await;
        let key = control_records::key::principal(ADA);
        let ada = PrincipalRecord {
            kind: "User".to_owned(),
            disabled: true,
            ..PrincipalRecord::new(ADA, now())
        };
        let txn = Txn::default().with(put_record(key, &ada));
        reviews.store.txn(txn).await.unwrap();
        let asked = asks(ADA, "create", "pods", "dev");
        assert!(!reviews.permits("m1", &asked).await.unwrap());
    }
}
