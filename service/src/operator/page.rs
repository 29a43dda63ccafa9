//! The page of metrics.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use agent_protocol::programs::{BACKUP, BackupStatus};
use base_metrics::Page;
use control_records::{
    alert::{self, Severity},
    key, planned,
    usage::{Limits, MACHINE_DISK_GIB, Usage},
};
use control_store::StoreError;
use jiff::{SignedDuration, Timestamp};

use super::{HostSeen, Operator, families::*, gathered::ClusterSeen};
use crate::store_copies::StoreStatus;

/// Ages of running operations: name, and upper bound in seconds.
const AGES: [(&str, i64); 4] = [
    ("under_1m", 60),
    ("under_5m", 300),
    ("under_20m", 1_200),
    ("over_20m", i64::MAX),
];

/// What is read from the store for a page, beside the clusters.
struct Read {
    usage: Usage,
    revision: u64,
    leased: [(&'static str, usize); 2],
    held: bool,
    open: BTreeMap<Severity, u64>,
    copies: Option<StoreStatus>,
}

/// What the agents tell.
#[derive(Debug, Default)]
struct Heard {
    connected: u64,
    silent: u64,
    never: u64,
    /// By uid.
    lags: BTreeMap<String, Duration>,
}

fn whole(seconds: SignedDuration) -> u64 {
    u64::try_from(seconds.as_secs()).unwrap_or(0)
}

/// The labels of a cluster's series.
fn labels(seen: &ClusterSeen) -> [&str; 3] {
    let cluster = &seen.cluster;
    [&cluster.subscription, &cluster.resource_group, &cluster.name]
}

/// A number of a cluster.
type Number = fn(&ClusterSeen) -> u64;

impl Operator {
    /// The page of metrics, as it is now.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn scrape(&self) -> Result<String, StoreError> {
        let clock = Arc::clone(&self.sources.env.clock);
        let begun = clock.monotonic();
        let clusters = self.gathered.lock().await.read(&*self.sources.store).await?;
        let read = self.read().await?;
        let host = self.host().await;
        let heard = self.heard(&clusters);
        let now = clock.now();
        let mut page = Page::new();
        self.process(&mut page, &host);
        self.store(&mut page, &read, &host, now);
        self.clusters(&mut page, &clusters, &heard, now);
        page.one(&HELD, read.held);
        self.capacity(&mut page, &read);
        self.images(&mut page, &clusters, &host, now);
        self.certificates(&mut page, now);
        let mut alerts = page.family(&ALERTS);
        for severity in [Severity::Critical, Severity::Warning, Severity::Information] {
            let open = read.open.get(&severity).copied().unwrap_or(0);
            alerts.put(&[&severity.as_str().to_ascii_lowercase()], open);
        }
        if let Some(edge) = &self.sources.edge {
            edge.measure(&mut page);
        }
        if let Some(loops) = &self.sources.loops {
            loops.write(&mut page);
        }
        let left_out = page.left_out();
        page.one(&LEFT_OUT, left_out);
        page.one(&SCRAPE, clock.monotonic().saturating_sub(begun));
        Ok(page.finish())
    }

    async fn read(&self) -> Result<Read, StoreError> {
        let store = &*self.sources.store;
        let mut open = BTreeMap::new();
        for stored in alert::list(store).await? {
            if stored.value.is_open() {
                *open.entry(stored.value.severity).or_default() += 1;
            }
        }
        let leased = async |pool: &str| -> Result<usize, StoreError> {
            let (found, _) = store.list(&format!("{}{pool}/", key::LEASES)).await?;
            Ok(found.len())
        };
        let (_, revision) = store.list(key::STAMP).await?;
        Ok(Read {
            usage: Usage::read(store).await?,
            revision: revision.0,
            leased: [
                ("machines", leased("machines").await?),
                ("vips", leased("vips").await?),
            ],
            held: planned::paused(store).await?.is_some(),
            open,
            copies: match &self.sources.copies {
                Some(copies) => Some(copies.status().await?),
                None => None,
            },
        })
    }

    /// Asks for each machine that is to run; of members also how far the backup is.
    fn heard(&self, clusters: &[Arc<ClusterSeen>]) -> Heard {
        let agents = &*self.sources.agents;
        let mut heard = Heard::default();
        for cluster in clusters {
            for machine in cluster.machines.iter().filter(|machine| machine.expected) {
                match (agents.contact(&machine.id), agents.heard(&machine.id)) {
                    (_, true) => heard.connected += 1,
                    (Some(_), false) => heard.silent += 1,
                    (None, false) => heard.never += 1,
                }
                if machine.role != "control-plane" || !agents.heard(&machine.id) {
                    continue;
                }
                let report = agents.report(&machine.id);
                let status = report.and_then(|report| report.status::<BackupStatus>(BACKUP));
                if let Some(status) = status.filter(|status| status.ships) {
                    let lag = Duration::from_millis(status.lag_ms);
                    heard.lags.insert(cluster.cluster.uid.clone(), lag);
                }
            }
        }
        heard
    }

    fn process(&self, page: &mut Page, host: &HostSeen) {
        page.family(&INFO).put(&[self.sources.version], 1_u64);
        page.one(&PANICS, host.panics);
        if let Some(process) = &host.process {
            page.one(&RESIDENT, process.resident_bytes);
            page.one(&CPU, process.cpu_seconds);
            page.one(&OPEN_FILES, process.open_files);
            if let Some(most) = process.most_files {
                page.one(&MOST_FILES, most);
            }
            page.one(&THREADS, process.threads);
            page.one(&STARTED, process.started);
        }
    }

    fn store(&self, page: &mut Page, read: &Read, host: &HostSeen, now: Timestamp) {
        if let Some(meter) = &self.sources.metered {
            meter.write(page);
        }
        page.one(&REVISION, read.revision);
        if let Some(bytes) = host.store_bytes {
            page.one(&STORE_BYTES, bytes);
        }
        if let Some(disk) = host.disk {
            page.one(&DISK_BYTES, disk.total);
            page.one(&DISK_FREE, disk.free);
        }
        let Some(copies) = &read.copies else { return };
        if let Some(copy) = &copies.copy {
            page.one(&COPY_AGE, whole(now.duration_since(copy.at)));
        }
        let behind = copies.behind_since.map(|since| whole(now.duration_since(since)));
        page.one(&COPY_BEHIND, behind.unwrap_or(0));
        page.one(&COPY_FAILING, copies.problem.is_some());
    }

    fn clusters(&self, page: &mut Page, clusters: &[Arc<ClusterSeen>], heard: &Heard, now: Timestamp) {
        let mut states: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        let mut machines: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        let mut ended = [0_u64; 3];
        let mut ages = [0_u64; AGES.len()];
        let mut oldest = 0;
        for cluster in clusters {
            *states.entry((cluster.state, cluster.power)).or_default() += 1;
            for machine in &cluster.machines {
                *machines.entry((machine.role, machine.state)).or_default() += 1;
            }
            for (sum, own) in ended.iter_mut().zip(cluster.ended) {
                *sum += own;
            }
            for begun in &cluster.running {
                let age = now.duration_since(*begun).as_secs().max(0);
                oldest = oldest.max(age);
                let place = AGES.iter().position(|(_, bound)| age < *bound);
                if let Some(count) = place.and_then(|place| ages.get_mut(place)) {
                    *count += 1;
                }
            }
        }
        let mut samples = page.family(&CLUSTERS);
        for ((state, power), count) in states {
            samples.put(&[state, power], count);
        }
        let mut samples = page.family(&MACHINES);
        for ((role, state), count) in machines {
            samples.put(&[role, state], count);
        }
        let mut samples = page.family(&AGENTS);
        for (state, count) in [
            ("connected", heard.connected),
            ("silent", heard.silent),
            ("never", heard.never),
        ] {
            samples.put(&[state], count);
        }
        let running: u64 = ages.iter().sum();
        let mut samples = page.family(&OPERATIONS);
        samples.put(&["in_progress"], running);
        for (status, count) in ["succeeded", "failed", "canceled"].iter().zip(ended) {
            samples.put(&[status], count);
        }
        let mut samples = page.family(&OPERATION_AGES);
        for ((age, _), count) in AGES.iter().zip(ages) {
            samples.put(&[age], count);
        }
        page.one(&OPERATION_OLDEST, u64::try_from(oldest).unwrap_or(0));
        self.each_cluster(page, clusters, heard);
        let behind = clusters.iter().filter(|cluster| cluster.backup_behind.is_some());
        page.one(&BEHIND, behind.count());
    }

    /// The series of clusters, of so many as may have some.
    fn each_cluster(&self, page: &mut Page, clusters: &[Arc<ClusterSeen>], heard: &Heard) {
        let shown = clusters.get(..MOST_CLUSTERS).unwrap_or(clusters);
        let numbers: [(_, Number); 3] = [
            (&CLUSTER_READY, |seen| seen.nodes_ready.into()),
            (&CLUSTER_WANTED, |seen| seen.nodes_wanted.into()),
            (&CLUSTER_PROBLEM, |seen| seen.problem.into()),
        ];
        for (family, of) in numbers {
            let mut samples = page.family(family);
            for seen in shown {
                samples.put(&labels(seen), of(seen));
            }
        }
        let mut samples = page.family(&CLUSTER_LAG);
        for seen in shown {
            if let Some(lag) = heard.lags.get(&seen.cluster.uid) {
                samples.put(&labels(seen), *lag);
            }
        }
        page.one(&CLUSTERS_LEFT_OUT, clusters.len() - shown.len());
        page.one(&LAG, heard.lags.values().max().copied().unwrap_or_default());
    }

    fn capacity(&self, page: &mut Page, read: &Read) {
        let Limits { room, .. } = &self.sources.limits;
        let asked = read.usage.record.all();
        let cores = asked.all_cores().saturating_add(asked.surge_cores);
        for (family, total, used, unit) in [
            (&CORES, room.cores, cores, 1),
            (&MEMORY, room.memory_mib, asked.memory_mib(), 1 << 20),
            (
                &DISK,
                room.disk_gib,
                asked.machines().saturating_mul(MACHINE_DISK_GIB),
                1 << 30,
            ),
        ] {
            let mut samples = page.family(family);
            if let Some(total) = total {
                samples.put(&["total"], total.saturating_mul(unit));
            }
            samples.put(&["used"], used.saturating_mul(unit));
        }
        let mut samples = page.family(&ADDRESSES);
        for ((pool, leased), total) in read.leased.iter().zip([room.addresses, room.vips]) {
            if let Some(total) = total {
                samples.put(&[pool, "total"], total);
            }
            samples.put(&[pool, "used"], *leased);
        }
    }

    fn images(&self, page: &mut Page, clusters: &[Arc<ClusterSeen>], host: &HostSeen, now: Timestamp) {
        page.one(&IMAGE_BUILDS, host.image_builds);
        let machines = clusters.iter().flat_map(|cluster| &cluster.machines);
        let versions: BTreeSet<&str> = machines.map(|machine| machine.image.as_str()).collect();
        let mut samples = page.family(&IMAGE_AGE);
        for version in versions {
            if let Some(built_at) = self.sources.images.fresh_at(version) {
                samples.put(&[version], whole(now.duration_since(built_at)));
            }
        }
    }

    fn certificates(&self, page: &mut Page, now: Timestamp) {
        let least = self.book().least();
        let mut samples = page.family(&CERTIFICATES);
        for (kind, expires) in least {
            // What has ended has nothing left, and more than that says nothing.
            samples.put(&[kind], whole(expires.duration_since(now)));
        }
    }
}
