//! `Landfall.Backup`: restore points, and restores.

#![expect(clippy::unwrap_used, reason = "the helpers of these tests panic as tests do")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use agent_api::{Agents, LogError, WakeUp};
use agent_protocol::{MachineConfig, ProcessSeen, ProcessState, Report, programs::BackupStatus};
use arm_ids::ResourcePath;
use arm_kernel::{AccessControl, Authorizer, Call, Change as LockChange, Locks, Mode, Provider as _, routes};
use arm_wire::{ArmError, Principal};
use async_trait::async_trait;
use cluster_archive::{Archive, DirectoryStore};
use cluster_backup::{Change, Entry, ObjectName, base::BaseWriter, log::LogWriter};
use cluster_versions::Offered;
use control_records::{Assignment, DeletedRecord, Healing, MachineRecord, PkiRecord, Role, key};
use control_store::{Op, put_record};
use futures::{StreamExt as _, stream, stream::BoxStream};
use jiff::Timestamp;
use providers_containerservice::{
    ArchiveReader, BackupApi, ContainerService, ProviderConfig, SERVICE_PRINCIPAL_SECRET, secret_name,
};
use serde_json::{Value, json};

use crate::stamp::{Kubeconfigs, SUBSCRIPTION, Stamp, least};

/// The last reports of machines' agents.
#[derive(Default)]
struct Said(BTreeMap<String, Arc<Report>>);

#[async_trait]
impl Agents for Said {
    fn publish(&self, _: &str, _: Arc<MachineConfig>) {}
    fn forget(&self, _: &str) {}
    fn report(&self, machine: &str) -> Option<Arc<Report>> {
        self.0.get(machine).cloned()
    }
    fn contact(&self, machine: &str) -> Option<Duration> {
        self.0.contains_key(machine).then_some(Duration::ZERO)
    }
    fn subscribe(&self) -> BoxStream<'static, WakeUp> {
        stream::empty().boxed()
    }
    async fn logs(&self, machine: &str, _: &str, _: u32) -> Result<String, LogError> {
        Err(LogError::Away(machine.to_owned()))
    }
}

