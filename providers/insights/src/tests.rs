//! Helpers of this crate's tests: a provider over a store in memory, and requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arm_ids::ResourcePath;
use arm_kernel::{AccessControl, Call, Provider as _, Registry};
use arm_wire::{ArmError, Principal, PrincipalKind, Request, Trace};
use async_trait::async_trait;
use base_env::Env;
use cluster_spec::testkit;
use control_records::{ClusterRecord, directory};
use control_store::{Store, Txn};
use jiff::{SignedDuration, tz::TimeZone};
use serde_json::{Value, json};
use storage_redb::MemoryStore;

use crate::{History, Insights, NodeReading, Reading, Readings};

/// Clusters of one node with constant metrics.
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

/// A provider for requests about the cluster `c`.
struct Asked(Registry);

impl Asked {
    async fn of(env: &Env, readings: Arc<dyn Readings>) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let cluster = ClusterRecord::of_spec("u1", &testkit::cluster(), jiff::Timestamp::UNIX_EPOCH);
        let made = directory::new_cluster(Txn::default(), &cluster);
        store.txn(made).await.unwrap();
        let history = Arc::new(History::new(env.clone(), readings));
        let provider = Arc::new(Insights::new(env.clone(), store, "t", history));
        assert_eq!(provider.namespace(), "Microsoft.Insights");
        Self(Registry::new(vec![provider]))
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, ArmError> {
        let mut request = request(&format!("/subscriptions/s/resourceGroups/g/providers/{path}"));
        request.query = query
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let target = self.0.target(&request.path).unwrap();
        let route = target.route(&http::Method::GET).unwrap().clone();
        let call = Call::new(request, AccessControl::allow_all());
        let answer = target.provider.handle(&route, &call).await?;
        Ok(answer.body.unwrap_or_default())
    }
}

#[tokio::test(start_paused = true)]
async fn clusters_have_metrics_and_nothing_else_has() {
    let asked = Asked::of(&Env::simulated(1), Arc::new(OneNode)).await;
    let get = async |path: &str, query: &[(&str, &str)]| asked.get(path, query).await;
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

/// Responses of metrics-server for a node, one per minute; at first it has no data.
const RECORDED: [&str; 3] = [
    r#"{"kind":"NodeMetricsList","apiVersion":"metrics.k8s.io/v1beta1","metadata":{},"items":[]}"#,
    r#"{"kind":"NodeMetricsList","apiVersion":"metrics.k8s.io/v1beta1","metadata":{},"items":[{"metadata":{"name":"aks-nodepool1-12345678-vmss000000","creationTimestamp":"2026-11-29T02:00:31Z","labels":{"agentpool":"nodepool1","kubernetes.io/os":"linux"}},"timestamp":"2026-11-29T02:00:19Z","window":"20.051s","usage":{"cpu":"187500000n","memory":"1048576Ki"}}]}"#,
    r#"{"kind":"NodeMetricsList","apiVersion":"metrics.k8s.io/v1beta1","metadata":{},"items":[{"metadata":{"name":"aks-nodepool1-12345678-vmss000000","creationTimestamp":"2026-11-29T02:01:31Z"},"timestamp":"2026-11-29T02:01:20Z","window":"15.012s","usage":{"cpu":"400m","memory":"2Gi"}}]}"#,
];

struct Recorded(AtomicUsize);

#[async_trait]
impl Readings for Recorded {
    async fn read(&self, _: &str) -> Reading {
        let minute = self.0.fetch_add(1, Ordering::Relaxed);
        let node = NodeReading {
            name: "aks-nodepool1-12345678-vmss000000".to_owned(),
            pool: "nodepool1".to_owned(),
            cores: 2,
            memory_mib: 4096,
            disk_mib: None,
            ready: Some(true),
        };
        Reading {
            nodes: vec![node],
            usage: Some(RECORDED[minute.min(RECORDED.len() - 1)].to_owned()),
            ..Reading::default()
        }
    }
}

/// `--offset 1h` of the Azure CLI: its present without a zone, encoded once more than needed.
fn last_hour(env: &Env) -> String {
    let at = |time: jiff::Timestamp| time.to_zoned(TimeZone::UTC).datetime().to_string();
    let now = env.clock.now();
    let span = format!("{}/{}", at(now - SignedDuration::from_hours(1)), at(now));
    span.replace('/', "%2F").replace(':', "%3A")
}

#[tokio::test(start_paused = true)]
async fn what_metrics_server_says_of_nodes_is_what_az_shows() {
    let env = Env::simulated(1);
    let asked = Asked::of(&env, Arc::new(Recorded(AtomicUsize::new(0)))).await;
    let at = "Microsoft.ContainerService/managedClusters/c/providers/Microsoft.Insights/metrics";
    let names = "node_cpu_usage_percentage,node_memory_working_set_percentage";
    // The request of az; the samples so far of both metrics, in its order.
    let values = async || -> [Vec<f64>; 2] {
        let span = last_hour(&env);
        let query = [
            ("metricnames", names),
            ("timespan", span.as_str()),
            ("interval", "PT1M"),
            ("aggregation", "Average"),
            ("top", "10"),
        ];
        let answer = asked.get(at, &query).await.unwrap();
        let metrics = answer["value"].as_array().unwrap();
        assert!(
            metrics.iter().all(|metric| metric["unit"] == "Percent"),
            "{answer}"
        );
        let of = |number: usize| {
            let series = metrics[number]["timeseries"].as_array().unwrap().iter();
            let data = series.flat_map(|series| series["data"].as_array().unwrap());
            data.filter_map(|one| one["average"].as_f64()).collect()
        };
        [of(0), of(1)]
    };
    // As outside simulations, the time is not at the beginning of a minute.
    env.clock.sleep(Duration::from_secs(25)).await;
    let none = values().await;
    let nothing: [Vec<f64>; 2] = Default::default();
    assert_eq!(none, nothing, "metrics-server has seen nothing yet");
    env.clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(values().await, [vec![9.375], vec![25.0]]);
    assert_eq!(
        values().await,
        [vec![9.375], vec![25.0]],
        "it was read a moment ago"
    );
    env.clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(values().await, [vec![9.375, 20.0], vec![25.0, 50.0]]);
}
