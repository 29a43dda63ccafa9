//! What tests of this crate have in common: a provider over a store in memory, and requests.

use std::sync::Arc;

use arm_ids::ResourcePath;
use arm_kernel::{AccessControl, Call, Provider as _, Registry};
use arm_wire::{ArmError, Principal, PrincipalKind, Request, Trace};
use async_trait::async_trait;
use base_env::Env;
use cluster_spec::testkit;
use control_records::{ClusterRecord, directory};
use control_store::{Store, Txn};
use serde_json::{Value, json};
use storage_redb::MemoryStore;

use crate::{History, Insights, NodeReading, Reading, Readings};

/// Clusters of one node that says the same each time.
pub(crate) struct OneNode;

#[async_trait]
impl Readings for OneNode {
    async fn read(&self, _: &str) -> Reading {
        let node = NodeReading {
            name: "n1".to_owned(),
            cores: 2,
            memory_mib: 4096,
            disk_mib: Some((100, 25)),
            ready: Some(true),
            ..NodeReading::default()
        };
        Reading {
            nodes: vec![node],
            ..Reading::default()
        }
    }
}

/// The provider.
pub(crate) fn insights(store: &Arc<dyn Store>) -> Insights {
    let env = Env::simulated(1);
    let history = Arc::new(History::new(env.clone(), Arc::new(OneNode)));
    Insights::new(env, Arc::clone(store), "t", history)
}

/// A GET of a path.
pub(crate) fn request(path: &str) -> Request {
    Request {
        method: http::Method::GET,
        path: ResourcePath::parse(path).unwrap(),
        api_version: "2018-01-01".to_owned(),
        query: Vec::new(),
        body: Value::Null,
        if_match: None,
        if_none_match: None,
        principal: Principal {
            object_id: "o".to_owned(),
            name: "ada".to_owned(),
            tenant_id: "t".to_owned(),
            kind: PrincipalKind::User,
        },
        base_url: "https://arm.test".to_owned(),
        trace: Trace::default(),
    }
}

#[tokio::test(start_paused = true)]
async fn clusters_have_metrics_and_nothing_else_has() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let cluster = ClusterRecord::of_spec("u1", &testkit::cluster(), jiff::Timestamp::UNIX_EPOCH);
    store
        .txn(directory::new_cluster(Txn::default(), &cluster))
        .await
        .unwrap();
    let provider = Arc::new(insights(&store));
    assert_eq!(provider.namespace(), "Microsoft.Insights");
    let registry = Registry::new(vec![provider]);
    let get = async |path: &str, query: &[(&str, &str)]| -> Result<Value, ArmError> {
        let mut request = request(&format!("/subscriptions/s/resourceGroups/g/providers/{path}"));
        request.query = query
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let target = registry.target(&request.path).unwrap();
        let route = target.route(&http::Method::GET).unwrap().clone();
        let call = Call::new(request, AccessControl::allow_all());
        let answer = target.provider.handle(&route, &call).await?;
        Ok(answer.body.unwrap_or_default())
    };
    let at = "Microsoft.ContainerService/managedClusters/c/providers/Microsoft.Insights";
    let definitions = get(&format!("{at}/metricDefinitions"), &[]).await.unwrap();
    let names: Vec<&str> = definitions["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"]["value"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"node_disk_usage_percentage") && names.contains(&"kube_pod_status_phase"));
    let wanted = [
        ("metricnames", "node_disk_usage_percentage"),
        ("$filter", "node eq '*'"),
    ];
    let answer = get(&format!("{at}/metrics"), &wanted).await.unwrap();
    let data = answer["value"][0]["timeseries"][0]["data"].as_array().unwrap();
    let values: Vec<&Value> = data.iter().filter(|one| !one["average"].is_null()).collect();
    assert_eq!(values.len(), 1, "{answer}");
    assert_eq!(values[0]["average"], 75.0);
    let namespaces = get(&format!("{at}/metricNamespaces"), &[]).await.unwrap();
    assert_eq!(
        namespaces["value"][0]["name"],
        "Microsoft.ContainerService/managedClusters"
    );
    let none = at.replace("/c/", "/none/");
    let error = get(&format!("{none}/metrics"), &[]).await.unwrap_err();
    assert_eq!(error.code.code, "ResourceNotFound");
    let pool = at.replace("/c/", "/c/agentPools/np1/");
    let error = get(&format!("{pool}/metrics"), &[]).await.unwrap_err();
    assert_eq!(error.code.code, "BadRequest", "{}", json!(error.message));
}
