//! The page, the alerts and the usage of a stamp without machines, over a store in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use agent_api::{LogError, WakeUp};
use agent_protocol::{MachineConfig, Report};
use async_trait::async_trait;
use cluster_spec::testkit;
use control_records::{
    ClusterRecord, Event, EventKind, LeaseRecord, ObservedRecord, alert, directory, events, key, metering,
};
use control_store::{Txn, put_record};
use futures::stream::BoxStream;
use providers_containerservice::SameImages;
use storage_redb::MemoryStore;

use super::*;

/// The dashboard and the rules that operators take over.
const DASHBOARD: &str = include_str!("../../../monitoring/grafana-dashboard.json");
const RULES: &str = include_str!("../../../monitoring/prometheus-rules.yaml");
const SCRAPE: &str = include_str!("../../../monitoring/prometheus-scrape.yaml");

/// Agents that nobody has heard of.
struct NoAgents;

#[async_trait]
impl Agents for NoAgents {
    fn publish(&self, _: &str, _: Arc<MachineConfig>) {}

    fn forget(&self, _: &str) {}

    fn report(&self, _: &str) -> Option<Arc<Report>> {
        None
    }

    fn contact(&self, _: &str) -> Option<Duration> {
        None
    }

    fn subscribe(&self) -> BoxStream<'static, WakeUp> {
        Box::pin(futures::stream::pending())
    }

    async fn logs(&self, machine: &str, _: &str, _: u32) -> Result<String, LogError> {
        Err(LogError::Away(machine.to_owned()))
    }
}

/// A host of a test.
struct TestHost;

impl Host for TestHost {
    fn look(&self) -> HostSeen {
        HostSeen {
            process: Some(ProcessSeen {
                most_files: Some(9),
                ..ProcessSeen::default()
            }),
            disk: Some(DiskFact { total: 100, free: 50 }),
            store_bytes: Some(7),
            ..HostSeen::default()
        }
    }

    fn certificates(&self) -> Result<Vec<Item>, String> {
        Ok(Vec::new())
    }
}

struct Stand {
    env: Env,
    store: Arc<dyn Store>,
    operator: Arc<Operator>,
}

impl Stand {
    fn new() -> Self {
        let env = Env::simulated(1);
        Self::over(env, Arc::new(MemoryStore::new()))
    }

    /// A service that begins over a store.
    fn over(env: Env, store: Arc<dyn Store>) -> Self {
        let metered = MeteredStore::new(store, &env);
        let meter = metered.meter();
        let store: Arc<dyn Store> = Arc::new(metered);
        let operator = Operator::new(Sources {
            env: env.clone(),
            version: "1.2.3",
            store: Arc::clone(&store),
            sealer: Arc::new(Sealer::from_key(&[7; 32])),
            agents: Arc::new(NoAgents),
            images: Arc::new(SameImages),
            limits: Limits::default(),
            host: Arc::new(TestHost),
            loops: None,
            edge: None,
            metered: Some(meter),
            copies: None,
        });
        Self {
            env,
            store,
            operator: Arc::new(operator),
        }
    }

    async fn write(&self, txn: Txn) {
        self.store.txn(txn).await.unwrap();
    }

    fn cluster(&self, uid: &str, nodes: u32) -> ClusterRecord {
        let spec = cluster_spec::ClusterSpec {
            name: uid.to_owned(),
            pools: vec![cluster_spec::PoolSpec {
                vm_size: "Standard_DS2_v2".to_owned(),
                os_disk_gib: 100,
                ..testkit::pool("a", nodes)
            }],
            ..testkit::cluster()
        };
        ClusterRecord::of_spec(uid, &spec, self.env.clock.now())
    }

    async fn create(&self, uid: &str, nodes: u32) {
        let record = self.cluster(uid, nodes);
        self.write(directory::new_cluster(Txn::default(), &record)).await;
    }

    async fn put(&self, record: &ClusterRecord) {
        let txn = Txn::default().with(put_record(key::desired(&record.uid), record));
        self.write(txn).await;
    }

    async fn observe(&self, uid: &str, change: impl FnOnce(&mut ObservedRecord)) {
        let mut observed = ObservedRecord::default();
        change(&mut observed);
        let txn = Txn::default().with(put_record(key::observed(uid), &observed));
        self.write(txn).await;
    }
}

