//! `Landfall.ContainerService`: lists in pages, and unknown items.

use std::collections::BTreeMap;

use arm_ids::ResourcePath;
use arm_kernel::{AccessControl, Call, Mode, Provider as _, routes};
use control_records::{
    activity::{ActivityRecord, ActivityStatus},
    unknown::{self, Kind, UnknownRecord},
};
use control_store::put_record;
use providers_containerservice::HistoryApi;
use serde_json::{Value, json};

use crate::stamp::{SUBSCRIPTION, Stamp, least};

async fn ask(stamp: &Stamp, mode: Mode, name: &str, path: &str) -> (u16, Value) {
    let api = HistoryApi::new(stamp.env.clone(), stamp.store.clone());
    let route = routes::<HistoryApi>()
        .into_iter()
        .find(|route| route.name == name)
        .unwrap();
    let path = format!("/subscriptions/{SUBSCRIPTION}/providers/Landfall.ContainerService/{path}");
    let mut request = stamp.request(route.verb.method(), &path, Value::Null);
    request.query.retain(|(name, _)| name != "api-version");
    let call = Call::new(request, AccessControl::allow_all());
    let outcome = match mode {
        Mode::Commit => api.handle(&route, &call).await,
        Mode::Preview => api.preview(&route, &call).await,
    };
    match outcome {
        Ok(response) => (response.status.as_u16(), response.body.unwrap_or_default()),
        Err(error) => (error.status().as_u16(), error.body()),
    }
}

/// Follows a list to its end, one item a page.
async fn paged(stamp: &Stamp, name: &str, list: &str) -> Vec<Value> {
    let mut path = format!("{list}?$top=1");
    let mut all = Vec::new();
    loop {
        let (status, page) = ask(stamp, Mode::Commit, name, &path).await;
        assert_eq!(status, 200, "{page}");
        let items = page["value"].as_array().unwrap();
        assert!(items.len() <= 1);
        all.extend(items.iter().cloned());
        let Some(next) = page["nextLink"].as_str() else {
            return all;
        };
        let next = next.strip_prefix("https://127.0.0.1:8443").unwrap();
        let (next, query) = next.split_once('?').unwrap();
        assert!(ResourcePath::parse(next).is_ok());
        let token = query.split('&').find(|pair| pair.starts_with("%24skiptoken="));
        let token = token.unwrap().replace("%24", "$");
        path = format!("{list}?$top=1&{token}");
    }
}

#[tokio::test(start_paused = true)]
async fn operations_and_events_come_in_pages_in_their_own_order() {
    let stamp = Stamp::new().await;
    for name in ["b", "a", "c"] {
        stamp.create(name, least()).await;
        stamp.env.clock.sleep(std::time::Duration::from_secs(2)).await;
    }
    for (name, list, first) in [
        ("Operations_List", "operations", "c"),
        ("Events_List", "events", "b"),
    ] {
        let (_, whole) = ask(&stamp, Mode::Commit, name, list).await;
        assert_eq!(whole["value"][0]["cluster"], first, "{name}: {whole}");
        assert!(whole["nextLink"].is_null());
        let pages = paged(&stamp, name, list).await;
        assert_eq!(json!(pages), whole["value"], "{name}");
        assert_eq!(pages.len(), 3);
        let (status, refused) = ask(&stamp, Mode::Commit, name, &format!("{list}?$expand=x")).await;
        assert_eq!((status, &refused["error"]["target"]), (400, &json!("$expand")));
    }
}

#[tokio::test(start_paused = true)]
async fn the_activity_log_is_read_oldest_first() {
    let stamp = Stamp::new().await;
    for (second, status) in [(1, ActivityStatus::Failed), (0, ActivityStatus::Accepted)] {
        let record = ActivityRecord {
            v: 1,
            at: stamp
                .env
                .clock
                .now()
                .checked_add(std::time::Duration::from_secs(second))
                .unwrap(),
            principal: "o".to_owned(),
            principal_name: "ada".to_owned(),
            principal_type: "User".to_owned(),
            address: Some("192.0.2.1".parse().unwrap()),
            method: None,
            action: "Microsoft.ContainerService/managedClusters/write".to_owned(),
            scope: "/subscriptions/s".to_owned(),
            status,
            http_status: None,
            code: None,
            operation: None,
            correlation_id: "c".to_owned(),
            request_id: format!("r{second}"),
        };
        stamp.write(record.put(Some(SUBSCRIPTION))).await;
    }
    let all = paged(&stamp, "Activities_List", "activities").await;
    let of = |at: usize, member: &str| all[at][member].as_str().unwrap().to_owned();
    assert_eq!(all.len(), 2);
    assert_eq!(
        (of(0, "status"), of(1, "status")),
        ("Accepted".into(), "Failed".into())
    );
    assert_eq!(
        (of(0, "caller"), of(0, "address")),
        ("ada".into(), "192.0.2.1".into())
    );
    let after = format!("activities?after={}", of(0, "id"));
    let (_, rest) = ask(&stamp, Mode::Commit, "Activities_List", &after).await;
    assert_eq!(rest["value"], json!([all[1]]));
}

