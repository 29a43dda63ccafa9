//! Queries of metrics, and the response from samples. Pure.

use std::collections::BTreeMap;

use arm_kernel::{
    odata::{Term, terms},
    quote,
};
use arm_wire::{ArmError, ErrorCode, Request};
use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};
use serde_json::{Map, Value, json};

use super::{
    NAMESPACE,
    definitions::{AGGREGATIONS, Definition, METRICS, metric},
    history::Sample,
};

/// The most values of a series: those of a day and, as hardly any day begins with an interval, one more.
const MOST: i64 = 1_441;
/// The most series of a metric without `top`.
const SERIES: usize = 10;
/// The supported grains.
const GRAINS: &[(&str, i64)] = &[
    ("PT1M", 60),
    ("PT5M", 5 * 60),
    ("PT15M", 15 * 60),
    ("PT30M", 30 * 60),
    ("PT1H", 60 * 60),
    ("PT6H", 6 * 60 * 60),
    ("PT12H", 12 * 60 * 60),
    ("P1D", 24 * 60 * 60),
];

/// A parsed query.
#[derive(Debug, PartialEq)]
pub(crate) struct Wanted {
    metrics: Vec<&'static Definition>,
    from: Timestamp,
    until: Timestamp,
    grain: (&'static str, i64),
    aggregations: Vec<&'static str>,
    /// Dimensions with the required values; `None`: any.
    filter: Vec<(String, Option<String>)>,
    top: usize,
    /// Only the list of series.
    metadata: bool,
}

/// The beginning of the interval that contains a time.
fn floor(at: Timestamp, seconds: i64) -> Timestamp {
    let second = at.as_second();
    Timestamp::from_second(second - second.rem_euclid(seconds)).unwrap_or(at)
}

fn wrong(target: &str, message: String) -> ArmError {
    ArmError::new(ErrorCode::BAD_REQUEST, message).target(target)
}

impl Wanted {
    pub(crate) fn of(request: &Request, now: Timestamp) -> Result<Self, ArmError> {
        let text = |name: &str| request.query(name).map(str::trim).filter(|text| !text.is_empty());
        if let Some(other) = text("metricnamespace").filter(|own| !own.eq_ignore_ascii_case(NAMESPACE)) {
            let message = format!(
                "There is no namespace {} of metrics; it is '{NAMESPACE}'.",
                quote(other)
            );
            return Err(wrong("metricnamespace", message));
        }
        let metrics = match text("metricnames") {
            None => vec![&METRICS[0]],
            Some(names) => names
                .split(',')
                .map(|name| named(name.trim()))
                .collect::<Result<_, _>>()?,
        };
        let given = match text("timespan") {
            // Includes the sample read for this response.
            None => (
                now - SignedDuration::from_hours(1),
                now + SignedDuration::from_secs(1),
            ),
            Some(span) => span_of(span)?,
        };
        let (from, until) = given;
        let grain = match text("interval") {
            None => GRAINS[0],
            Some(asked) => *GRAINS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(asked))
                .ok_or_else(|| {
                    let names: Vec<&str> = GRAINS.iter().map(|(name, _)| *name).collect();
                    let message = format!(
                        "{} is no interval; use one of {}.",
                        quote(asked),
                        names.join(", ")
                    );
                    wrong("interval", message)
                })?,
        };
        // Whole intervals, so that the sample read for the response is in the last one.
        let (from, until) = (floor(from, grain.1), floor(until, grain.1));
        let until = if until < given.1 {
            until + SignedDuration::from_secs(grain.1)
        } else {
            until
        };
        if (until.as_second() - from.as_second()) / grain.1 > MOST {
            let message = format!(
                "The timespan has more than {MOST} intervals; ask for a shorter one, or for longer intervals."
            );
            return Err(wrong("timespan", message));
        }
        let aggregations = match text("aggregation") {
            None => Vec::new(),
            Some(names) => names
                .split(',')
                .map(|name| aggregation(name.trim()))
                .collect::<Result<_, _>>()?,
        };
        let top = match text("top") {
            None => SERIES,
            Some(top) => top
                .parse()
                .ok()
                .filter(|top| (1..=1000).contains(top))
                .ok_or_else(|| wrong("top", "'top' has to be a whole number from 1 to 1000.".to_owned()))?,
        };
        Ok(Self {
            filter: filter(request.query("$filter"), &metrics)?,
            metadata: text("resultType").is_some_and(|kind| kind.eq_ignore_ascii_case("Metadata")),
            metrics,
            from,
            until,
            grain,
            aggregations,
            top,
        })
    }

