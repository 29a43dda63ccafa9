//! Support tickets: opened, consented to within bounds, and ended, with all that was handed out; what was done is told from audit logs.

use std::{sync::Arc, time::Duration};

use agent_api::{Agents, LogError, WakeUp};
use agent_protocol::{MachineConfig, Report};
use arm_kernel::{AccessControl, Call, Mode, Provider as _, routes};
use async_trait::async_trait;
use cluster_spec::CredentialKind;
use control_records::{
    credential::CredentialRecord,
    ticket::{Access, TicketRecord},
};
use control_store::{get_record, put_record};
use futures::stream::BoxStream;
use jiff::Timestamp;
use providers_containerservice::HistoryApi;
use serde_json::{Value, json};

use crate::stamp::{Answer, SUBSCRIPTION, Stamp, least};

/// Machines whose logs nobody can read.
struct Away;

#[async_trait]
impl Agents for Away {
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

async fn serving() -> Stamp {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    stamp.reach("c").await;
    stamp
}

async fn asked(stamp: &Stamp, mode: Mode, name: &str, below: &str, body: Value) -> Answer {
    let api = HistoryApi::new(stamp.env.clone(), stamp.store.clone()).auditing(Arc::new(Away));
    let route = routes::<HistoryApi>()
        .into_iter()
        .find(|route| route.name == name)
        .unwrap();
    let kind = if name.starts_with("Credentials") {
        "credentials"
    } else {
        "supportTickets"
    };
    let path = format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1/providers/Landfall.ContainerService/managedClusters/c/{kind}{below}"
    );
    let request = stamp.request(route.verb.method(), &path, body);
    let call = Call::new(request, AccessControl::allow_all());
    crate::stamp::answer(match mode {
        Mode::Commit => api.handle(&route, &call).await,
        Mode::Preview => api.preview(&route, &call).await,
    })
}

async fn own(stamp: &Stamp, name: &str, below: &str, body: Value) -> Answer {
    asked(stamp, Mode::Commit, name, below, body).await
}

async fn open(stamp: &Stamp, name: &str) -> Answer {
    let body = json!({ "properties": { "title": "Pods do not start", "severity": "critical" } });
    own(stamp, "SupportTickets_CreateOrUpdate", &format!("/{name}"), body).await
}

async fn consent(stamp: &Stamp, hours: Value) -> Answer {
    let body = json!({ "hours": hours });
    own(stamp, "SupportTickets_Consent", "/t1/consent", body).await
}

async fn ticket(stamp: &Stamp) -> TicketRecord {
    let uid = stamp.record("c").await.unwrap().uid;
    let found = get_record(&*stamp.store, &TicketRecord::key(&uid, "t1")).await;
    found.unwrap().unwrap().value
}

/// As the service hands one out.
async fn hand_out(stamp: &Stamp, id: &str) {
    let uid = stamp.record("c").await.unwrap().uid;
    let mut of = ticket(stamp).await;
    let now = stamp.env.clock.now();
    let expires_at = of.access_until(now).unwrap();
    of.access.push(Access {
        credential: id.to_owned(),
        engineer: "eve".to_owned(),
        issued_at: now,
        expires_at,
        revoked_at: None,
    });
    let credential = CredentialRecord {
        v: 1,
        id: id.to_owned(),
        kind: CredentialKind::Support,
        namespace: None,
        ticket: Some("t1".to_owned()),
        asked_by: "operator".to_owned(),
        asked_by_name: "operator (eve)".to_owned(),
        address: None,
        issued_at: now,
        expires_at,
        round: 0,
        revoked: None,
    };
    stamp.write(put_record(TicketRecord::key(&uid, "t1"), &of)).await;
    stamp
        .write(put_record(CredentialRecord::key(&uid, id), &credential))
        .await;
}

async fn revoked_at(stamp: &Stamp, id: &str) -> Option<Timestamp> {
    let uid = stamp.record("c").await.unwrap().uid;
    let found = get_record::<CredentialRecord>(&*stamp.store, &CredentialRecord::key(&uid, id)).await;
    found.unwrap().unwrap().value.revoked.map(|revoked| revoked.at)
}

#[tokio::test(start_paused = true)]
async fn a1_a3_a_ticket_is_opened_consented_to_and_closed_and_is_kept() {
    let stamp = serving().await;
    let opened = open(&stamp, "T1").await;
    assert_eq!(opened.status, 201, "{}", opened.body);
    assert_eq!(opened.body["properties"]["status"], "Open");
    assert_eq!(opened.body["properties"]["openedBy"], "tester");
    assert_eq!(open(&stamp, "t1").await.status, 200, "the same again");
    assert_eq!(ticket(&stamp).await.generation, 1);

    let body = json!({ "hours": 2 });
    let seen = asked(
        &stamp,
        Mode::Preview,
        "SupportTickets_Consent",
        "/t1/consent",
        body,
    )
    .await;
    assert_eq!(seen.body["properties"]["status"], "Consented", "{}", seen.body);
    assert!(
        ticket(&stamp).await.consent.is_none(),
        "a preview consents to nothing"
    );

    let given = consent(&stamp, json!(2)).await;
    assert_eq!(given.status, 200, "{}", given.body);
    let now = stamp.env.clock.now();
    let until = ticket(&stamp).await.consented(now).unwrap().until;
    assert_eq!(until.duration_since(now).as_hours(), 2);
    stamp.env.clock.sleep(Duration::from_secs(2 * 60 * 60)).await;
    let told = own(&stamp, "SupportTickets_Get", "/t1", Value::Null).await;
    assert_eq!(
        told.body["properties"]["status"], "Open",
        "it ends by the clock alone"
    );
    assert_eq!(told.body["properties"]["consent"]["inForce"], false);

    assert_eq!(consent(&stamp, json!(1)).await.status, 200);
    let closed = own(&stamp, "SupportTickets_Close", "/t1/close", Value::Null).await;
    assert_eq!(closed.body["properties"]["status"], "Closed", "{}", closed.body);
    assert_eq!(closed.body["properties"]["consent"]["inForce"], false);
    let again = consent(&stamp, json!(1)).await;
    assert_eq!((again.status, again.code()), (409, "Conflict"));
    let all = own(&stamp, "SupportTickets_ListByCluster", "", Value::Null).await;
    assert_eq!(all.body["value"].as_array().unwrap().len(), 1, "it is kept");
}

