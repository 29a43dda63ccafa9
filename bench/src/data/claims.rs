//! How long a pod with a claim takes to start: from the request of `kubectl apply` to the container's start,
//! with the steps between.
//!
//! The API's own times are whole seconds, so its objects are polled many times a second, as in `bench
//! create`. The same pod without a claim is made the same way, round by round in turn.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use base_env::Clock;
use serde_json::Value;

use super::{figures::Spread, objects};
use crate::kube::{Kube, POLL};

/// Rounds of each.
const ROUNDS: u32 = 5;

/// Seconds since the request for the pod.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Start {
    bound: Option<f64>,
    attached: Option<f64>,
    prepared: Option<f64>,
    started: Option<f64>,
}

/// All rounds.
pub(super) struct Starts {
    with: Vec<Start>,
    without: Vec<Start>,
}

impl Starts {
    /// Both kinds of pods, in turn.
    pub(super) async fn measure(clock: &Arc<dyn Clock>, kube: &Kube, bound: Duration) -> Result<Self> {
        let mut starts = Self {
            with: Vec::new(),
            without: Vec::new(),
        };
        for round in 1..=ROUNDS {
            let (plain, claiming) = (format!("plain{round}"), format!("claiming{round}"));
            starts
                .without
                .push(start(clock, kube, &plain, None, bound).await?);
            let with = start(clock, kube, &claiming, Some(&claiming), bound).await?;
            starts.with.push(with);
        }
        Ok(starts)
    }

    /// From the claim and the pod to the container's start, seconds.
    pub(super) fn started(&self) -> Spread {
        spread(&self.with, |start| start.started)
    }

    /// A line for each part, for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let of = |what: &str, starts: &[Start], part: fn(&Start) -> Option<f64>| {
            format!("  {what:43} {:24.2} s", spread(starts, part))
        };
        vec![
            of(
                "without a claim: volumes and network there",
                &self.without,
                |start| start.prepared,
            ),
            of("without a claim: started", &self.without, |start| start.started),
            of("with a claim: bound", &self.with, |start| start.bound),
            of("with a claim: attached", &self.with, |start| start.attached),
            of("with a claim: mounted, network there", &self.with, |start| {
                start.prepared
            }),
            of("with a claim: started", &self.with, |start| start.started),
        ]
    }
}

fn spread(starts: &[Start], part: fn(&Start) -> Option<f64>) -> Spread {
    let seen: Vec<f64> = starts.iter().filter_map(part).collect();
    Spread::of(&seen)
}

/// Makes a pod, with a claim where one is named, follows it to its start and has both deleted.
async fn start(
    clock: &Arc<dyn Clock>,
    kube: &Kube,
    name: &str,
    claim: Option<&str>,
    bound: Duration,
) -> Result<Start> {
    let pod_at = format!("{}/{name}", objects::PODS);
    let claim_at = claim.map(|claim| format!("{}/{claim}", objects::CLAIMS));
    let begun = clock.monotonic();
    if let Some(claim) = claim {
        kube.create(objects::CLAIMS, &objects::claim(claim)).await?;
    }
    let pod = objects::pod(name, &["sleep", "86400"], claim);
    kube.create(objects::PODS, &pod).await?;
    let mut seen = Start::default();
    let mut volume: Option<String> = None;
    loop {
        let pod = read(kube, &pod_at).await;
        let claim = match &claim_at {
            Some(claim_at) if volume.is_none() => read(kube, claim_at).await,
            _ => Value::Null,
        };
        if let Some(bound) = objects::bound(&claim) {
            volume = Some(bound.to_owned());
        }
        let attached = match &volume {
            Some(volume) if seen.attached.is_none() => {
                objects::attached(&read(kube, objects::ATTACHMENTS).await, volume)
            }
            _ => false,
        };
        let passed = clock.monotonic() - begun;
        seen.see(passed, &pod, volume.is_some(), attached);
        if seen.started.is_some() {
            break;
        }
        if passed > bound {
            bail!(
                "{name} has not started within {bound:?}: {seen:?}; the pod is {}, its claim {claim}",
                pod["status"]
            );
        }
        clock.sleep(POLL).await;
    }
    // The next round starts from the same state.
    kube.delete(clock, &pod_at, bound).await?;
    if let Some(claim_at) = &claim_at {
        kube.delete(clock, claim_at, bound).await?;
    }
    if let Some(volume) = &volume {
        kube.gone(clock, &format!("{}/{volume}", objects::VOLUMES), bound)
            .await?;
    }
    Ok(seen)
}

impl Start {
    /// Notes the time of each step that is seen for the first time.
    fn see(&mut self, passed: Duration, pod: &Value, bound: bool, attached: bool) {
        let parts = [
            (&mut self.bound, bound),
            (&mut self.attached, attached),
            (&mut self.prepared, objects::prepared(pod)),
            (&mut self.started, objects::started(pod)),
        ];
        for (part, seen) in parts {
            if seen {
                part.get_or_insert(passed.as_secs_f64());
            }
        }
    }
}

/// The object at a path; null if it cannot be read now.
async fn read(kube: &Kube, path: &str) -> Value {
    match kube.get(path).await {
        Some((200, object)) => object,
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_part_is_when_it_was_first_seen() {
        let mut start = Start::default();
        start.see(Duration::from_secs(1), &Value::Null, true, false);
        start.see(Duration::from_secs(2), &json!({}), true, true);
        let running = json!({ "status": { "containerStatuses": [{ "state": { "running": {} } }] } });
        start.see(Duration::from_secs(3), &running, true, true);
        let expected = Start {
            bound: Some(1.0),
            attached: Some(2.0),
            prepared: None,
            started: Some(3.0),
        };
        assert_eq!(start, expected);
    }

    #[test]
    fn what_the_api_did_not_tell_is_in_no_figure() {
        let of = |bound| Start {
            bound,
            ..Start::default()
        };
        let starts = [of(Some(1.0)), of(None), of(Some(3.0))];
        assert_eq!(spread(&starts, |start| start.bound).median, 2.0);
    }
}