    /// The response.
    pub(crate) fn answer(&self, resource: &str, region: &str, samples: &[Sample]) -> Value {
        let value: Vec<Value> = self
            .metrics
            .iter()
            .map(|metric| {
                json!({
                    "id": format!("{resource}/providers/Microsoft.Insights/metrics/{}", metric.name),
                    "type": "Microsoft.Insights/metrics",
                    "name": { "value": metric.name, "localizedValue": metric.title },
                    "unit": metric.unit(),
                    "timeseries": self.series(metric, samples),
                    "errorCode": "Success",
                })
            })
            .collect();
        json!({
            "cost": (self.until.as_second() - self.from.as_second()) / 60,
            "timespan": format!("{}/{}", self.from, self.until),
            "interval": self.grain.0,
            "namespace": NAMESPACE,
            "resourceregion": region,
            "value": value,
        })
    }

    /// A series for each value of dimensions in the filter; otherwise one in total.
    fn series(&self, metric: &Definition, samples: &[Sample]) -> Vec<Value> {
        let mut found: BTreeMap<Vec<(&str, &str)>, BTreeMap<i64, Bucket>> = BTreeMap::new();
        let within = samples
            .iter()
            .filter(|sample| (self.from..self.until).contains(&sample.at));
        for sample in within {
            for point in sample.points.iter().filter(|point| point.metric == metric.name) {
                let label = |dimension: &str| {
                    let mut labels = point.labels.iter();
                    labels.find(|(own, _)| own.eq_ignore_ascii_case(dimension))
                };
                let mut key = Vec::new();
                let taken = self
                    .filter
                    .iter()
                    .all(|(dimension, wanted)| match label(dimension) {
                        Some((name, value)) => {
                            key.push((*name, value.as_str()));
                            wanted
                                .as_ref()
                                .is_none_or(|wanted| value.eq_ignore_ascii_case(wanted))
                        }
                        None => false,
                    });
                if taken {
                    let slot = (sample.at.as_second() - self.from.as_second()) / self.grain.1;
                    found
                        .entry(key)
                        .or_default()
                        .entry(slot)
                        .or_default()
                        .add(point.value);
                }
            }
        }
        let slots = (self.until.as_second() - self.from.as_second()) / self.grain.1;
        let each = found.into_iter().take(self.top).map(|(key, buckets)| {
            let labels: Vec<Value> = key
                .iter()
                .map(|(name, value)| json!({ "name": { "value": name, "localizedValue": name }, "value": value }))
                .collect();
            if self.metadata {
                return json!({ "metadatavalues": labels });
            }
            let data: Vec<Value> = (0..slots).map(|slot| self.value(metric, slot, buckets.get(&slot))).collect();
            json!({ "metadatavalues": labels, "data": data })
        });
        each.collect()
    }

    /// A value of a series. An interval without samples has a time only: a gap.
    fn value(&self, metric: &Definition, slot: i64, bucket: Option<&Bucket>) -> Value {
        let at = self.from + SignedDuration::from_secs(slot * self.grain.1);
        let mut value = Map::new();
        value.insert("timeStamp".to_owned(), json!(at.to_string()));
        let own = [metric.primary];
        let wanted = if self.aggregations.is_empty() {
            &own[..]
        } else {
            &self.aggregations
        };
        for name in wanted {
            if let Some(bucket) = bucket {
                value.insert(name.to_ascii_lowercase(), json!(bucket.taken(name)));
            }
        }
        Value::Object(value)
    }
}

