//! What the edge counts of requests, for the stamp's metrics.
//!
//! Always true: a request is counted once, when its response is made; the groups are made at start, from the providers' namespaces, and never
//! grow: nothing of a path, a caller or a resource becomes a label. Each request costs a few atomic additions and no lock.

use std::{collections::BTreeMap, time::Duration};

use base_metrics::{Counter, Family, Gauge, Histogram, Page};
use http::{Method, StatusCode};

use crate::budgets::{HOLDERS, KINDS, Kind, Passed, Whose};

/// Requests by what they are of and how they were answered.
pub static REQUESTS: Family = Family::counter(
    "landfall_arm_requests_total",
    "Requests that were answered, by the namespace of the operation (or public, graph, operations for polls, refused before an operation was known) and by class of status.",
    &["group", "status"],
    200,
);
/// Requests beyond a budget.
pub static THROTTLED: Family = Family::counter(
    "landfall_arm_throttled_total",
    "Requests that were answered with 429, by whose budget was used up (principal: a principal's in a subscription, subscription: that of all its principals, tenant: a principal's of what is in no subscription) and by what they were (reads, writes, deletes).",
    &["budget", "kind"],
    HOLDERS * KINDS,
);
/// Requests that are being answered.
pub static IN_FLIGHT: Family = Family::gauge(
    "landfall_arm_requests_in_flight",
    "Requests that are being answered.",
    &[],
    1,
);
/// Bytes of request bodies, as clients declare them.
pub static RECEIVED: Family = Family::counter(
    "landfall_arm_received_bytes_total",
    "Bytes of request bodies, as their Content-Length says.",
    &[],
    1,
);
/// Bytes of response bodies.
pub static SENT: Family = Family::counter(
    "landfall_arm_sent_bytes_total",
    "Bytes of response bodies, compressed where they are.",
    &[],
    1,
);
/// How long answers took.
pub static DURATION: Family = Family::histogram(
    "landfall_arm_request_duration_seconds",
    "Time from a request's head to its response, by whether it reads (GET, HEAD) or writes.",
    &["kind"],
    2,
);

/// All of them.
pub static FAMILIES: [&Family; 6] = [&REQUESTS, &THROTTLED, &IN_FLIGHT, &RECEIVED, &SENT, &DURATION];

/// Requests without a token: health, metadata, published documents, the token service.
pub(crate) const PUBLIC: &str = "public";
/// Requests of the directory's API.
pub(crate) const GRAPH: &str = "graph";
/// Polls of operations.
pub(crate) const OPERATIONS: &str = "operations";
/// Requests that were answered before an operation was found.
pub(crate) const REFUSED: &str = "refused";

/// Classes of status: 1xx to 5xx.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// Upper bounds of the durations, microseconds: the last is near the limit of a request.
const BOUNDS: [u64; 7] = [5_000, 25_000, 100_000, 500_000, 2_000_000, 10_000_000, 60_000_000];

/// The counters.
pub(crate) struct Measures {
    requests: BTreeMap<&'static str, [Counter; CLASSES.len()]>,
    throttled: [[Counter; KINDS]; HOLDERS],
    in_flight: Gauge,
    received: Counter,
    sent: Counter,
    reads: Histogram,
    writes: Histogram,
}

/// An answered request.
pub(crate) struct Answered<'a> {
    pub(crate) group: &'static str,
    pub(crate) method: &'a Method,
    pub(crate) status: StatusCode,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) took: Duration,
}

impl Measures {
    /// At zero, for these namespaces.
    pub(crate) fn new(namespaces: impl IntoIterator<Item = &'static str>) -> Self {
        let groups = [PUBLIC, GRAPH, OPERATIONS, REFUSED];
        Self {
            requests: namespaces
                .into_iter()
                .chain(groups)
                .map(|group| (group, Default::default()))
                .collect(),
            throttled: Default::default(),
            in_flight: Gauge::new(),
            received: Counter::new(),
            sent: Counter::new(),
            reads: Histogram::new(&BOUNDS),
            writes: Histogram::new(&BOUNDS),
        }
    }

