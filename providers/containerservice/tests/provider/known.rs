//! What is told of the support of clusters: vulnerabilities and known issues of what their machines run, and the version catalogue.

use std::sync::Arc;

use arm_kernel::{AccessControl, Call, Provider as _, routes};
use async_trait::async_trait;
use cluster_versions::Offered;
use control_records::{MachineRecord, key};
use control_store::{get_record, put_record};
use policy_catalogue::bill::{Bill, Part};
use providers_containerservice::{HistoryApi, InForce, SupportData};
use serde_json::{Value, json};

use crate::stamp::{Answer, SUBSCRIPTION, Stamp, least};

/// Debian's runc, as older node images have it.
const RUNC_OF_DEBIAN: (&str, &str) = ("pkg:deb/debian/runc", "1.1.5+ds1-1+deb12u1");
/// That from its Go module.
const RUNC: (&str, &str) = ("pkg:golang/github.com/opencontainers/runc", "1.4.4");

/// A stamp with two builds of the node image of 1.36.3, and none of others. The older one has Debian's runc, the newer one the
/// given one; their other parts are the same.
struct TwoBuilds((&'static str, &'static str));

#[async_trait]
impl SupportData for TwoBuilds {
    async fn catalogue(&self) -> InForce {
        InForce::built_in()
    }

    async fn bills(&self, version: &str) -> Result<Vec<Arc<Bill>>, String> {
        if version != "1.36.3" {
            return Ok(Vec::new());
        }
        let part = |package: &str, version: &str| Part {
            package: package.to_owned(),
            version: version.to_owned(),
        };
        let bill = |day: &str, runc: (&str, &str)| {
            Arc::new(Bill {
                build: day.replace('-', "."),
                created: format!("{day}T00:00:00Z").parse().unwrap(),
                parts: vec![
                    part("pkg:deb/debian/bash", "5.2.15-2+b7"),
                    part(runc.0, runc.1),
                    part("pkg:golang/github.com/containerd/containerd/v2", "2.4.2"),
                    part("pkg:golang/go.etcd.io/etcd/server/v3", "3.6.4"),
                    part("pkg:golang/k8s.io/kubernetes", "1.36.3"),
                ],
                libraries: 7,
            })
        };
        Ok(vec![
            bill("2025-12-01", self.0),
            bill("2025-11-01", RUNC_OF_DEBIAN),
        ])
    }
}

/// Of a stamp whose newest build is of an older Landfall as well.
async fn ask(stamp: &Stamp, name: &str, path: &str) -> Answer {
    ask_with(TwoBuilds(RUNC_OF_DEBIAN), stamp, name, path).await
}

async fn ask_with(builds: TwoBuilds, stamp: &Stamp, name: &str, path: &str) -> Answer {
    let api = HistoryApi::new(stamp.env.clone(), stamp.store.clone());
    let api = api.knowing(Arc::new(builds), Offered::pinned());
    let mut routes = routes::<HistoryApi>().into_iter();
    let route = routes.find(|route| route.name == name).unwrap();
    let request = stamp.request(route.verb.method(), path, Value::Null);
    let call = Call::new(request, AccessControl::allow_all());
    crate::stamp::answer(api.handle(&route, &call).await)
}

fn of_cluster(below: &str) -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1/providers/Landfall.ContainerService/managedClusters/{below}"
    )
}

/// A cluster with one node, in the records alone.
async fn with_a_node() -> Stamp {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    let record = stamp.record("c").await.unwrap();
    let pool = record.spec().pools[0].name.clone();
    stamp.add_node(&record.uid, "m0", &pool, 0).await;
    stamp
}

