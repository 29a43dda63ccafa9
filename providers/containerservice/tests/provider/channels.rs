//! Upgrades by channels: what is asked for, when, and what waits.

use std::sync::Arc;

use arm_kernel::Keeper as _;
use async_trait::async_trait;
use cluster_versions::Offered;
use control_records::{
    EventKind, SubscriptionState, events, key,
    planned::{HOLD, HoldRecord, Paused, WaitingRecord, waiting_key},
};
use control_store::{get_record, put_record};
use jiff::Timestamp;
use providers_containerservice::{ClusterReader, Next, UpgradeGuard};
use serde_json::{Value, json};

use crate::stamp::{SUBSCRIPTION, Stamp, least};

const C: &str = "managedClusters/c";
const HOUR: i64 = 60 * 60;

async fn stamp(channel: &str) -> Stamp {
    let versions = ["1.35.1", "1.35.4", "1.36.3", "1.36.5", "1.37.1"];
    let stamp = Stamp::offering(Offered::new(versions, Some("1.35.1")).unwrap()).await;
    let mut body = least();
    body["properties"] = json!({ "autoUpgradeProfile": { "upgradeChannel": channel } });
    stamp.create("c", body).await;
    stamp
}

impl Stamp {
    async fn follow(&self) -> Next {
        let uid = self.record("c").await.unwrap().uid;
        self.provider.follow(&uid).await.unwrap()
    }

    /// Goes to when it is to be looked at again.
    async fn go_to(&self, next: Next) -> Timestamp {
        let Next::At(at) = next else { panic!("{next:?}") };
        let now = self.env.clock.now();
        assert!(at > now, "{at} is over at {now}");
        self.env.clock.sleep(at.duration_since(now).unsigned_abs()).await;
        at
    }

    async fn waits(&self) -> Option<String> {
        let uid = self.record("c").await.unwrap().uid;
        let found = get_record::<WaitingRecord>(&*self.store, &waiting_key(&uid)).await;
        found.unwrap().map(|found| found.value.waiting.sentence())
    }

    async fn planned_events(&self) -> usize {
        let uid = self.record("c").await.unwrap().uid;
        let now = self.env.clock.now();
        let all = events::history(&*self.store, &uid, now).await.unwrap();
        let planned = all
            .iter()
            .filter(|(_, event)| event.event.kind == EventKind::Planned);
        planned.count()
    }

    async fn versions(&self) -> (String, String) {
        let spec = self.record("c").await.unwrap().spec().clone();
        (spec.kubernetes_version, spec.pools[0].kubernetes_version.clone())
    }

    async fn hold(&self, paused: bool) {
        let paused = paused.then(|| Paused {
            at: self.env.clock.now(),
            by: "operator".to_owned(),
            reason: "a freeze".to_owned(),
        });
        let record = HoldRecord { v: 1, paused };
        self.write(put_record(HOLD, &record)).await;
    }

    /// The window of each Friday from 20:00 to midnight for upgrades.
    async fn fridays(&self) {
        let window = json!({ "schedule": { "weekly": { "intervalWeeks": 1, "dayOfWeek": "Friday" } }, "startTime": "20:00", "durationHours": 4 });
        let path = format!("{C}/maintenanceConfigurations/aksManagedAutoUpgradeSchedule");
        let body = json!({ "properties": { "maintenanceWindow": window } });
        assert_eq!(self.ask("PUT", &path, body).await.status, 201);
    }
}

