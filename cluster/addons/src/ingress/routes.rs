//! The schemas of routes: HTTPRoute and GRPCRoute.

use serde_json::{Value, json};

use super::schema::{
    Kind, backend, conditions, controller, filled, host, hosts, list, list_by, local_reference, number,
    object, one_of, or, parent, pattern, port, section, some_text, text,
};

/// A header, or a parameter.
const TOKEN: &str = "^[A-Za-z0-9!#$%&'*+\\-.^_`|~]+$";
const DURATION: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

pub(super) fn http() -> Value {
    let path = json!({ "type": "PathPrefix", "value": "/" });
    let matched_path = object(
        &[],
        &[
            (
                "type",
                or(
                    one_of(&["Exact", "PathPrefix", "RegularExpression"]),
                    json!("PathPrefix"),
                ),
            ),
            ("value", or(text(1024), json!("/"))),
        ],
    );
    let methods = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    ];
    let matched = object(
        &[],
        &[
            ("headers", matched_values(4096)),
            ("method", one_of(&methods)),
            ("path", or(matched_path, path.clone())),
            ("queryParams", matched_values(1024)),
        ],
    );
    let duration = || json!({ "type": "string", "pattern": DURATION });
    let timeouts = object(&[], &[("backendRequest", duration()), ("request", duration())]);
    let matches = json!([{ "path": path }]);
    let rule = object(
        &[],
        &[
            ("backendRefs", backends(&http_filter())),
            ("filters", list(16, http_filter())),
            ("matches", or(list(64, matched), matches.clone())),
            ("name", section()),
            ("timeouts", timeouts),
        ],
    );
    let rules = or(list(16, rule), json!([{ "matches": matches }]));
    route("HTTPRoute", "httproutes", &["v1", "v1beta1"], rules)
}

pub(super) fn grpc() -> Value {
    let method = object(
        &[],
        &[
            ("method", text(1024)),
            ("service", text(1024)),
            ("type", comparison()),
        ],
    );
    let matched = object(&[], &[("headers", matched_values(4096)), ("method", method)]);
    let own_filter = || {
        let kinds = [
            "ResponseHeaderModifier",
            "RequestHeaderModifier",
            "RequestMirror",
            "ExtensionRef",
        ];
        filter(&kinds, &[])
    };
    let rule = object(
        &[],
        &[
            ("backendRefs", backends(&own_filter())),
            ("filters", list(16, own_filter())),
            ("matches", list(64, matched)),
            ("name", section()),
        ],
    );
    route("GRPCRoute", "grpcroutes", &["v1"], list(16, rule))
}

fn route(name: &str, plural: &str, versions: &[&str], rules: Value) -> Value {
    let at_parent = object(
        &["conditions", "controllerName", "parentRef"],
        &[
            ("conditions", filled(conditions())),
            ("controllerName", controller()),
            ("parentRef", parent()),
        ],
    );
    Kind {
        name,
        plural,
        short: &[],
        scope: "Namespaced",
        columns: &[("Hostnames", "string", ".spec.hostnames")],
        versions,
        spec: object(
            &[],
            &[
                ("hostnames", list(16, hosts())),
                ("parentRefs", list(32, parent())),
                ("rules", rules),
            ],
        ),
        status: Some(object(&["parents"], &[("parents", list(32, at_parent))])),
    }
    .definition()
}

fn backends(filter: &Value) -> Value {
    let more = [
        ("filters", list(16, filter.clone())),
        ("weight", or(number(0, Some(1_000_000)), json!(1))),
    ];
    list(16, backend(&more))
}

fn comparison() -> Value {
    or(one_of(&["Exact", "RegularExpression"]), json!("Exact"))
}

/// Headers or parameters that a request is to have.
fn matched_values(longest: u32) -> Value {
    let value = object(
        &["name", "value"],
        &[
            ("name", pattern(256, TOKEN)),
            ("type", comparison()),
            ("value", some_text(longest)),
        ],
    );
    list_by("name", 16, value)
}

fn http_filter() -> Value {
    let path = || {
        object(
            &["type"],
            &[
                ("replaceFullPath", text(1024)),
                ("replacePrefixMatch", text(1024)),
                ("type", one_of(&["ReplaceFullPath", "ReplacePrefixMatch"])),
            ],
        )
    };
    let redirect = object(
        &[],
        &[
            ("hostname", host()),
            ("path", path()),
            ("port", port()),
            ("scheme", one_of(&["http", "https"])),
            (
                "statusCode",
                json!({ "type": "integer", "enum": [301, 302], "default": 302 }),
            ),
        ],
    );
    let rewrite = object(&[], &[("hostname", host()), ("path", path())]);
    let kinds = [
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestMirror",
        "RequestRedirect",
        "URLRewrite",
        "ExtensionRef",
    ];
    filter(&kinds, &[("requestRedirect", redirect), ("urlRewrite", rewrite)])
}

/// A filter of one of these kinds, with what only some routes have.
fn filter(kinds: &[&str], more: &[(&'static str, Value)]) -> Value {
    let headers = || {
        let header = object(
            &["name", "value"],
            &[("name", pattern(256, TOKEN)), ("value", some_text(4096))],
        );
        list_by("name", 16, header)
    };
    let modifier = || {
        let names = json!({
            "type": "array", "maxItems": 16, "items": { "type": "string" }, "x-kubernetes-list-type": "set"
        });
        object(&[], &[("add", headers()), ("remove", names), ("set", headers())])
    };
    let fraction = object(
        &["numerator"],
        &[
            ("denominator", or(number(1, None), json!(100))),
            ("numerator", number(0, None)),
        ],
    );
    let mirror = object(
        &["backendRef"],
        &[
            ("backendRef", backend(&[])),
            ("fraction", fraction),
            ("percent", number(0, Some(100))),
        ],
    );
    let mut properties = vec![
        ("extensionRef", local_reference()),
        ("requestHeaderModifier", modifier()),
        ("requestMirror", mirror),
        ("responseHeaderModifier", modifier()),
        ("type", one_of(kinds)),
    ];
    properties.extend(more.iter().cloned());
    object(&["type"], &properties)
}