struct World {
    stamp: Stamp,
    archive: Arc<Archive>,
    said: Said,
    begun: Timestamp,
    _directory: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let stamp = Stamp::new().await;
        let objects = DirectoryStore::open(directory.path()).unwrap();
        Self {
            archive: Arc::new(Archive::new(Arc::new(objects), stamp.sealer.clone())),
            begun: stamp.env.clock.now(),
            stamp,
            said: Said::default(),
            _directory: directory,
        }
    }

    /// Milliseconds since 1970, this many seconds before the test began.
    fn ago(&self, seconds: i64) -> i64 {
        self.begun.as_millisecond() - seconds * 1000
    }

    fn time(&self, seconds_ago: i64) -> String {
        Timestamp::from_millisecond(self.ago(seconds_ago))
            .unwrap()
            .to_string()
    }

    /// A backup of a cluster: one object from 100 s ago, a second one 50 s ago, and a last write 10 s ago.
    fn back_up(&self, uid: &str) {
        let entry = |name: &str, revision| Entry {
            key: format!("/registry/configmaps/default/{name}").into_bytes(),
            value: b"{}".to_vec(),
            revision,
            lease: 0,
        };
        let (revision, at) = (5, self.ago(100));
        let mut base = BaseWriter::new(revision, at);
        base.add(&entry("first", 5)).unwrap();
        let name = ObjectName::Base { revision, at };
        let bytes = base.finish(&[]).unwrap().0;
        self.archive.put(uid, name, bytes.as_slice()).unwrap();
        let mut log = LogWriter::after(5, at);
        for (revision, seconds) in [(6, 50), (7, 10)] {
            let Entry { key, value, .. } = entry(&format!("later-{revision}"), revision);
            let change = Change {
                revision,
                seen: self.ago(seconds),
                key,
                now: Some((value, 0)),
            };
            log.add(&change).unwrap();
        }
        let (head, bytes) = log.flush().unwrap();
        let name = ObjectName::Log {
            previous: head.previous,
            last: head.last,
            first_seen: head.first_seen,
            last_seen: head.last_seen,
        };
        self.archive.put(uid, name, bytes.as_slice()).unwrap();
    }

    async fn ask(self: &World, route: &str, path: &str, body: Value) -> (u16, Value) {
        self.ask_in(Mode::Commit, route, path, body).await
    }

    async fn ask_in(&self, mode: Mode, route: &str, path: &str, body: Value) -> (u16, Value) {
        self.ask_under(AccessControl::allow_all(), mode, route, path, body)
            .await
    }

    async fn ask_under(
        &self,
        access: AccessControl,
        mode: Mode,
        route: &str,
        path: &str,
        body: Value,
    ) -> (u16, Value) {
        let provider = ContainerService::new(
            self.stamp.env.clone(),
            self.stamp.store.clone(),
            self.stamp.sealer.clone(),
            ProviderConfig {
                location: "local".to_owned(),
                url: "https://stamp.test:8443".to_owned(),
                tenant: "00000000-0000-0000-0000-00000000000f".to_owned(),
                domain: "landfall.test".to_owned(),
                offered: Offered::pinned(),
                reserved_ranges: Vec::new(),
                credential_lifetime: std::time::Duration::from_secs(60),
                support: Default::default(),
                limits: control_records::usage::Limits::default(),
            },
            Arc::new(Kubeconfigs),
        );
        let api = BackupApi::new(
            self.stamp.env.clone(),
            Arc::new(provider),
            Arc::new(ArchiveReader(Arc::clone(&self.archive))),
            Arc::new(Said(self.said.0.clone())),
        );
        let route = routes::<BackupApi>()
            .into_iter()
            .find(|known| known.name == route)
            .unwrap();
        let path = match path {
            "" => "/providers/Landfall.Backup/managedClusters".to_owned(),
            path => format!("/resourceGroups/rg1/providers/Landfall.Backup/managedClusters/{path}"),
        };
        let mut request = self.stamp.request(
            route.verb.method(),
            &format!("/subscriptions/{SUBSCRIPTION}{path}"),
            body,
        );
        request.api_version = "2026-11-01".to_owned();
        let call = Call::new(request, access);
        let outcome = match mode {
            Mode::Commit => api.handle(&route, &call).await,
            Mode::Preview => api.preview(&route, &call).await,
        };
        match outcome {
            Ok(response) => (response.status.as_u16(), response.body.unwrap_or_default()),
            Err(error) => (error.status().as_u16(), error.body()),
        }
    }

    async fn restore(&self, cluster: &str, body: Value) -> (u16, Value) {
        self.ask("Backups_Restore", &format!("{cluster}/restore"), body)
            .await
    }

    /// Deletes the cluster, as the loop does.
    async fn delete(&self, name: &str) -> String {
        let record = self.stamp.record(name).await.unwrap();
        let uid = record.uid.clone();
        let deleted = DeletedRecord {
            v: 2,
            uid: uid.clone(),
            subscription: record.subscription.clone(),
            resource_group: record.resource_group.clone(),
            name: record.name.clone(),
            created_at: record.created_at,
            deleted_at: self.stamp.env.clock.now(),
            last: Some(Box::new(record)),
            pki: Some(PkiRecord {
                v: 1,
                generation: 1,
                rotation: Default::default(),
                sealed: b"sealed".to_vec(),
            }),
        };
        let write = put_record(key::deleted(&uid), &deleted);
        self.stamp.write(write).await;
        self.stamp
            .write(Op::Delete(key::cluster_name(SUBSCRIPTION, "rg1", name)))
            .await;
        self.stamp.write(Op::Delete(key::desired(&uid))).await;
        uid
    }
}

fn code(answer: &Value) -> &str {
    answer["error"]["code"].as_str().unwrap_or_default()
}

