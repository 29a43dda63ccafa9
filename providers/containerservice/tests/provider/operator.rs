//! What operators read at `Landfall.ContainerService`: alerts, what was used, and the certificates of clusters.

use std::sync::Arc;

use agent_protocol::{File, MachineConfig};
use arm_ids::ResourcePath;
use arm_kernel::{AccessControl, Authorizer, Call, Provider as _, routes};
use arm_wire::{ArmError, Principal};
use async_trait::async_trait;
use cluster_pki::{ClusterPki, Subject};
use control_records::{
    PkiRecord, SealedRecord,
    alert::{AlertCluster, AlertRecord, Severity},
    key,
    machine_config::StoredConfig,
    metering::{DAY, Meters, UsageDayRecord},
};
use control_store::put_record;
use jiff::{SignedDuration, Timestamp};
use providers_containerservice::HistoryApi;
use serde_json::Value;

use crate::stamp::{Answer, SUBSCRIPTION, Stamp, least};

/// Permits everything below a subscription, and nothing at the stamp.
struct Tenant;

#[async_trait]
impl Authorizer for Tenant {
    async fn may(&self, _: &Principal, _: &str, scope: &ResourcePath) -> Result<bool, ArmError> {
        Ok(scope.subscription.is_some())
    }

    async fn reaches(&self, _: &Principal, scope: &ResourcePath) -> Result<bool, ArmError> {
        Ok(scope.subscription.is_some())
    }
}

async fn ask(stamp: &Stamp, access: AccessControl, name: &str, below: &str) -> Answer {
    let api = HistoryApi::new(stamp.env.clone(), stamp.store.clone()).unsealing(Arc::clone(&stamp.sealer));
    let route = routes::<HistoryApi>()
        .into_iter()
        .find(|route| route.name == name)
        .unwrap();
    let path = format!("/subscriptions/{SUBSCRIPTION}/{below}");
    let request = stamp.request(route.verb.method(), &path, Value::Null);
    crate::stamp::answer(api.handle(&route, &Call::new(request, access)).await)
}