/// Values of an interval.
#[derive(Debug, Default)]
struct Bucket {
    count: f64,
    total: f64,
    least: Option<f64>,
    most: Option<f64>,
}

impl Bucket {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        self.total += value;
        self.least = Some(self.least.map_or(value, |least| least.min(value)));
        self.most = Some(self.most.map_or(value, |most| most.max(value)));
    }

    fn taken(&self, aggregation: &str) -> Option<f64> {
        match aggregation {
            "Average" => Some(self.total / self.count),
            "Minimum" => self.least,
            "Maximum" => self.most,
            "Total" => Some(self.total),
            _ => Some(self.count),
        }
    }
}

fn named(name: &str) -> Result<&'static Definition, ArmError> {
    metric(name).ok_or_else(|| {
        let names: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
        let message = format!(
            "Failed to find metric configuration for provider: Microsoft.ContainerService, resource Type: managedClusters, metric: {}, \
             Valid metrics: {}",
            quote(name),
            names.join(",")
        );
        wrong("metricnames", message)
    })
}

fn aggregation(name: &str) -> Result<&'static str, ArmError> {
    let known = AGGREGATIONS.iter().find(|known| known.eq_ignore_ascii_case(name));
    known.copied().ok_or_else(|| {
        let message = format!(
            "{} is no aggregation; use {}.",
            quote(name),
            AGGREGATIONS.join(", ")
        );
        wrong("aggregation", message)
    })
}

fn span_of(asked: &str) -> Result<(Timestamp, Timestamp), ArmError> {
    // The Azure CLI encodes it twice.
    let text = arm_ids::decode(asked).unwrap_or_else(|| asked.to_owned());
    let time = |text: &str| {
        let plain = || {
            let civil = text.parse::<civil::DateTime>().ok()?;
            Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
        };
        text.parse::<Timestamp>().ok().or_else(plain)
    };
    let both = text
        .split_once('/')
        .and_then(|(from, until)| Some((time(from)?, time(until)?)));
    both.filter(|(from, until)| from < until).ok_or_else(|| {
        let message = format!(
            "{} is no timespan; use one such as 2026-12-31T01:00:00Z/2026-12-31T02:00:00Z.",
            quote(asked)
        );
        wrong("timespan", message)
    })
}

