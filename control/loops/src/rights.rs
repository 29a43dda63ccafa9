//! What a cluster may do with resources that its objects name: as with AKS, what its identity may.
//!
//! Always true: resources in the group of the cluster's nodes are the cluster's to use, and of no other cluster; anywhere else the roles of its
//! identity decide, at the time of the look.

use arm_access::{Grant, Scope};
use arm_ids::ResourcePath;
use control_records::{
    ClusterRecord, GroupRecord,
    access::{self, assigned, assignments_of},
    key,
};
use control_store::{Store, StoreError, get_record};
use identity_directory::{find_login, groups_of, principal};
use serde_json::Value;

/// Why a cluster may not use the resource of this id by this action; `None`: it may.
pub(crate) async fn refusal(
    store: &dyn Store,
    cluster: &ClusterRecord,
    id: &ResourcePath,
    action: &str,
) -> Result<Option<String>, StoreError> {
    let subscription = id.subscription.as_deref().unwrap_or_default();
    let group = id.resource_group.as_deref().unwrap_or_default();
    if !subscription.eq_ignore_ascii_case(&cluster.subscription) {
        return Ok(Some(format!(
            "{id} is in another subscription than the cluster; name one of the subscription {}",
            cluster.subscription
        )));
    }
    if group.eq_ignore_ascii_case(&cluster.spec().node_resource_group) {
        return Ok(None);
    }
    let found = get_record::<GroupRecord>(store, &key::group(subscription, group)).await?;
    if let Some(owner) = found.and_then(|found| found.value.managed_by) {
        return Ok(Some(format!(
            "{id} is in the group of the nodes of {owner}, and goes with them; name one of another group"
        )));
    }
    let Some(identity) = identity(store, cluster.body()).await? else {
        return Ok(Some(format!(
            "the cluster has no identity that is known here, and so no right to use {id}; give it a managed identity with 'az aks update', or \
             name one in the group {}",
            cluster.spec().node_resource_group
        )));
    };
    if may(store, &identity, action, &Scope::of(id)).await? {
        return Ok(None);
    }
    Ok(Some(format!(
        "the identity {identity} of the cluster has no role that permits {action} at {id}; give it one: az role assignment create --role \
         Contributor --assignee-object-id {identity} --assignee-principal-type ServicePrincipal --scope {id}"
    )))
}

/// The object id of the principal that a cluster acts as.
async fn identity(store: &dyn Store, body: &Value) -> Result<Option<String>, StoreError> {
    let identity = &body["identity"];
    let mut assigned = identity["userAssignedIdentities"]
        .as_object()
        .into_iter()
        .flatten();
    let own = identity["principalId"].as_str();
    let own = own.or_else(|| assigned.next().and_then(|(_, one)| one["principalId"].as_str()));
    if let Some(own) = own {
        return Ok(Some(own.to_owned()));
    }
    let client = body.pointer("/properties/servicePrincipalProfile/clientId");
    let Some(client) = client.and_then(Value::as_str).filter(|client| *client != "msi") else {
        return Ok(None);
    };
    let found = find_login(store, client).await?;
    Ok(found.map(|found| found.value.object_id))
}

/// Whether a principal may do an action at a scope, by its own roles or those of its groups. One that is disabled or gone may do nothing.
async fn may(store: &dyn Store, object_id: &str, action: &str, at: &Scope) -> Result<bool, StoreError> {
    let known = principal(store, object_id).await?;
    if known.is_none_or(|known| known.value.disabled) {
        return Ok(false);
    }
    let mut who = vec![object_id.to_owned()];
    who.extend(groups_of(store, object_id).await?);
    for one in &who {
        let (all, _) = store.list(&assignments_of(one)).await?;
        for (key, _) in &all {
            let Some(found) = assigned(key).filter(|found| found.scope.contains(at)) else {
                continue;
            };
            let permissions = access::permissions_of(store, found.role).await?;
            let grant = Grant {
                scope: found.scope,
                permissions: &permissions,
            };
            if grant.gives(action, at) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use arm_access::OWNER;
    use cluster_spec::testkit;
    use control_records::{
        PrincipalRecord,
        access::{AssignmentRecord, Stamped},
    };
    use control_store::{Txn, put_record};
    use jiff::Timestamp;
    use serde_json::json;
    use storage_redb::MemoryStore;

    use super::*;

    const IDENTITY: &str = "0a0a0a0a-0000-4000-8000-00000000000a";
    const ACTION: &str = "Microsoft.Compute/disks/write";

    fn cluster() -> ClusterRecord {
        let at = Timestamp::UNIX_EPOCH;
        let mut cluster = ClusterRecord::of_spec("u1", &testkit::cluster(), at);
        let state = cluster.state.with(|body, _| {
            body["identity"] = json!({ "type": "SystemAssigned", "principalId": IDENTITY });
        });
        cluster.state = state.unwrap();
        cluster
    }

    fn disk(subscription: &str, group: &str) -> ResourcePath {
        let id = cluster_volumes::handle(subscription, group, "data");
        ResourcePath::parse(&id).unwrap()
    }

    #[tokio::test]
    async fn the_roles_of_the_identity_decide_but_in_the_group_of_the_nodes() {
        let store = MemoryStore::new();
        let cluster = cluster();
        let said = async |id: &ResourcePath| refusal(&store, &cluster, id, ACTION).await.unwrap();
        let own = disk(&cluster.subscription, &cluster.spec().node_resource_group);
        assert_eq!(said(&own).await, None);
        let elsewhere = disk(&cluster.subscription, "mine");
        let refused = said(&elsewhere).await.unwrap();
        assert!(refused.contains("az role assignment create"), "{refused}");
        assert!(
            said(&disk("other", "mine"))
                .await
                .unwrap()
                .contains("another subscription")
        );

        let now = Timestamp::UNIX_EPOCH;
        let role = AssignmentRecord {
            v: 1,
            name: "n".to_owned(),
            principal: IDENTITY.to_owned(),
            principal_type: "ServicePrincipal".to_owned(),
            role: OWNER.to_owned(),
            scope: format!("/subscriptions/{}/resourceGroups/mine", cluster.subscription),
            description: None,
            stamped: Stamped::now(None, "", now),
        };
        store.txn(role.make(Txn::default())).await.unwrap();
        assert!(said(&elsewhere).await.is_some(), "nobody is known by that id");
        let principal = PrincipalRecord::new(IDENTITY, now);
        let known = Txn::default().with(put_record(key::principal(IDENTITY), &principal));
        store.txn(known).await.unwrap();
        assert_eq!(said(&elsewhere).await, None);
        let group = GroupRecord {
            v: 1,
            subscription: cluster.subscription.clone(),
            name: "mine".to_owned(),
            location: "local".to_owned(),
            tags: Default::default(),
            managed_by: Some("/the/other/cluster".to_owned()),
            deleting: false,
            created_at: now,
        };
        let key = key::group(&cluster.subscription, "mine");
        store
            .txn(Txn::default().with(put_record(key, &group)))
            .await
            .unwrap();
        assert!(said(&elsewhere).await.unwrap().contains("/the/other/cluster"));
    }
}
