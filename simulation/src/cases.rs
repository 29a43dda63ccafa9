//! Generated tests: every operation × every step × every fault, each followed by all checks.
//!
//! A step is each commit and each call into the world that occurs while the operation is carried out without
//! faults. A commit that begins an effect is its intent, the calls are its effects, the commit after them is
//! its result; so that dying before and after each step is dying before the intent, after it, after the
//! effect, and after the result.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, bail};
use cluster_spec::DRAIN_MINUTES;
use control_records::OperationStatus;

use crate::{Fault, OPERATIONS, Operation, panics, run, script::Player};

/// The time limit of convergence after all faults are lifted.
const BOUND: Duration = Duration::from_secs(30 * 60);
/// How much longer than the operations' bound a permanent fault lasts.
const BEYOND: Duration = Duration::from_secs(3 * 60);

/// One case.
#[derive(Debug, Clone)]
pub struct Case {
    /// The operation.
    pub operation: Operation,
    /// The number of the step.
    pub step: usize,
    /// The step, for people.
    pub what: String,
    /// The fault at that step.
    pub fault: Fault,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {} {} ({})",
            self.operation.name,
            self.step,
            self.fault.name(),
            self.what
        )
    }
}

/// A case that did not end as it has to.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Which.
    pub case: Case,
    /// Why.
    pub why: String,
}

async fn prepare(operation: Operation) -> Result<Player> {
    let mut player = Player::new(1).await?;
    player.command("start").await?;
    // The group exists before; the operations are about clusters.
    player.ask(&crate::Wish::Group).await?;
    for line in operation.before {
        player.command(line).await?;
        player.command("settle").await?;
    }
    Ok(player)
}

/// The steps of an operation without faults.
pub fn steps(operation: Operation) -> Result<Vec<String>> {
    run(async || {
        let mut player = prepare(operation).await?;
        player.stamp.steps.count(None);
        for line in operation.act {
            player.command(line).await?;
        }
        let problems = player.stamp.converge(BOUND).await?;
        if !problems.is_empty() {
            bail!("{}: without any fault, {problems:#?}", operation.name);
        }
        let steps = player.stamp.steps.lift();
        Ok(steps.iter().map(|step| player.stamp.trace.told(step)).collect())
    })
}

/// All cases.
pub fn all() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for &operation in OPERATIONS {
        for (step, what) in steps(operation)?.into_iter().enumerate() {
            for &fault in Fault::ALL {
                cases.push(Case {
                    operation,
                    step,
                    what: what.clone(),
                    fault,
                });
            }
        }
    }
    Ok(cases)
}

/// Plays a case; why it did not end as it has to, if so.
pub fn play(case: &Case) -> Result<Option<String>> {
    run(async || {
        let mut player = prepare(case.operation).await?;
        let problems = judge(&mut player, case).await?;
        player.stamp.stop().await?;
        Ok(problems.map(|why| {
            format!(
                "{why}\n{}\n{}",
                player.transcript(),
                player.stamp.trace.tail(60).join("\n")
            )
        }))
    })
}

async fn judge(player: &mut Player, case: &Case) -> Result<Option<String>> {
    player.stamp.steps.count(Some((case.step, case.fault)));
    for line in case.operation.act {
        player.command(line).await?;
    }
    if case.fault == Fault::FailsForEver {
        let before = player.stamp.env.clock.monotonic();
        if let Some(why) = visible(player, case).await? {
            return Ok(Some(why));
        }
        if case.what.starts_with("commit") {
            player.stamp.outage += player.stamp.env.clock.monotonic() - before;
        }
    }
    let lasting = player.stamp.converge(BOUND).await?;
    player.stamp.steps.lift();
    if !lasting.is_empty() {
        return Ok(Some(format!("it does not become what it is to be: {lasting:#?}")));
    }
    // The next request works in any case.
    let next: &[&str] = match player.stamp.cluster("c1").await? {
        Some(cluster) if cluster.spec().stopped => &["power c1 on"],
        Some(_) => &["pool c1 np1 2"],
        None => &["create c1 np1=1"],
    };
    for line in next {
        player.command(line).await?;
    }
    let mut problems = player.stamp.converge(BOUND).await?;
    problems.extend(player.asked.check(&player.stamp).await?);
    problems.extend(panics::take());
    Ok((!problems.is_empty()).then(|| format!("after the next request: {problems:#?}")))
}

/// A permanent fault is either worked around, or shown to people in time; then it is lifted.
async fn visible(player: &mut Player, case: &Case) -> Result<Option<String>> {
    let stamp = &mut player.stamp;
    // Pods may delay the drain of their node for this time.
    let drained = if case.operation.name.starts_with("upgrade") {
        Duration::from_secs(60 * u64::from(DRAIN_MINUTES))
    } else {
        Duration::ZERO
    };
    let bound = stamp.settings.policy.operation_bound + drained + BEYOND;
    if stamp.settle(bound).await?.is_ok() && stamp.check().await?.is_empty() {
        stamp.steps.lift();
        return Ok(None);
    }
    let open: Vec<_> = stamp
        .operations()
        .await?
        .into_values()
        .filter(|operation| operation.status == OperationStatus::InProgress)
        .map(|operation| operation.name)
        .collect();
    // Without a store no error can be recorded; and a deletion goes on until it is done.
    let whole_store = case.what.starts_with("commit");
    let deletes = open.iter().all(|name| name.contains("Delete"));
    if !open.is_empty() && !whole_store && !deletes {
        return Ok(Some(format!("{open:?} did not end in time")));
    }
    stamp.steps.lift();
    Ok(None)
}

/// How a number of cases ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Cases by operation.
    pub played: BTreeMap<&'static str, usize>,
    /// Cases that failed a check.
    pub failures: Vec<Failure>,
}

/// Plays cases on so many threads.
pub fn play_all(cases: &[Case], jobs: usize) -> Result<Outcome> {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let why = match play(case) {
                        Ok(None) => continue,
                        Ok(Some(why)) => why,
                        Err(error) => format!("{error:#}"),
                    };
                    let failure = Failure {
                        case: case.clone(),
                        why,
                    };
                    failures
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(failure);
                }
            });
        }
    });
    let mut played = BTreeMap::new();
    for case in cases {
        *played.entry(case.operation.name).or_default() += 1;
    }
    let mut failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort_by_key(|failure| failure.case.to_string());
    Ok(Outcome { played, failures })
}
