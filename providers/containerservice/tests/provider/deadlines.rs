//! Deadlines of the support policies: notices, what is done and what is not, archives and what brings them back.
#![expect(clippy::unwrap_used, reason = "the helpers of these tests panic as tests do")]

use std::time::Duration;

use arm_ids::ResourcePath;
use arm_kernel::{Change, Locks, NoLocks};
use arm_wire::ArmError;
use async_trait::async_trait;
use cluster_archive::{Holding, Verdict};
use cluster_backup::{ObjectName, diff::Preview};
use control_records::{
    Archive, EventKind, SubscriptionRecord, SubscriptionState,
    deadlines::{AtDeadline, NoticesRecord, POLICY, PolicyRecord, notices_key},
    events, key,
    planned::{HOLD, HoldRecord, Paused},
};
use control_store::{get_record, put_record};
use jiff::Timestamp;
use providers_containerservice::{BackupReader, Next};
use serde_json::{Value, json};

use crate::stamp::{SUBSCRIPTION, Stamp, least};

const C: &str = "managedClusters/c";
const DAY: u64 = 24 * 60 * 60;

/// Backups that can be verified, or cannot.
struct Backups {
    problem: Option<&'static str>,
}

/// The problem of a backup that ends long before the cluster was stopped.
const OLD: &str = "its newest state is of 1970";

#[async_trait]
impl BackupReader for Backups {
    async fn holding(&self, _: &str) -> Result<Holding, ArmError> {
        let base = ObjectName::Base { revision: 1, at: 0 };
        let log = ObjectName::Log {
            previous: 1,
            last: 2,
            first_seen: 0,
            // Else of the year 2100.
            last_seen: if self.problem == Some(OLD) {
                1_000
            } else {
                4_102_444_800_000
            },
        };
        Ok(Holding {
            objects: vec![(base, 1), (log, 1)],
        })
    }

    async fn preview(&self, _: &str, _: i64) -> Result<Preview, ArmError> {
        unreachable!("nobody asks for it")
    }

    async fn verify(&self, _: &str, now: Timestamp) -> Result<Verdict, ArmError> {
        Ok(Verdict {
            at: now,
            checked: String::new(),
            keys: 1,
            problem: self.problem.filter(|problem| *problem != OLD).map(str::to_owned),
        })
    }
}

struct Locked;

#[async_trait]
impl Locks for Locked {
    async fn against(&self, change: Change, _: &ResourcePath) -> Result<Vec<String>, ArmError> {
        assert_eq!(change, Change::Delete);
        Ok(vec!["/subscriptions/s".to_owned()])
    }
}

impl Stamp {
    async fn keep_by(&self, locks: &dyn Locks, problem: Option<&'static str>) -> Next {
        let uid = self.record("c").await.unwrap().uid;
        let backups = Backups { problem };
        let kept = self.provider.keep_deadlines(&uid, &backups, locks);
        kept.await.unwrap()
    }

    async fn keep(&self) -> Next {
        self.keep_by(&NoLocks, None).await
    }

    /// Looks at the cluster as often as it wants to be looked at, for so many seconds; what is asked for is reached at once.
    async fn keep_for(&self, seconds: u64, locks: &dyn Locks) {
        let end = self
            .env
            .clock
            .now()
            .checked_add(Duration::from_secs(seconds))
            .unwrap();
        loop {
            match self.keep_by(locks, None).await {
                Next::At(at) if at <= end => self.until(at).await,
                Next::Reached => self.reach("c").await,
                Next::At(_) | Next::Changed => break,
            }
        }
        self.until(end).await;
    }

    async fn until(&self, at: Timestamp) {
        let left = at.duration_since(self.env.clock.now());
        if left.is_positive() {
            self.env.clock.sleep(left.unsigned_abs()).await;
        }
    }

