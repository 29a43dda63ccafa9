//! Each property of the table is sent once, and does what its class says.

mod line;

use std::collections::BTreeSet;

use control_records::ClusterRecord;
use serde_json::{Value, json};

use crate::stamp::{Answer, Stamp};
use line::{Line, entry, lines, parent, put};

/// Properties that are acted on elsewhere than in the spec: where it is tested that they are.
const ELSEWHERE: &[(&str, &str)] = &[
    ("identity.type", "lifecycle: identities are made once and stay"),
    (
        "properties.identityProfile{}.resourceId",
        "identities: kubelets have what they are given",
    ),
    (
        "properties.vnetSubnetID",
        "subnets: it names what has to be there first",
    ),
    (
        "properties.autoUpgradeProfile.upgradeChannel",
        "channels: what it asks for is asked for in its window",
    ),
    (
        "properties.autoUpgradeProfile.nodeOSUpgradeChannel",
        "channels: what it asks for is asked for in its window",
    ),
    (
        "properties.creationData.sourceResourceId",
        "pool_snapshots: it names what has to be there first",
    ),
    (
        "properties.apiServerAccessProfile.disableRunCommand",
        "commands: none is taken",
    ),
    (
        "properties.aadProfile.tenantID",
        "authentication: another tenant is refused",
    ),
];

fn cluster() -> Value {
    json!({ "location": "local", "properties": { "agentPoolProfiles": [{ "name": "np1", "mode": "System", "count": 1 }] } })
}

/// What came of a body that was sent.
struct Sent {
    answer: Answer,
    record: Option<ClusterRecord>,
    /// Where in the answer the property is to be.
    pointer: String,
}

async fn send(resource: &str, version: &'static str, body: Value) -> (Answer, Option<ClusterRecord>) {
    let mut stamp = Stamp::new().await;
    stamp.add_identity("own").await;
    let path = if resource == "cluster" {
        "managedClusters/c"
    } else {
        let mut around = cluster();
        // Newer than what a pool may ask for.
        around["properties"]["kubernetesVersion"] = json!("1.37.1");
        stamp.create("c", around).await;
        "managedClusters/c/agentPools/np2"
    };
    stamp.api_version = version;
    let answer = stamp.ask("PUT", path, body).await;
    (answer, stamp.record("c").await)
}

async fn send_one(all: &[Line], line: &Line, value: Value, mut body: Value) -> Sent {
    put(all, line, value, &mut body);
    let (answer, record) = send(line.resource, line.version(all), body).await;
    let mut pointer = String::new();
    for segment in line.path.split('.') {
        let name = segment.trim_end_matches("[]").trim_end_matches("{}");
        pointer += &format!("/{name}");
        if segment.ends_with("[]") {
            pointer += "/0";
        } else if segment.ends_with("{}") {
            pointer += &format!("/{}", entry(line.path).replace('/', "~1"));
        }
    }
    Sent {
        answer,
        record,
        pointer,
    }
}

fn base(resource: &str) -> Value {
    if resource == "cluster" {
        cluster()
    } else {
        json!({ "properties": {} })
    }
}

/// What was asked for: a spec without what is drawn for each cluster.
fn spec(record: Option<&ClusterRecord>) -> Value {
    let Some(record) = record else { return Value::Null };
    let mut spec = json!(record.spec());
    // What is drawn of the issuer's name is the cluster's uid.
    if record.spec().issuer.is_some() {
        spec["issuer"] = json!(true);
    }
    let name = spec["fqdn"].as_str().and_then(|fqdn| fqdn.split_once(".hcp."));
    let prefix = name.and_then(|(label, _)| label.rsplit_once('-'));
    spec["fqdn"] = json!(prefix.map(|(prefix, _)| prefix));
    for pool in spec["pools"].as_array_mut().into_iter().flatten() {
        pool["incarnation"] = Value::Null;
    }
    spec
}

impl Sent {
    fn targets(&self) -> Vec<&str> {
        let error = &self.answer.body["error"];
        let details = error["details"].as_array().into_iter().flatten();
        details
            .chain([error])
            .filter_map(|problem| problem["target"].as_str())
            .collect()
    }