#[tokio::test(start_paused = true)]
async fn what_is_unknown_is_let_go_once() {
    let stamp = Stamp::new().await;
    let record = UnknownRecord {
        v: 1,
        kind: Kind::Network,
        id: "n1".to_owned(),
        labels: BTreeMap::new(),
        since: stamp.env.clock.now(),
    };
    stamp
        .write(put_record(unknown::unknown_key(Kind::Network, "n1"), &record))
        .await;
    let list = paged(&stamp, "Unknown_List", "unknown").await;
    assert_eq!(list[0]["name"], "network.n1");
    let (status, one) = ask(&stamp, Mode::Commit, "Unknown_Get", "unknown/network.n1").await;
    assert_eq!((status, &one), (200, &list[0]));
    let gone = async || {
        unknown::is_removed(&*stamp.store, Kind::Network, "n1")
            .await
            .unwrap()
    };
    let (status, _) = ask(&stamp, Mode::Preview, "Unknown_Delete", "unknown/network.n1").await;
    assert_eq!((status, gone().await), (200, false));
    let (status, _) = ask(&stamp, Mode::Commit, "Unknown_Delete", "unknown/network.n1").await;
    assert_eq!((status, gone().await), (200, true));
    for name in ["unknown/network.n1", "unknown/network", "unknown/table.n1"] {
        let (status, answer) = ask(&stamp, Mode::Commit, "Unknown_Delete", name).await;
        assert_eq!(
            (status, &answer["error"]["code"]),
            (404, &json!("ResourceNotFound")),
            "{name}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_holds_planned_work_up_and_lets_it_go_on() {
    let stamp = Stamp::new().await;
    let say = async |method: &str, word: &str, mode: Mode, body: Value| {
        let api = HistoryApi::new(stamp.env.clone(), stamp.store.clone());
        let name = match word {
            "" => "Maintenance_Get",
            "/pause" => "Maintenance_Pause",
            _ => "Maintenance_Resume",
        };
        let mut routes = routes::<HistoryApi>().into_iter();
        let route = routes.find(|route| route.name == name).unwrap();
        let path = format!("/providers/Landfall.ContainerService/maintenance/stamp{word}");
        let call = Call::new(stamp.request(method, &path, body), AccessControl::allow_all());
        match mode {
            Mode::Commit => api.handle(&route, &call).await,
            Mode::Preview => api.preview(&route, &call).await,
        }
    };
    let paused = async || {
        let answer = say("GET", "", Mode::Commit, Value::Null).await.unwrap();
        answer.body.unwrap()["paused"] == true
    };
    assert!(!paused().await);
    let freeze = json!({ "reason": "a freeze" });
    say("POST", "/pause", Mode::Preview, freeze.clone())
        .await
        .unwrap();
    assert!(!paused().await);
    let first = say("POST", "/pause", Mode::Commit, freeze.clone()).await.unwrap();
    let first = first.body.unwrap();
    assert_eq!(
        (&first["reason"], &first["by"]),
        (&json!("a freeze"), &json!("tester"))
    );
    stamp.env.clock.sleep(std::time::Duration::from_secs(60)).await;
    // Said twice, it is said once.
    let again = say("POST", "/pause", Mode::Commit, freeze).await.unwrap();
    assert_eq!(again.body.unwrap(), first);
    assert!(paused().await);
    for wrong in [json!({ "reason": 7 }), json!({ "reason": "x".repeat(201) })] {
        let error = say("POST", "/pause", Mode::Commit, wrong).await.unwrap_err();
        assert_eq!(error.status(), 400, "{error}");
    }
    say("POST", "/resume", Mode::Commit, Value::Null).await.unwrap();
    assert!(!paused().await);
}
