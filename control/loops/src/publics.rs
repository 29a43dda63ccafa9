//! Public IP addresses of tenants that Services of a cluster name: what the cluster may use.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use arm_ids::{ResourcePath, resource_id};
use cluster_balancers::Wish;
use control_planner::PublicSeen;
use control_records::{
    ClusterRecord,
    balancer::BalancerRecord,
    network::{self, NetworkRecord},
};
use control_store::{Store, StoreError, Stored, get_record, list_records};

use crate::rights;

/// What the identity of a cluster needs to be permitted at a public IP address.
const JOIN: &str = "Microsoft.Network/publicIPAddresses/join/action";

/// For each Service that waits for an address and names a public IP address of a tenant, by its resource or by the address itself: what is
/// known of it, or why the cluster does not get it. By the uids of the Services.
pub(crate) async fn named(
    store: &dyn Store,
    cluster: &ClusterRecord,
    balancers: &[Stored<Arc<BalancerRecord>>],
    wishes: Option<&[Wish]>,
) -> Result<BTreeMap<String, Result<PublicSeen, String>>, StoreError> {
    let mut found = BTreeMap::new();
    let waits = |wish: &&Wish| {
        let has_one = balancers.iter().any(|balancer| balancer.value.uid == wish.uid);
        !has_one && !wish.internal && !wish.deleting && wish.refusal.is_none()
    };
    for wish in wishes.into_iter().flatten().filter(waits) {
        let seen = match (&wish.public, wish.address) {
            (Some(public), _) => {
                let nodes = &cluster.spec().node_resource_group;
                let group = public.group.as_ref().unwrap_or(nodes);
                let kinds = [("publicIPAddresses", public.name.as_str())];
                let id = resource_id(&cluster.subscription, group, "Microsoft.Network", &kinds);
                Some(look(store, cluster, &id).await?)
            }
            (None, Some(address)) => match of_address(store, cluster, address).await? {
                Some(id) => Some(look(store, cluster, &id).await?),
                // One that the stamp gives to load balancers.
                None => None,
            },
            (None, None) => None,
        };
        if let Some(seen) = seen {
            found.insert(wish.uid.clone(), seen);
        }
    }
    Ok(found)
}

/// The ARM id of the public IP address of the cluster's subscription that has an address.
async fn of_address(
    store: &dyn Store,
    cluster: &ClusterRecord,
    address: Ipv4Addr,
) -> Result<Option<String>, StoreError> {
    let prefix = network::key(network::PUBLIC_ADDRESSES, &cluster.subscription, "", "");
    let (all, _) = list_records::<NetworkRecord>(store, &prefix).await?;
    let mut all = all.into_iter().map(|(_, found)| found.value);
    let found = all.find(|public| public.public_address() == Some(address));
    Ok(found.map(|public| {
        let kinds = [("publicIPAddresses", public.name.as_str())];
        resource_id(
            &public.subscription,
            &public.resource_group,
            "Microsoft.Network",
            &kinds,
        )
    }))
}

