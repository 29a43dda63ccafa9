//! The metrics of a cluster at one moment, and the values derived from them. Pure: the inputs are texts.

use std::collections::BTreeMap;

use serde_json::Value;

/// A node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeReading {
    /// Its name.
    pub name: String,
    /// Its pool.
    pub pool: String,
    /// Cores of its size.
    pub cores: u32,
    /// Memory of its VM size, MiB.
    pub memory_mib: u64,
    /// Its disk, as its agent reports: size and free space, MiB.
    pub disk_mib: Option<(u64, u64)>,
    /// Whether it is Ready, as far as known.
    pub ready: Option<bool>,
}

/// Input data. Where some could not be read, it and the values derived from it are missing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// The nodes.
    pub nodes: Vec<NodeReading>,
    /// `/apis/metrics.k8s.io/v1beta1/nodes`.
    pub usage: Option<String>,
    /// `/api/v1/pods`.
    pub pods: Option<String>,
    /// `/metrics` of the API server.
    pub api_server: Option<String>,
}

/// A value with its dimensions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    pub(crate) metric: &'static str,
    pub(crate) labels: Vec<(&'static str, String)>,
    pub(crate) value: f64,
}

impl Reading {
    /// The values. `before`: the number of requests that the API server had answered at the last sample, by
    /// code.
    pub(crate) fn points(&self, before: &mut BTreeMap<String, f64>) -> Vec<Point> {
        let mut points = Vec::new();
        self.nodes_into(&mut points);
        self.pods_into(&mut points);
        self.api_server_into(before, &mut points);
        points
    }

    fn nodes_into(&self, points: &mut Vec<Point>) {
        let usage = self.usage.as_deref().and_then(usage).unwrap_or_default();
        for node in &self.nodes {
            let labels = || vec![("node", node.name.clone()), ("nodepool", node.pool.clone())];
            let mut add = |metric, value: f64| {
                let labels = labels();
                points.push(Point {
                    metric,
                    labels,
                    value,
                });
            };
            let share = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole * 100.0);
            if let Some((millicores, bytes)) = usage.get(&node.name) {
                add("node_cpu_usage_millicores", *millicores);
                let of_size = share(*millicores, f64::from(node.cores) * 1000.0);
                if let Some(percent) = of_size {
                    add("node_cpu_usage_percentage", percent);
                }
                add("node_memory_working_set_bytes", *bytes);
                if let Some(percent) = share(*bytes, mib(node.memory_mib)) {
                    add("node_memory_working_set_percentage", percent);
                }
            }
            if let Some((total, free)) = node.disk_mib {
                let used = mib(total.saturating_sub(free));
                add("node_disk_usage_bytes", used);
                if let Some(percent) = share(used, mib(total)) {
                    add("node_disk_usage_percentage", percent);
                }
            }
            if let Some(ready) = node.ready {
                points.push(Point {
                    metric: "kube_node_status_condition",
                    labels: vec![
                        ("condition", "Ready".to_owned()),
                        ("status", ready.to_string()),
                        ("node", node.name.clone()),
                    ],
                    value: 1.0,
                });
            }
        }
    }

    fn pods_into(&self, points: &mut Vec<Point>) {
        let Some(list) = self.pods.as_deref().and_then(json) else {
            return;
        };
        let mut counts: BTreeMap<(String, String), f64> = BTreeMap::new();
        for pod in list["items"].as_array().into_iter().flatten() {
            let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or("Unknown");
            let key = (
                text("/status/phase").to_owned(),
                text("/metadata/namespace").to_owned(),
            );
            *counts.entry(key).or_default() += 1.0;
        }
        for ((phase, namespace), value) in counts {
            points.push(Point {
                metric: "kube_pod_status_phase",
                labels: vec![("phase", phase), ("namespace", namespace)],
                value,
            });
        }
    }

    fn api_server_into(&self, before: &mut BTreeMap<String, f64>, points: &mut Vec<Point>) {
        let Some(text) = &self.api_server else { return };
        let mut answered: BTreeMap<String, f64> = BTreeMap::new();
        for line in text.lines() {
            if let Some((labels, value)) = series(line, "apiserver_current_inflight_requests") {
                let kind = label(labels, "request_kind").unwrap_or_default();
                points.push(Point {
                    metric: "apiserver_current_inflight_requests",
                    labels: vec![("requestKind", kind.to_owned())],
                    value,
                });
            } else if let Some((labels, value)) = series(line, "apiserver_request_total") {
                let code = label(labels, "code").unwrap_or_default();
                *answered.entry(code.to_owned()).or_default() += value;
            }
        }
        // The first sample has no predecessor to subtract, and a restarted process counts from 0.
        let first = before.is_empty();
        for (code, now) in &answered {
            let earlier = before.get(code).copied().unwrap_or(0.0);
            let value = if earlier > *now { *now } else { now - earlier };
            if !first {
                points.push(Point {
                    metric: "apiserver_request_total",
                    labels: vec![("code", code.clone())],
                    value,
                });
            }
        }
        *before = answered;
    }
}

fn mib(mib: u64) -> f64 {
    mib as f64 * 1024.0 * 1024.0
}

