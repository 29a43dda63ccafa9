//! Credentials: recorded before they are handed out, listed, revoked, limited in number; and none without
//! local accounts.

use std::time::Duration;

use arm_kernel::{AccessControl, Call, Mode, Provider as _, routes};
use cluster_spec::CredentialKind;
use control_records::{DesiredState, SealedRecord, credential::CredentialRecord, key};
use control_store::{get_record, list_records, put_record};
use providers_containerservice::HistoryApi;
use serde_json::{Value, json};

use crate::stamp::{Answer, SUBSCRIPTION, Stamp, least};

const C: &str = "managedClusters/c";
const ADMIN: &str = "managedClusters/c/listClusterAdminCredential";
const USER: &str = "managedClusters/c/listClusterUserCredential";

/// A cluster whose record says that it serves.
async fn serving() -> Stamp {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    stamp.reach("c").await;
    stamp
}

async fn records(stamp: &Stamp) -> Vec<CredentialRecord> {
    let uid = stamp.record("c").await.unwrap().uid;
    let (found, _) = list_records(&*stamp.store, &CredentialRecord::all(&uid))
        .await
        .unwrap();
    found.into_iter().map(|(_, found)| found.value).collect()
}

async fn own(stamp: &Stamp, mode: Mode, name: &str, below: &str) -> Answer {
    let api = HistoryApi::new(stamp.env.clone(), stamp.store.clone());
    let route = routes::<HistoryApi>()
        .into_iter()
        .find(|route| route.name == name)
        .unwrap();
    let path = format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1/providers/Landfall.ContainerService/managedClusters/c/credentials{below}"
    );
    let request = stamp.request(route.verb.method(), &path, Value::Null);
    let call = Call::new(request, AccessControl::allow_all());
    crate::stamp::answer(match mode {
        Mode::Commit => api.handle(&route, &call).await,
        Mode::Preview => api.preview(&route, &call).await,
    })
}

