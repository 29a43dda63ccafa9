//! The metrics of a cluster, with AKS' names.

use serde_json::{Value, json};

/// The unit of a value, as clients name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Count,
    Percent,
    Bytes,
    MilliCores,
}

impl Unit {
    fn as_str(self) -> &'static str {
        match self {
            Self::Count => "Count",
            Self::Percent => "Percent",
            Self::Bytes => "Bytes",
            Self::MilliCores => "MilliCores",
        }
    }
}

/// A metric.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    about: &'static str,
    pub(crate) unit: Unit,
    /// The default aggregation.
    pub(crate) primary: &'static str,
    /// The dimensions that distinguish its series.
    pub(crate) dimensions: &'static [&'static str],
}

const fn of_nodes(name: &'static str, title: &'static str, about: &'static str, unit: Unit) -> Definition {
    Definition {
        name,
        title,
        about,
        unit,
        primary: "Average",
        dimensions: &["node", "nodepool"],
    }
}

/// All of them.
pub(crate) const METRICS: &[Definition] = &[
    of_nodes(
        "node_cpu_usage_millicores",
        "CPU Usage Millicores",
        "CPU time that each node takes, from metrics-server",
        Unit::MilliCores,
    ),
    of_nodes(
        "node_cpu_usage_percentage",
        "CPU Usage Percentage",
        "The same, of the cores of the node's size",
        Unit::Percent,
    ),
    of_nodes(
        "node_memory_working_set_bytes",
        "Memory Working Set Bytes",
        "Memory that each node uses, from metrics-server",
        Unit::Bytes,
    ),
    of_nodes(
        "node_memory_working_set_percentage",
        "Memory Working Set Percentage",
        "The same, of the memory of the node's size",
        Unit::Percent,
    ),
    of_nodes(
        "node_disk_usage_bytes",
        "Disk Used Bytes",
        "What is used of each node's disk, from its agent",
        Unit::Bytes,
    ),
    of_nodes(
        "node_disk_usage_percentage",
        "Disk Used Percentage",
        "The same, of the disk",
        Unit::Percent,
    ),
    Definition {
        name: "kube_node_status_condition",
        title: "Statuses for various node conditions",
        about: "Nodes by whether they are Ready",
        unit: Unit::Count,
        primary: "Total",
        dimensions: &["condition", "status", "node"],
    },
    Definition {
        name: "kube_pod_status_phase",
        title: "Number of pods by phase",
        about: "Pods by phase, in all namespaces",
        unit: Unit::Count,
        primary: "Total",
        dimensions: &["phase", "namespace"],
    },
    Definition {
        name: "apiserver_current_inflight_requests",
        title: "Inflight Requests",
        about: "Requests that the API server is working on, by kind",
        unit: Unit::Count,
        primary: "Average",
        dimensions: &["requestKind"],
    },
    Definition {
        name: "apiserver_request_total",
        title: "API Server Requests",
        about: "Requests that the API server has answered since the sample before",
        unit: Unit::Count,
        primary: "Total",
        dimensions: &["code"],
    },
];

/// The aggregations.
pub(crate) const AGGREGATIONS: [&str; 5] = ["Average", "Minimum", "Maximum", "Total", "Count"];

/// The metric of this name.
pub(crate) fn metric(name: &str) -> Option<&'static Definition> {
    METRICS
        .iter()
        .find(|metric| metric.name.eq_ignore_ascii_case(name))
}

impl Definition {
    /// The form in `metricDefinitions`.
    pub(crate) fn document(&self, resource: &str) -> Value {
        let named = |name: &&str| json!({ "value": name, "localizedValue": name });
        let dimensions: Vec<Value> = self.dimensions.iter().map(named).collect();
        json!({
            "id": format!("{resource}/providers/Microsoft.Insights/metricdefinitions/{}", self.name),
            "resourceId": resource,
            "namespace": super::NAMESPACE,
            "category": "",
            "name": { "value": self.name, "localizedValue": self.title },
            "displayDescription": self.about,
            "isDimensionRequired": false,
            "unit": self.unit.as_str(),
            "primaryAggregationType": self.primary,
            "supportedAggregationTypes": AGGREGATIONS,
            "metricAvailabilities": [{ "timeGrain": "PT1M", "retention": "P1D" }],
            "dimensions": dimensions,
        })
    }

    /// The unit as responses name it.
    pub(crate) fn unit(&self) -> &'static str {
        self.unit.as_str()
    }
}
