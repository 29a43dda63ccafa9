//! The Gateway API: its kinds of the standard channel, and the class of the controller.
//!
//! The schemas have the fields of upstream's release with their types, limits and defaults. Rules across fields are not in them: what
//! breaks one is refused by the controller, in the status of the object.

use cluster_api::ObjectRef;
use serde_json::{Value, json};

use super::{
    CLASS_NAME, of_cluster, routes,
    schema::{
        Kind, certificate, conditions, controller, filled, group, host, hosts, kind, list, list_by,
        local_reference, name, namespace, number, object, one_of, or, parent, pattern, port, section,
        some_text, text, texts, waiting,
    },
    with,
};
use crate::{Addon, Edits, health};

/// The API group.
pub(super) const GROUP: &str = "gateway.networking.k8s.io";
/// Upstream's release whose fields the kinds have: the one that the controller is made for.
pub(super) const RELEASE: &str = "v1.4.0";
/// The version and kind of definitions.
pub(super) const DEFINITION: (&str, &str) = ("apiextensions.k8s.io/v1", "CustomResourceDefinition");

pub(crate) const GATEWAY_CLASS: Addon = Addon {
    name: "ingress-gateway-class",
    about: "The GatewayClass of the ingress controller (with `ingressProfile.webAppRouting` and `ingressProfile.gatewayAPI`)",
    images: &[],
    built: &[],
    watches: &[],
    reads: &[CLASS],
    deployments: &[],
    health: health::available,
    edits: Edits::Compared,
    replaced_by: None,
    leaves: &[CLASS],
    wanted: |spec| spec.ingress.has_gateways(),
    objects: |_| {
        vec![with(
            &CLASS,
            json!({ "spec": { "controllerName": "traefik.io/gateway-controller" } }),
        )]
    },
};

pub(crate) const GATEWAY_KINDS: Addon = Addon {
    name: "gateway-api",
    about: "The kinds of the Gateway API, standard channel (with `ingressProfile.gatewayAPI`)",
    images: &[],
    built: &[],
    watches: &[],
    reads: &[CLASSES],
    deployments: &[],
    health: health::available,
    edits: Edits::Compared,
    replaced_by: None,
    leaves: &[
        of_cluster(
            DEFINITION.0,
            DEFINITION.1,
            "backendtlspolicies.gateway.networking.k8s.io",
        ),
        of_cluster(DEFINITION.0, DEFINITION.1, "grpcroutes.gateway.networking.k8s.io"),
        of_cluster(DEFINITION.0, DEFINITION.1, "httproutes.gateway.networking.k8s.io"),
        of_cluster(
            DEFINITION.0,
            DEFINITION.1,
            "referencegrants.gateway.networking.k8s.io",
        ),
        of_cluster(DEFINITION.0, DEFINITION.1, "gateways.gateway.networking.k8s.io"),
        CLASSES,
    ],
    wanted: |spec| spec.ingress.gateway_api,
    objects: |_| {
        vec![
            classes(),
            gateways(),
            routes::http(),
            routes::grpc(),
            grants(),
            backend_policies(),
        ]
    },
};

const CLASS: ObjectRef = of_cluster("gateway.networking.k8s.io/v1", "GatewayClass", CLASS_NAME);
const CLASSES: ObjectRef = of_cluster(
    DEFINITION.0,
    DEFINITION.1,
    "gatewayclasses.gateway.networking.k8s.io",
);

fn classes() -> Value {
    let mut fixed = controller();
    fixed["x-kubernetes-validations"] =
        json!([{ "rule": "self == oldSelf", "message": "controllerName is immutable" }]);
    let parameters = object(
        &["group", "kind", "name"],
        &[
            ("group", group()),
            ("kind", kind()),
            ("name", name()),
            ("namespace", namespace()),
        ],
    );
    let features = list_by("name", 64, object(&["name"], &[("name", text(253))]));
    Kind {
        name: "GatewayClass",
        plural: "gatewayclasses",
        short: &["gc"],
        scope: "Cluster",
        columns: &[
            ("Controller", "string", ".spec.controllerName"),
            (
                "Accepted",
                "string",
                ".status.conditions[?(@.type==\"Accepted\")].status",
            ),
        ],
        versions: &["v1", "v1beta1"],
        spec: object(
            &["controllerName"],
            &[
                ("controllerName", fixed),
                ("description", text(64)),
                ("parametersRef", parameters),
            ],
        ),
        status: Some(or(
            object(
                &[],
                &[("conditions", conditions()), ("supportedFeatures", features)],
            ),
            waiting(&["Accepted"]),
        )),
    }
    .definition()
}

