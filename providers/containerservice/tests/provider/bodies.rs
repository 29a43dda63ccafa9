//! Bodies that clients send: the Azure CLI's, old SDKs', and bodies that were read and are sent back.

use serde_json::{Value, json};

use crate::stamp::{SUBSCRIPTION, Stamp, least, sent_back};

const KEY: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7 user@host\n";

/// `az aks create -g rg1 -n c --generate-ssh-keys` of 2.91.
fn az_create() -> Value {
    json!({
        "location": "local",
        "identity": { "type": "SystemAssigned" },
        "sku": { "name": "Base", "tier": "Free" },
        "properties": {
            "kubernetesVersion": "",
            "dnsPrefix": "c-rg1-000000",
            "agentPoolProfiles": [{
                "name": "nodepool1", "count": 3, "vmSize": "", "osType": "Linux", "type": "VirtualMachineScaleSets", "mode": "System",
                "orchestratorVersion": "", "upgradeSettings": {}, "enableNodePublicIP": false, "enableEncryptionAtHost": false,
                "enableUltraSSD": false, "enableFIPS": false, "nodeTaints": [], "scaleDownMode": "Delete",
                "workloadRuntime": "OCIContainer", "networkProfile": {}, "securityProfile": { "enableVTPM": false, "enableSecureBoot": false }
            }],
            "linuxProfile": { "adminUsername": "azureuser", "ssh": { "publicKeys": [{ "keyData": KEY }] } },
            "addonProfiles": {},
            "enableRBAC": true,
            "networkProfile": { "outboundType": "loadBalancer", "loadBalancerSku": "standard" },
            "disableLocalAccounts": false,
            "storageProfile": {},
            "bootstrapProfile": { "artifactSource": "Direct" }
        }
    })
}

/// The 2.66 line, profile 2020-09-01-hybrid: the SDK fills in defaults.
fn az_create_hybrid() -> Value {
    json!({
        "location": "local",
        "identity": { "type": "SystemAssigned" },
        "sku": { "name": "Base", "tier": "Free" },
        "properties": {
            "kubernetesVersion": "",
            "dnsPrefix": "c-rg1-000000",
            "agentPoolProfiles": [{
                "name": "nodepool1", "count": 2, "vmSize": "Standard_DS2_v2", "osType": "Linux", "type": "VirtualMachineScaleSets",
                "mode": "System", "spotMaxPrice": -1.0, "scaleSetPriority": "Regular", "scaleSetEvictionPolicy": "Delete",
                "enableAutoScaling": null, "enableNodePublicIP": false
            }],
            "linuxProfile": { "adminUsername": "azureuser", "ssh": { "publicKeys": [{ "keyData": KEY }] } },
            "enableRBAC": true,
            "networkProfile": {
                "networkPlugin": "kubenet", "podCidr": "10.244.0.0/16", "serviceCidr": "10.0.0.0/16", "dnsServiceIP": "10.0.0.10",
                "dockerBridgeCidr": "172.17.0.1/16", "outboundType": "loadBalancer", "loadBalancerSku": "basic"
            }
        }
    })
}

/// The defaults of Terraform's azurerm, as a request.
fn azurerm_create() -> Value {
    // Too large for the macro.
    let text = r#"{
        "location": "local",
        "identity": {"type": "SystemAssigned"},
        "sku": {"name": "Base", "tier": "Free"},
        "tags": {},
        "properties": {
            "kubernetesVersion": "",
            "dnsPrefix": "c",
            "nodeResourceGroup": "",
            "enableRBAC": true,
            "disableLocalAccounts": false,
            "supportPlan": "KubernetesOfficial",
            "addonProfiles": {},
            "apiServerAccessProfile": {"enablePrivateCluster": false, "enablePrivateClusterPublicFQDN": false, "disableRunCommand": false},
            "autoUpgradeProfile": {"nodeOSUpgradeChannel": "NodeImage", "upgradeChannel": "none"},
            "oidcIssuerProfile": {"enabled": false},
            "securityProfile": {"workloadIdentity": {"enabled": false}},
            "metricsProfile": {"costAnalysis": {"enabled": false}},
            "bootstrapProfile": {"artifactSource": "Direct"},
            "nodeProvisioningProfile": {"mode": "Manual", "defaultNodePools": "Auto"},
            "agentPoolProfiles": [
                {
                    "name": "default",
                    "count": 1,
                    "vmSize": "Standard_B2s",
                    "mode": "System",
                    "type": "VirtualMachineScaleSets",
                    "osType": "Linux",
                    "osDiskType": "Managed",
                    "kubeletDiskType": "",
                    "orchestratorVersion": "",
                    "scaleDownMode": "Delete",
                    "enableAutoScaling": false,
                    "enableEncryptionAtHost": false,
                    "enableFIPS": false,
                    "enableNodePublicIP": false,
                    "enableUltraSSD": false,
                    "gpuInstanceProfile": "",
                    "nodeTaints": [],
                    "tags": {},
                    "upgradeSettings": {"maxSurge": "10%", "nodeSoakDurationInMinutes": 0},
                    "workloadRuntime": "OCIContainer"
                }
            ],
            "networkProfile": {"networkPlugin": "kubenet", "loadBalancerSku": "standard", "outboundType": "loadBalancer", "ipFamilies": ["IPv4"]}
        }
    }"#;
    serde_json::from_str(text).expect("it is JSON")
}

