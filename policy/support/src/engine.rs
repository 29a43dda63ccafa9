//! What the definition of a cluster for AKS engine on Azure Stack Hub may not have (X1 to X5), and whether one has it.

use serde_json::Value;

/// Add-ins (X1), by their names in `kubernetesConfig.addons`.
pub const ADDONS: [&str; 9] = [
    "aad-pod-identity",
    "aci-connector",
    "blobfuse-flexvolume",
    "cluster-autoscaler",
    "container-monitoring",
    "keyvault-flexvolume",
    "nvidia-device-plugin",
    "rescheduler",
    "smb-flexvolume",
];
/// Options of `orchestratorProfile.kubernetesConfig` (X2).
pub const KUBERNETES: [&str; 9] = [
    "cloudControllerManagerConfig",
    "enableDataEncryptionAtRest",
    "enableEncryptionWithExternalKms",
    "enablePodSecurityPolicy",
    "etcdEncryptionKey",
    "useInstanceMetadata",
    "useManagedIdentity",
    "azureCNIURLLinux",
    "azureCNIURLWindows",
];
/// Options of `masterProfile` (X3).
pub const MASTERS: [&str; 1] = ["availabilityZones"];
/// Options of `agentPoolProfiles` (X4).
pub const POOLS: [&str; 6] = [
    "availabilityZones",
    "singlePlacementGroup",
    "scaleSetPriority",
    "scaleSetEvictionPolicy",
    "acceleratedNetworkingEnabled",
    "acceleratedNetworkingEnabledWindows",
];
/// Ways to use an engine that are not supported at all (X5), by the words that facts have for them.
pub const USES: [&str; 3] = ["on Azure", "marketplace item", "federation of vendors"];

const CONFIG: &str = "properties.orchestratorProfile.kubernetesConfig";
const MASTER: &str = "properties.masterProfile";
const AGENTS: &str = "properties.agentPoolProfiles";

/// The rule that an option of a definition is refused by, if it is: of a path as [`refused`] gives it, or one of [`USES`].
pub fn rule_of(option: &str) -> Option<&'static str> {
    if USES.contains(&option) {
        return Some("X5");
    }
    let (place, last) = option.rsplit_once('.')?;
    if place == format!("{CONFIG}.addons") {
        return ADDONS.contains(&last).then_some("X1");
    }
    if place == CONFIG {
        return KUBERNETES.contains(&last).then_some("X2");
    }
    if place == MASTER {
        return MASTERS.contains(&last).then_some("X3");
    }
    let pool = place.strip_prefix(AGENTS)?;
    (pool.starts_with('[') && POOLS.contains(&last)).then_some("X4")
}

/// The paths of everything in a definition that is not supported, in the order of the rules. What is turned off is fine.
pub fn refused(definition: &Value) -> Vec<String> {
    let on = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
    let at = |pointer: &str| definition.pointer(pointer).unwrap_or(&Value::Null);
    let config = at("/properties/orchestratorProfile/kubernetesConfig");
    let mut found = Vec::new();
    for addon in config["addons"].as_array().into_iter().flatten() {
        let name = addon["name"].as_str().unwrap_or_default();
        let known = ADDONS.iter().find(|known| known.eq_ignore_ascii_case(name));
        // An add-in that is named without a word is on.
        if let Some(known) = known.filter(|_| addon["enabled"] != Value::Bool(false)) {
            found.push(format!("{CONFIG}.addons.{known}"));
        }
    }
    let options = KUBERNETES.iter().filter(|name| on(&config[**name]));
    found.extend(options.map(|name| format!("{CONFIG}.{name}")));
    let masters = at("/properties/masterProfile");
    let options = MASTERS.iter().filter(|name| on(&masters[**name]));
    found.extend(options.map(|name| format!("{MASTER}.{name}")));
    let pools = at("/properties/agentPoolProfiles");
    for (number, pool) in pools.as_array().into_iter().flatten().enumerate() {
        let options = POOLS.iter().filter(|name| on(&pool[**name]));
        found.extend(options.map(|name| format!("{AGENTS}[{number}].{name}")));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn x1_to_x4_each_option_of_a_definition_is_found_and_is_of_its_rule() {
        let addons: Vec<Value> = ADDONS
            .iter()
            .map(|name| json!({ "name": name, "enabled": true }))
            .collect();
        let options = |names: &[&str]| -> Value {
            let all = names.iter().map(|name| ((*name).to_owned(), json!("on")));
            Value::Object(all.collect())
        };
        let mut config = options(&KUBERNETES);
        config["addons"] = Value::Array(addons);
        let definition = json!({ "properties": {
            "orchestratorProfile": { "kubernetesConfig": config },
            "masterProfile": options(&MASTERS),
            "agentPoolProfiles": [{}, options(&POOLS)],
        } });
        let found = refused(&definition);
        let rules: Vec<_> = found.iter().map(|path| rule_of(path).unwrap()).collect();
        let count = |rule: &str| rules.iter().filter(|found| **found == rule).count();
        assert_eq!(["X1", "X2", "X3", "X4"].map(count), [9, 9, 1, 6]);
        assert_eq!(
            found.last().unwrap(),
            "properties.agentPoolProfiles[1].acceleratedNetworkingEnabledWindows"
        );
    }

    #[test]
    fn what_is_off_or_unknown_is_fine() {
        let fine = json!({ "properties": {
            "orchestratorProfile": { "kubernetesConfig": {
                "useManagedIdentity": false, "etcdEncryptionKey": null, "networkPlugin": "azure",
                "addons": [{ "name": "cluster-autoscaler", "enabled": false }, { "name": "metrics-server" }],
            } },
            "masterProfile": { "count": 3 }, "agentPoolProfiles": "none",
        } });
        assert_eq!(refused(&fine), Vec::<String>::new());
        assert_eq!(refused(&Value::Null), Vec::<String>::new());
        for path in [
            "",
            "x",
            "properties.masterProfile.count",
            "properties.agentPoolProfiles.availabilityZones",
        ] {
            assert_eq!(rule_of(path), None, "{path}");
        }
        assert_eq!(rule_of("on Azure"), Some("X5"));
    }
}