    /// Refused under the property's own name, or that of a list that it is in.
    fn is_refused(&self, line: &Line) -> bool {
        let path = line
            .path
            .replace("[]", "[0]")
            .replace("{}", &format!(".{}", entry(line.path)));
        self.answer.status == 400
            && self.targets().iter().any(|target| {
                path.strip_prefix(target)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            })
    }
}

/// Prefix of the autoscaler's settings.
const AUTOSCALER: &str = "properties.autoScalerProfile.";

/// A value that differs from the default of an autoscaler setting.
fn autoscaler_setting(path: &str) -> Value {
    match path.strip_prefix(AUTOSCALER).unwrap() {
        "ignore-daemonsets-utilization" => json!(true),
        "balance-similar-node-groups" => json!("true"),
        "expander" => json!("most-pods"),
        "max-empty-bulk-delete" | "max-graceful-termination-sec" | "ok-total-unready-count" => json!("7"),
        "max-total-unready-percentage" => json!("50"),
        "new-pod-scale-up-delay" | "scan-interval" => json!("20s"),
        "scale-down-utilization-threshold" => json!("0.6"),
        "skip-nodes-with-local-storage" | "skip-nodes-with-system-pods" => json!("false"),
        _ => json!("1m"),
    }
}

/// A body in which the property makes a difference, and values of which one does.
fn effective(line: &Line) -> Option<(Value, Vec<Value>)> {
    let body = base(line.resource);
    let properties = |value: Value| json!({ "location": "local", "properties": value });
    let (body, values) = match (line.resource, line.path) {
        ("pool", "properties.count") => (body, vec![json!(2)]),
        ("pool", "properties.vmSize") => (body, vec![json!("Standard_B4ms")]),
        ("pool", "properties.osDiskSizeGB") => (body, vec![json!(64)]),
        ("pool", "properties.maxPods") => (body, vec![json!(50)]),
        ("pool", "properties.mode") => (body, vec![json!("System")]),
        ("pool", "properties.powerState.code") => (body, vec![json!("Stopped")]),
        ("pool", "properties.orchestratorVersion") => (body, vec![json!("1.36")]),
        ("pool", "properties.upgradeSettings.maxSurge") => (body, vec![json!("5")]),
        ("pool", "properties.upgradeSettings.maxUnavailable") => (body, vec![json!("1")]),
        ("pool", "properties.upgradeSettings.drainTimeoutInMinutes") => (body, vec![json!(45)]),
        ("pool", "properties.upgradeSettings.nodeSoakDurationInMinutes") => (body, vec![json!(5)]),
        ("pool", "properties.upgradeSettings.undrainableNodeBehavior") => (body, vec![json!("Cordon")]),
        ("cluster", "properties.upgradeSettings.overrideSettings.forceUpgrade") => (
            properties(
                json!({ "upgradeSettings": { "overrideSettings": { "until": "2030-01-01T00:00:00Z" } } }),
            ),
            vec![json!(true)],
        ),
        ("cluster", "properties.upgradeSettings.overrideSettings.until") => (
            properties(json!({ "upgradeSettings": { "overrideSettings": { "forceUpgrade": true } } })),
            vec![json!("2030-01-01T00:00:00Z")],
        ),
        ("pool", "properties.enableAutoScaling") => (
            json!({ "properties": { "minCount": 1, "maxCount": 3 } }),
            vec![json!(true)],
        ),
        ("pool", "properties.minCount") => (
            json!({ "properties": { "enableAutoScaling": true, "maxCount": 3 } }),
            vec![json!(2)],
        ),
        ("pool", "properties.maxCount") => (
            json!({ "properties": { "enableAutoScaling": true, "minCount": 1 } }),
            vec![json!(2)],
        ),
        ("pool", "properties.nodeLabels") => (body, vec![json!({ "a": "b" })]),
        ("pool", "properties.nodeTaints") => (body, vec![json!(["k=v:NoSchedule"])]),
        ("cluster", "properties.kubernetesVersion") => (body, vec![json!("1.37.1"), json!("1.36.3")]),
        ("cluster", "properties.dnsPrefix") => (body, vec![json!("another")]),
        ("cluster", "properties.agentPoolProfiles") => (
            body,
            vec![json!([{ "name": "np1", "mode": "System", "count": 1 }, { "name": "np2" }])],
        ),
        ("cluster", "properties.agentPoolProfiles[].name") => (body, vec![json!("another")]),
        ("cluster", "properties.nodeResourceGroup") => (body, vec![json!("another")]),
        ("cluster", "properties.networkProfile.networkPlugin") => (body, vec![json!("kubenet")]),
        ("cluster", "properties.networkProfile.networkPluginMode") => (
            properties(json!({ "networkProfile": { "networkPlugin": "azure" } })),
            vec![json!("overlay")],
        ),
        ("cluster", "properties.networkProfile.networkPolicy") => {
            (body, vec![json!("calico"), json!("azure")])
        }
        ("cluster", "properties.networkProfile.podCidr") => (body, vec![json!("10.100.0.0/16")]),
        ("cluster", "properties.networkProfile.podCidrs") => (body, vec![json!(["10.100.0.0/16"])]),
        ("cluster", "properties.networkProfile.serviceCidr") => (body, vec![json!("10.5.0.0/16")]),
        ("cluster", "properties.networkProfile.serviceCidrs") => (body, vec![json!(["10.5.0.0/16"])]),
        ("cluster", "properties.networkProfile.dnsServiceIP") => (body, vec![json!("10.0.0.20")]),
        ("cluster", "properties.networkProfile.outboundType") => (body, vec![json!("none")]),
        ("cluster", "properties.apiServerAccessProfile.authorizedIPRanges") => {
            (body, vec![json!(["203.0.113.0/24"])])
        }
        ("cluster", "properties.apiServerAccessProfile.enablePrivateCluster") => (body, vec![json!(true)]),
        ("cluster", "properties.disableLocalAccounts") => (
            properties(json!({ "aadProfile": { "managed": true } })),
            vec![json!(true)],
        ),
        ("cluster", "properties.oidcIssuerProfile.enabled") => (body, vec![json!(true)]),
        ("cluster", "properties.securityProfile.workloadIdentity.enabled") => (
            properties(json!({ "oidcIssuerProfile": { "enabled": true } })),
            vec![json!(true)],
        ),
        (
            "cluster",
            "properties.storageProfile.diskCSIDriver.enabled"
            | "properties.storageProfile.fileCSIDriver.enabled"
            | "properties.storageProfile.snapshotController.enabled",
        ) => (body, vec![json!(false)]),
        ("cluster", "properties.ingressProfile.webAppRouting.enabled") => (body, vec![json!(true)]),
        ("cluster", "properties.ingressProfile.webAppRouting.nginx.defaultIngressControllerType") => (
            properties(json!({ "ingressProfile": { "webAppRouting": { "enabled": true } } })),
            vec![json!("Internal")],
        ),
        ("cluster", "properties.ingressProfile.gatewayAPI.installation") => (body, vec![json!("Standard")]),
        ("cluster", "properties.aadProfile.managed") => (body, vec![json!(true)]),
        ("cluster", "properties.aadProfile.enableAzureRBAC") => (
            properties(json!({ "aadProfile": { "managed": true } })),
            vec![json!(true)],
        ),
        ("cluster", "properties.aadProfile.adminGroupObjectIDs") => (
            properties(json!({ "aadProfile": { "managed": true } })),
            vec![json!(["11111111-0000-4000-8000-000000000001"])],
        ),
        ("cluster", path) if path.starts_with(AUTOSCALER) => (body, vec![autoscaler_setting(path)]),
        ("cluster", "sku.tier") => (body, vec![json!("Standard")]),
        _ => return None,
    };
    Some((body, values))
}