fn gateways() -> Value {
    let address = |value: Value| [("type", or(some_text(253), json!("IPAddress"))), ("value", value)];
    Kind {
        name: "Gateway",
        plural: "gateways",
        short: &["gtw"],
        scope: "Namespaced",
        columns: &[
            ("Class", "string", ".spec.gatewayClassName"),
            ("Address", "string", ".status.addresses[*].value"),
            (
                "Programmed",
                "string",
                ".status.conditions[?(@.type==\"Programmed\")].status",
            ),
        ],
        versions: &["v1", "v1beta1"],
        spec: object(
            &["gatewayClassName", "listeners"],
            &[
                ("addresses", list(16, object(&[], &address(text(253))))),
                ("gatewayClassName", name()),
                (
                    "infrastructure",
                    object(
                        &[],
                        &[
                            ("annotations", texts(8, 4096)),
                            ("labels", texts(8, 63)),
                            ("parametersRef", local_reference()),
                        ],
                    ),
                ),
                ("listeners", filled(list_by("name", 64, listener()))),
            ],
        ),
        status: Some(or(
            object(
                &[],
                &[
                    (
                        "addresses",
                        list(16, object(&["value"], &address(some_text(253)))),
                    ),
                    ("conditions", conditions()),
                    ("listeners", list_by("name", 64, listener_status())),
                ],
            ),
            waiting(&["Accepted", "Programmed"]),
        )),
    }
    .definition()
}

/// Kinds of routes.
fn route_kinds() -> Value {
    let of = object(
        &["kind"],
        &[("group", or(group(), json!(GROUP))), ("kind", kind())],
    );
    list(8, of)
}

fn listener() -> Value {
    let expression = object(
        &["key", "operator"],
        &[
            ("key", json!({ "type": "string" })),
            ("operator", json!({ "type": "string" })),
            (
                "values",
                json!({ "type": "array", "items": { "type": "string" }, "x-kubernetes-list-type": "atomic" }),
            ),
        ],
    );
    let mut selector = object(
        &[],
        &[
            (
                "matchExpressions",
                json!({ "type": "array", "items": expression, "x-kubernetes-list-type": "atomic" }),
            ),
            (
                "matchLabels",
                json!({ "type": "object", "additionalProperties": { "type": "string" } }),
            ),
        ],
    );
    selector["x-kubernetes-map-type"] = json!("atomic");
    let same = json!({ "from": "Same" });
    let namespaces = object(
        &[],
        &[
            ("from", or(one_of(&["All", "Selector", "Same"]), json!("Same"))),
            ("selector", selector),
        ],
    );
    let routes = object(
        &[],
        &[
            ("kinds", route_kinds()),
            ("namespaces", or(namespaces, same.clone())),
        ],
    );
    let tls = object(
        &[],
        &[
            ("certificateRefs", list(64, certificate())),
            (
                "mode",
                or(one_of(&["Terminate", "Passthrough"]), json!("Terminate")),
            ),
            ("options", texts(16, 4096)),
        ],
    );
    object(
        &["name", "port", "protocol"],
        &[
            ("allowedRoutes", or(routes, json!({ "namespaces": same }))),
            ("hostname", hosts()),
            ("name", section()),
            ("port", port()),
            ("protocol", some_text(255)),
            ("tls", tls),
        ],
    )
}

fn listener_status() -> Value {
    object(
        &["attachedRoutes", "conditions", "name", "supportedKinds"],
        &[
            ("attachedRoutes", number(0, None)),
            ("conditions", conditions()),
            ("name", section()),
            ("supportedKinds", route_kinds()),
        ],
    )
}

fn grants() -> Value {
    let from = object(
        &["group", "kind", "namespace"],
        &[("group", group()), ("kind", kind()), ("namespace", namespace())],
    );
    let to = object(
        &["group", "kind"],
        &[("group", group()), ("kind", kind()), ("name", name())],
    );
    Kind {
        name: "ReferenceGrant",
        plural: "referencegrants",
        short: &["refgrant"],
        scope: "Namespaced",
        columns: &[],
        versions: &["v1beta1"],
        spec: object(
            &["from", "to"],
            &[("from", filled(list(16, from))), ("to", filled(list(16, to)))],
        ),
        status: None,
    }
    .definition()
}