#[tokio::test(start_paused = true)]
async fn what_azurerm_sends_is_true_and_a_second_time_nothing_changes() {
    let stamp = Stamp::new().await;
    let asked = azurerm_create();
    let created = stamp.create("c", asked.clone()).await;
    for pointer in [
        "/properties/autoUpgradeProfile",
        "/properties/oidcIssuerProfile",
        "/properties/apiServerAccessProfile/disableRunCommand",
        "/properties/agentPoolProfiles/0/enableEncryptionAtHost",
        "/properties/agentPoolProfiles/0/upgradeSettings/maxSurge",
        "/properties/networkProfile/outboundType",
    ] {
        assert_eq!(created.pointer(pointer), asked.pointer(pointer), "{pointer}");
    }
    stamp.reach("c").await;
    let before = stamp.record("c").await.unwrap();
    assert_eq!(stamp.ask("PUT", "managedClusters/c", asked).await.status, 200);
    assert_eq!(stamp.record("c").await.unwrap(), before);
    // A body without upgrade settings shows AKS' defaults, too.
    let silent = stamp.create("d", least()).await;
    assert_eq!(
        silent["properties"]["autoUpgradeProfile"],
        json!({ "nodeOSUpgradeChannel": "NodeImage" })
    );
}

#[tokio::test(start_paused = true)]
async fn what_az_creates_is_answered_like_this() {
    let stamp = Stamp::new().await;
    let created = stamp.create("c", az_create()).await;
    insta::assert_json_snapshot!("az_create_answer", created);
    let spec = stamp.record("c").await.unwrap().spec().clone();
    insta::assert_json_snapshot!("az_create_spec", spec);
}

#[tokio::test(start_paused = true)]
async fn the_hybrid_profile_still_works() {
    let mut stamp = Stamp::new().await;
    stamp.api_version = "2020-11-01";
    let created = stamp.create("c", az_create_hybrid()).await;
    assert_eq!(
        created["properties"]["networkProfile"]["networkPlugin"],
        "kubenet"
    );
    assert_eq!(
        created["properties"]["networkProfile"]["loadBalancerSku"],
        "basic"
    );
}

/// Networking of each kind.
fn networks() -> Vec<Value> {
    vec![
        json!({}),
        json!({ "networkPlugin": "kubenet", "podCidr": "10.100.0.0/16" }),
        json!({ "networkPlugin": "azure" }),
        json!({ "networkPlugin": "azure", "podCidr": "10.244.0.0/16" }),
        json!({ "networkPlugin": "Azure", "networkPluginMode": "Overlay", "podCidrs": ["10.64.0.0/10"] }),
        json!({ "networkPlugin": "none", "outboundType": "none" }),
        json!({ "networkPlugin": "azure", "networkPluginMode": "overlay", "networkPolicy": "calico" }),
        json!({ "networkPolicy": "azure" }),
        json!({ "serviceCidr": "10.5.0.0/24", "loadBalancerSku": "Standard", "networkPolicy": "none", "networkDataplane": "azure",
            "loadBalancerProfile": { "managedOutboundIPs": { "count": 1 }, "idleTimeoutInMinutes": 30 } }),
    ]
}

