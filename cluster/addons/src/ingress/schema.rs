//! Words of schemas: what the kinds of the Gateway API have in common.

use serde_json::{Map, Value, json};

use super::gateway::GROUP;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";

/// A name as DNS has it, as the source of a pattern.
fn domain() -> String {
    format!("{LABEL}(\\.{LABEL})*")
}

/// An object with these properties.
pub(super) fn object(required: &[&str], properties: &[(&str, Value)]) -> Value {
    let properties: Map<String, Value> = properties
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect();
    let mut object = json!({ "type": "object", "properties": properties });
    // An empty list is none.
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

/// A list that is replaced as a whole.
pub(super) fn list(most: u32, items: Value) -> Value {
    json!({ "type": "array", "maxItems": most, "items": items, "x-kubernetes-list-type": "atomic" })
}

/// A list whose items are told apart by a property, which each has.
pub(super) fn list_by(key: &str, most: u32, items: Value) -> Value {
    json!({
        "type": "array", "maxItems": most, "items": items,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]
    })
}

/// The same with at least one item.
pub(super) fn filled(mut list: Value) -> Value {
    list["minItems"] = json!(1);
    list
}

/// The same with a default.
pub(super) fn or(mut schema: Value, default: Value) -> Value {
    schema["default"] = default;
    schema
}

/// Texts by name.
pub(super) fn texts(most: u32, longest: u32) -> Value {
    json!({
        "type": "object", "maxProperties": most,
        "additionalProperties": { "type": "string", "maxLength": longest }
    })
}

pub(super) fn text(longest: u32) -> Value {
    json!({ "type": "string", "maxLength": longest })
}

/// A text that is not empty.
pub(super) fn some_text(longest: u32) -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": longest })
}

pub(super) fn pattern(longest: u32, pattern: &str) -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": longest, "pattern": pattern })
}

pub(super) fn one_of(values: &[&str]) -> Value {
    json!({ "type": "string", "enum": values })
}

pub(super) fn number(least: u32, most: Option<u32>) -> Value {
    let mut number = json!({ "type": "integer", "format": "int32", "minimum": least });
    if let Some(most) = most {
        number["maximum"] = json!(most);
    }
    number
}

pub(super) fn port() -> Value {
    number(1, Some(65535))
}

/// The name of an object.
pub(super) fn name() -> Value {
    some_text(253)
}

pub(super) fn namespace() -> Value {
    pattern(63, &format!("^{LABEL}$"))
}

pub(super) fn kind() -> Value {
    pattern(63, "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")
}

/// An API group; empty: that of Kubernetes' first kinds.
pub(super) fn group() -> Value {
    json!({ "type": "string", "maxLength": 253, "pattern": format!("^$|^{}$", domain()) })
}

/// The name of a listener, a port or a rule.
pub(super) fn section() -> Value {
    pattern(253, &format!("^{}$", domain()))
}

/// A host.
pub(super) fn host() -> Value {
    section()
}

/// A host, or all below one.
pub(super) fn hosts() -> Value {
    pattern(253, &format!("^(\\*\\.)?{}$", domain()))
}

/// A controller, a name of a domain of its own.
pub(super) fn controller() -> Value {
    pattern(253, &format!("^{}/[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+$", domain()))
}

/// An object of the same namespace, of any kind.
pub(super) fn local_reference() -> Value {
    object(
        &["group", "kind", "name"],
        &[("group", group()), ("kind", kind()), ("name", name())],
    )
}

/// The properties of a reference to an object of a kind, where nothing else is said, in any namespace.
fn reference_to(of_group: &str, of_kind: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("group", or(group(), json!(of_group))),
        ("kind", or(kind(), json!(of_kind))),
        ("name", name()),
        ("namespace", namespace()),
    ]
}

/// A Secret with a certificate.
pub(super) fn certificate() -> Value {
    object(&["name"], &reference_to("", "Secret"))
}

