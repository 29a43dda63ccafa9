//! Disks and public IP addresses that tenants make, and clusters that use them, through the real edge, providers and loops.

use anyhow::{Context as _, Result, ensure};
use fabric_sim::PlantedClaim;
use serde_json::{Value, json};
use simulation::{run, script::Player};

use crate::stand::{converged, put, settled};

/// Answers of PUT that clients wait for: the resource is asked for until it is made.
async fn make(player: &mut Player, path: &str, body: Value) -> Result<Value> {
    let answer = player.stamp.arm("PUT", path, Some(body)).await?;
    ensure!(answer.status < 300, "{path}: {} {}", answer.status, answer.body);
    converged(player).await?;
    let made = player.stamp.arm("GET", path, None).await?.body;
    let state = &made["properties"]["provisioningState"];
    ensure!(*state == "Succeeded", "{path} is {state}: {made}");
    Ok(made)
}

/// A PersistentVolume of this name in a cluster, made by hand for a claim of the same name and bound to it.
fn by_hand(player: &Player, uid: &str, name: &str, disk: &Value) -> Result<()> {
    let claim = PlantedClaim {
        name: name.to_owned(),
        gib: 4,
        class: "by-hand".to_owned(),
        ..PlantedClaim::default()
    };
    ensure!(
        player.stamp.world.plant_claim(uid, &claim),
        "there is such a claim"
    );
    let claims = player.stamp.world.storage(uid).claims;
    let claim = claims.iter().find(|claim| claim["metadata"]["name"] == name);
    let claim = claim.context("the claim is not there")?;
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name, "uid": format!("uid of {name}") },
        "spec": {
            "capacity": { "storage": "4Gi" }, "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
            "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "by-hand",
            "claimRef": { "namespace": "default", "name": name, "uid": claim["metadata"]["uid"] },
            "csi": { "driver": "disk.csi.azure.com", "volumeHandle": disk }
        }
    });
    player
        .stamp
        .world
        .put_object(uid, &format!("v1/PersistentVolume {name}"), volume);
    Ok(())
}

#[test]
fn a_disk_of_a_tenant_is_attached_by_one_cluster_at_a_time_and_outlives_it() -> Result<()> {
    run(async || {
        let (mut player, first) = settled().await?;
        for line in ["create c2 np1=1", "settle"] {
            player.command(line).await?;
        }
        let second = player.stamp.cluster("c2").await?.context("there is no c2")?.uid;
        let compute = "resourceGroups/rg/providers/Microsoft.Compute";
        let body = |properties: Value| json!({ "location": "local", "properties": properties });
        let empty = body(json!({ "creationData": { "createOption": "Empty" }, "diskSizeGB": 4 }));
        let at = format!("{compute}/disks/data");
        let disk = make(&mut player, &at, empty).await?;
        for uid in [&first, &second] {
            by_hand(&player, uid, "mine", &disk["id"])?;
        }
        let attached = |player: &Player, uid: &str| {
            let attachments = player.stamp.world.storage(uid).attachments;
            attachments
                .iter()
                .any(|attachment| attachment["status"]["attached"] == true)
        };
        let told = |player: &Player, uid: &str| {
            let attachments = player.stamp.world.storage(uid).attachments;
            let told = attachments
                .first()
                .map(|attachment| attachment["status"]["attachError"]["message"].clone());
            told.and_then(|told| told.as_str().map(str::to_owned))
                .unwrap_or_default()
        };
        // The cluster's identity has no role there.
        player.command("use c1 mine").await?;
        player.command("wait 30").await?;
        ensure!(!attached(&player, &first), "it has no right");
        let why = told(&player, &first);
        ensure!(why.contains("az role assignment create"), "{why}");
        for (number, name) in ["c1", "c2"].into_iter().enumerate() {
            let cluster = player.stamp.cluster(name).await?.context("there is no cluster")?;
            let identity = cluster.body().pointer("/identity/principalId").cloned();
            let assignment = format!("0c0a0a0a-0000-4000-8000-00000000000{number}");
            let path = format!("{at}/providers/Microsoft.Authorization/roleAssignments/{assignment}");
            let properties = json!({
                "roleDefinitionId": "/providers/Microsoft.Authorization/roleDefinitions/b24988ac-6180-42a0-ab88-20f7382dd24c",
                "principalId": identity, "principalType": "ServicePrincipal",
            });
            put(&mut player, &path, properties).await?;
        }
        player.command("wait 30").await?;
        ensure!(attached(&player, &first), "{}", told(&player, &first));
        let shown = player.stamp.arm("GET", &at, None).await?.body;
        ensure!(shown["properties"]["diskState"] == "Attached", "{shown}");
        let refused = player.stamp.arm("DELETE", &at, None).await?;
        ensure!(
            refused.body["error"]["code"] == "OperationNotAllowed",
            "{}",
            refused.body
        );

        // Never two.
        player.command("use c2 mine").await?;
        player.command("wait 30").await?;
        ensure!(!attached(&player, &second), "two clusters have it");
        let why = told(&player, &second);
        ensure!(why.contains("another cluster"), "{why}");
        player.command("kill").await?;
        player.command("leave c1 mine").await?;
        player.command("start").await?;
        player.command("wait 60").await?;
        ensure!(attached(&player, &second), "{}", told(&player, &second));
        ensure!(!attached(&player, &first), "it has let go");

        let of = shown["id"].clone();
        let copy = body(json!({ "creationData": { "createOption": "Copy", "sourceResourceId": of } }));
        let taken = format!("{compute}/snapshots/before");
        make(&mut player, &taken, copy).await?;
        // The cluster goes, and what is its tenant's stays.
        for line in ["delete c2", "settle"] {
            player.command(line).await?;
        }
        let shown = player.stamp.arm("GET", &at, None).await?.body;
        ensure!(shown["properties"]["diskState"] == "Unattached", "{shown}");
        for path in [&at, &taken] {
            let gone = player.stamp.arm("DELETE", path, None).await?;
            ensure!(gone.status == 200, "{} {}", gone.status, gone.body);
        }
        player.command("wait 60").await?;
        let left = player.stamp.world.volumes();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
}

/// A Service with one port that names a public IP address of the group of the cluster.
fn front(player: &Player, uid: &str, name: &str, port: u16) {
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "namespace": "default", "name": name, "uid": format!("{name}-{uid}"),
            "annotations": {
                "service.beta.kubernetes.io/azure-pip-name": "front",
                "service.beta.kubernetes.io/azure-load-balancer-resource-group": "rg"
            }
        },
        "spec": {
            "type": "LoadBalancer", "externalTrafficPolicy": "Cluster",
            "ports": [{ "port": port, "nodePort": 30000 + port, "protocol": "TCP" }]
        },
        "status": { "loadBalancer": {} }
    });
    player
        .stamp
        .world
        .put_object(uid, &format!("v1/Service default/{name}"), service);
}

