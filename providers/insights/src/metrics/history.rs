//! Samples of clusters' metrics, in memory. A cluster is sampled from the first request for its metrics until
//! an hour after the last one. So clusters without requests cost nothing; the time before the first request,
//! or before the start of the service, is a gap in responses.
//!
//! Always true: samples are at most a day old, and the numbers of clusters and of values are limited; a
//! cluster is read once at a time, and many requests do not cause many reads.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use base_env::Env;
use jiff::Timestamp;
use tokio::sync::Notify;

use super::reading::{Point, Reading};

/// Interval of samples.
pub(crate) const EVERY: Duration = Duration::from_secs(60);
/// Time of sampling after the last request.
const CARED: Duration = Duration::from_secs(60 * 60);
/// Time that samples are kept.
pub(crate) const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Most clusters that are sampled: beyond, the one with the oldest last request is dropped.
const CLUSTERS: usize = 64;
/// The most values of a cluster: beyond, the oldest are dropped.
const VALUES: usize = 200_000;
/// Interval of the check which clusters are due.
const LOOK: Duration = Duration::from_secs(5);

/// Reads clusters.
#[async_trait]
pub trait Readings: Send + Sync + 'static {
    /// The present metrics of a cluster, by its uid. Values that cannot be read within its bounds are
    /// missing.
    async fn read(&self, uid: &str) -> Reading;
}

/// The values of a moment.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) at: Timestamp,
    pub(crate) points: Arc<Vec<Point>>,
}

#[derive(Default)]
struct Watched {
    /// Until when it is sampled, and when it was last sampled, by the monotonic clock.
    until: Duration,
    read: Option<Duration>,
    samples: VecDeque<Sample>,
    values: usize,
    /// See [`Reading::points`].
    before: BTreeMap<String, f64>,
    /// Held while it is being sampled.
    turn: Arc<futures::lock::Mutex<()>>,
}

/// See the module.
pub struct History {
    env: Env,
    readings: Arc<dyn Readings>,
    clusters: Mutex<BTreeMap<String, Watched>>,
    asked: Notify,
}

impl History {
    /// Empty.
    pub fn new(env: Env, readings: Arc<dyn Readings>) -> Self {
        Self {
            env,
            readings,
            clusters: Mutex::default(),
            asked: Notify::new(),
        }
    }

    fn clusters(&self) -> MutexGuard<'_, BTreeMap<String, Watched>> {
        // Every change below is complete, even after a panic elsewhere.
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Samples clusters with recent requests, for ever.
    pub async fn run(&self) {
        loop {
            // Without requests there is no work.
            if self.clusters().is_empty() {
                self.asked.notified().await;
            }
            self.env.clock.sleep(LOOK).await;
            let now = self.env.clock.monotonic();
            let due: Vec<String> = {
                let mut clusters = self.clusters();
                // Clusters without recent requests and without samples.
                clusters.retain(|_, watched| {
                    watched.until > now || watched.read.is_some_and(|read| now.saturating_sub(read) < KEPT)
                });
                let due = clusters.iter().filter(|(_, watched)| {
                    watched.until > now && watched.read.is_none_or(|read| now.saturating_sub(read) >= EVERY)
                });
                due.map(|(uid, _)| uid.clone()).collect()
            };
            for uid in due {
                self.read(&uid).await;
            }
        }
    }

    /// The samples of a cluster, including a present one.
    pub(crate) async fn ask(&self, uid: &str) -> Vec<Sample> {
        {
            let now = self.env.clock.monotonic();
            let mut clusters = self.clusters();
            clusters.entry(uid.to_owned()).or_default().until = now + CARED;
            while clusters.len() > CLUSTERS {
                let oldest = clusters
                    .iter()
                    .min_by_key(|(_, watched)| watched.until)
                    .map(|(uid, _)| uid.clone());
                match oldest {
                    Some(oldest) => drop(clusters.remove(&oldest)),
                    None => break,
                }
            }
        }
        self.asked.notify_one();
        self.read(uid).await;
        let clusters = self.clusters();
        let samples = clusters.get(uid).map(|watched| &watched.samples);
        samples.into_iter().flatten().cloned().collect()
    }

    /// Samples a cluster, unless that was done a moment ago: two samples of a minute would count values
    /// twice.
    async fn read(&self, uid: &str) {
        let turn = match self.clusters().get(uid) {
            Some(watched) => Arc::clone(&watched.turn),
            None => return,
        };
        let _turn = turn.lock().await;
        let now = self.env.clock.monotonic();
        let recent = |watched: &Watched| watched.read.is_some_and(|read| now.saturating_sub(read) < EVERY);
        if self.clusters().get(uid).is_none_or(recent) {
            return;
        }
        // The time of the request: a client whose timespan ends at its own present gets the sample read for
        // it, however long that took.
        let at = self.env.clock.now();
        let reading = self.readings.read(uid).await;
        let now = self.env.clock.monotonic();
        let mut clusters = self.clusters();
        let Some(watched) = clusters.get_mut(uid) else {
            return;
        };
        watched.read = Some(now);
        let points = reading.points(&mut watched.before);
        watched.keep(Sample {
            at,
            points: Arc::new(points),
        });
    }
}

impl Watched {
    fn keep(&mut self, sample: Sample) {
        if sample.points.is_empty() {
            return;
        }
        let oldest = sample.at.checked_sub(KEPT).unwrap_or(Timestamp::MIN);
        self.values += sample.points.len();
        self.samples.push_back(sample);
        while let Some(first) = self.samples.front() {
            if first.at >= oldest && self.values <= VALUES {
                return;
            }
            self.values -= first.points.len();
            self.samples.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{super::reading::NodeReading, *};

    #[derive(Default)]
    struct Counted(AtomicUsize);

    #[async_trait]
    impl Readings for Counted {
        async fn read(&self, uid: &str) -> Reading {
            self.0.fetch_add(1, Ordering::Relaxed);
            let node = NodeReading {
                name: uid.to_owned(),
                ready: Some(true),
                ..NodeReading::default()
            };
            Reading {
                nodes: vec![node],
                ..Reading::default()
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn clusters_are_read_while_somebody_cares() {
        let (env, readings) = (Env::simulated(1), Arc::new(Counted::default()));
        let history = Arc::new(History::new(env.clone(), Arc::clone(&readings) as _));
        let count = || readings.0.load(Ordering::Relaxed);
        let running = Arc::clone(&history);
        let task = tokio::spawn(async move { running.run().await });
        env.clock.sleep(Duration::from_secs(3600)).await;
        assert_eq!(count(), 0, "nobody asks");
        let asked = futures::future::join_all((0..8).map(|_| history.ask("u1"))).await;
        assert!(asked.iter().all(|samples| samples.len() == 1));
        assert_eq!(count(), 1, "all get what one has read");
        env.clock.sleep(Duration::from_secs(3600)).await;
        let after_an_hour = count();
        assert!((50..=61).contains(&after_an_hour), "{after_an_hour}");
        env.clock.sleep(Duration::from_secs(3600)).await;
        assert!(count() <= after_an_hour + 1, "nobody cares any more");
        assert_eq!(history.ask("u1").await.len(), count());
        env.clock.sleep(KEPT + Duration::from_secs(7200)).await;
        assert_eq!(history.ask("u1").await.len(), 1, "a day is kept");
        for number in 0..100 {
            history.ask(&format!("c{number}")).await;
        }
        assert!(history.clusters().len() <= CLUSTERS);
        task.abort();
    }
}
