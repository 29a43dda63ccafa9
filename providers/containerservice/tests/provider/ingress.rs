//! The ingress controller and the Gateway API: asked for, changed, left alone and taken away.

use cluster_spec::{IngressReach, IngressSpec};
use serde_json::{Value, json};

use crate::stamp::{Answer, Stamp, least, sent_back};

const C: &str = "managedClusters/c";

impl Stamp {
    async fn with_cluster() -> Self {
        let stamp = Self::new().await;
        stamp.create("c", least()).await;
        stamp.reach("c").await;
        stamp
    }

    /// As `az aks approuting` does: all that was read, with this in it.
    async fn route(&self, change: impl FnOnce(&mut Value)) -> Answer {
        let mut body = sent_back(&self.get(C).await.body);
        let properties = body["properties"].as_object_mut().unwrap();
        let mut profile = properties.remove("ingressProfile").unwrap_or_default();
        change(&mut profile);
        if !profile.is_null() {
            properties.insert("ingressProfile".to_owned(), profile);
        }
        let answer = self.ask("PUT", C, body).await;
        if answer.status < 300 {
            self.reach("c").await;
            self.end_operations().await;
        }
        answer
    }

    async fn ingress(&self) -> IngressSpec {
        self.record("c").await.unwrap().spec().ingress
    }

    async fn shown(&self) -> Value {
        self.get(C).await.body["properties"]["ingressProfile"].clone()
    }
}

fn reached(reach: IngressReach) -> IngressSpec {
    IngressSpec {
        controller: Some(reach),
        gateway_api: false,
    }
}

#[tokio::test(start_paused = true)]
async fn a_controller_comes_is_reached_elsewhere_and_goes() {
    let stamp = Stamp::with_cluster().await;
    assert!(stamp.ingress().await.is_nothing());
    assert_eq!(stamp.shown().await, Value::Null);
    let answer = stamp
        .route(|profile| profile["webAppRouting"]["enabled"] = json!(true))
        .await;
    assert_eq!(answer.status, 200, "{:#}", answer.body);
    assert_eq!(stamp.ingress().await, reached(IngressReach::AnnotationControlled));
    let shown = json!({ "webAppRouting": {
        "enabled": true, "nginx": { "defaultIngressControllerType": "AnnotationControlled" }
    } });
    assert_eq!(stamp.shown().await, shown);
    for reach in [IngressReach::Internal, IngressReach::External] {
        let answer = stamp
            .route(|profile| {
                profile["webAppRouting"]["nginx"]["defaultIngressControllerType"] = json!(reach.name());
            })
            .await;
        assert_eq!(answer.status, 200, "{:#}", answer.body);
        assert_eq!(stamp.ingress().await, reached(reach));
    }
    let answer = stamp
        .route(|profile| profile["webAppRouting"]["enabled"] = json!(false))
        .await;
    assert_eq!(answer.status, 200, "{:#}", answer.body);
    assert!(stamp.ingress().await.is_nothing());
    assert_eq!(stamp.shown().await["webAppRouting"]["enabled"], false);
}

#[tokio::test(start_paused = true)]
async fn the_kinds_of_the_gateway_api_come_and_go_by_themselves() {
    let stamp = Stamp::with_cluster().await;
    for (installation, there) in [("Standard", true), ("Disabled", false)] {
        let answer = stamp
            .route(|profile| profile["gatewayAPI"]["installation"] = json!(installation))
            .await;
        assert_eq!(answer.status, 200, "{:#}", answer.body);
        let wanted = IngressSpec {
            controller: None,
            gateway_api: there,
        };
        assert_eq!(stamp.ingress().await, wanted);
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_know_of_it_leaves_it() {
    let mut stamp = Stamp::with_cluster().await;
    stamp
        .route(|profile| {
            *profile = json!({
                "webAppRouting": { "enabled": true, "nginx": { "defaultIngressControllerType": "Internal" } },
                "gatewayAPI": { "installation": "Standard" }
            });
        })
        .await;
    let all = IngressSpec {
        controller: Some(IngressReach::Internal),
        gateway_api: true,
    };
    assert_eq!(stamp.ingress().await, all);
    let answer = stamp.ask("PUT", C, least()).await;
    assert_eq!(answer.status, 200, "{:#}", answer.body);
    assert_eq!(stamp.ingress().await, all);
    let answer = stamp.ask("PATCH", C, json!({ "tags": { "a": "b" } })).await;
    assert!(answer.status < 300, "{:#}", answer.body);
    assert_eq!(stamp.ingress().await, all);
    // Before there was a type of it, before there was the Gateway API, and before there was any of it.
    for (version, shown) in [
        (
            "2025-09-01",
            json!({ "webAppRouting": { "enabled": true, "nginx": { "defaultIngressControllerType": "Internal" } } }),
        ),
        ("2024-02-01", json!({ "webAppRouting": { "enabled": true } })),
        ("2023-01-01", Value::Null),
    ] {
        stamp.api_version = version;
        assert_eq!(stamp.shown().await, shown, "{version}");
        let answer = stamp.route(|_| {}).await;
        // A client of that version sends what it was shown.
        assert_eq!(answer.status, 200, "{version}: {:#}", answer.body);
        assert_eq!(stamp.ingress().await, all, "{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_api_version_refuses_what_it_does_not_have() {
    let mut stamp = Stamp::with_cluster().await;
    stamp.api_version = "2023-01-01";
    let mut body = least();
    body["properties"] = json!({ "ingressProfile": { "webAppRouting": { "enabled": true } } });
    let answer = stamp.ask("PUT", C, body).await;
    assert_eq!((answer.status, answer.code()), (400, "UnknownProperty"));
    assert!(stamp.ingress().await.is_nothing());
}
