//! The controller and the Gateway API, as they are rendered, come and go.

use cluster_spec::{ClusterSpec, IngressSpec};

use super::*;
use crate::{ADDONS, AddonOptions, MANAGED_LABEL, ailments, leaving, manifests, tests::spec};

fn there() -> AddonOptions {
    AddonOptions {
        images: [TRAEFIK.to_owned()].into(),
        ..AddonOptions::default()
    }
}

fn of(controller: Option<IngressReach>, gateway_api: bool) -> ClusterSpec {
    ClusterSpec {
        ingress: IngressSpec {
            controller,
            gateway_api,
        },
        ..spec(2)
    }
}

/// Objects of the three add-ons.
fn own(spec: &ClusterSpec, options: &AddonOptions) -> Vec<Value> {
    let is_own = |object: &Value| {
        let mut leaves = ADDONS
            .iter()
            .filter(|addon| [CONTROLLER.name, GATEWAY_CLASS.name, GATEWAY_KINDS.name].contains(&addon.name))
            .flat_map(|addon| addon.leaves);
        leaves.any(|leaf| object["kind"] == leaf.kind && object["metadata"]["name"] == leaf.name)
    };
    let all = manifests(spec, options, &[]).into_iter();
    all.filter(is_own).collect()
}

fn kinds(objects: &[Value]) -> Vec<&str> {
    let each = objects.iter();
    each.filter_map(|object| object["kind"].as_str()).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind}"))
}

/// As it was read from a cluster.
fn read(object: &ObjectRef, managed: bool) -> Value {
    let mut read = bare(object);
    if managed {
        read["metadata"]["labels"] = json!({ MANAGED_LABEL.0: MANAGED_LABEL.1 });
    }
    read
}

#[test]
fn a_controller_comes_with_its_image_and_the_kinds_without() {
    let reach = Some(IngressReach::External);
    assert!(own(&of(None, false), &there()).is_empty());
    assert!(own(&of(reach, false), &AddonOptions::default()).is_empty());
    assert_eq!(own(&of(reach, false), &there()).len(), 8);
    let alone = own(&of(None, true), &AddonOptions::default());
    assert_eq!(kinds(&alone), ["CustomResourceDefinition"; 6]);
    let all = own(&of(reach, true), &there());
    assert_eq!(all.len(), 8 + 1 + 6);
    assert_eq!(
        of_kind(&all, "GatewayClass")["metadata"]["name"],
        of_kind(&all, "IngressClass")["metadata"]["name"]
    );
}

#[test]
fn where_it_is_reached_is_an_annotation_that_is_only_set_where_it_was_asked_for() {
    for (reach, annotation) in [
        (IngressReach::AnnotationControlled, Value::Null),
        (IngressReach::External, json!("false")),
        (IngressReach::Internal, json!("true")),
    ] {
        let objects = own(&of(Some(reach), false), &there());
        let service = of_kind(&objects, "Service");
        assert_eq!(
            service["metadata"]["annotations"][INTERNAL], annotation,
            "{reach:?}"
        );
        assert_eq!(service["spec"]["externalTrafficPolicy"], "Local");
    }
}

#[test]
fn it_writes_nothing_but_status_and_reads_gateways_only_where_they_are() {
    for gateways in [false, true] {
        let objects = own(&of(Some(IngressReach::External), gateways), &there());
        let role = of_kind(&objects, "ClusterRole");
        let mut groups = Vec::new();
        for rule in role["rules"].as_array().unwrap() {
            groups.push(rule["apiGroups"][0].as_str().unwrap());
            let status = rule["resources"]
                .as_array()
                .unwrap()
                .iter()
                .all(|resource| resource.as_str().unwrap().ends_with("/status"));
            let verbs = &rule["verbs"];
            let wanted = if status {
                json!(["update"])
            } else {
                json!(["get", "list", "watch"])
            };
            assert_eq!(*verbs, wanted, "{rule}");
        }
        assert_eq!(groups.contains(&gateway::GROUP), gateways);
        let pod = &of_kind(&objects, "Deployment")["spec"]["template"]["spec"];
        let arguments = pod["containers"][0]["args"].as_array().unwrap();
        let has = |part: &str| {
            let mut texts = arguments.iter().filter_map(Value::as_str);
            texts.any(|text| text.contains(part))
        };
        assert_eq!(has("kubernetesGateway"), gateways);
        assert!(has("ingressClass=webapprouting.kubernetes.azure.com"));
        assert!(!has("--api"), "neither dashboard nor API");
    }
}

