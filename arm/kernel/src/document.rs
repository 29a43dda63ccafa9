//! `GET /providers/{namespace}/operations`: the actions that roles can allow, from the rows.

use serde_json::{Value, json};

use crate::provider::{Namespace, routes};

/// The document.
pub fn operations_document<P: Namespace>() -> Value {
    let namespace = P::NAME;
    let registering = [
        (
            "register",
            "Register",
            "Registers the subscription with the provider.",
        ),
        (
            "unregister",
            "Unregister",
            "Has the subscription not use the provider any more.",
        ),
    ]
    .map(|(action, operation, description)| {
        json!({
            "name": format!("{namespace}/{action}/action"),
            "isDataAction": false,
            "display": { "provider": namespace, "resource": "Subscription", "operation": operation,
                "description": description },
        })
    });
    let mut actions: Vec<(String, &str)> = routes::<P>()
        .into_iter()
        .filter(|route| route.path != "operations")
        .map(|route| (route.action().to_owned(), route.path))
        .collect();
    actions.sort();
    actions.dedup_by(|a, b| a.0 == b.0);
    let rest = actions.into_iter().map(|(name, resource)| {
        json!({
            "name": name,
            "isDataAction": false,
            "display": { "provider": namespace, "resource": resource, "operation": name.rsplit('/').next(), "description": name },
        })
    });
    let value: Vec<Value> = registering.into_iter().chain(rest).collect();
    json!({ "value": value })
}
