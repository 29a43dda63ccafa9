//! Metrics of clusters: resource use of their nodes, their pods by phase, and responses of their API servers,
//! as `az monitor metrics` reads them.

mod definitions;
mod history;
mod query;
mod reading;

use arm_ids::ResourcePath;
use arm_kernel::{Operation, ResourceType, Scope, Verb, store_error};
use arm_wire::{ArmError, ErrorCode, Request, Response};
use control_records::directory;
use serde_json::{Value, json};

pub use history::{History, Readings};
pub use reading::{NodeReading, Reading};

use crate::Insights;
use query::Wanted;

/// The namespace of these metrics.
pub(crate) const NAMESPACE: &str = "Microsoft.ContainerService/managedClusters";

type Row = Operation<Insights>;
type Type = ResourceType<Insights>;

const fn kind(path: &'static str, versions: &'static [&'static str], operations: &'static [Row]) -> Type {
    ResourceType {
        path,
        versions,
        schema: None,
        members: None,
        operations,
    }
}

pub(crate) const METRICS: Type = kind(
    "metrics",
    &[
        "2024-02-01",
        "2023-10-01",
        "2021-05-01",
        "2019-07-01",
        "2018-01-01",
    ],
    &[Row::read(Verb::List, "Metrics_List", |provider, call| {
        Box::pin(provider.metrics(&call.request))
    })
    .own_filter()
    .at(Scope::Resource)],
);

pub(crate) const DEFINITIONS: Type = kind(
    "metricDefinitions",
    &["2024-02-01", "2023-10-01", "2021-05-01", "2018-01-01"],
    &[Row::read(Verb::List, "MetricDefinitions_List", |provider, call| {
        Box::pin(async {
            let cluster = provider.cluster(&call.request).await?;
            let all = definitions::METRICS
                .iter()
                .map(|metric| metric.document(&cluster.id));
            Ok(Response::ok(json!({ "value": all.collect::<Vec<_>>() })))
        })
    })
    .at(Scope::Resource)],
);

pub(crate) const NAMESPACES: Type = kind(
    "metricNamespaces",
    &["2024-02-01", "2017-12-01-preview"],
    &[Row::read(Verb::List, "MetricNamespaces_List", |provider, call| {
        Box::pin(async {
            let cluster = provider.cluster(&call.request).await?;
            let own = json!({
                "id": format!("{}/providers/Microsoft.Insights/metricNamespaces/{NAMESPACE}", cluster.id),
                "type": "Microsoft.Insights/metricNamespaces",
                "name": NAMESPACE,
                "classification": "Platform",
                "properties": { "metricNamespaceName": NAMESPACE },
            });
            Ok(Response::ok(json!({ "value": [own] })))
        })
    })
    .at(Scope::Resource)],
);

/// The cluster of a request.
struct Cluster {
    uid: String,
    id: String,
    region: String,
}

impl Insights {
    async fn cluster(&self, request: &Request) -> Result<Cluster, ArmError> {
        let parent = request.path.parent.as_deref();
        let is_cluster = |path: &&ResourcePath| {
            path.is_item()
                && path.namespace_is("Microsoft.ContainerService")
                && path.type_is("managedClusters")
        };
        let Some(path) = parent.filter(is_cluster) else {
            let kind = parent.map(ResourcePath::full_type).unwrap_or_default();
            let message = format!("Resources of the type '{kind}' have no metrics; clusters have.");
            return Err(ArmError::new(ErrorCode::BAD_REQUEST, message));
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (subscription, group, name) = (
            text(&path.subscription),
            text(&path.resource_group),
            path.name(0).unwrap_or_default(),
        );
        let found = directory::cluster_named(&*self.store, &subscription, &group, name).await;
        let found = found.map_err(store_error)?.ok_or_else(|| {
            let message =
                format!("The resource '{NAMESPACE}/{name}' under resource group '{group}' was not found.");
            ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message)
        })?;
        Ok(Cluster {
            id: path.to_string(),
            region: found.value.spec().location.clone(),
            uid: found.value.uid,
        })
    }

    async fn metrics(&self, request: &Request) -> Result<Response, ArmError> {
        let cluster = self.cluster(request).await?;
        let asked = self.env.clock.now();
        // The sample read for this response is part of it.
        let wanted = Wanted::of(request, asked)?;
        let samples = self.history.ask(&cluster.uid).await;
        let answer: Value = wanted.answer(&cluster.id, &cluster.region, &samples);
        Ok(Response::ok(answer))
    }
}