/// A Service, with a port and these properties more.
pub(super) fn backend(more: &[(&'static str, Value)]) -> Value {
    let mut properties = reference_to("", "Service");
    properties.push(("port", port()));
    properties.extend(more.iter().cloned());
    object(&["name"], &properties)
}

/// What a route or a policy is attached to: a Gateway, or a listener of it.
pub(super) fn parent() -> Value {
    let mut properties = reference_to(GROUP, "Gateway");
    properties.extend([("port", port()), ("sectionName", section())]);
    object(&["name"], &properties)
}

pub(super) fn conditions() -> Value {
    let condition = object(
        &["lastTransitionTime", "message", "reason", "status", "type"],
        &[
            (
                "lastTransitionTime",
                json!({ "type": "string", "format": "date-time" }),
            ),
            ("message", text(32768)),
            (
                "observedGeneration",
                json!({ "type": "integer", "format": "int64", "minimum": 0 }),
            ),
            (
                "reason",
                pattern(1024, "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"),
            ),
            ("status", one_of(&["True", "False", "Unknown"])),
            ("type", some_text(316)),
        ],
    );
    list_by("type", 8, condition)
}

/// The status of an object that no controller has seen yet, with these conditions.
pub(super) fn waiting(conditions: &[&str]) -> Value {
    let each = conditions.iter().map(|name| {
        json!({
            "type": name, "status": "Unknown", "reason": "Pending", "message": "Waiting for controller",
            "lastTransitionTime": "1970-01-01T00:00:00Z"
        })
    });
    json!({ "conditions": each.collect::<Vec<_>>() })
}

/// A kind, with what objects of it have.
pub(super) struct Kind<'a> {
    pub(super) name: &'a str,
    pub(super) plural: &'a str,
    pub(super) short: &'a [&'a str],
    pub(super) scope: &'a str,
    /// Name, type, path.
    pub(super) columns: &'a [(&'a str, &'a str, &'a str)],
    /// All that are served; the first is the one that is stored.
    pub(super) versions: &'a [&'a str],
    pub(super) spec: Value,
    pub(super) status: Option<Value>,
}

impl Kind<'_> {
    /// Its definition.
    pub(super) fn definition(self) -> Value {
        let mut properties = vec![
            ("apiVersion", json!({ "type": "string" })),
            ("kind", json!({ "type": "string" })),
            ("metadata", json!({ "type": "object" })),
            ("spec", self.spec),
        ];
        let subresources = if self.status.is_some() {
            json!({ "status": {} })
        } else {
            json!({})
        };
        properties.extend(self.status.map(|status| ("status", status)));
        let schema = object(&["spec"], &properties);
        let columns: Vec<Value> = self
            .columns
            .iter()
            .map(|(name, kind, path)| json!({ "name": name, "type": kind, "jsonPath": path }))
            .chain([json!({ "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" })])
            .collect();
        let versions: Vec<Value> = self
            .versions
            .iter()
            .enumerate()
            .map(|(index, version)| {
                json!({
                    "name": version, "served": true, "storage": index == 0,
                    "subresources": subresources,
                    "additionalPrinterColumns": columns,
                    "schema": { "openAPIV3Schema": schema }
                })
            })
            .collect();
        json!({
            "apiVersion": super::gateway::DEFINITION.0, "kind": super::gateway::DEFINITION.1,
            "metadata": {
                "name": format!("{}.{GROUP}", self.plural),
                "annotations": {
                    // Required for Kubernetes' own API groups: the URL of the approval.
                    "api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/3328",
                    // What clients look for; the fields are those of this release.
                    "gateway.networking.k8s.io/bundle-version": super::gateway::RELEASE,
                    "gateway.networking.k8s.io/channel": "standard"
                }
            },
            "spec": {
                "group": GROUP, "scope": self.scope,
                "names": {
                    "kind": self.name, "listKind": format!("{}List", self.name), "plural": self.plural,
                    "singular": self.name.to_lowercase(), "shortNames": self.short, "categories": ["gateway-api"]
                },
                "versions": versions
            }
        })
    }
}