fn filter(
    text: Option<&str>,
    metrics: &[&'static Definition],
) -> Result<Vec<(String, Option<String>)>, ArmError> {
    let known = |name: &str| {
        let has = |metric: &&Definition| metric.dimensions.iter().any(|own| own.eq_ignore_ascii_case(name));
        metrics.iter().all(has)
    };
    let found = terms(
        text,
        |term| matches!(term, Term::Is(name, _) if known(name)),
        "\"dimension eq 'value'\" or \"dimension eq '*'\" with dimensions of the metrics",
    )?;
    let each = found.into_iter().filter_map(|term| match term {
        Term::Is(name, value) => Some((name, (value != "*").then_some(value))),
        _ => None,
    });
    Ok(each.collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{super::reading::Point, *};

    const NOW: &str = "2026-11-29T02:00:00Z";

    fn asked(query: &[(&str, &str)]) -> Result<Wanted, ArmError> {
        let mut request = crate::tests::request("/x");
        request.query = query
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Wanted::of(&request, NOW.parse().unwrap())
    }

    fn sample(at: &str, values: &[(&str, f64)]) -> Sample {
        let points = values.iter().map(|(node, value)| Point {
            metric: "node_cpu_usage_millicores",
            labels: vec![("node", (*node).to_owned()), ("nodepool", "np1".to_owned())],
            value: *value,
        });
        Sample {
            at: at.parse().unwrap(),
            points: Arc::new(points.collect()),
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_by_its_name() {
        for (name, value) in [
            ("metricnames", "nothing"),
            ("metricnames", ""),
            ("timespan", "x"),
            ("timespan", "2026-11-29T02:00:00Z/2026-11-29T01:00:00Z"),
            ("timespan", "2026-01-01T02:00:00Z/2026-11-29T01:00:00Z"),
            ("interval", "PT2M"),
            ("aggregation", "Median"),
            ("top", "0"),
            ("metricnamespace", "Other"),
            ("$filter", "phase eq 'Running'"),
            ("$filter", "node gt 'a'"),
        ] {
            let found = asked(&[(name, value)]);
            if value.is_empty() {
                assert!(found.is_ok(), "{name}");
                continue;
            }
            let error = found.unwrap_err();
            assert_eq!(
                (error.code, error.target.as_deref()),
                (ErrorCode::BAD_REQUEST, Some(name)),
                "{value}"
            );
        }
    }

    #[test]
    fn a_day_is_answered_whatever_second_it_begins_with() {
        for day in [
            "2026-11-28T02:00:00Z/2026-11-29T02:00:00Z",
            "2026-11-28T02:00:25.5Z/2026-11-29T02:00:25.5Z",
        ] {
            assert!(asked(&[("timespan", day)]).is_ok(), "{day}");
        }
        let more = ("timespan", "2026-11-28T02:00:25.5Z/2026-11-29T02:01:25.5Z");
        let error = asked(&[more]).unwrap_err();
        assert_eq!(error.target.as_deref(), Some("timespan"));
    }

    #[test]
    fn values_are_taken_together_and_gaps_stay_gaps() {
        let samples = [
            sample("2026-11-29T01:00:10Z", &[("n1", 100.0), ("n2", 300.0)]),
            sample("2026-11-29T01:01:10Z", &[("n1", 200.0)]),
            sample("2026-11-29T01:11:10Z", &[("n1", 50.0), ("n2", 70.0)]),
            sample("2026-11-29T02:00:00Z", &[("n1", 1.0)]),
        ];
        let wanted = asked(&[
            ("interval", "PT5M"),
            ("aggregation", "Average,Maximum,Count"),
            ("timespan", "2026-11-29T01:00:00Z/2026-11-29T02:00:00Z"),
        ])
        .unwrap();
        let answer = wanted.answer("/c", "local", &samples);
        let series = &answer["value"][0]["timeseries"];
        assert_eq!(series.as_array().unwrap().len(), 1);
        let data = series[0]["data"].as_array().unwrap();
        assert_eq!(data.len(), 12);
        assert_eq!(
            data[0],
            json!({ "timeStamp": "2026-11-29T01:00:00Z", "average": 200.0, "maximum": 300.0, "count": 3.0 })
        );
        assert_eq!(
            data[1],
            json!({ "timeStamp": "2026-11-29T01:05:00Z" }),
            "nothing was read"
        );
        assert_eq!(data[2]["average"], 60.0);

        let wanted = asked(&[
            ("$filter", "node eq '*'"),
            ("timespan", "2026-11-29T01%3A00%3A00.0%2F2026-11-29T01%3A02%3A00"),
        ])
        .unwrap();
        let answer = wanted.answer("/c", "local", &samples);
        let series = answer["value"][0]["timeseries"].as_array().unwrap();
        let nodes: Vec<&Value> = series
            .iter()
            .map(|one| &one["metadatavalues"][0]["value"])
            .collect();
        assert_eq!(nodes, ["n1", "n2"]);
        assert_eq!(series[0]["data"][1]["average"], 200.0);
        assert_eq!(
            series[1]["data"][1],
            json!({ "timeStamp": "2026-11-29T01:01:00Z" })
        );

        let wanted = asked(&[("$filter", "node eq 'N2'"), ("resultType", "Metadata")]).unwrap();
        let answer = wanted.answer("/c", "local", &samples);
        assert_eq!(answer["value"][0]["timeseries"].as_array().unwrap().len(), 1);
        assert!(answer["value"][0]["timeseries"][0]["data"].is_null());
        let wanted = asked(&[("metricnames", "kube_pod_status_phase,node_disk_usage_bytes")]).unwrap();
        let answer = wanted.answer("/c", "local", &samples);
        assert_eq!(answer["value"].as_array().unwrap().len(), 2);
        assert_eq!(answer["value"][0]["timeseries"], json!([]));
    }
}