fn json(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

/// By node: thousandths of a core, and bytes.
fn usage(text: &str) -> Option<BTreeMap<String, (f64, f64)>> {
    let list = json(text)?;
    let items = list["items"].as_array()?.iter();
    let each = items.filter_map(|node| {
        let name = node.pointer("/metadata/name")?.as_str()?.to_owned();
        let cpu = quantity(node.pointer("/usage/cpu")?.as_str()?)? * 1000.0;
        let memory = quantity(node.pointer("/usage/memory")?.as_str()?)?;
        Some((name, (cpu, memory)))
    });
    Some(each.collect())
}

/// A quantity as Kubernetes writes it: `250m`, `123456789n`, `64Mi`.
fn quantity(text: &str) -> Option<f64> {
    const UNITS: &[(&str, f64)] = &[
        ("Ki", 1024.0),
        ("Mi", 1024.0 * 1024.0),
        ("Gi", 1024.0 * 1024.0 * 1024.0),
        ("Ti", 1024.0 * 1024.0 * 1024.0 * 1024.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
    ];
    let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
    let (number, factor) = match unit {
        Some((unit, factor)) => (text.strip_suffix(unit)?, *factor),
        None => (text, 1.0),
    };
    let number: f64 = number.parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number * factor)
}

/// Labels and value of a line of this series, in Prometheus' text.
fn series<'a>(line: &'a str, name: &str) -> Option<(&'a str, f64)> {
    let rest = line.strip_prefix(name)?.strip_prefix('{')?;
    let (labels, value) = rest.rsplit_once('}')?;
    let value: f64 = value.split_whitespace().next()?.parse().ok()?;
    value.is_finite().then_some((labels, value))
}

fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(',').find_map(|label| {
        let (own, value) = label.split_once('=')?;
        (own == name).then(|| value.trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(points: &[Point], metric: &str, label: &str) -> Option<f64> {
        let found = points
            .iter()
            .find(|point| point.metric == metric && point.labels.iter().any(|(_, own)| own == label));
        found.map(|point| point.value)
    }

    #[test]
    fn values_follow_from_what_was_read() {
        let usage = json!({ "items": [
            { "metadata": { "name": "n1" }, "usage": { "cpu": "500000000n", "memory": "2048Mi" } },
            { "metadata": { "name": "another" }, "usage": { "cpu": "1", "memory": "1" } },
        ]});
        let pods = json!({ "items": [
            { "metadata": { "namespace": "a" }, "status": { "phase": "Running" } },
            { "metadata": { "namespace": "a" }, "status": { "phase": "Running" } },
            { "metadata": { "namespace": "b" }, "status": { "phase": "Pending" } },
        ]});
        let mut reading = Reading {
            nodes: vec![
                NodeReading {
                    name: "n1".to_owned(),
                    pool: "np1".to_owned(),
                    cores: 2,
                    memory_mib: 4096,
                    disk_mib: Some((1000, 750)),
                    ready: Some(true),
                },
                NodeReading {
                    name: "silent".to_owned(),
                    ..NodeReading::default()
                },
            ],
            usage: Some(usage.to_string()),
            pods: Some(pods.to_string()),
            api_server: Some(
                "# HELP x\napiserver_request_total{code=\"200\",verb=\"GET\"} 10\napiserver_request_total{code=\"200\",verb=\"LIST\"} 5\n\
                 apiserver_current_inflight_requests{request_kind=\"mutating\"} 3\n"
                    .to_owned(),
            ),
        };
        let mut before = BTreeMap::new();
        let points = reading.points(&mut before);
        assert_eq!(value(&points, "node_cpu_usage_millicores", "n1"), Some(500.0));
        assert_eq!(value(&points, "node_cpu_usage_percentage", "n1"), Some(25.0));
        assert_eq!(
            value(&points, "node_memory_working_set_percentage", "np1"),
            Some(50.0)
        );
        assert_eq!(value(&points, "node_disk_usage_percentage", "n1"), Some(25.0));
        assert_eq!(value(&points, "kube_node_status_condition", "true"), Some(1.0));
        assert_eq!(value(&points, "kube_pod_status_phase", "Running"), Some(2.0));
        assert_eq!(value(&points, "kube_pod_status_phase", "b"), Some(1.0));
        assert_eq!(
            value(&points, "apiserver_current_inflight_requests", "mutating"),
            Some(3.0)
        );
        assert_eq!(
            value(&points, "apiserver_request_total", "200"),
            None,
            "the first time says nothing"
        );
        assert!(!points.iter().any(|point| {
            point
                .labels
                .iter()
                .any(|(_, own)| own == "silent" || own == "another")
        }));
        let later = |count: u32| Some(format!("apiserver_request_total{{code=\"200\"}} {count}\n"));
        reading.api_server = later(40);
        assert_eq!(
            value(&reading.points(&mut before), "apiserver_request_total", "200"),
            Some(25.0)
        );
        reading.api_server = later(7);
        let points = reading.points(&mut before);
        assert_eq!(
            value(&points, "apiserver_request_total", "200"),
            Some(7.0),
            "it began anew"
        );
        // Invalid values are missing.
        let nonsense = Reading {
            usage: Some("{".to_owned()),
            pods: Some("[]".to_owned()),
            api_server: Some("apiserver_request_total{code=\"200\"} NaN".to_owned()),
            ..Reading::default()
        };
        assert_eq!(nonsense.points(&mut BTreeMap::new()), []);
    }

    #[test]
    fn quantities_are_numbers() {
        for (text, number) in [
            ("250m", Some(0.25)),
            ("2", Some(2.0)),
            ("64Mi", Some(67_108_864.0)),
            ("1e3", Some(1000.0)),
            ("", None),
            ("x", None),
            ("-1", None),
            ("Mi", None),
        ] {
            assert_eq!(quantity(text), number, "{text}");
        }
    }
}