#[test]
fn services_share_a_public_address_of_a_tenant_and_leave_it() -> Result<()> {
    run(async || {
        let (mut player, uid) = settled().await?;
        let at = "resourceGroups/rg/providers/Microsoft.Network/publicIPAddresses/front";
        let made = make(&mut player, at, json!({ "location": "local" })).await?;
        let address = made["properties"]["ipAddress"]
            .as_str()
            .context("no address")?
            .to_owned();
        let cluster = player.stamp.cluster("c1").await?.context("there is no cluster")?;
        let identity = cluster.body().pointer("/identity/principalId").cloned();
        let path = format!(
            "{at}/providers/Microsoft.Authorization/roleAssignments/0c0a0a0a-0000-4000-8000-000000000009"
        );
        let properties = json!({
            "roleDefinitionId": "/providers/Microsoft.Authorization/roleDefinitions/4d97b98b-1d4f-4787-a291-c67834d212e7",
            "principalId": identity, "principalType": "ServicePrincipal",
        });
        put(&mut player, &path, properties).await?;
        front(&player, &uid, "web", 80);
        front(&player, &uid, "tls", 443);
        player.command("wait 30").await?;
        converged(&mut player).await?;
        let balancers = |player: &Player| -> Vec<(String, u16)> {
            let networks = player.stamp.world.networks();
            let balancers = networks.iter().flat_map(|network| &network.balancers);
            let each = balancers.flat_map(|balancer| {
                let address = balancer.address.to_string();
                balancer
                    .ports
                    .iter()
                    .map(move |port| (address.clone(), port.port))
            });
            let mut each: Vec<_> = each.collect();
            each.sort_unstable();
            each
        };
        ensure!(
            balancers(&player) == [(address.clone(), 80), (address.clone(), 443)],
            "{:?}",
            balancers(&player)
        );
        let refused = player.stamp.arm("DELETE", at, None).await?;
        ensure!(
            refused.body["error"]["code"] == "PublicIPAddressCannotBeDeleted",
            "{}",
            refused.body
        );
        for name in ["web", "tls"] {
            player.command(&format!("drop-service c1 {name}")).await?;
        }
        player.command("wait 30").await?;
        converged(&mut player).await?;
        ensure!(balancers(&player).is_empty(), "{:?}", balancers(&player));
        let gone = player.stamp.arm("DELETE", at, None).await?;
        ensure!(gone.status == 200, "{} {}", gone.status, gone.body);
        let leases = player
            .stamp
            .records::<control_records::LeaseRecord>(control_records::key::LEASES)
            .await?;
        ensure!(!leases.keys().any(|key| key.ends_with(&address)), "{leases:?}");
        Ok(())
    })
}

#[test]
fn a_disk_in_the_group_of_the_nodes_goes_with_the_cluster() -> Result<()> {
    run(async || {
        let (mut player, uid) = settled().await?;
        let nodes = player.stamp.cluster("c1").await?.context("no cluster")?;
        let nodes = format!("resourceGroups/{}", nodes.spec().node_resource_group);
        let body = json!({
            "location": "local",
            "properties": { "creationData": { "createOption": "Empty" }, "diskSizeGB": 4 },
        });
        let at = format!("{nodes}/providers/Microsoft.Compute/disks/data");
        let disk = make(&mut player, &at, body).await?;
        by_hand(&player, &uid, "mine", &disk["id"])?;
        // No role is needed.
        player.command("use c1 mine").await?;
        player.command("settle").await?;
        let attachments = player.stamp.world.storage(&uid).attachments;
        ensure!(attachments[0]["status"]["attached"] == true, "{attachments:?}");
        for line in ["delete c1", "settle"] {
            player.command(line).await?;
        }
        let left = player.stamp.records::<Value>("/disks/").await?;
        ensure!(left.is_empty(), "{left:?}");
        player.command("wait 600").await?;
        let left = player.stamp.world.volumes();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
}