#[test]
fn pods_have_no_rights_and_go_to_nodes_with_the_image() {
    let objects = own(&of(Some(IngressReach::External), false), &there());
    let deployment = of_kind(&objects, "Deployment");
    assert_eq!(deployment["spec"]["replicas"], 2);
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["priorityClassName"], "system-cluster-critical");
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let container = &pod["containers"][0];
    assert_eq!(
        container["securityContext"]["capabilities"],
        json!({ "drop": ["ALL"] })
    );
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    let nodes = &pod["affinity"]["nodeAffinity"];
    let required = &nodes["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"][0];
    assert_eq!(
        required["matchExpressions"][0]["key"],
        AddonImage::named(TRAEFIK).unwrap().label()
    );
    // Beside the preference of all add-ons.
    assert!(nodes["preferredDuringSchedulingIgnoredDuringExecution"].is_array());
    let single = ClusterSpec {
        ingress: IngressSpec {
            controller: Some(IngressReach::External),
            gateway_api: false,
        },
        ..spec(1)
    };
    let objects = own(&single, &there());
    assert_eq!(of_kind(&objects, "Deployment")["spec"]["replicas"], 1);
}

#[test]
fn what_was_switched_off_goes_and_what_a_tenant_brought_stays() {
    let reach = Some(IngressReach::External);
    let last = |addon: &Addon| *addon.leaves.last().unwrap();
    let all = [
        read(&last(&CONTROLLER), true),
        read(&last(&GATEWAY_CLASS), true),
        read(&last(&GATEWAY_KINDS), true),
    ];
    let gone = |spec: &ClusterSpec, read: &[Value]| -> Vec<&'static str> {
        let gone = leaving(spec, &there(), read);
        gone.iter().map(|object| object.kind).collect()
    };
    assert_eq!(gone(&of(reach, true), &all), [""; 0]);
    let without = gone(&of(reach, false), &all);
    assert_eq!(without[0], "GatewayClass");
    assert_eq!(without[1..], ["CustomResourceDefinition"; 6]);
    let kinds_only = gone(&of(None, true), &all);
    assert_eq!(kinds_only.len(), 8 + 1);
    assert_eq!(kinds_only[..2], ["IngressClass", "Service"]);
    assert_eq!(kinds_only[7..], ["Namespace", "GatewayClass"]);
    assert_eq!(gone(&of(None, false), &all).len(), 8 + 1 + 6);
    // Definitions that came with somebody's own controller.
    let theirs = [
        read(&last(&GATEWAY_KINDS), false),
        read(&last(&CONTROLLER), false),
    ];
    assert_eq!(gone(&of(None, false), &theirs), [""; 0]);
    // A namespace takes its time.
    let mut going = read(&NAMESPACE, true);
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(gone(&of(None, false), &[going]), [""; 0]);
}

#[test]
fn a_controller_without_pods_is_told_of() {
    let mut deployment = read(&DEPLOYMENT, true);
    deployment["spec"] = json!({ "replicas": 2 });
    deployment["status"] = json!({ "conditions": [
        { "type": "Available", "status": "False", "lastTransitionTime": "2026-01-01T00:02:00Z" }
    ] });
    let found = ailments(&of(Some(IngressReach::External), false), &there(), &[deployment]);
    let [ailment] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(ailment.addon, "ingress");
    let words = "0 of 2 pods of Deployment traefik are available; kubectl --namespace app-routing-system";
    assert!(ailment.why.starts_with(words), "{}", ailment.why);
}