#[tokio::test(start_paused = true)]
async fn what_was_read_can_be_sent_back_and_changes_nothing() {
    for (index, network) in networks().into_iter().enumerate() {
        let stamp = Stamp::new().await;
        let mut body = az_create();
        body["properties"]["networkProfile"] = network.clone();
        stamp.create("c", body.clone()).await;
        stamp.reach("c").await;
        let before = stamp.record("c").await.unwrap();
        let read = stamp.get("managedClusters/c").await.body;
        let mut request = stamp.request("GET", "managedClusters/c", Value::Null);
        request.api_version = "2024-08-01".to_owned();
        let older = stamp.send(request).await.body;
        // With and without the properties that the SDK's models mark read-only; the original request again;
        // and from an older client.
        for (version, body) in [
            ("2026-06-01", read.clone()),
            ("2026-06-01", sent_back(&read)),
            ("2024-08-01", sent_back(&older)),
            ("2026-06-01", body),
        ] {
            let mut request = stamp.request("PUT", "managedClusters/c", body);
            request.api_version = version.to_owned();
            let answer = stamp.send(request).await;
            assert_eq!(answer.status, 200, "{index} {network} {:#}", answer.body);
            let after = stamp.record("c").await.unwrap();
            assert_eq!(after.spec(), before.spec(), "{network}");
            assert_eq!(after.pool_generations, before.pool_generations);
        }
        let pool = stamp.get("managedClusters/c/agentPools/nodepool1").await.body;
        let answer = stamp
            .ask("PUT", "managedClusters/c/agentPools/nodepool1", pool)
            .await;
        assert_eq!(answer.status, 200, "{:#}", answer.body);
        assert_eq!(stamp.record("c").await.unwrap().spec(), before.spec());
    }
}

