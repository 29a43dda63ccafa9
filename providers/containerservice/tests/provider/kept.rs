//! Cached responses equal those that would be made now, after any sequence of writes by any writer.

use std::sync::Arc;

use arm_kernel::{AccessControl, Call, Text};
use arm_wire::Request;
use control_records::{ObservedRecord, OperationStatus, directory, key};
use control_store::{Txn, put_record};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::stamp::{NAMESPACE, SUBSCRIPTION, Stamp};

/// In several shapes.
const VERSIONS: [&str; 3] = ["2026-06-01", "2022-11-01", "2020-11-01"];
const NAMES: [&str; 3] = ["a", "b", "Cc"];

/// A request, or an action of a loop or of a deletion.
#[derive(Debug, Clone)]
enum Step {
    /// A method, a path below the cluster, and a body.
    Ask(usize, &'static str, &'static str, Value),
    /// The desired state is reached.
    Reach(usize),
    /// A change of the observed state.
    Observe(usize, u32),
    /// Its operations end.
    End(usize, bool),
    /// The cluster is deleted.
    Gone(usize),
    /// Its group is deleted, or made again.
    Group(bool),
    /// No change: the request is repeated.
    Nothing,
}

fn step() -> impl Strategy<Value = Step> {
    let cluster = (
        0..3_usize,
        prop::sample::select(vec!["Free", "Standard", "Premium"]),
        0..3_u32,
    )
        .prop_map(|(which, tier, count)| {
            let body = json!({
                "location": "local", "sku": { "name": "Base", "tier": tier }, "tags": { "n": count.to_string() },
                "properties": { "agentPoolProfiles": [{ "name": "np1", "mode": "System", "count": count + 1 }] },
            });
            Step::Ask(which, "PUT", "", body)
        });
    let ask = |method, rest, body: Value| {
        (0..3_usize).prop_map(move |which| Step::Ask(which, method, rest, body.clone()))
    };
    let pool = (0..3_usize, 0..4_u32).prop_map(|(which, count)| {
        Step::Ask(
            which,
            "PUT",
            "/agentPools/np2",
            json!({ "properties": { "count": count } }),
        )
    });
    prop_oneof![
        5 => cluster,
        3 => pool,
        1 => ask("DELETE", "/agentPools/np2", Value::Null),
        2 => ask("PATCH", "", json!({ "tags": { "t": "x" } })),
        1 => ask("POST", "/stop", Value::Null),
        1 => ask("POST", "/start", Value::Null),
        1 => ask("POST", "/abort", Value::Null),
        1 => ask("DELETE", "", Value::Null),
        3 => (0..3_usize).prop_map(Step::Reach),
        2 => (0..3_usize, 0..3_u32).prop_map(|(which, nodes)| Step::Observe(which, nodes)),
        2 => (0..3_usize, any::<bool>()).prop_map(|(which, well)| Step::End(which, well)),
        1 => (0..3_usize).prop_map(Step::Gone),
        1 => any::<bool>().prop_map(Step::Group),
        1 => Just(Step::Nothing),
    ]
}