/// A public IP address of this ARM id.
async fn look(
    store: &dyn Store,
    cluster: &ClusterRecord,
    id: &str,
) -> Result<Result<PublicSeen, String>, StoreError> {
    let path = ResourcePath::parse(id).ok();
    let (Some(path), Some(key)) = (path, network::public_key(id)) else {
        return Ok(Err(format!("{id} is not the id of a public IP address")));
    };
    // Before it is said whether there is one: who may not use it is not to know.
    if let Some(why) = rights::refusal(store, cluster, &path, JOIN).await? {
        return Ok(Err(why));
    }
    let found = get_record::<NetworkRecord>(store, &key).await?;
    let Some(public) = found.map(|found| found.value) else {
        return Ok(Err(format!(
            "there is no public IP address {} in the group {}; make it with 'az network public-ip create', or name its group with the annotation \
             service.beta.kubernetes.io/azure-load-balancer-resource-group",
            path.name(0).unwrap_or_default(),
            path.resource_group.as_deref().unwrap_or_default()
        )));
    };
    let Some(address) = public.public_address() else {
        return Ok(Err(format!("{id} has no address yet; it is tried again")));
    };
    for uid in public.clusters.iter().filter(|uid| **uid != cluster.uid) {
        let (theirs, _) = list_records::<BalancerRecord>(store, &BalancerRecord::all(uid)).await?;
        let has_it = |record: &BalancerRecord| {
            let public = record.public.as_deref().and_then(network::public_key);
            public.as_ref() == Some(&key)
        };
        if theirs.iter().any(|(_, found)| has_it(&found.value)) {
            return Ok(Err(format!(
                "another cluster has the public IP address {id}: one at a time does; delete its Services there"
            )));
        }
    }
    Ok(Ok(PublicSeen {
        id: id.to_owned(),
        address,
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use cluster_spec::testkit;
    use control_store::{Txn, put_record};
    use jiff::Timestamp;
    use serde_json::{Value, json};
    use storage_redb::MemoryStore;

    use super::*;

    fn wish(change: impl FnOnce(&mut Value)) -> Wish {
        let mut service = json!({
            "metadata": { "namespace": "shop", "name": "web", "uid": "w", "annotations": {} },
            "spec": { "type": "LoadBalancer", "ports": [{ "port": 80, "nodePort": 30080 }] },
            "status": { "loadBalancer": {} }
        });
        change(&mut service);
        Wish::read(&service, BTreeSet::new()).unwrap()
    }

    fn public(cluster: &ClusterRecord) -> NetworkRecord {
        NetworkRecord {
            v: 1,
            uid: "p".to_owned(),
            subscription: cluster.subscription.clone(),
            resource_group: cluster.spec().node_resource_group.clone(),
            name: "front".to_owned(),
            location: "local".to_owned(),
            tags: BTreeMap::new(),
            generation: 1,
            properties: json!({ "ipAddress": "100.64.24.9" }),
            clusters: BTreeSet::from(["u2".to_owned()]),
            created_at: Timestamp::UNIX_EPOCH,
            modified_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn an_address_is_found_by_its_resource_or_by_itself_and_is_one_clusters() {
        let store = MemoryStore::new();
        let cluster = ClusterRecord::of_spec("u1", &testkit::cluster(), Timestamp::UNIX_EPOCH);
        let by_name = wish(|service| {
            service["metadata"]["annotations"]["service.beta.kubernetes.io/azure-pip-name"] = json!("Front");
        });
        let by_address = wish(|service| service["spec"]["loadBalancerIP"] = json!("100.64.24.9"));
        let plain = wish(|_| {});
        let found = async |wish: &Wish| {
            let wishes = [wish.clone()];
            let found = named(&store, &cluster, &[], Some(&wishes)).await.unwrap();
            found.into_values().next()
        };
        assert!(
            found(&by_name)
                .await
                .unwrap()
                .unwrap_err()
                .contains("there is no public IP address")
        );
        assert_eq!(found(&by_address).await, None, "the stamp may give it");
        let public = public(&cluster);
        let key = public.key(network::PUBLIC_ADDRESSES);
        let put = Txn::default().with(put_record(&key, &public));
        store.txn(put).await.unwrap();
        for wish in [&by_name, &by_address] {
            let seen = found(wish).await.unwrap().unwrap();
            assert_eq!(seen.address, Ipv4Addr::new(100, 64, 24, 9));
        }
        assert_eq!(found(&plain).await, None);
        let record = BalancerRecord {
            v: 1,
            uid: "s".to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            address: [100, 64, 24, 9].into(),
            internal: false,
            public: Some(format!(
                "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.Network/publicIPAddresses/FRONT",
                public.subscription, public.resource_group
            )),
            asked: None,
            created_at: Timestamp::UNIX_EPOCH,
        };
        let key = BalancerRecord::key("u2", "s");
        store
            .txn(Txn::default().with(put_record(key, &record)))
            .await
            .unwrap();
        assert!(
            found(&by_name)
                .await
                .unwrap()
                .unwrap_err()
                .contains("another cluster")
        );
    }
}