#[tokio::test(start_paused = true)]
async fn scale_update_and_nodepool_commands() {
    let stamp = Stamp::new().await;
    stamp.create("c", az_create()).await;
    stamp.reach("c").await;
    // scale: the whole object, count changed, servicePrincipalProfile nulled.
    let mut body = sent_back(&stamp.get("managedClusters/c").await.body);
    body["properties"]["agentPoolProfiles"][0]["count"] = json!(5);
    body["properties"]["servicePrincipalProfile"] = Value::Null;
    let answer = stamp.ask("PUT", "managedClusters/c", body).await;
    assert_eq!(answer.status, 200, "{:#}", answer.body);
    let record = stamp.record("c").await.unwrap();
    assert_eq!(
        (record.spec().pools[0].count, record.pool_generations["nodepool1"]),
        (5, 2)
    );
    // update --tags
    let mut body = sent_back(&stamp.get("managedClusters/c").await.body);
    body["tags"] = json!({ "a": "b" });
    assert_eq!(
        stamp.ask("PUT", "managedClusters/c", body).await.body["tags"],
        json!({ "a": "b" })
    );
    // nodepool add of 2.91
    let body = json!({ "properties": {
        "count": 1, "vmSize": "", "osType": "Linux", "mode": "User", "type": "VirtualMachineScaleSets", "orchestratorVersion": "",
        "upgradeSettings": { "undrainableNodeBehavior": "Schedule" }, "enableNodePublicIP": false, "scaleDownMode": "Delete",
        "enableEncryptionAtHost": false, "enableUltraSSD": false, "enableFIPS": false, "nodeTaints": [],
        "scaleSetPriority": "Regular", "spotMaxPrice": -1, "networkProfile": {},
        "securityProfile": { "enableVTPM": false, "enableSecureBoot": false }, "workloadRuntime": "OCIContainer"
    }});
    let answer = stamp.ask("PUT", "managedClusters/c/agentPools/np2", body).await;
    assert_eq!(answer.status, 201, "{:#}", answer.body);
    // nodepool scale / update: a body that was read, with a change.
    let mut body = stamp.get("managedClusters/c/agentPools/np2").await.body;
    body["properties"]["count"] = json!(0);
    body["properties"]["nodeLabels"] = json!({ "team": "x" });
    let answer = stamp.ask("PUT", "managedClusters/c/agentPools/np2", body).await;
    assert_eq!(answer.status, 200, "{:#}", answer.body);
    assert_eq!(stamp.record("c").await.unwrap().spec().pools[1].count, 0);
    // A template without the second pool does not delete it.
    let answer = stamp.ask("PUT", "managedClusters/c", az_create()).await;
    assert_eq!(
        answer.body["properties"]["agentPoolProfiles"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn a_minor_means_its_newest_patch_and_stays_what_it_was() {
    let stamp = Stamp::new().await;
    let body = json!({ "location": "local", "properties": { "kubernetesVersion": "1.37",
        "agentPoolProfiles": [{ "name": "np", "mode": "System", "orchestratorVersion": "1.36" }] } });
    let created = stamp.create("c", body.clone()).await;
    assert_eq!(created["properties"]["kubernetesVersion"], "1.37");
    assert_eq!(created["properties"]["currentKubernetesVersion"], "1.37.1");
    assert_eq!(
        created["properties"]["agentPoolProfiles"][0]["currentOrchestratorVersion"],
        "1.36.3"
    );
    for version in ["1.37", "1.37.1", ""] {
        let mut body = body.clone();
        body["properties"]["kubernetesVersion"] = json!(version);
        let answer = stamp.ask("PUT", "managedClusters/c", body).await;
        assert_eq!(answer.status, 200, "{version} {:#}", answer.body);
        assert_eq!(answer.body["properties"]["currentKubernetesVersion"], "1.37.1");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_has_no_property_that_its_api_version_does_not_know() {
    let stamp = Stamp::new().await;
    let mut body = least();
    body["properties"]["enableFIPS"] = json!(false);
    let mut request = stamp.request("PUT", "managedClusters/c", body);
    request.api_version = "2026-08-01".to_owned();
    let answer = stamp.send(request).await;
    assert_eq!(answer.body["properties"]["enableFIPS"], false);
    assert_eq!(
        stamp.get("managedClusters/c").await.body["properties"].get("enableFIPS"),
        None
    );
}

#[tokio::test(start_paused = true)]
async fn with_a_plugin_of_ones_own_there_is_no_pod_range() {
    let stamp = Stamp::new().await;
    // The range is that of the machine network: it is not used, so it is not refused either.
    let profile =
        json!({ "networkPlugin": "none", "podCidr": "100.64.0.0/16", "podCidrs": ["100.64.0.0/16"] });
    let mut body = least();
    body["properties"]["networkProfile"] = profile;
    let created = stamp.create("c", body.clone()).await;
    let profile = &created["properties"]["networkProfile"];
    assert_eq!((profile.get("podCidr"), profile.get("podCidrs")), (None, None));
    assert_eq!(stamp.record("c").await.unwrap().spec().network.pod_range, None);
    body["properties"]["networkProfile"]["podCidr"] = json!("10.9.0.0/16");
    body["properties"]["networkProfile"]["podCidrs"] = Value::Null;
    let answer = stamp.ask("PUT", "managedClusters/c", body).await;
    assert_eq!(answer.status, 200, "{:#}", answer.body);
    assert_eq!(answer.body["properties"]["networkProfile"].get("podCidr"), None);
}

#[tokio::test(start_paused = true)]
async fn long_names_make_node_groups_of_their_own() {
    let stamp = Stamp::new().await;
    let group = "g".repeat(79);
    stamp.add_group(&group, false).await;
    let mut names = Vec::new();
    for cluster in ["c1", "c2"] {
        let path = format!(
            "/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.ContainerService/managedClusters/{cluster}"
        );
        let answer = stamp.ask("PUT", &path, least()).await;
        assert_eq!(answer.status, 201, "{:#}", answer.body);
        let name = answer.body["properties"]["nodeResourceGroup"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(name.starts_with("MC_ggg") && name.len() == 80, "{name}");
        // It is unchanged.
        assert_eq!(
            stamp.ask("PUT", &path, least()).await.body["properties"]["nodeResourceGroup"],
            name
        );
        names.push(name);
    }
    assert_ne!(names[0], names[1]);
}

#[tokio::test(start_paused = true)]
async fn labels_and_taints_that_a_put_does_not_name_are_none() {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    let path = "managedClusters/c/agentPools/np";
    let pool = json!({ "properties": { "count": 1, "nodeLabels": { "a": "1" }, "nodeTaints": ["k=v:NoSchedule"], "tags": { "t": "1" } } });
    // In ARM, a PUT replaces. Absent, null and empty are the same; a client that wants to keep them sends
    // them back, as az does.
    for silent in [
        json!({ "properties": { "count": 2 } }),
        json!({ "properties": { "count": 2, "nodeLabels": null, "nodeTaints": null, "tags": null } }),
        json!({ "properties": { "count": 2, "nodeLabels": {}, "nodeTaints": [], "tags": {} } }),
    ] {
        assert!(stamp.ask("PUT", path, pool.clone()).await.status < 300);
        let spec = stamp.record("c").await.unwrap().spec().pools[1].clone();
        assert_eq!((spec.labels.len(), spec.taints.len()), (1, 1));
        assert_eq!(stamp.ask("PUT", path, silent).await.status, 200);
        let spec = stamp.record("c").await.unwrap().spec().pools[1].clone();
        assert_eq!((spec.count, spec.labels.len(), spec.taints.len()), (2, 0, 0));
        let read = stamp.get(path).await.body;
        for field in ["nodeLabels", "nodeTaints", "tags"] {
            let value = &read["properties"][field];
            assert!(
                value.is_null() || *value == json!({}) || *value == json!([]),
                "{field}: {value}"
            );
        }
    }
}