#[tokio::test(start_paused = true)]
async fn a3_whatever_ends_a_consent_takes_back_what_was_handed_out() {
    let stamp = serving().await;
    open(&stamp, "t1").await;
    for (number, act) in ["revoke", "consent", "close"].into_iter().enumerate() {
        assert_eq!(consent(&stamp, json!(4)).await.status, 200);
        let id = format!("a{number}");
        hand_out(&stamp, &id).await;
        assert_eq!(revoked_at(&stamp, &id).await, None);
        let name = match act {
            "revoke" => "SupportTickets_Revoke",
            "consent" => "SupportTickets_Consent",
            _ => "SupportTickets_Close",
        };
        let body = json!({ "hours": 4 });
        let ended = own(&stamp, name, &format!("/t1/{act}"), body).await;
        assert_eq!(ended.status, 200, "{}", ended.body);
        let now = stamp.env.clock.now();
        assert_eq!(revoked_at(&stamp, &id).await, Some(now), "{act}");
        assert_eq!(ticket(&stamp).await.access[number].revoked_at, Some(now), "{act}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_sees_and_revokes_a_single_credential_of_a_ticket() {
    let stamp = serving().await;
    open(&stamp, "t1").await;
    consent(&stamp, json!(4)).await;
    hand_out(&stamp, "a1").await;
    hand_out(&stamp, "b2").await;
    let told = own(&stamp, "SupportTickets_Get", "/t1", Value::Null).await;
    assert_eq!(told.body["properties"]["access"][0]["engineer"], "eve");
    assert_eq!(told.body["properties"]["access"][0]["state"], "Good");
    let revoked = own(&stamp, "Credentials_Revoke", "/a1/revoke", Value::Null).await;
    assert_eq!(revoked.body["state"], "Revoked", "{}", revoked.body);
    assert_eq!(revoked.body["ticket"], "t1");
    let now = stamp.env.clock.now();
    let access = ticket(&stamp).await.access;
    assert_eq!((access[0].revoked_at, access[1].revoked_at), (Some(now), None));
    let record = own(
        &stamp,
        "SupportTickets_AccessRecord",
        "/t1/accessRecord",
        Value::Null,
    )
    .await;
    assert_eq!(record.status, 200, "{}", record.body);
    assert_eq!(record.body["access"].as_array().unwrap().len(), 2);
    assert_eq!(record.body["value"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn wrong_tickets_and_consents_are_refused_with_the_field() {
    let stamp = serving().await;
    let put = async |name: &str, body: Value| {
        own(&stamp, "SupportTickets_CreateOrUpdate", &format!("/{name}"), body).await
    };
    for (name, body, target) in [
        ("t1", json!({}), "properties.title"),
        (
            "t1",
            json!({ "properties": { "title": " " } }),
            "properties.title",
        ),
        (
            "t1",
            json!({ "properties": { "title": "a\nb" } }),
            "properties.title",
        ),
        (
            "t1",
            json!({ "properties": { "title": "a", "severity": "urgent" } }),
            "properties.severity",
        ),
        ("t_1", json!({ "properties": { "title": "a" } }), "name"),
    ] {
        let refused = put(name, body.clone()).await;
        assert_eq!(refused.status, 400, "{body}: {}", refused.body);
        assert_eq!(refused.body["error"]["target"], target, "{body}");
    }
    let absent = consent(&stamp, json!(1)).await;
    assert_eq!((absent.status, absent.code()), (404, "ResourceNotFound"));
    open(&stamp, "t1").await;
    for hours in [
        json!(0),
        json!(25),
        json!(-1),
        json!(1.5),
        json!("4"),
        Value::Null,
    ] {
        let refused = consent(&stamp, hours.clone()).await;
        assert_eq!(refused.status, 400, "{hours}: {}", refused.body);
        assert_eq!(refused.body["error"]["target"], "hours");
    }
    let nothing = own(&stamp, "SupportTickets_Revoke", "/t1/revoke", Value::Null).await;
    assert_eq!(nothing.status, 200, "there is nothing to take back");
    for number in 2..=20 {
        assert_eq!(open(&stamp, &format!("t{number}")).await.status, 201);
    }
    let full = open(&stamp, "t21").await;
    assert_eq!((full.status, full.code()), (400, "OperationNotAllowed"));
}