fn message(answer: &Value) -> &str {
    answer["error"]["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn it_is_told_which_seconds_can_be_restored_and_how_far_shipping_is() {
    let mut world = World::new().await;
    world.stamp.create("c", least()).await;
    let uid = world.stamp.record("c").await.unwrap().uid;
    let (status, empty) = world.ask("Backups_Get", "c/backups/default", Value::Null).await;
    assert_eq!((status, &empty["properties"]["restorable"]), (200, &json!([])));
    assert_eq!(empty["properties"]["shipping"], Value::Null);

    world.back_up(&uid);
    let machine = MachineRecord {
        v: 2,
        id: "m1".to_owned(),
        image: String::new(),
        token_hash: String::new(),
        token_sealed: Vec::new(),
        enrolled_key: None,
        token_used: false,
        host: control_records::HostId::first(),
        assignment: Some(Assignment {
            cluster: uid.clone(),
            role: Role::ControlPlane {
                index: 0,
                address: "100.64.0.5".parse().unwrap(),
            },
        }),
        deleting: false,
        work: None,
        emptying: None,
        inherited: None,
        healing: Healing::default(),
        created_at: world.stamp.env.clock.now(),
    };
    world
        .stamp
        .write(put_record(key::machine(&uid, "m1"), &machine))
        .await;
    let status = BackupStatus {
        ships: true,
        written: 9,
        acknowledged: 7,
        lag_ms: 61_000,
        problem: Some("cannot ship: it is away".to_owned()),
        ..BackupStatus::default()
    };
    let seen = ProcessSeen {
        state: ProcessState::Ready,
        pid: None,
        restarts: 0,
        last_exit: None,
        last_lines: Vec::new(),
        hangs: 0,
        status: serde_json::to_value(&status).ok(),
    };
    let mut report = Report::default();
    report.processes.insert("etcd-backup".to_owned(), seen);
    world.said.0.insert("m1".to_owned(), Arc::new(report));

    let (_, backup) = world.ask("Backups_Get", "c/backups/default", Value::Null).await;
    let properties = &backup["properties"];
    assert_eq!(
        properties["restorable"],
        json!([{ "from": world.time(100), "until": world.time(10) }])
    );
    assert_eq!(
        (&properties["clusterUid"], &properties["files"]),
        (&json!(uid), &json!(2))
    );
    let shipping = &properties["shipping"];
    assert_eq!(
        (
            &shipping["behindSeconds"],
            &shipping["writtenRevision"],
            &shipping["problem"]
        ),
        (&json!(61), &json!(9), &json!("cannot ship: it is away"))
    );
    let (_, all) = world.ask("Backups_List", "c/backups", Value::Null).await;
    assert_eq!(all["value"], json!([backup]));
    let (_, all) = world.ask("Backups_ListClusters", "", Value::Null).await;
    assert_eq!(all["value"], json!([backup]));
    let (status, none) = world.ask("Backups_Get", "c/backups/other", Value::Null).await;
    assert_eq!((status, code(&none)), (404, "ResourceNotFound"));
    let (status, _) = world
        .ask("Backups_Get", "nobody/backups/default", Value::Null)
        .await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn a_preview_and_a_verdict() {
    let world = World::new().await;
    world.stamp.create("c", least()).await;
    world.back_up(&world.stamp.record("c").await.unwrap().uid);
    let at = json!({ "at": world.time(30) });
    let (status, preview) = world.ask("Backups_Preview", "c/preview", at).await;
    assert_eq!((status, &preview["disappear"]), (200, &json!(1)));
    let (status, verdict) = world.ask("Backups_Verify", "c/verify", json!({})).await;
    assert_eq!(
        (status, &verdict["keys"], &verdict["problem"]),
        (200, &json!(3), &Value::Null)
    );
}

#[tokio::test]
async fn a_second_that_cannot_be_restored_is_refused_before_anything_happens() {
    let world = World::new().await;
    world.stamp.create("c", least()).await;
    let nothing_yet = world.restore("c", json!({ "at": world.time(30) })).await;
    assert_eq!((nothing_yet.0, code(&nothing_yet.1)), (404, "ResourceNotFound"));
    world.back_up(&world.stamp.record("c").await.unwrap().uid);
    for (body, says) in [
        (json!({}), "which second"),
        (json!({ "at": "yesterday" }), "'yesterday' is not a time"),
        (json!({ "at": world.time(-60) }), "in the future"),
        (json!({ "at": world.time(500) }), "cannot be restored"),
    ] {
        let (status, answer) = world.restore("c", body).await;
        assert_eq!((status, code(&answer)), (400, "InvalidParameter"), "{answer}");
        assert!(message(&answer).contains(says), "{answer}");
    }
    assert_eq!(world.stamp.record("c").await.unwrap().generation, 1);
    assert_eq!(world.stamp.operations().await.len(), 1);
}

#[tokio::test]
async fn going_back_in_place_is_a_change_of_what_is_desired() {
    let world = World::new().await;
    world.stamp.create("c", least()).await;
    let before = world.stamp.record("c").await.unwrap();
    world.back_up(&before.uid);
    let at = json!({ "at": world.time(30) });
    let (status, answer) = world
        .ask_in(Mode::Preview, "Backups_Restore", "c/restore", at)
        .await;
    assert_eq!(status, 202, "{answer}");
    assert_eq!(
        world.stamp.record("c").await.unwrap(),
        before,
        "a preview changes nothing"
    );
    let (status, answer) = world.restore("c", json!({ "at": world.time(30) })).await;
    assert_eq!(status, 202, "{answer}");
    let after = world.stamp.record("c").await.unwrap();
    let restore = after.spec().restore.clone().unwrap();
    assert_eq!(
        (restore.source, restore.at, json!(restore.id)),
        (before.uid, Some(world.ago(30)), answer["restore"].clone())
    );
    assert_eq!(after.generation, 2);
    let operations = world.stamp.operations().await;
    assert!(
        operations
            .iter()
            .any(|operation| operation.name == "Backups_Restore")
    );
}

#[tokio::test]
async fn a_new_cluster_is_made_like_the_other_and_has_everything_of_its_own() {
    let world = World::new().await;
    let body = json!({
        "location": "local",
        "tags": { "team": "shop" },
        "sku": { "name": "Base", "tier": "Standard" },
        "properties": {
            "dnsPrefix": "shop",
            "servicePrincipalProfile": { "clientId": "a-client", "secret": "hush" },
            "networkProfile": { "networkPlugin": "kubenet", "podCidr": "10.77.0.0/16" },
            "agentPoolProfiles": [
                { "name": "system", "mode": "System", "count": 2 },
                { "name": "work", "count": 3, "nodeLabels": { "a": "b" } },
            ],
        },
    });
    world.stamp.create("c", body).await;
    let source = world.stamp.record("c").await.unwrap();
    world.back_up(&source.uid);
    let at = world.time(30);
    let (status, answer) = world.restore("c", json!({ "at": at, "as": "c" })).await;
    assert_eq!((status, code(&answer)), (409, "Conflict"), "{answer}");
    let (status, answer) = world.restore("c", json!({ "at": at, "as": "-" })).await;
    assert_eq!((status, code(&answer)), (400, "InvalidResourceName"), "{answer}");

    let (status, answer) = world.restore("c", json!({ "at": at, "as": "copy" })).await;
    assert_eq!(status, 202, "{answer}");
    assert!(
        answer["cluster"]
            .as_str()
            .unwrap()
            .ends_with("/managedClusters/copy")
    );
    let copy = world.stamp.record("copy").await.unwrap();
    let restore = copy.spec().restore.clone().unwrap();
    assert_eq!(
        (restore.source, restore.at),
        (source.uid.clone(), Some(world.ago(30)))
    );
    assert_ne!(copy.uid, source.uid);
    assert_ne!(copy.spec().fqdn, source.spec().fqdn);
    assert_ne!(copy.spec().node_resource_group, source.spec().node_resource_group);
    assert_eq!(copy.spec().network, source.spec().network);
    assert_eq!(copy.spec().tier, source.spec().tier);
    assert_eq!(copy.body()["tags"], source.body()["tags"]);
    let pools = |record: &control_records::ClusterRecord| -> Vec<_> {
        let pools = record.spec().pools.iter();
        pools
            .map(|pool| (pool.name.clone(), pool.count, pool.labels.clone()))
            .collect()
    };
    assert_eq!(pools(&copy), pools(&source));
    let incarnations = |record: &control_records::ClusterRecord| -> Vec<_> {
        record
            .spec()
            .pools
            .iter()
            .map(|pool| pool.incarnation.clone())
            .collect()
    };
    assert_ne!(incarnations(&copy), incarnations(&source));
    // The copy has the secret, sealed under the new cluster's name.
    let sealed = &copy.sealed[SERVICE_PRINCIPAL_SECRET];
    let name = secret_name(&copy.uid, SERVICE_PRINCIPAL_SECRET);
    assert_eq!(
        world.stamp.sealer.unseal(&name, sealed).unwrap().as_slice(),
        b"hush"
    );
    // The source is unchanged.
    assert_eq!(world.stamp.record("c").await.unwrap(), source);
}

#[tokio::test]
async fn a_deleted_cluster_comes_back_as_a_new_one_only() {
    let world = World::new().await;
    world.stamp.create("c", least()).await;
    world.back_up(&world.stamp.record("c").await.unwrap().uid);
    let uid = world.delete("c").await;
    let (_, backup) = world.ask("Backups_Get", "c/backups/default", Value::Null).await;
    assert_eq!(backup["properties"]["clusterUid"], json!(uid));
    assert!(backup["properties"]["clusterDeleted"].is_string());
    let at = world.time(30);
    let (status, answer) = world.restore("c", json!({ "at": at })).await;
    assert_eq!(
        (status, code(&answer)),
        (400, "MissingRequiredParameter"),
        "{answer}"
    );
    assert!(message(&answer).contains("'as'"), "{answer}");
    // Even under its own name, which no cluster has now.
    let (status, answer) = world.restore("c", json!({ "at": at, "as": "c" })).await;
    assert_eq!(status, 202, "{answer}");
    let again = world.stamp.record("c").await.unwrap();
    assert_ne!(again.uid, uid);
    assert_eq!(again.spec().restore.as_ref().unwrap().source, uid);
    // Now the name refers to the new cluster; the old one is requested by its uid.
    let (_, new) = world.ask("Backups_Get", "c/backups/default", Value::Null).await;
    assert_eq!(new["properties"]["clusterUid"], json!(again.uid));
    let (status, answer) = world
        .restore("c", json!({ "at": at, "as": "d", "clusterUid": uid }))
        .await;
    assert_eq!(status, 202, "{answer}");
    let (status, _) = world
        .restore("c", json!({ "at": at, "as": "e", "clusterUid": "nobody" }))
        .await;
    assert_eq!(status, 404);
    let (_, all) = world.ask("Backups_ListClusters", "", Value::Null).await;
    assert_eq!(all["value"].as_array().unwrap().len(), 3);
}

/// Refuses all actions in the group `secret`, and all changes in the group `shut`.
struct Doors;

#[async_trait]
impl Authorizer for Doors {
    async fn may(&self, _: &Principal, _: &str, scope: &ResourcePath) -> Result<bool, ArmError> {
        Ok(scope.resource_group.as_deref() != Some("secret"))
    }

    async fn reaches(&self, _: &Principal, _: &ResourcePath) -> Result<bool, ArmError> {
        Ok(true)
    }
}

#[async_trait]
impl Locks for Doors {
    async fn against(&self, _: LockChange, scope: &ResourcePath) -> Result<Vec<String>, ArmError> {
        let shut = scope.resource_group.as_deref() == Some("shut");
        Ok(shut.then(|| scope.to_string()).into_iter().collect())
    }
}

#[tokio::test]
async fn what_a_restore_makes_elsewhere_needs_the_right_to_make_it_there() {
    let world = World::new().await;
    world.stamp.create("c", least()).await;
    world.back_up(&world.stamp.record("c").await.unwrap().uid);
    let at = world.time(30);
    for (group, expected) in [
        // A caller without permission in the group does not learn whether it exists.
        ("secret", (403, "AuthorizationFailed")),
        ("shut", (409, "ScopeLocked")),
        ("none", (404, "ResourceGroupNotFound")),
    ] {
        let access = AccessControl {
            authorizer: Arc::new(Doors),
            locks: Arc::new(Doors),
            ..AccessControl::allow_all()
        };
        let body = json!({ "at": at, "as": "copy", "resourceGroup": group });
        let (status, answer) = world
            .ask_under(access, Mode::Commit, "Backups_Restore", "c/restore", body)
            .await;
        assert_eq!((status, code(&answer)), expected, "{group}: {answer}");
    }
}