impl Step {
    async fn take(self, stamp: &Stamp) {
        match self {
            Self::Ask(which, method, rest, body) => {
                let path = format!("managedClusters/{}{rest}", NAMES[which]);
                let answer = stamp.ask(method, &path, body).await;
                assert!(answer.status < 500, "{method} {path}: {:#}", answer.body);
            }
            Self::Reach(which) => {
                if stamp.record(NAMES[which]).await.is_some() {
                    stamp.reach(NAMES[which]).await;
                }
            }
            Self::Observe(which, nodes) => {
                if stamp.record(NAMES[which]).await.is_some() {
                    let change = |observed: &mut ObservedRecord| {
                        observed.problem = (nodes == 0).then(|| "no node is ready".to_owned());
                        observed.ready_nodes = [("np1".to_owned(), nodes)].into();
                    };
                    stamp.observe(NAMES[which], change).await;
                }
            }
            Self::End(which, well) => {
                let Some(record) = stamp.record(NAMES[which]).await else {
                    return;
                };
                for mut operation in stamp.operations().await {
                    if operation.owner.uid() == Some(record.uid.as_str())
                        && operation.status == OperationStatus::InProgress
                    {
                        operation.status = if well {
                            OperationStatus::Succeeded
                        } else {
                            OperationStatus::Failed
                        };
                        operation.ended_at = Some(stamp.env.clock.now());
                        stamp.write(put_record(operation.key(), &operation)).await;
                    }
                }
            }
            Self::Gone(which) => {
                if let Some(record) = stamp.record(NAMES[which]).await {
                    let txn = Txn::default()
                        .delete(record.name_key())
                        .delete(key::desired(&record.uid))
                        .delete(key::observed(&record.uid));
                    stamp.store.txn(txn).await.unwrap();
                }
            }
            Self::Group(true) => stamp.add_group("rg1", false).await,
            Self::Group(false) => {
                let txn = Txn::default().delete(key::group(SUBSCRIPTION, "rg1"));
                stamp.store.txn(txn).await.unwrap();
            }
            Self::Nothing => {}
        }
    }
}

/// The cached response and the one made anew for a request; the text, where there is one.
async fn compare(stamp: &Stamp, request: Request) -> Option<Arc<Text>> {
    let what = format!("{} {:?} {}", request.path, request.query, request.api_version);
    let target = stamp.registry.target(&request.path).unwrap();
    let route = target.route(&request.method).unwrap();
    assert!(route.told, "{what}");
    let call = Call::new(request, AccessControl::allow_all());
    let told = target.provider.tell(route, &call).await;
    let made = target.provider.handle(route, &call).await;
    match (told, made) {
        (Ok(Some(text)), Ok(response)) => {
            let told: Value = serde_json::from_slice(text.plain()).unwrap();
            assert_eq!(Some(told), response.body, "{what}");
            Some(text)
        }
        (Err(told), Err(made)) => {
            assert_eq!(told.body(), made.body(), "{what}");
            None
        }
        (told, made) => panic!("{what}: {told:?} is not {made:?}"),
    }
}

async fn compare_all(stamp: &Stamp) {
    for version in VERSIONS {
        let get = |path: &str| {
            let mut request = stamp.request("GET", path, Value::Null);
            request.api_version = version.to_owned();
            request
        };
        for name in NAMES
            .iter()
            .map(|name| (*name).to_owned())
            .chain(["CC".to_owned(), "none".to_owned()])
        {
            let path = format!("managedClusters/{name}");
            let first = compare(stamp, get(&path)).await;
            // Without a write it is the very same text.
            let again = compare(stamp, get(&path)).await;
            assert_eq!(first.as_ref().map(Arc::as_ptr), again.as_ref().map(Arc::as_ptr));
        }
        let all = format!("/subscriptions/{SUBSCRIPTION}/providers/{NAMESPACE}/managedClusters");
        for list in ["managedClusters", &all] {
            for query in ["", "?$top=1", "?$filter=name eq 'cc'", "?$filter=tagName eq 't'"] {
                compare(stamp, get(&format!("{list}{query}"))).await;
            }
            let names = directory::cluster_places(&*stamp.store, SUBSCRIPTION, None)
                .await
                .unwrap();
            if names.len() > 1 {
                let page = stamp.send(get(&format!("{list}?$top=1"))).await;
                if let Some(next) = page.body["nextLink"].as_str() {
                    let token = next.split_once("skiptoken=").unwrap().1;
                    compare(stamp, get(&format!("{list}?$skiptoken={token}"))).await;
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn after_any_writes_what_is_told_is_what_would_be_made(steps in prop::collection::vec(step(), 1..16)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let stamp = Stamp::new().await;
            compare_all(&stamp).await;
            for step in steps {
                step.take(&stamp).await;
                compare_all(&stamp).await;
            }
        });
    }
}