fn backend_policies() -> Value {
    let target = object(
        &["group", "kind", "name"],
        &[
            ("group", group()),
            ("kind", kind()),
            ("name", name()),
            ("sectionName", section()),
        ],
    );
    let alternative = object(
        &["type"],
        &[
            ("hostname", hosts()),
            ("type", one_of(&["Hostname", "URI"])),
            ("uri", pattern(253, "^[^:/?#]+:")),
        ],
    );
    let validation = object(
        &["hostname"],
        &[
            ("caCertificateRefs", list(8, local_reference())),
            ("hostname", host()),
            ("subjectAltNames", list(5, alternative)),
            ("wellKnownCACertificates", one_of(&["System"])),
        ],
    );
    let ancestor = object(
        &["ancestorRef", "conditions", "controllerName"],
        &[
            ("ancestorRef", parent()),
            ("conditions", filled(conditions())),
            ("controllerName", controller()),
        ],
    );
    let mut definition = Kind {
        name: "BackendTLSPolicy",
        plural: "backendtlspolicies",
        short: &["btlspolicy"],
        scope: "Namespaced",
        columns: &[],
        versions: &["v1"],
        spec: object(
            &["targetRefs", "validation"],
            &[
                ("options", texts(16, 4096)),
                ("targetRefs", filled(list(16, target))),
                ("validation", validation),
            ],
        ),
        status: Some(object(&["ancestors"], &[("ancestors", list(16, ancestor))])),
    }
    .definition();
    definition["metadata"]["labels"] = json!({ "gateway.networking.k8s.io/policy": "Direct" });
    definition
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Vec<Value> {
        (GATEWAY_KINDS.objects)(&crate::Place {
            spec: &crate::tests::spec(1),
            options: &crate::AddonOptions::default(),
            read: &[],
        })
    }

    /// What an API server asks of a schema, where it can be broken by hand.
    fn check(path: &str, schema: &Value) {
        let kind = schema["type"].as_str();
        assert!(kind.is_some(), "{path}: no type");
        let properties = schema["properties"].as_object();
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().unwrap();
            assert!(
                properties.is_some_and(|properties| properties.contains_key(name)),
                "{path}: {name} is required and not there"
            );
        }
        for key in schema["x-kubernetes-list-map-keys"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let required = schema["items"]["required"].as_array().unwrap();
            assert!(required.contains(key), "{path}: {key} does not tell items apart");
        }
        for field in schema["default"].as_object().into_iter().flatten() {
            assert!(schema["properties"][field.0].is_object(), "{path}: {}", field.0);
        }
        for (name, inner) in properties.into_iter().flatten() {
            check(&format!("{path}.{name}"), inner);
        }
        assert_eq!(kind == Some("array"), schema["items"].is_object(), "{path}");
        if schema["items"].is_object() {
            check(&format!("{path}[]"), &schema["items"]);
        }
    }

    #[test]
    fn schemas_are_what_an_api_server_takes() {
        let kinds = kinds();
        assert_eq!(kinds.len(), GATEWAY_KINDS.leaves.len());
        for definition in &kinds {
            let name = definition["metadata"]["name"].as_str().unwrap();
            assert!(
                GATEWAY_KINDS.leaves.iter().any(|leaf| leaf.name == name),
                "{name}"
            );
            let versions = definition["spec"]["versions"].as_array().unwrap();
            let stored = versions.iter().filter(|version| version["storage"] == true);
            assert_eq!(stored.count(), 1, "{name}");
            for version in versions {
                check(name, &version["schema"]["openAPIV3Schema"]);
            }
        }
    }

    #[test]
    fn a_route_that_says_nothing_takes_all_paths() {
        let kinds = kinds();
        let http = kinds
            .iter()
            .find(|definition| definition["spec"]["names"]["kind"] == "HTTPRoute")
            .unwrap();
        let spec = &http["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let all = json!([{ "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }] }]);
        assert_eq!(spec["properties"]["rules"]["default"], all);
    }
}