fn names(list: &Answer) -> Vec<&str> {
    let items = list.body["value"].as_array().unwrap().iter();
    items.map(|item| item["name"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn alerts_about_the_stamp_are_no_tenants_and_open_ones_come_first() {
    let stamp = Stamp::new().await;
    let now = stamp.env.clock.now();
    let alert = |name: &str, severity, subscription: Option<&str>, age: i64, closed: bool| AlertRecord {
        v: 1,
        name: name.to_owned(),
        rule: "r".to_owned(),
        severity,
        cluster: subscription.map(|subscription| AlertCluster {
            uid: "u".to_owned(),
            subscription: subscription.to_owned(),
            resource_group: "rg1".to_owned(),
            name: "c".to_owned(),
        }),
        message: "m".to_owned(),
        remedy: "do this".to_owned(),
        closes: "it is done".to_owned(),
        opened_at: now - SignedDuration::from_secs(age),
        closed_at: closed.then_some(now),
        times: 1,
    };
    for record in [
        alert("closed", Severity::Critical, Some(SUBSCRIPTION), 9, true),
        alert("own-old", Severity::Warning, Some(SUBSCRIPTION), 9, false),
        alert("own-new", Severity::Warning, Some(SUBSCRIPTION), 1, false),
        alert("others", Severity::Critical, Some("s2"), 1, false),
        alert("stamp", Severity::Critical, None, 99, false),
    ] {
        stamp.write(record.put()).await;
    }
    const LIST: &str = "providers/Landfall.ContainerService/alerts";
    let tenant = || AccessControl {
        authorizer: Arc::new(Tenant),
        ..AccessControl::allow_all()
    };
    let all = ask(&stamp, AccessControl::allow_all(), "Alerts_List", LIST).await;
    assert_eq!(names(&all), ["stamp", "own-new", "own-old", "closed"]);
    let own = ask(&stamp, tenant(), "Alerts_List", &format!("{LIST}?open=true")).await;
    assert_eq!(names(&own), ["own-new", "own-old"]);
    assert_eq!(own.body["value"][0]["state"], "Open");
    assert_eq!(all.body["value"][3]["state"], "Closed");
    assert_eq!(own.body["value"][0]["remedy"], "do this");
    for (access, name, status) in [
        (AccessControl::allow_all(), "stamp", 200),
        (tenant(), "stamp", 404),
        (tenant(), "own-old", 200),
        (tenant(), "others", 404),
        (AccessControl::allow_all(), "others", 404),
        (tenant(), "none", 404),
    ] {
        let one = ask(&stamp, access, "Alerts_Get", &format!("{LIST}/{name}")).await;
        assert_eq!(one.status, status, "{name}: {}", one.body);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_used_is_told_by_hour_and_meter_within_the_time_that_is_asked_for() {
    let stamp = Stamp::new().await;
    let midnight = Timestamp::from_second(20_000 * DAY).unwrap();
    let mut record = UsageDayRecord::new(SUBSCRIPTION, 20_000);
    for hour in [7, 8, 9] {
        let used = Meters {
            seconds: 3_600,
            core_seconds: 2 * 3_600,
            memory_mib_seconds: 1_536 * 3_600,
            disk_gib_seconds: 128 * 3_600,
            address_seconds: 1_800,
        };
        record.hours.insert(hour, used);
    }
    stamp.write(record.put()).await;
    stamp
        .write(
            UsageDayRecord {
                subscription: "s2".to_owned(),
                ..record.clone()
            }
            .put(),
        )
        .await;
    const LIST: &str = "providers/Landfall.ContainerService/usageRecords";
    let list = |query: String| {
        let stamp = &stamp;
        async move {
            let below = format!("{LIST}?{query}");
            ask(stamp, AccessControl::allow_all(), "UsageRecords_List", &below).await
        }
    };
    let at = |hour: i64| midnight + SignedDuration::from_hours(hour);
    let found = list(format!("from={}&to={}", at(8), at(9))).await;
    let told: Vec<(&str, &str, f64)> = found.body["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let text = |key: &str| item[key].as_str().unwrap();
            (text("meter"), text("unit"), item["quantity"].as_f64().unwrap())
        })
        .collect();
    assert_eq!(
        told,
        [
            ("cores", "core hours", 2.0),
            ("memory", "GiB hours", 1.5),
            ("disks", "GiB hours", 128.0),
            ("addresses", "address hours", 0.5)
        ]
    );
    assert_eq!(found.body["value"][0]["usageStartTime"], at(8).to_string());
    let day = list("from=2024-10-04&to=2024-10-05".to_owned()).await;
    assert_eq!(names(&day).len(), 3 * 4);
    let none = list("from=2024-10-05&to=2024-10-06".to_owned()).await;
    assert_eq!(names(&none).len(), 0);
    for (query, target) in [
        ("from=yesterday", "from"),
        ("to=2024-13-01", "to"),
        ("from=2024-10-05&to=2024-10-04", "from"),
    ] {
        let refused = list(query.to_owned()).await;
        assert_eq!(refused.status, 400, "{query}: {}", refused.body);
        assert_eq!(refused.body["error"]["target"], target, "{query}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clusters_certificates_are_listed_without_a_secret() {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    let uid = stamp.record("c").await.unwrap().uid;
    let now = stamp.env.clock.now();
    let pki = ClusterPki::generate(now).unwrap();
    let sealed = stamp
        .sealer
        .seal(&key::sealed::pki(&uid), &serde_json::to_vec(&pki).unwrap())
        .unwrap();
    let record = PkiRecord {
        v: 1,
        generation: 1,
        rotation: Default::default(),
        sealed,
    };
    stamp.write(put_record(key::pki(&uid), &record)).await;
    stamp.add_node(&uid, "m1", "np1", 0).await;
    let leaf = pki
        .cluster
        .issue(&Subject::client("system:node:n1"), now)
        .unwrap();
    let file = |path: &str, content: &str| File {
        path: path.to_owned(),
        mode: 0o600,
        content: content.to_owned(),
    };
    let stored = StoredConfig {
        inputs: "i".to_owned(),
        made_at: now,
        issued_at: None,
        config: MachineConfig {
            generation: 7,
            files: vec![
                file("/etc/kubernetes/pki/ca.crt", &pki.trusted_cluster()),
                file("/etc/kubernetes/pki/kubelet.crt", &leaf.certificate),
                file("/etc/kubernetes/pki/kubelet.key", &leaf.key),
            ],
            ..MachineConfig::default()
        },
    };
    let bytes = serde_json::to_vec(&stored).unwrap();
    let sealed = stamp
        .sealer
        .seal(&key::sealed::machine_config("m1"), &bytes)
        .unwrap();
    let config = key::machine_config(&uid, "m1");
    stamp
        .write(put_record(config, &SealedRecord { v: 1, sealed }))
        .await;

    let path = "resourceGroups/rg1/providers/Landfall.ContainerService/managedClusters/c/certificates";
    let list = ask(
        &stamp,
        AccessControl::allow_all(),
        "Certificates_ListByCluster",
        path,
    )
    .await;
    assert_eq!(list.status, 200, "{}", list.body);
    assert_eq!(
        names(&list),
        [
            "cluster-ca",
            "etcd-ca",
            "front-proxy-ca",
            "service-account-key",
            "encryption-key key1",
            "kubelet",
            "agent",
            "kubelet (client, server)",
        ]
    );
    let kubelet = &list.body["value"][5];
    assert_eq!(kubelet["holder"], "aks-np1-12345678-vmss000000");
    assert_eq!(kubelet["generation"], 7);
    assert_eq!(kubelet["kind"], "certificate");
    let time = |key: &str| kubelet[key].as_str().unwrap().parse::<Timestamp>().unwrap();
    let days = |from: Timestamp, to: Timestamp| to.duration_since(from).as_hours() / 24;
    assert_eq!(days(now, time("renewsAt")), 180);
    assert_eq!(days(now, time("expiresAt")), 730);
    let text = list.body.to_string();
    for secret in ["PRIVATE", "BEGIN", pki.encryption_key.as_str()] {
        assert!(!text.contains(secret), "{text}");
    }
    let none = path.replace("/c/", "/none/");
    let none = ask(
        &stamp,
        AccessControl::allow_all(),
        "Certificates_ListByCluster",
        &none,
    )
    .await;
    assert_eq!(none.status, 404);
}