/// The values of a page, by series.
fn values(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_page_tells_of_clusters_and_what_has_not_changed_is_not_read_again() {
    let stand = Stand::new();
    stand.create("u1", 2).await;
    stand.create("u2", 3).await;
    let mut stopped = stand.cluster("u3", 1);
    stopped.change_spec(|spec| spec.stopped = true);
    let txn = directory::new_cluster(Txn::default(), &stopped);
    stand.write(txn).await;
    stand
        .observe("u1", |observed| {
            observed.generation = 1;
            observed.ready_nodes.insert("a".to_owned(), 1);
        })
        .await;
    stand.observe("u3", |observed| observed.generation = 1).await;
    let page = stand.operator.scrape().await.unwrap();
    let found = values(&page);
    for (series, value) in [
        ("landfall_info{version=\"1.2.3\"}", 1.0),
        ("landfall_clusters{state=\"Succeeded\",power=\"Running\"}", 1.0),
        ("landfall_clusters{state=\"Succeeded\",power=\"Stopped\"}", 1.0),
        ("landfall_clusters{state=\"Creating\",power=\"Running\"}", 1.0),
        ("landfall_store_size_bytes", 7.0),
        ("landfall_disk_free_bytes", 50.0),
        ("landfall_capacity_cores{kind=\"used\"}", 18.0),
        ("landfall_metrics_left_out", 0.0),
        ("landfall_alerts_open{severity=\"critical\"}", 0.0),
        ("process_max_fds", 9.0),
        ("landfall_store_commits_total{result=\"ok\"}", 5.0),
    ] {
        assert_eq!(found.get(series), Some(&value), "{series} in\n{page}");
    }
    let ready = found.iter().find(|(series, _)| {
        series.starts_with("landfall_cluster_nodes_ready{") && series.contains("cluster=\"u1\"")
    });
    assert_eq!(ready.map(|(_, value)| *value), Some(1.0), "{page}");
    assert_eq!(stand.operator.gathered.lock().await.parsed(), 3);
    stand.operator.scrape().await.unwrap();
    assert_eq!(stand.operator.gathered.lock().await.parsed(), 0);
    stand.observe("u1", |observed| observed.generation = 2).await;
    stand.operator.scrape().await.unwrap();
    assert_eq!(stand.operator.gathered.lock().await.parsed(), 1);
    // Each line of the page is of a family that says so.
    let names: BTreeSet<&str> = families::all().map(|family| family.name).collect();
    let types = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let told: Vec<&str> = types.map(|(name, _)| name).collect();
    let unique: BTreeSet<&str> = told.iter().copied().collect();
    assert_eq!(unique.len(), told.len(), "a family is written twice");
    assert!(told.iter().all(|name| names.contains(name)), "{told:?}");
}

#[test]
fn names_follow_the_conventions_and_are_unique() {
    let mut names = BTreeSet::new();
    for family in families::all() {
        assert_eq!(family.fault(), None);
        assert!(names.insert(family.name), "{} is there twice", family.name);
    }
}

/// The names of metrics in a text.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("landfall_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

/// What the rules call themselves; these are no metrics.
fn groups(text: &str) -> BTreeSet<String> {
    let lines = text.lines().map(str::trim);
    let groups = lines.filter_map(|line| line.strip_prefix("- name: "));
    groups.map(str::to_owned).collect()
}

#[test]
fn dashboards_and_rules_ask_for_metrics_that_exist() {
    let mut known = BTreeSet::new();
    for family in families::all() {
        known.insert(family.name.to_owned());
        if family.kind == base_metrics::Kind::Histogram {
            for suffix in ["_bucket", "_sum", "_count"] {
                known.insert(format!("{}{suffix}", family.name));
            }
        }
    }
    for (file, text) in [("dashboard", DASHBOARD), ("rules", RULES)] {
        let asked = named(text);
        assert!(asked.len() > 10, "{file}: {asked:?}");
        let strange: Vec<_> = asked
            .difference(&known)
            .filter(|name| !groups(text).contains(*name))
            .collect();
        assert!(strange.is_empty(), "{file} asks for {strange:?}");
    }
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    for panel in panels {
        assert!(panel["title"].is_string(), "{panel}");
        let targets = panel["targets"].as_array();
        let asks = targets
            .into_iter()
            .flatten()
            .all(|target| target["expr"].is_string());
        assert!(asks && (panel["type"] == "row" || targets.is_some()), "{panel}");
    }
    // Each alert rule says how bad it is and what to do.
    let rules = RULES.matches("- alert: ").count();
    assert!(rules >= 10);
    for part in ["severity: ", "summary: ", "description: ", "expr: "] {
        assert_eq!(RULES.matches(part).count(), rules, "{part}");
    }
    assert!(SCRAPE.contains("metrics_path: /metrics") && SCRAPE.contains("credentials_file:"));
}

#[tokio::test(start_paused = true)]
async fn an_alert_is_written_with_its_clusters_history_and_closes_by_itself() {
    let stand = Stand::new();
    stand.create("u1", 1).await;
    let watched = tokio::spawn({
        let operator = Arc::clone(&stand.operator);
        async move { operator.watch_alerts().await }
    });
    let clock = Arc::clone(&stand.env.clock);
    let minutes = |minutes: u64| clock.sleep(Duration::from_secs(minutes * 60 + 1));
    minutes(2).await;
    assert!(alert::list(&*stand.store).await.unwrap().is_empty());
    let since = stand.env.clock.now();
    stand
        .observe("u1", |observed| observed.backup_behind = Some(since))
        .await;
    minutes(7).await;
    let open = alert::list(&*stand.store).await.unwrap();
    let [one] = &open[..] else {
        panic!("{open:?}");
    };
    assert_eq!(one.value.name, "backup-lag.u1");
    assert!(one.value.is_open());
    let page = stand.operator.scrape().await.unwrap();
    assert!(
        page.contains("landfall_alerts_open{severity=\"warning\"} 1\n"),
        "{page}"
    );
    // It stays the same record as long as nothing changes.
    let revision = one.revision;
    minutes(5).await;
    assert_eq!(alert::list(&*stand.store).await.unwrap()[0].revision, revision);
    stand
        .observe("u1", |observed| observed.backup_behind = None)
        .await;
    minutes(2).await;
    let closed = alert::list(&*stand.store).await.unwrap();
    assert!(!closed[0].value.is_open());
    let now = stand.env.clock.now();
    let told = events::history(&*stand.store, "u1", now).await.unwrap();
    let kinds: Vec<EventKind> = told.iter().map(|(_, record)| record.event.kind).collect();
    assert_eq!(kinds, [EventKind::ProblemBegan, EventKind::ProblemEnded]);
    let Event { message, .. } = &told[0].1.event;
    assert!(
        message.contains("backup-lag") && message.contains("landfall backup list"),
        "{message}"
    );
    watched.abort();
}

/// Core-seconds of the subscription, by hour of all days.
async fn used(stand: &Stand) -> u64 {
    let days = metering::days(&*stand.store, "s").await.unwrap();
    let hours = days.iter().flat_map(|day| day.hours.values());
    hours.map(|meters| meters.core_seconds).sum()
}

#[tokio::test(start_paused = true)]
async fn usage_follows_the_records_and_goes_on_after_a_restart() {
    let stand = Stand::new();
    let cores = u64::from(cluster_spec::vm_size("Standard_DS2_v2").unwrap().cores);
    let keep = |stand: &Stand| {
        let operator = Arc::clone(&stand.operator);
        tokio::spawn(async move { operator.keep_usage().await })
    };
    let keeping = keep(&stand);
    let clock = Arc::clone(&stand.env.clock);
    let hours = |hours: u64| clock.sleep(Duration::from_secs(hours * 3_600));
    hours(1).await;
    assert_eq!(used(&stand).await, 0);
    let made = clock.now().as_second();
    stand.create("u1", 2).await;
    let lease = LeaseRecord {
        v: 1,
        owner: "cluster/u1/vip".to_owned(),
    };
    let address = key::lease("vips", "100.64.24.1".parse().unwrap());
    stand
        .write(Txn::default().with(put_record(address, &lease)))
        .await;
    hours(3).await;
    let grown = clock.now().as_second();
    stand.put(&stand.cluster("u1", 4)).await;
    // The service is killed half an hour later, and comes back after ten minutes.
    clock.sleep(Duration::from_secs(1_800)).await;
    keeping.abort();
    clock.sleep(Duration::from_secs(600)).await;
    let again = Stand::over(stand.env.clone(), Arc::clone(&stand.store));
    let keeping = keep(&again);
    hours(2).await;
    let stopped = clock.now().as_second();
    let mut record = again.cluster("u1", 4);
    record.change_spec(|spec| spec.stopped = true);
    again.put(&record).await;
    hours(2).await;
    let expected = 2 * (grown - made) + 4 * (stopped - grown);
    let found = used(&again).await;
    let expected = cores * u64::try_from(expected).unwrap();
    // Changes are seen within the second in which they are made.
    assert!(
        found.abs_diff(expected) <= cores * 8,
        "{found} core-seconds, not {expected}"
    );
    let days = metering::days(&*again.store, "s").await.unwrap();
    let last = days.last().unwrap().hours.values().last().unwrap();
    assert_eq!(last.core_seconds, 0, "stopped: {last:?}");
    assert!(last.address_seconds > 0, "and its address stays");
    assert!(last.disk_gib_seconds == 0);
    keeping.abort();
}

#[tokio::test(start_paused = true)]
async fn usage_is_shown_a_minute_after_a_service_that_died_within_its_first() {
    let stand = Stand::new();
    let keep = |stand: &Stand| {
        let operator = Arc::clone(&stand.operator);
        tokio::spawn(async move { operator.keep_usage().await })
    };
    let wait = |seconds| stand.env.clock.sleep(Duration::from_secs(seconds));
    let keeping = keep(&stand);
    wait(1).await;
    let made = stand.env.clock.now().as_second();
    stand.create("u1", 1).await;
    wait(30).await;
    keeping.abort();
    let again = Stand::over(stand.env.clone(), Arc::clone(&stand.store));
    let keeping = keep(&again);
    wait(61).await;
    let cores = u64::from(cluster_spec::vm_size("Standard_DS2_v2").unwrap().cores);
    let expected = cores * u64::try_from(stand.env.clock.now().as_second() - made).unwrap();
    let found = used(&again).await;
    assert!(
        found.abs_diff(expected) <= cores * 62,
        "{found} core-seconds, not {expected}"
    );
    assert!(
        found >= cores * 30,
        "{found} core-seconds: what was before it died is lost"
    );
    keeping.abort();
}

#[tokio::test(start_paused = true)]
async fn what_a_stamp_used_is_kept_for_its_time() {
    let stand = Stand::new();
    let today = stand.env.clock.now().as_second().div_euclid(metering::DAY);
    for age in [metering::KEPT_DAYS + 1, metering::KEPT_DAYS, 1] {
        let mut record = metering::UsageDayRecord::new("s", today - age);
        record.through += 1;
        stand.write(Txn::default().with(record.put())).await;
    }
    let operator = Arc::clone(&stand.operator);
    let keeping = tokio::spawn(async move { operator.keep_usage().await });
    stand.env.clock.sleep(Duration::from_secs(3_601)).await;
    let days = metering::days(&*stand.store, "s").await.unwrap();
    let ages: Vec<i64> = days.iter().map(|day| today - day.day).collect();
    assert_eq!(ages, [metering::KEPT_DAYS, 1]);
    keeping.abort();
}

#[test]
fn labels_are_few_and_none_is_a_callers() {
    // Clusters' names are labels, and may be anything that ARM takes; what a caller sends is none.
    let labels: BTreeSet<&str> = families::all()
        .flat_map(|family| family.labels)
        .copied()
        .collect();
    let allowed = [
        "age",
        "budget",
        "cluster",
        "effect",
        "group",
        "kind",
        "lane",
        "pool",
        "power",
        "resource_group",
        "result",
        "role",
        "severity",
        "state",
        "status",
        "subscription",
        "version",
    ];
    assert_eq!(labels.into_iter().collect::<Vec<_>>(), allowed);
    let series: usize = families::all().map(|family| family.most).sum();
    assert!(
        series < 10_000,
        "a page has at most {series} series and a few of histograms"
    );
}