fn both(version: &str) -> (String, String) {
    (version.to_owned(), version.to_owned())
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_waits_for_its_window_and_happens_at_its_minute() {
    let stamp = stamp("stable").await;
    stamp.fridays().await;
    assert_eq!(stamp.follow().await, Next::Reached, "it is still being made");
    stamp.reach("c").await;
    stamp.end_operations().await;
    // The clock begins on Thursday, 1 January 2026.
    let next = stamp.follow().await;
    let waits = stamp.waits().await.unwrap();
    assert!(waits.contains("1.36.5 (channel stable)"), "{waits}");
    assert!(waits.contains("aksManagedAutoUpgradeSchedule"), "{waits}");
    assert_eq!(stamp.follow().await, next, "asked twice, it is the same");
    assert_eq!(stamp.planned_events().await, 1, "and told once");
    assert_eq!(stamp.versions().await, both("1.35.1"));
    let at = stamp.go_to(next).await;
    let friday: Timestamp = "2026-01-02T20:00:00Z".parse().unwrap();
    let late = at.as_second() - friday.as_second();
    assert!((0..=HOUR / 2).contains(&late), "{at}");
    assert_eq!(stamp.follow().await, Next::Reached);
    assert_eq!(stamp.versions().await, both("1.36.5"));
    assert_eq!(stamp.waits().await, None);
    let record = stamp.record("c").await.unwrap();
    assert_eq!(record.modified_by, "Landfall");
    let operation = stamp.operations().await;
    let operation = operation
        .iter()
        .find(|operation| operation.id == record.operation);
    assert_eq!(operation.unwrap().name, "ManagedClusters_AutoUpgrade");
    // Once it is so, nothing is left.
    stamp.reach("c").await;
    stamp.end_operations().await;
    assert!(
        matches!(stamp.follow().await, Next::At(_)),
        "node images are looked at daily"
    );
    assert_eq!(stamp.versions().await, both("1.36.5"));
}

#[tokio::test(start_paused = true)]
async fn minors_are_gone_through_one_by_one_and_without_a_window_within_a_day() {
    let stamp = stamp("rapid").await;
    stamp.reach("c").await;
    stamp.end_operations().await;
    for version in ["1.36.5", "1.37.1"] {
        let begun = stamp.env.clock.now();
        let mut next = stamp.follow().await;
        if next != Next::Reached {
            let at = stamp.go_to(next).await;
            assert!(at.duration_since(begun).as_secs() <= 24 * HOUR, "{at}");
            next = stamp.follow().await;
        }
        assert_eq!(next, Next::Reached);
        assert_eq!(stamp.versions().await, both(version));
        stamp.reach("c").await;
        stamp.end_operations().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_stopped_disabled_or_held_up_is_not_upgraded() {
    let stamp = stamp("patch").await;
    stamp.fridays().await;
    stamp.reach("c").await;
    stamp.end_operations().await;
    let next = stamp.follow().await;
    stamp.go_to(next).await;
    stamp.hold(true).await;
    stamp.follow().await;
    let waits = stamp.waits().await.unwrap();
    assert!(waits.contains("a freeze"), "{waits}");
    stamp.hold(false).await;
    stamp.disable(SubscriptionState::Disabled).await;
    stamp.follow().await;
    assert!(stamp.waits().await.unwrap().contains("disabled"));
    stamp.disable(SubscriptionState::Enabled).await;
    stamp.ask("POST", &format!("{C}/stop"), Value::Null).await;
    stamp.follow().await;
    assert_eq!(stamp.waits().await, None);
    assert_eq!(stamp.versions().await, both("1.35.1"));
    stamp.reach("c").await;
    stamp.end_operations().await;
    stamp.ask("POST", &format!("{C}/start"), Value::Null).await;
    stamp.reach("c").await;
    stamp.end_operations().await;
    // It is still Friday evening.
    assert_eq!(stamp.follow().await, Next::Reached);
    assert_eq!(stamp.versions().await, both("1.35.4"));
}

#[tokio::test(start_paused = true)]
async fn what_was_aborted_is_not_asked_for_again_in_the_same_window() {
    let stamp = stamp("patch").await;
    stamp.fridays().await;
    stamp.reach("c").await;
    stamp.end_operations().await;
    let next = stamp.follow().await;
    stamp.go_to(next).await;
    assert_eq!(stamp.follow().await, Next::Reached);
    let answer = stamp.ask("POST", &format!("{C}/abort"), Value::Null).await;
    assert_eq!(answer.status, 202, "{:#}", answer.body);
    stamp.reach("c").await;
    stamp.end_operations().await;
    let next = stamp.follow().await;
    let at = stamp.go_to(next).await;
    assert!(at >= "2026-01-09T20:00:00Z".parse().unwrap(), "{at}");
    assert_eq!(stamp.follow().await, Next::Reached);
    assert_eq!(stamp.versions().await, both("1.35.4"));
}

/// A cluster in which an API is in use that 1.36 lacks.
struct Deprecated;

#[async_trait]
impl ClusterReader for Deprecated {
    async fn text(&self, _: &str, _: &str) -> Result<String, String> {
        let name = "group=\"g\",resource=\"r\",version=\"v1beta1\"";
        Ok(format!(
            "apiserver_requested_deprecated_apis{{{name},removed_release=\"1.36\"}} 1\n\
             apiserver_request_total{{{name},code=\"200\"}} 7\n"
        ))
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_in_use_refuses_a_minor_release_to_a_channel_unless_it_is_overridden() {
    let mut stamp = stamp("stable").await;
    let guard = Arc::new(UpgradeGuard::new(Arc::new(Deprecated)));
    let provider = stamp.provider.reading(Arc::clone(&stamp.store));
    stamp.provider = Arc::new(provider.guarded(guard));
    stamp.fridays().await;
    let reach = async |stamp: &Stamp| {
        stamp.reach("c").await;
        stamp.observe("c", |observed| observed.formed = true).await;
        stamp.end_operations().await;
    };
    reach(&stamp).await;
    let next = stamp.follow().await;
    stamp.go_to(next).await;
    let again = stamp.follow().await;
    let waits = stamp.waits().await.unwrap();
    assert!(waits.contains("it was refused"), "{waits}");
    assert!(waits.contains("g.r.v1beta1"), "{waits}");
    assert_eq!(stamp.versions().await, both("1.35.1"));
    let mut body = least();
    body["properties"] = json!({
        "autoUpgradeProfile": { "upgradeChannel": "stable" },
        "upgradeSettings": { "overrideSettings": { "forceUpgrade": true, "until": "2026-02-01T00:00:00Z" } },
    });
    let answer = stamp.ask("PUT", C, body).await;
    assert!([200, 201].contains(&answer.status), "{:#}", answer.body);
    reach(&stamp).await;
    stamp.go_to(again).await;
    assert_eq!(stamp.follow().await, Next::Reached);
    assert_eq!(stamp.versions().await, both("1.36.5"));
    assert_eq!(stamp.waits().await, None);
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_older_than_their_image_are_replaced_where_the_channel_says_so() {
    for (profile, replaced) in [
        (json!({}), true),
        (json!({ "nodeOSUpgradeChannel": "NodeImage" }), true),
        (json!({ "nodeOSUpgradeChannel": "SecurityPatch" }), true),
        (json!({ "nodeOSUpgradeChannel": "None" }), false),
        (
            json!({ "nodeOSUpgradeChannel": "None", "upgradeChannel": "node-image" }),
            true,
        ),
    ] {
        // Of nodes from before images had builds: well before the day of the newest.
        let stamp = with_channel(&profile).await;
        let record = stamp.record("c").await.unwrap();
        let pool = &record.spec().pools[0];
        assert_eq!(pool.image, None);
        stamp.add_node(&record.uid, "m0", &pool.name, 0).await;
        stamp.follow().await;
        stamp.images.add("1.36.3", "2026.01.01");
        stamp.follow().await;
        assert_eq!(stamp.waits().await, None, "it was made with it: {profile}");
        stamp.images.add("1.36.3", "2026.01.09");
        stamp.follow_on().await;
        let pool = stamp.record("c").await.unwrap().spec().pools[0].clone();
        assert_eq!(pool.renewed.is_some(), replaced, "{profile}");
        assert_eq!(pool.image.is_some(), replaced, "{profile}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_brings_newer_builds_and_tells_what_is_other_in_them() {
    for (channel, build, brought) in [
        ("NodeImage", "2026.01.08", true),
        ("NodeImage", "2026.01.08.1", true),
        ("SecurityPatch", "2026.01.08", true),
        ("SecurityPatch", "2026.01.08.1", false),
        ("None", "2026.01.08", false),
    ] {
        let stamp = Stamp::offering(Offered::new(["1.36.3"], None).unwrap()).await;
        stamp.images.add("1.36.3", "2026.01.01");
        let mut body = least();
        body["properties"] = json!({ "autoUpgradeProfile": { "nodeOSUpgradeChannel": channel } });
        stamp.create("c", body).await;
        stamp.reach("c").await;
        stamp.end_operations().await;
        stamp.follow_on().await;
        let own = |pool: &cluster_spec::PoolSpec| pool.image.clone();
        let before = stamp.record("c").await.unwrap().spec().pools[0].clone();
        assert_eq!(own(&before).as_deref(), Some("2026.01.01"), "it is the newest");
        stamp.images.add("1.36.3", build);
        stamp.follow_on().await;
        let after = stamp.record("c").await.unwrap().spec().pools[0].clone();
        let expected = if brought { build } else { "2026.01.01" };
        assert_eq!(own(&after).as_deref(), Some(expected), "{channel} {build}");
        let told = stamp.events().await;
        let told: Vec<_> = told.iter().filter(|told| told.contains("libssl3")).collect();
        assert_eq!(!told.is_empty(), brought, "{told:?}");
        assert!(
            told.iter()
                .all(|told| told.contains("AKSDebian-2026.01.08") && told.contains("AKSDebian-2026.01.01")),
            "{told:?}"
        );
    }
}

/// A cluster that is made, with these channels; nothing is known of node images.
async fn with_channel(profile: &Value) -> Stamp {
    let stamp = Stamp::offering(Offered::new(["1.36.3"], None).unwrap()).await;
    let mut body = least();
    body["properties"] = json!({ "autoUpgradeProfile": profile });
    stamp.create("c", body).await;
    stamp.reach("c").await;
    stamp.end_operations().await;
    stamp
}

impl Stamp {
    /// Follows the channels of `c` over some days.
    async fn follow_on(&self) {
        for _ in 0..4 {
            let Next::At(at) = self.follow().await else { break };
            let left = at.duration_since(self.env.clock.now()).unsigned_abs();
            self.env.clock.sleep(left).await;
        }
    }

    /// What was told of `c`.
    async fn events(&self) -> Vec<String> {
        let uid = self.record("c").await.unwrap().uid;
        let all = events::history(&*self.store, &uid, self.env.clock.now())
            .await
            .unwrap();
        all.into_iter().map(|(_, event)| event.event.message).collect()
    }
}

impl Stamp {
    async fn disable(&self, state: SubscriptionState) {
        let record = control_records::SubscriptionRecord {
            v: 1,
            id: SUBSCRIPTION.to_owned(),
            display_name: "tests".to_owned(),
            tenant_id: String::new(),
            registered: Vec::new(),
            unregistered: Vec::new(),
            state,
            state_since: Some(self.env.clock.now()),
            created_at: self.env.clock.now(),
        };
        self.write(put_record(key::subscription(SUBSCRIPTION), &record))
            .await;
    }

    /// All operations of the cluster succeed, as the loop would say.
    pub(crate) async fn end_operations(&self) {
        for operation in self.operations().await {
            let ended = control_records::OperationRecord {
                status: control_records::OperationStatus::Succeeded,
                ended_at: Some(self.env.clock.now()),
                ..operation
            };
            self.write(put_record(ended.key(), &ended)).await;
        }
    }
}