    async fn deadlines_act(&self) {
        let record = PolicyRecord {
            v: 1,
            deadlines: AtDeadline::Act,
            at: self.env.clock.now(),
            by: "operator".to_owned(),
        };
        self.write(put_record(POLICY, &record)).await;
    }

    async fn told(&self) -> Vec<String> {
        let uid = self.record("c").await.unwrap().uid;
        let now = self.env.clock.now();
        let all = events::history(&*self.store, &uid, now).await.unwrap();
        let own = all.into_iter().map(|(_, event)| event.event);
        let own = own.filter(|event| event.kind == EventKind::Deadline);
        own.map(|event| event.message).collect()
    }

    async fn is_stopped(&self) -> bool {
        self.record("c").await.unwrap().spec().stopped
    }

    async fn is_going(&self) -> bool {
        self.record("c").await.unwrap().deleting
    }
}

async fn standing() -> Stamp {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    stamp.reach("c").await;
    stamp
}

async fn stopped() -> Stamp {
    let stamp = standing().await;
    assert_eq!(
        stamp.ask("POST", &format!("{C}/stop"), Value::Null).await.status,
        202
    );
    stamp.reach("c").await;
    stamp
}

/// No node is Ready, and none runs.
async fn idle(stamp: &Stamp) {
    let now = stamp.env.clock.now();
    stamp
        .observe("c", |observed| observed.unready_since = Some(now))
        .await;
}

#[tokio::test(start_paused = true)]
async fn l3_an_idle_cluster_is_stopped_after_its_notices() {
    let stamp = standing().await;
    stamp.deadlines_act().await;
    idle(&stamp).await;
    let begun = stamp.env.clock.now();
    stamp.keep_for(30 * DAY - 60, &NoLocks).await;
    assert!(!stamp.is_stopped().await, "not a minute earlier");
    let told = stamp.told().await;
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().all(|told| told.starts_with("L3: at ")), "{told:?}");
    stamp.keep_for(60, &NoLocks).await;
    let record = stamp.record("c").await.unwrap();
    assert!(record.spec().stopped);
    assert_eq!(record.modified_by, "Landfall");
    let late = record.modified_at.duration_since(begun).as_secs() - 30 * 24 * 60 * 60;
    assert!((0..60).contains(&late), "{late} s late");
    let told = stamp.told().await;
    assert!(told.last().unwrap().contains("is stopped now"), "{told:?}");
    let operations = stamp.operations().await;
    assert!(
        operations
            .iter()
            .any(|operation| operation.id == record.operation && operation.name == "ManagedClusters_Stop")
    );
}