    /// The requests that are being answered.
    pub(crate) fn in_flight(&self) -> &Gauge {
        &self.in_flight
    }

    /// Counts a request that passes a budget; it is counted as answered as well.
    pub(crate) fn throttle(&self, passed: &Passed) {
        self.throttled[passed.whose as usize][passed.kind as usize].count();
    }

    /// Counts a request.
    pub(crate) fn note(&self, answered: &Answered<'_>) {
        let class = usize::from(answered.status.as_u16() / 100).saturating_sub(1);
        let row = self.requests.get(answered.group);
        if let Some(count) = row.and_then(|row| row.get(class)) {
            count.count();
        }
        self.received.add(answered.received);
        self.sent.add(answered.sent);
        let reads = matches!(*answered.method, Method::GET | Method::HEAD);
        let histogram = if reads { &self.reads } else { &self.writes };
        histogram.observe(answered.took);
    }

    /// Writes them to a page. What was never counted has no series.
    pub(crate) fn write(&self, page: &mut Page) {
        let mut requests = page.family(&REQUESTS);
        for (group, row) in &self.requests {
            for (class, count) in CLASSES.iter().zip(row) {
                if count.get() > 0 {
                    requests.put(&[group, class], count.get());
                }
            }
        }
        let mut throttled = page.family(&THROTTLED);
        for (whose, row) in Whose::ALL.into_iter().zip(&self.throttled) {
            for (kind, count) in Kind::ALL.into_iter().zip(row) {
                if count.get() > 0 {
                    throttled.put(&[whose.as_str(), kind.plural()], count.get());
                }
            }
        }
        page.one(&IN_FLIGHT, self.in_flight.get());
        page.one(&RECEIVED, self.received.get());
        page.one(&SENT, self.sent.get());
        let mut duration = page.family(&DURATION);
        duration.histogram(&["read"], &self.reads);
        duration.histogram(&["write"], &self.writes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_group_and_class_and_nothing_else_of_them() {
        let measures = Measures::new(["Microsoft.ContainerService"]);
        let note = |group, method: &Method, status: u16| {
            measures.note(&Answered {
                group,
                method,
                status: StatusCode::from_u16(status).unwrap(),
                received: 10,
                sent: 100,
                took: Duration::from_millis(30),
            });
        };
        note("Microsoft.ContainerService", &Method::GET, 200);
        note("Microsoft.ContainerService", &Method::PUT, 201);
        note("Microsoft.ContainerService", &Method::PUT, 409);
        note(REFUSED, &Method::POST, 401);
        // A group that nobody knows makes no series.
        note("Unknown", &Method::GET, 200);
        // A status that is in no class makes none either.
        note(PUBLIC, &Method::GET, 999);
        let running = measures.in_flight().enter();
        let mut page = Page::new();
        measures.write(&mut page);
        drop(running);
        assert_eq!(page.left_out(), 0);
        let page = page.finish();
        for line in [
            "landfall_arm_requests_total{group=\"Microsoft.ContainerService\",status=\"2xx\"} 2",
            "landfall_arm_requests_total{group=\"Microsoft.ContainerService\",status=\"4xx\"} 1",
            "landfall_arm_requests_total{group=\"refused\",status=\"4xx\"} 1",
            "landfall_arm_requests_in_flight 1",
            "landfall_arm_received_bytes_total 60",
            "landfall_arm_sent_bytes_total 600",
            "landfall_arm_request_duration_seconds_bucket{kind=\"read\",le=\"0.025\"} 0",
            "landfall_arm_request_duration_seconds_bucket{kind=\"read\",le=\"0.1\"} 3",
            "landfall_arm_request_duration_seconds_count{kind=\"write\"} 3",
        ] {
            assert!(page.lines().any(|own| own == line), "{line} is not in\n{page}");
        }
        assert_eq!(page.matches("landfall_arm_requests_total{").count(), 3, "{page}");
    }

    #[test]
    fn the_families_follow_the_conventions() {
        for family in FAMILIES {
            assert_eq!(family.fault(), None);
        }
    }
}