fn texts(items: &Value, key: &str) -> Vec<String> {
    let items = items.as_array().unwrap().iter();
    items.map(|item| item[key].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn vulnerabilities_of_what_the_machines_run_are_told_with_whose_turn_it_is() {
    let stamp = with_a_node().await;
    let answer = ask(&stamp, "Cves_Get", &of_cluster("c/cves/default")).await;
    assert_eq!(answer.status, 200, "{:#}", answer.body);
    let body = &answer.body;
    // It is the first of January 2026. etcd does not run on a node.
    assert_eq!(
        texts(&body["findings"], "id"),
        [
            "CVE-2024-45310",
            "CVE-2025-31133",
            "CVE-2025-52565",
            "CVE-2025-52881",
            "CVE-2026-119101",
            "CVE-2026-41579"
        ]
    );
    assert_eq!(
        texts(&body["findings"], "duty"),
        ["Service", "Service", "Service", "Service", "Young", "Young"]
    );
    let first = &body["findings"][0];
    assert_eq!(first["component"], "runc-debian");
    assert_eq!(
        (&first["fixedIn"], &first["fixedBy"]),
        (&json!("1.1.14"), &json!("upstream"))
    );
    assert_eq!(first["onThisStamp"], false);
    assert_eq!(
        body["summary"],
        json!({ "service": 4, "upgrade": 0, "young": 2, "noFix": 0 })
    );
    assert_eq!(
        body["watched"],
        json!(["containerd", "etcd", "kubernetes", "runc-debian"])
    );
    assert_eq!(
        body["images"],
        json!([{
            "kubernetesVersion": "1.36.3", "build": "2025.12.01", "nodeImageVersion": "AKSDebian-2025.12.01",
            "built": "2025-12-01T00:00:00Z", "newest": true, "machines": 1, "on": ["node"], "otherPackages": 1, "libraries": 7, "unreadable": [],
        }])
    );
    assert_eq!(body["unread"], json!([]));
    for (path, code) in [
        ("c/cves/other", "ResourceNotFound"),
        ("nobody/cves/default", "ResourceNotFound"),
    ] {
        let answer = ask(&stamp, "Cves_Get", &of_cluster(path)).await;
        assert_eq!((answer.status, answer.code()), (404, code), "{path}");
    }
}

/// Lets the node's record say which build it runs.
async fn runs(stamp: &Stamp, build: &str) {
    let own = key::machine(&stamp.record("c").await.unwrap().uid, "m0");
    let found = get_record::<MachineRecord>(&*stamp.store, &own).await.unwrap();
    let mut machine = found.unwrap().value;
    machine.build = Some(build.to_owned());
    stamp.write(put_record(own, &machine)).await;
}

#[tokio::test(start_paused = true)]
async fn nodes_of_older_images_are_mended_by_those_with_another_runc() {
    let stamp = with_a_node().await;
    let ask = async || ask_with(TwoBuilds(RUNC), &stamp, "Cves_Get", &of_cluster("c/cves/default")).await;
    runs(&stamp, "2025.11.01").await;
    let body = ask().await.body;
    assert_eq!(
        body["summary"],
        json!({ "service": 0, "upgrade": 4, "young": 2, "noFix": 0 }),
        "{body:#}"
    );
    for finding in body["findings"].as_array().unwrap() {
        assert_eq!(finding["component"], "runc-debian");
        assert_eq!(finding["onThisStamp"], true, "{finding}");
        let remedy = finding["remedy"].as_str().unwrap();
        assert!(
            remedy.contains("2025-12-01 has it: az aks nodepool upgrade"),
            "{remedy}"
        );
    }
    runs(&stamp, "2025.12.01").await;
    let body = ask().await.body;
    assert_eq!(body["findings"], json!([]));
    assert_eq!(
        body["watched"],
        json!(["containerd", "etcd", "kubernetes", "runc"])
    );
}

#[tokio::test(start_paused = true)]
async fn a_machine_runs_the_build_that_its_record_has() {
    let stamp = with_a_node().await;
    let with = async |build: &str| {
        runs(&stamp, build).await;
        ask(&stamp, "Cves_Get", &of_cluster("c/cves/default")).await.body
    };
    let body = with("2025.11.01").await;
    let image = &body["images"][0];
    assert_eq!(
        (&image["build"], &image["newest"]),
        (&json!("2025.11.01"), &json!(false))
    );
    assert_eq!(body["findings"][0]["nodeImageVersion"], "AKSDebian-2025.11.01");
    let body = with("2025.10.01").await;
    assert_eq!((&body["images"], &body["findings"]), (&json!([]), &json!([])));
    let unread = body["unread"][0].as_str().unwrap();
    assert!(unread.contains("AKSDebian-2025.10.01"), "{unread}");
}

#[tokio::test(start_paused = true)]
async fn an_image_without_a_bill_of_materials_is_named() {
    let stamp = with_a_node().await;
    let api = HistoryApi::new(stamp.env.clone(), stamp.store.clone());
    let mut routes = routes::<HistoryApi>().into_iter();
    let route = routes.find(|route| route.name == "Cves_Get").unwrap();
    let request = stamp.request("GET", &of_cluster("c/cves/default"), Value::Null);
    let call = Call::new(request, AccessControl::allow_all());
    let body = crate::stamp::answer(api.handle(&route, &call).await).body;
    assert_eq!(body["findings"], json!([]));
    let unread = body["unread"][0].as_str().unwrap();
    assert!(
        unread.contains("Kubernetes 1.36.3: no bill of materials"),
        "{unread}"
    );
}

#[tokio::test(start_paused = true)]
async fn known_issues_of_a_cluster_and_of_all_are_told() {
    let stamp = with_a_node().await;
    let answer = ask(&stamp, "KnownIssues_Get", &of_cluster("c/knownIssues/default")).await;
    assert_eq!(answer.status, 200, "{:#}", answer.body);
    let issues = &answer.body["issues"];
    assert_eq!(texts(issues, "id"), ["kubernetes-140955"]);
    assert_eq!(texts(issues, "verdict"), ["Possible"], "nothing was observed");
    let unseen = answer.body["notObserved"].as_array().unwrap();
    assert_eq!(unseen.len(), 1, "{unseen:?}");
    assert!(
        unseen[0].as_str().unwrap().contains("deviceclasses"),
        "{unseen:?}"
    );

    let all = format!("/subscriptions/{SUBSCRIPTION}/providers/Landfall.ContainerService/knownIssues");
    let answer = ask(&stamp, "KnownIssues_List", &all).await;
    let list = answer.body["value"].as_array().unwrap();
    assert_eq!(list.len(), 1, "{:#}", answer.body);
    assert_eq!(list[0]["cluster"], "c");
    assert_eq!(texts(&list[0]["issues"], "id"), ["kubernetes-140955"]);
}

#[tokio::test(start_paused = true)]
async fn the_catalogue_in_force_is_told_with_its_windows() {
    let stamp = Stamp::new().await;
    let path = "/providers/Landfall.ContainerService/catalogue/stamp";
    let answer = ask(&stamp, "VersionCatalogue_Get", path).await;
    assert_eq!(answer.status, 200, "{:#}", answer.body);
    assert_eq!(answer.body["source"], "BuiltIn");
    let minors = &answer.body["minors"];
    assert_eq!(texts(minors, "name"), ["1.34", "1.35", "1.36", "1.37"]);
    // On the first of January 2026, as the simulated clock has it.
    assert_eq!(
        texts(minors, "standing"),
        ["Deprecated", "Supported", "NotReleased", "NotReleased"]
    );
    assert_eq!(minors[2]["onThisStamp"], json!(["1.36.3"]));
    let other = ask(&stamp, "VersionCatalogue_Get", &path.replace("/stamp", "/other")).await;
    assert_eq!((other.status, other.code()), (404, "ResourceNotFound"));
}