#[tokio::test(start_paused = true)]
async fn l3_a_cluster_with_a_machine_that_runs_is_not_idle() {
    let stamp = standing().await;
    stamp.deadlines_act().await;
    idle(&stamp).await;
    let uid = stamp.record("c").await.unwrap().uid;
    stamp.add_node(&uid, "n1", "nodepool1", 0).await;
    stamp
        .observe("c", |observed| {
            observed.reported.entry("n1".to_owned()).or_default().runs = true;
        })
        .await;
    stamp.keep_for(90 * DAY, &NoLocks).await;
    assert!(!stamp.is_stopped().await);
    assert_eq!(stamp.told().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_stamp_that_only_tells_does_nothing_and_begins_with_notices_when_it_is_to_act() {
    let stamp = stopped().await;
    stamp.keep_for(400 * DAY, &NoLocks).await;
    assert!(!stamp.is_going().await);
    let uid = stamp.record("c").await.unwrap().uid;
    let found = get_record::<NoticesRecord>(&*stamp.store, &notices_key(&uid))
        .await
        .unwrap();
    let notices = found.unwrap().value;
    assert_eq!(notices.of, AtDeadline::Tell);
    let l1 = notices.notices.iter().find(|notice| notice.rule == "L1").unwrap();
    assert!(l1.done, "told once: {l1:?}");
    stamp.deadlines_act().await;
    // Long overdue: all the time of its notices goes by once more.
    stamp.keep_for(60 * DAY - 60, &NoLocks).await;
    assert!(!stamp.is_going().await);
    stamp.keep_for(60, &NoLocks).await;
    assert!(stamp.is_going().await);
}

#[tokio::test(start_paused = true)]
async fn l1_a_service_that_slept_for_years_gives_notice_first() {
    let stamp = stopped().await;
    stamp.deadlines_act().await;
    stamp.env.clock.sleep(Duration::from_secs(900 * DAY)).await;
    let Next::At(_) = stamp.keep().await else {
        panic!("it waits")
    };
    let told = stamp.told().await;
    assert!(told.iter().any(|told| told.starts_with("L1: at ")), "{told:?}");
    stamp.keep_for(59 * DAY, &NoLocks).await;
    assert!(!stamp.is_going().await);
    // A start in that time is in time.
    let start = stamp.ask("POST", &format!("{C}/start"), Value::Null).await;
    assert_eq!(start.status, 202);
    stamp.reach("c").await;
    stamp.keep_for(400 * DAY, &NoLocks).await;
    assert!(!stamp.is_going().await);
}

#[tokio::test(start_paused = true)]
async fn l1_neither_a_lock_nor_an_operator_is_passed_over() {
    let stamp = stopped().await;
    stamp.deadlines_act().await;
    stamp.keep_for(366 * DAY, &Locked).await;
    assert!(!stamp.is_going().await);
    let waits = |told: Vec<String>, what: &str| told.iter().filter(|told| told.contains(what)).count();
    assert_eq!(waits(stamp.told().await, "a lock at"), 1, "told once");
    let paused = Some(Paused {
        at: stamp.env.clock.now(),
        by: "operator".to_owned(),
        reason: "a freeze".to_owned(),
    });
    stamp.write(put_record(HOLD, &HoldRecord { v: 1, paused })).await;
    stamp.keep_for(10 * DAY, &NoLocks).await;
    assert!(!stamp.is_going().await);
    assert_eq!(waits(stamp.told().await, "holds planned work up"), 1);
    stamp
        .write(put_record(HOLD, &HoldRecord { v: 1, paused: None }))
        .await;
    stamp.keep_for(60, &NoLocks).await;
    assert!(stamp.is_going().await);
}

#[tokio::test(start_paused = true)]
async fn s1_a_suspended_subscription_stops_its_clusters_and_deletes_them_after_90_days() {
    for reinstated in [false, true] {
        let stamp = standing().await;
        stamp.deadlines_act().await;
        let subscription = async |state: SubscriptionState| {
            let now = stamp.env.clock.now();
            let record = SubscriptionRecord {
                v: 1,
                id: SUBSCRIPTION.to_owned(),
                display_name: "tests".to_owned(),
                tenant_id: String::new(),
                registered: Vec::new(),
                unregistered: Vec::new(),
                state,
                state_since: Some(now),
                created_at: now,
            };
            stamp
                .write(put_record(key::subscription(SUBSCRIPTION), &record))
                .await;
        };
        subscription(SubscriptionState::Disabled).await;
        assert_eq!(stamp.keep().await, Next::Reached);
        assert!(stamp.is_stopped().await, "at once");
        stamp.reach("c").await;
        stamp.keep_for(90 * DAY - 60, &NoLocks).await;
        assert!(!stamp.is_going().await);
        if reinstated {
            subscription(SubscriptionState::Enabled).await;
        }
        stamp.keep_for(120, &NoLocks).await;
        assert_eq!(stamp.is_going().await, !reinstated);
        assert!(
            stamp.is_stopped().await,
            "it stays stopped until somebody starts it"
        );
    }
}

/// A stopped cluster that is to be archived.
async fn archiving() -> Stamp {
    let stamp = stopped().await;
    stamp.observe("c", |observed| observed.formed = true).await;
    let mut record = stamp.record("c").await.unwrap();
    let now = stamp.env.clock.now();
    record.state = record
        .state
        .with(|_, decided| {
            decided.archive = Some(Archive {
                rule: "L4".to_owned(),
                since: now.as_millisecond(),
                stopped: Some(now),
                verified: None,
            });
        })
        .unwrap();
    stamp.write(put_record(key::desired(&record.uid), &record)).await;
    stamp
}

#[tokio::test(start_paused = true)]
async fn l4_no_disk_goes_before_the_backup_was_verified() {
    let stamp = archiving().await;
    for _ in 0..3 {
        let Next::At(again) = stamp.keep_by(&NoLocks, Some("a file is damaged")).await else {
            panic!("it is looked at again")
        };
        stamp.until(again).await;
    }
    assert!(!stamp.record("c").await.unwrap().spec().archived);
    let told = stamp.told().await;
    let damaged = told.iter().filter(|told| told.contains("a file is damaged"));
    assert_eq!(damaged.count(), 1, "{told:?}");
    assert_eq!(stamp.keep().await, Next::Changed);
    let record = stamp.record("c").await.unwrap();
    assert!(record.spec().archived && record.spec().stopped);
    stamp.reach("c").await;
    // It answers, and is not changed by anything but what brings it back.
    let shown = stamp.get(C).await;
    assert_eq!(shown.status, 200);
    assert_eq!(shown.body["properties"]["powerState"]["code"], "Stopped");
    let tags = stamp.ask("PATCH", C, json!({ "tags": { "a": "b" } })).await;
    assert_eq!((tags.status, tags.code()), (400, "OperationNotAllowed"));
    assert!(tags.message().contains("archived"), "{}", tags.message());
}

#[tokio::test(start_paused = true)]
async fn l4_a_backup_that_is_behind_takes_no_disks_place() {
    let stamp = archiving().await;
    stamp.keep_by(&NoLocks, Some(OLD)).await;
    assert!(!stamp.record("c").await.unwrap().spec().archived);
    assert!(stamp.told().await.iter().any(|told| told.contains(OLD)));
    let now = stamp.env.clock.now();
    stamp
        .observe("c", |observed| observed.backup_behind = Some(now))
        .await;
    stamp.keep().await;
    assert!(!stamp.record("c").await.unwrap().spec().archived);
    stamp.observe("c", |observed| observed.backup_behind = None).await;
    stamp.keep().await;
    assert!(stamp.record("c").await.unwrap().spec().archived);
}

#[tokio::test(start_paused = true)]
async fn l4_a_put_or_a_start_brings_an_archived_cluster_back_from_its_backup() {
    for put in [true, false] {
        let stamp = archiving().await;
        assert_eq!(stamp.keep().await, Next::Changed);
        stamp.reach("c").await;
        let back = if put {
            stamp.ask("PUT", C, least()).await.status
        } else {
            stamp.ask("POST", &format!("{C}/start"), Value::Null).await.status
        };
        assert_eq!(back, if put { 200 } else { 202 });
        let record = stamp.record("c").await.unwrap();
        let spec = record.spec();
        assert!(!spec.stopped && !spec.archived);
        let restore = spec.restore.as_ref().unwrap();
        assert!(restore.id.starts_with("archive-"), "{restore:?}");
        assert_eq!((restore.at, &restore.source), (None, &record.uid));
        assert_eq!(record.state.decided().archive, None);
    }
}

#[tokio::test(start_paused = true)]
async fn l4_a_start_before_the_backup_was_verified_takes_the_archive_back() {
    let stamp = archiving().await;
    let start = stamp.ask("POST", &format!("{C}/start"), Value::Null).await;
    assert_eq!(start.status, 202);
    stamp.reach("c").await;
    stamp.keep().await;
    let record = stamp.record("c").await.unwrap();
    assert!(!record.spec().stopped && !record.spec().archived);
    assert_eq!(record.spec().restore, None, "its disks are there");
}