async fn state(stamp: &Stamp, id: &str) -> String {
    let one = own(stamp, Mode::Commit, "Credentials_Get", &format!("/{id}")).await;
    assert_eq!(one.status, 200, "{}", one.body);
    one.body["state"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_credential_is_written_down_and_listed() {
    let stamp = serving().await;
    assert_eq!(
        stamp.preview("POST", ADMIN, Value::Null).await.body,
        json!({ "kubeconfigs": [] })
    );
    assert_eq!(records(&stamp).await, [], "a preview hands out nothing");
    for (path, kind) in [
        (ADMIN, CredentialKind::Admin),
        (USER, CredentialKind::User),
        (
            "managedClusters/c/listClusterMonitoringUserCredential",
            CredentialKind::Monitoring,
        ),
        (
            "managedClusters/c/accessProfiles/clusterUser/listCredential",
            CredentialKind::User,
        ),
    ] {
        let before = records(&stamp).await.len();
        assert_eq!(stamp.ask("POST", path, Value::Null).await.status, 200, "{path}");
        let all = records(&stamp).await;
        let again = path.contains("accessProfiles");
        assert_eq!(all.len(), before + usize::from(!again), "{path}");
        assert!(all.iter().any(|record| record.kind == kind));
    }
    let now = stamp.env.clock.now();
    for record in records(&stamp).await {
        assert_eq!(
            (record.asked_by.as_str(), record.asked_by_name.as_str()),
            ("o", "tester")
        );
        assert_eq!(record.issued_at, now);
        assert_eq!(record.expires_at.duration_since(now).as_hours(), 8);
    }
    let list = own(&stamp, Mode::Commit, "Credentials_List", "").await;
    let list = list.body["value"].as_array().unwrap().clone();
    assert_eq!(list.len(), 3);
    let id = list[0]["name"].as_str().unwrap();
    assert_eq!(
        list[0]["id"],
        format!(
            "/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1/providers/Landfall.ContainerService/managedClusters/c/credentials/{id}"
        )
    );
    assert_eq!(list[0]["caller"], "tester");
    assert_eq!(state(&stamp, id).await, "Pending", "nobody has granted it yet");
    assert!(
        !json!(list).to_string().contains("of c"),
        "what it is shown with is in no list"
    );
}

#[tokio::test(start_paused = true)]
async fn who_asks_again_gets_the_same_until_half_of_its_time_is_over() {
    let stamp = serving().await;
    let first = stamp.ask("POST", ADMIN, Value::Null).await.body;
    let again = stamp.ask("POST", ADMIN, Value::Null).await.body;
    assert_eq!(first, again);
    assert_eq!(records(&stamp).await.len(), 1);
    stamp.ask("POST", USER, Value::Null).await;
    assert_eq!(records(&stamp).await.len(), 2, "another kind is another one");

    stamp.env.clock.sleep(Duration::from_secs(4 * 60 * 60)).await;
    stamp.ask("POST", ADMIN, Value::Null).await;
    assert_eq!(records(&stamp).await.len(), 3);

    let newest = records(&stamp).await;
    let newest = newest.iter().max_by_key(|record| record.issued_at).unwrap();
    let revoke = format!("/{}/revoke", newest.id);
    own(&stamp, Mode::Commit, "Credentials_Revoke", &revoke).await;
    let uid = stamp.record("c").await.unwrap().uid;
    let kept = CredentialRecord::certificate_key(&uid, &newest.id);
    let kept = get_record::<SealedRecord>(&*stamp.store, &kept).await.unwrap();
    assert!(kept.is_none(), "a certificate goes with its rights");
    assert_eq!(stamp.ask("POST", ADMIN, Value::Null).await.status, 200);
    assert_eq!(
        records(&stamp).await.len(),
        4,
        "one that was taken back is not handed out again"
    );
}

#[tokio::test(start_paused = true)]
async fn it_is_handed_out_once_it_works_or_the_cluster_does_not_answer() {
    let stamp = serving().await;
    let begun = stamp.env.clock.now();
    stamp.ask("POST", ADMIN, Value::Null).await;
    assert_eq!(
        stamp.env.clock.now(),
        begun,
        "nothing can be granted before the API has answered once"
    );
    stamp.observe("c", |observed| observed.formed = true).await;
    let late = stamp.ask("POST", ADMIN, Value::Null).await;
    assert_eq!(late.status, 200, "it follows");
    let waited = stamp.env.clock.now().duration_since(begun);
    assert_eq!(waited.as_secs(), 30);

    // The loop's work, a second later.
    let grant = async {
        stamp.env.clock.sleep(Duration::from_secs(1)).await;
        let all = records(&stamp).await;
        stamp
            .observe("c", |observed| {
                observed.credentials = all.into_iter().map(|record| record.id).collect();
            })
            .await;
    };
    let begun = stamp.env.clock.now();
    let (answer, ()) = futures::join!(stamp.ask("POST", ADMIN, Value::Null), grant);
    assert_eq!(answer.status, 200);
    assert_eq!(stamp.env.clock.now().duration_since(begun).as_secs(), 1);
    for record in records(&stamp).await {
        assert_eq!(state(&stamp, &record.id).await, "Active");
    }
}

#[tokio::test(start_paused = true)]
async fn a_credential_is_taken_back() {
    let stamp = serving().await;
    stamp.ask("POST", ADMIN, Value::Null).await;
    let id = records(&stamp).await.remove(0).id;
    stamp
        .observe("c", |observed| {
            observed.formed = true;
            observed.credentials.insert(id.clone());
        })
        .await;
    let none = own(&stamp, Mode::Commit, "Credentials_Revoke", "/another/revoke").await;
    assert_eq!((none.status, none.code()), (404, "ResourceNotFound"));
    let revoke = format!("/{id}/revoke");
    let seen = own(&stamp, Mode::Preview, "Credentials_Revoke", &revoke).await;
    assert_eq!(seen.body["state"], "Revoking");
    assert_eq!(state(&stamp, &id).await, "Active", "a preview takes nothing back");

    let answer = own(&stamp, Mode::Commit, "Credentials_Revoke", &revoke).await;
    assert_eq!((answer.status, &answer.body["state"]), (200, &json!("Revoking")));
    let record = records(&stamp).await.remove(0);
    let revoked = record.revoked.clone().unwrap();
    assert_eq!(revoked.by.as_deref(), Some("tester"));
    stamp.observe("c", |observed| observed.credentials.clear()).await;
    stamp.env.clock.sleep(Duration::from_secs(1)).await;
    let again = own(&stamp, Mode::Commit, "Credentials_Revoke", &revoke).await;
    assert_eq!((again.status, &again.body["state"]), (200, &json!("Revoked")));
    assert_eq!(records(&stamp).await, [record], "it is so already");
}

#[tokio::test(start_paused = true)]
async fn so_many_of_a_kind_are_good_and_what_has_ended_makes_room() {
    let stamp = serving().await;
    assert_eq!(stamp.ask("POST", USER, Value::Null).await.status, 200);
    let first = records(&stamp).await.remove(0);
    let uid = stamp.record("c").await.unwrap().uid;
    for number in 1..=200 {
        let of = CredentialRecord {
            id: format!("{number}"),
            ..first.clone()
        };
        stamp
            .write(put_record(CredentialRecord::key(&uid, &of.id), &of))
            .await;
    }
    // Records written by the test have no certificate, like those of an earlier release.
    let revoke = format!("/{}/revoke", first.id);
    let revoked = own(&stamp, Mode::Commit, "Credentials_Revoke", &revoke).await;
    assert_eq!(revoked.status, 200);
    let full = stamp.ask("POST", USER, Value::Null).await;
    assert_eq!((full.status, full.code()), (400, "OperationNotAllowed"));
    assert!(full.message().contains("200 credentials"), "{}", full.message());
    assert_eq!(
        stamp.ask("POST", ADMIN, Value::Null).await.status,
        200,
        "users do not keep administrators out"
    );
    stamp.env.clock.sleep(Duration::from_secs(8 * 60 * 60)).await;
    let id = records(&stamp).await.remove(0).id;
    assert_eq!(state(&stamp, &id).await, "Expired");
    assert_eq!(stamp.ask("POST", USER, Value::Null).await.status, 200);
    let left = records(&stamp).await.len();
    assert_eq!(
        left,
        203 - 32,
        "some of those that have ended go with each that is new"
    );
}

/// As an earlier release permitted it, or with users of a directory.
async fn disable(stamp: &Stamp) {
    let mut record = stamp.record("c").await.unwrap();
    let mut body = record.body().clone();
    body["properties"]["disableLocalAccounts"] = json!(true);
    record.state = DesiredState::new(body, record.state.decided().clone()).unwrap();
    stamp.write(put_record(key::desired(&record.uid), &record)).await;
}

#[tokio::test(start_paused = true)]
async fn without_local_accounts_there_is_no_credential() {
    let stamp = serving().await;
    stamp.ask("POST", ADMIN, Value::Null).await;
    let body = json!({ "location": "local", "properties": { "disableLocalAccounts": true } });
    let refused = stamp.ask("PUT", C, body.clone()).await;
    assert_eq!((refused.status, refused.code()), (400, "BadRequest"));
    assert_eq!(refused.body["error"]["target"], "properties.disableLocalAccounts");
    assert!(refused.message().contains("aadProfile"), "{}", refused.message());

    disable(&stamp).await;
    for path in [
        ADMIN,
        USER,
        "managedClusters/c/listClusterMonitoringUserCredential",
        "managedClusters/c/accessProfiles/clusterAdmin/listCredential",
    ] {
        let refused = stamp.ask("POST", path, Value::Null).await;
        assert_eq!((refused.status, refused.code()), (400, "BadRequest"), "{path}");
        assert!(
            refused
                .message()
                .starts_with("Getting static credential is not allowed")
        );
    }
    let before = records(&stamp).await;
    assert_eq!(before.len(), 1, "none was written down");
    assert_eq!(state(&stamp, &before[0].id).await, "Revoked");
    // A cluster that has it already can be changed all the same, also to a valid state.
    let mut other = body;
    other["tags"] = json!({ "a": "b" });
    assert_eq!(stamp.ask("PUT", C, other).await.status, 200);
    assert_eq!(stamp.ask("PUT", C, least()).await.status, 200);
    stamp.reach("c").await;
    assert_eq!(stamp.ask("POST", ADMIN, Value::Null).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn with_a_directory_local_accounts_are_disabled_and_users_go_on() {
    let stamp = Stamp::new().await;
    let body = json!({
        "location": "local", "properties": { "aadProfile": { "managed": true }, "disableLocalAccounts": true }
    });
    stamp.create("c", body).await;
    stamp.reach("c").await;
    let refused = stamp.ask("POST", ADMIN, Value::Null).await;
    assert_eq!((refused.status, refused.code()), (400, "BadRequest"));
    let user = stamp.ask("POST", USER, Value::Null).await;
    assert_eq!(user.status, 200, "{}", user.body);
    assert_eq!(records(&stamp).await, [], "there is no credential in it");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_goes_hands_out_nothing() {
    let stamp = serving().await;
    assert_eq!(stamp.ask("DELETE", C, Value::Null).await.status, 202);
    let refused = stamp.ask("POST", ADMIN, Value::Null).await;
    assert_eq!((refused.status, refused.code()), (409, "Conflict"));
    assert_eq!(records(&stamp).await, []);
}
