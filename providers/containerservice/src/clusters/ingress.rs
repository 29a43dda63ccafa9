//! Decides a cluster's ingress controller, and whether it has the kinds of the Gateway API. Pure.
//!
//! What a body does not say stays as it is: a template that does not know of the controller takes nobody's routes away.

use arm_kernel::schema::Problems;
use arm_wire::ErrorCode;
use cluster_spec::IngressReach;
use serde_json::{Map, Value, json};

const PROFILE: &str = "ingressProfile";
const ROUTING: &str = "webAppRouting";
const ENABLED: &[&str] = &[ROUTING, "enabled"];
const REACH: &[&str] = &[ROUTING, "nginx", "defaultIngressControllerType"];
const INSTALLATION: &[&str] = &["gatewayAPI", "installation"];
/// The type without a controller.
const NO_CONTROLLER: &str = "None";

/// Refuses DNS zones, with the reason.
pub(crate) fn refuse_zones(body: &Value, problems: &mut Problems) {
    const TARGET: &str = "properties.ingressProfile.webAppRouting.dnsZoneResourceIds";
    let zones = body.pointer("/properties/ingressProfile/webAppRouting/dnsZoneResourceIds");
    if zones
        .and_then(Value::as_array)
        .is_some_and(|zones| !zones.is_empty())
    {
        problems.add(
            ErrorCode::PROPERTY_NOT_SUPPORTED,
            TARGET,
            "There are no DNS zones here in which names of Ingresses could be written: leave dnsZoneResourceIds out, and have your own DNS server \
             answer with the address of the ingress controller (the status of an Ingress has it).",
        );
    }
}

/// Fills in what `ingressProfile` leaves as it was `before`, and its default.
pub(crate) fn decide(properties: &mut Map<String, Value>, before: Option<&Value>, problems: &mut Problems) {
    let before = before
        .and_then(|before| before.pointer("/properties"))
        .map_or(&Value::Null, |properties| &properties[PROFILE]);
    let mut profile = match properties.remove(PROFILE) {
        Some(profile @ Value::Object(_)) => profile,
        _ => json!({}),
    };
    for path in [ENABLED, REACH, INSTALLATION] {
        let (asked, present) = (read(&profile, path), read(before, path));
        // Bodies of before there were controllers may have the type without one.
        let says = !present.is_null() && present.as_str() != Some(NO_CONTROLLER);
        if asked.is_null() && says {
            *place(&mut profile, path) = present.clone();
        }
    }
    let enabled = read(&profile, ENABLED).as_bool() == Some(true);
    if read(&profile, REACH).as_str() == Some(NO_CONTROLLER) {
        if enabled {
            problems.add(
                ErrorCode::PROPERTY_NOT_SUPPORTED,
                format!("properties.{PROFILE}.{}", REACH.join(".")),
                "'None' leaves controllers to objects of AKS' own operator (NginxIngressController), which is not there: use \
                 AnnotationControlled, External or Internal, or set webAppRouting.enabled to false.",
            );
        }
        // Without a controller it goes without saying.
        if let Some(routing) = profile[ROUTING].as_object_mut() {
            routing.remove("nginx");
        }
    }
    if enabled && read(&profile, REACH).is_null() {
        *place(&mut profile, REACH) = json!(IngressReach::default().name());
    }
    if profile.as_object().is_some_and(|profile| !profile.is_empty()) {
        properties.insert(PROFILE.to_owned(), profile);
    }
}

/// The value at a path; null where there is none.
fn read<'v>(profile: &'v Value, path: &[&str]) -> &'v Value {
    path.iter().fold(profile, |value, name| &value[*name])
}

/// The place of a path. The objects on the way are made where they are not there; the schema has seen to it that nothing else is.
fn place<'v>(profile: &'v mut Value, path: &[&str]) -> &'v mut Value {
    path.iter().fold(profile, |value, name| &mut value[*name])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(asked: Value, before: Value) -> (Value, bool) {
        let mut properties = Map::new();
        properties.insert(PROFILE.to_owned(), asked);
        let before = json!({ "properties": { PROFILE: before } });
        let mut problems = Problems::default();
        decide(&mut properties, Some(&before), &mut problems);
        let profile = properties.remove(PROFILE).unwrap_or_default();
        (profile, problems.into_result().is_ok())
    }

    #[test]
    fn what_is_not_said_stays_and_what_was_never_said_is_not_there() {
        let all = json!({
            "webAppRouting": { "enabled": true, "nginx": { "defaultIngressControllerType": "Internal" } },
            "gatewayAPI": { "installation": "Standard" }
        });
        assert_eq!(decided(Value::Null, Value::Null), (Value::Null, true));
        assert_eq!(decided(Value::Null, all.clone()), (all.clone(), true));
        assert_eq!(
            decided(json!({ "webAppRouting": {} }), all.clone()),
            (all.clone(), true)
        );
        let mut off = all.clone();
        off["webAppRouting"]["enabled"] = json!(false);
        let asked = json!({ "webAppRouting": { "enabled": false } });
        assert_eq!(decided(asked, all.clone()), (off, true));
        let mut other = all.clone();
        other["gatewayAPI"]["installation"] = json!("Disabled");
        let asked = json!({ "gatewayAPI": { "installation": "Disabled" } });
        assert_eq!(decided(asked, all), (other, true));
    }

    #[test]
    fn a_controller_is_reached_as_its_annotations_say_unless_it_was_said() {
        let (profile, is_ok) = decided(json!({ "webAppRouting": { "enabled": true } }), Value::Null);
        assert!(is_ok);
        assert_eq!(*read(&profile, REACH), "AnnotationControlled");
        let none = json!({ "webAppRouting": { "nginx": { "defaultIngressControllerType": "None" } } });
        let (profile, is_ok) = decided(json!({ "webAppRouting": { "enabled": true } }), none.clone());
        assert!(is_ok);
        assert_eq!(*read(&profile, REACH), "AnnotationControlled");
        assert_eq!(
            decided(none.clone(), Value::Null),
            (json!({ "webAppRouting": {} }), true)
        );
        let mut both = none;
        both["webAppRouting"]["enabled"] = json!(true);
        assert!(!decided(both, Value::Null).1);
    }
}