/// What is wrong with a class, if anything.
async fn check(all: &[Line], line: &Line) -> Option<String> {
    let base = base(line.resource);
    let unchanged = spec(
        send(line.resource, line.version(all), base.clone())
            .await
            .1
            .as_ref(),
    );
    match (line.access, line.class) {
        ("RO", _) => {
            let value = line.bad_of_any();
            let mut base = base;
            if line.path.starts_with("identity.userAssignedIdentities") {
                base["identity"] = json!({ "type": "UserAssigned" });
            }
            let sent = send_one(all, line, value.clone(), base).await;
            // In a list that is refused as a whole.
            if sent.is_refused(line) && line.path.contains("[]") {
                return None;
            }
            if sent.answer.status != 201 {
                return Some(format!("reported, and refused: {:#}", sent.answer.body));
            }
            (sent.answer.body.pointer(&sent.pointer) == Some(&value))
                .then(|| "reported, and taken from a request".to_owned())
        }
        (_, "works") => {
            let Some((body, values)) = effective(line) else {
                let elsewhere = ELSEWHERE.iter().any(|(path, _)| *path == line.path);
                return (!elsewhere)
                    .then(|| "effective, and nobody says by which value that is seen".to_owned());
            };
            let before = spec(
                send(line.resource, line.version(all), body.clone())
                    .await
                    .1
                    .as_ref(),
            );
            for value in values {
                let sent = send_one(all, line, value, body.clone()).await;
                if sent.answer.status == 201 && spec(sent.record.as_ref()) != before {
                    return None;
                }
            }
            Some("effective, and the spec is what it was".to_owned())
        }
        (access, "kept") => {
            let mut body = base;
            let value = if line.path == "properties.servicePrincipalProfile.clientId" {
                json!("app")
            } else {
                line.good()
            };
            // Whether it is kept is asked where it can be asked for.
            let unchanged = if [
                "properties.apiServerAccessProfile.privateDNSZone",
                "properties.apiServerAccessProfile.enablePrivateClusterPublicFQDN",
            ]
            .contains(&line.path)
            {
                body["properties"]["apiServerAccessProfile"] = json!({ "enablePrivateCluster": true });
                spec(
                    send(line.resource, line.version(all), body.clone())
                        .await
                        .1
                        .as_ref(),
                )
            } else {
                unchanged
            };
            if line.path.starts_with("properties.servicePrincipalProfile") {
                body["properties"]["servicePrincipalProfile"] =
                    json!({ "clientId": "app", "secret": "s3cret" });
            }
            let sent = send_one(all, line, value.clone(), body).await;
            if sent.answer.status != 201 {
                return Some(format!("kept, and refused: {:#}", sent.answer.body));
            }
            if spec(sent.record.as_ref()) != unchanged {
                return Some("kept without effect, and the spec changes".to_owned());
            }
            let shown = sent.answer.body.pointer(&sent.pointer);
            if access == "WO" {
                let sealed = sent
                    .record
                    .is_some_and(|record| record.sealed.contains_key(line.path));
                return (shown.is_some() || !sealed).then(|| "a secret that is shown, or lost".to_owned());
            }
            (shown != Some(&value)).then(|| format!("kept, and given back as {shown:?}"))
        }
        (_, "default" | "present" | "notyet") => {
            let sent = send_one(all, line, line.bad(), base.clone()).await;
            if !sent.is_refused(line) {
                return Some(format!(
                    "refused, and answered {}: {:#}",
                    sent.answer.status, sent.answer.body
                ));
            }
            for word in line.accepts.iter().filter(|_| line.class == "default") {
                let sent = send_one(all, line, line.word(word), base.clone()).await;
                if sent.answer.status != 201 || spec(sent.record.as_ref()) != unchanged {
                    return Some(format!(
                        "'{word}' is so anyway, and answered {:#}",
                        sent.answer.body
                    ));
                }
            }
            None
        }
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn each_property_does_what_its_class_says() {
    let all = lines();
    let mut wrong = Vec::new();
    let mut sent = 0;
    for line in &all {
        let class = match (line.access, line.class) {
            ("RO", _) | (_, "works" | "kept" | "default" | "present" | "notyet") => line,
            (_, "group") => continue,
            _ => {
                wrong.push(format!("{} {}: without a class", line.resource, line.path));
                continue;
            }
        };
        sent += 1;
        if let Some(why) = check(&all, class).await {
            wrong.push(format!("{} {}: {why}", line.resource, line.path));
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\n{} of {sent}",
        wrong.join("\n"),
        wrong.len()
    );
    assert!(sent > 400, "{sent} were sent");
}

#[test]
fn every_group_has_members_and_every_member_a_group() {
    let all = lines();
    let parents: BTreeSet<(&str, &str)> = all
        .iter()
        .map(|line| (line.resource, parent(line.path)))
        .collect();
    for line in &all {
        let has = parents.contains(&(line.resource, line.path));
        let items = line.path == "properties.agentPoolProfiles" || has;
        assert!(line.class != "group" || items, "{} {}", line.resource, line.path);
        let own = parent(line.path);
        assert!(
            own.is_empty() || all.iter().any(|other| other.is(line.resource, own)),
            "{}",
            line.path
        );
    }
}
