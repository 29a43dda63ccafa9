//! Scale sets, instances and disks as ARM shows them. Pure.

use std::collections::BTreeMap;

use cluster_spec::{PoolMode, node_image_version};
use control_records::volume::VolumeRecord;
use serde_json::{Value, json};

use super::{DISKS, INSTANCES, NAMESPACE, SETS, SNAPSHOTS};
use crate::{
    network::{NAMESPACE as NETWORK, SUBNET, VNET},
    place::{Instance, Place, Set, State},
};

/// A scale set.
pub(crate) fn set(set: &Set<'_>) -> Value {
    let (place, pool) = (set.place, set.pool);
    let states: Vec<State> = states(set);
    let provisioning = match () {
        () if place.cluster.deleting => "Deleting",
        () if states.len() == pool.wanted() as usize && states.iter().all(|state| is_settled(*state)) => {
            "Succeeded"
        }
        () => "Updating",
    };
    let mut shown = place.resource(
        NAMESPACE,
        SETS,
        &set.name,
        json!({
            "provisioningState": provisioning,
            "orchestrationMode": "Uniform",
            "singlePlacementGroup": false,
            "overprovision": false,
            "platformFaultDomainCount": 1,
            "upgradePolicy": { "mode": "Manual" },
            "timeCreated": place.cluster.created_at.to_string(),
            "virtualMachineProfile": {
                "osProfile": { "computerNamePrefix": set.name },
                "storageProfile": {
                    "osDisk": os_disk(pool.os_disk_gib),
                    "imageReference": image(&pool.kubernetes_version, pool.image.as_deref()),
                },
                "networkProfile": { "networkInterfaceConfigurations": [{
                    "name": set.name,
                    "properties": {
                        "primary": true,
                        "ipConfigurations": [{
                            "name": "ipconfig1",
                            "properties": {
                                "primary": true,
                                "privateIPAddressVersion": "IPv4",
                                "subnet": { "id": subnet(place, &pool.name) },
                            },
                        }],
                    },
                }] },
            },
        }),
    );
    shown["sku"] = json!({ "name": pool.vm_size, "tier": "Standard", "capacity": pool.wanted() });
    shown["tags"]["aks-managed-poolName"] = json!(pool.name);
    shown["tags"]["aks-managed-orchestrator"] = json!(format!("Kubernetes:{}", pool.kubernetes_version));
    let mode = match pool.mode {
        PoolMode::System => "System",
        PoolMode::User => "User",
    };
    shown["tags"]["aks-managed-mode"] = json!(mode);
    shown
}

/// The states of its instances that are to stay.
fn states(set: &Set<'_>) -> Vec<State> {
    let instances = set.instances();
    let states = instances.iter().map(|instance| instance.state(set.place));
    states.filter(|state| *state != State::Deleting).collect()
}

fn is_settled(state: State) -> bool {
    matches!(state, State::Running | State::Off)
}

fn subnet(place: &Place, pool: &str) -> String {
    let pools = place
        .cluster
        .body()
        .pointer("/properties/agentPoolProfiles")
        .and_then(Value::as_array);
    let own = pools.into_iter().flatten().find(|own| own["name"] == pool);
    if let Some(id) = own.and_then(|own| own["vnetSubnetID"].as_str()) {
        return id.to_owned();
    }
    place.id(NETWORK, &[("virtualNetworks", VNET), ("subnets", SUBNET)])
}

fn os_disk(gib: u32) -> Value {
    json!({ "osType": "Linux", "createOption": "FromImage", "diskSizeGB": gib })
}

fn image(version: &str, build: Option<&str>) -> Value {
    json!({ "exactVersion": node_image_version(version, build) })
}

/// How its instances are, by the number of each state.
pub(super) fn set_status(set: &Set<'_>) -> Value {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for instance in set.instances() {
        let state = instance.state(set.place);
        let provisioning = format!("ProvisioningState/{}", state.provisioning().to_lowercase());
        *counts.entry(provisioning).or_default() += 1;
        *counts.entry(state.power().0.to_owned()).or_default() += 1;
    }
    let summary: Vec<Value> = counts
        .into_iter()
        .map(|(code, count)| json!({ "code": code, "count": count }))
        .collect();
    json!({
        "virtualMachine": { "statusesSummary": summary },
        "extensions": [],
        "statuses": [],
        "orchestrationServices": [],
    })
}

fn instance_id(set: &Set<'_>, instance: &Instance<'_>) -> String {
    let number = instance.index.to_string();
    set.place
        .id(NAMESPACE, &[(SETS, &set.name), (INSTANCES, &number)])
}

fn disk_name(set: &Set<'_>, instance: &Instance<'_>) -> String {
    format!("{}_{}_OsDisk", set.name, instance.index)
}

/// An instance of a scale set.
pub(super) fn instance(set: &Set<'_>, instance: &Instance<'_>, with_status: bool) -> Value {
    let (place, pool) = (set.place, set.pool);
    let state = instance.state(place);
    let mut disk = os_disk(pool.os_disk_gib);
    let name = disk_name(set, instance);
    disk["managedDisk"] = json!({ "id": place.id(NAMESPACE, &[(DISKS, &name)]) });
    disk["name"] = json!(name);
    let machine = instance.machine;
    // A build that is not known on one side tells nothing.
    let other = machine.build.is_some() && pool.image.is_some() && machine.build != pool.image;
    let mut properties = json!({
        "provisioningState": state.provisioning(),
        // One of an earlier version is replaced by the pool's upgrade.
        "latestModelApplied": machine.image == pool.kubernetes_version && !other,
        "modelDefinitionApplied": "VirtualMachineScaleSet",
        "timeCreated": machine.created_at.to_string(),
        "hardwareProfile": { "vmSize": pool.vm_size },
        "osProfile": { "computerName": instance.node_name },
        "storageProfile": { "osDisk": disk, "imageReference": image(&machine.image, machine.build.as_deref()) },
        "networkProfileConfiguration": { "networkInterfaceConfigurations": [{
            "name": set.name,
            "properties": { "primary": true, "ipConfigurations": [{
                "name": "ipconfig1",
                "properties": {
                    "primary": true,
                    "privateIPAddressVersion": "IPv4",
                    "privateIPAddress": instance.address,
                    "subnet": { "id": subnet(place, &pool.name) },
                },
            }] },
        }] },
    });
    if with_status {
        properties["instanceView"] = instance_status(set, instance);
    }
    let mut shown = place.resource(NAMESPACE, SETS, &set.name, properties);
    shown["id"] = json!(instance_id(set, instance));
    shown["name"] = json!(format!("{}_{}", set.name, instance.index));
    shown["type"] = json!(format!("{NAMESPACE}/{SETS}/{INSTANCES}"));
    shown["instanceId"] = json!(instance.index.to_string());
    shown["sku"] = json!({ "name": pool.vm_size, "tier": "Standard" });
    shown
}

/// What an instance is doing.
pub(super) fn instance_status(set: &Set<'_>, instance: &Instance<'_>) -> Value {
    let state = instance.state(set.place);
    let provisioning = state.provisioning();
    let (code, words) = state.power();
    let mut statuses = vec![
        json!({
            "code": format!("ProvisioningState/{}", provisioning.to_lowercase()),
            "level": "Info",
            "displayStatus": format!("Provisioning {}", provisioning.to_lowercase()),
        }),
        json!({ "code": code, "level": "Info", "displayStatus": words }),
    ];
    let healing = &instance.machine.healing;
    if let Some(held) = &healing.held {
        statuses.push(json!({
            "code": "Healing/held", "level": "Warning", "displayStatus": "Not repaired", "message": held,
        }));
    } else if !healing.reason.is_empty() {
        statuses.push(json!({
            "code": "Healing/repaired", "level": "Info", "displayStatus": "Repaired", "message": healing.reason,
            "time": healing.at.map(|at| at.to_string()),
        }));
    }
    json!({
        "computerName": instance.node_name,
        "osName": "debian",
        "osVersion": "12",
        "hyperVGeneration": "V2",
        "statuses": statuses,
    })
}

/// The disk of an instance.
pub(super) fn disk(set: &Set<'_>, instance: &Instance<'_>) -> Value {
    let place = set.place;
    let state = instance.state(place);
    let mut shown = place.resource(
        NAMESPACE,
        DISKS,
        &disk_name(set, instance),
        json!({
            "osType": "Linux",
            "diskSizeGB": set.pool.os_disk_gib,
            "diskSizeBytes": u64::from(set.pool.os_disk_gib) << 30,
            "diskState": if state == State::Off { "Reserved" } else { "Attached" },
            "provisioningState": if state == State::Deleting { "Deleting" } else { "Succeeded" },
            "timeCreated": instance.machine.created_at.to_string(),
            "creationData": { "createOption": "FromImage" },
            "uniqueId": instance.machine.id,
        }),
    );
    shown["managedBy"] = json!(instance_id(set, instance));
    shown
}

/// The disk of a claim. Who has it is not in the records, so nothing is said of that.
pub(super) fn volume(place: &Place, record: &VolumeRecord) -> Value {
    let state = match () {
        () if record.deleting || place.cluster.deleting => "Deleting",
        () if record.published => "Succeeded",
        () => "Creating",
    };
    let mut shown = place.resource(
        NAMESPACE,
        DISKS,
        &record.name,
        json!({
            "diskSizeGB": record.bytes.div_ceil(1 << 30),
            "diskSizeBytes": record.bytes,
            "provisioningState": state,
            "timeCreated": record.created_at.to_string(),
            "creationData": creation(place, record),
            "uniqueId": record.id,
        }),
    );
    // One that was found again without its record has less to tell.
    if !record.sku.is_empty() {
        shown["sku"] = json!({ "name": record.sku, "tier": tier(&record.sku) });
    }
    // As Azure's driver marks what it makes.
    for (name, value) in [
        ("k8s-azure-created-by", "kubernetes-azure-dd"),
        ("kubernetes.io-created-for-pv-name", record.name.as_str()),
        ("kubernetes.io-created-for-pvc-name", record.claim_name.as_str()),
        (
            "kubernetes.io-created-for-pvc-namespace",
            record.claim_namespace.as_str(),
        ),
    ] {
        if !value.is_empty() {
            shown["tags"][name] = json!(value);
        }
    }
    shown
}

/// The name of a snapshot of a disk.
pub(super) fn snapshot_name(record: &VolumeRecord) -> String {
    format!("snapshot-{}", record.claim)
}

/// The snapshot of a VolumeSnapshot.
pub(super) fn snapshot(place: &Place, record: &VolumeRecord) -> Value {
    let mut shown = volume(place, record);
    let name = snapshot_name(record);
    shown["id"] = json!(place.id(NAMESPACE, &[(SNAPSHOTS, &name)]));
    shown["type"] = json!(format!("{NAMESPACE}/{SNAPSHOTS}"));
    shown["name"] = json!(name);
    shown["properties"]["incremental"] = json!(true);
    // The storage of the snapshot; all are on the host's disk.
    if !record.sku.is_empty() {
        shown["sku"] = json!({ "name": "Standard_LRS", "tier": "Standard" });
    }
    let tags = &mut shown["tags"];
    if let Some(tags) = tags.as_object_mut() {
        tags.retain(|name, _| !name.starts_with("kubernetes.io-created-for-"));
    }
    for (name, value) in [
        ("kubernetes.io-created-for-snapshot-name", &record.claim_name),
        (
            "kubernetes.io-created-for-snapshot-namespace",
            &record.claim_namespace,
        ),
        ("kubernetes.io-created-for-snapshotcontent-name", &record.name),
    ] {
        if !value.is_empty() {
            shown["tags"][name] = json!(value);
        }
    }
    shown
}

/// What a disk of a claim began as.
fn creation(place: &Place, record: &VolumeRecord) -> Value {
    let Some(source) = &record.source else {
        return json!({ "createOption": "Empty" });
    };
    let mut shown = json!({ "createOption": "Copy" });
    // It may have gone since.
    if let Some(source) = place.volumes.iter().find(|other| other.id == *source) {
        let id = if source.snapshot {
            place.id(NAMESPACE, &[(SNAPSHOTS, &snapshot_name(source))])
        } else {
            place.id(NAMESPACE, &[(DISKS, &source.name)])
        };
        shown["sourceResourceId"] = json!(id);
    }
    shown
}

pub(super) fn tier(sku: &str) -> &'static str {
    match sku {
        _ if sku.starts_with("Premium") => "Premium",
        _ if sku.starts_with("Ultra") => "Ultra",
        _ => "Standard",
    }
}

/// A line in lists of resources.
pub(crate) fn summary(mut shown: Value) -> Value {
    let state = shown["properties"]["provisioningState"].take();
    let created = shown["properties"]["timeCreated"].take();
    let Some(members) = shown.as_object_mut() else {
        return shown;
    };
    members.remove("properties");
    for (name, value) in [
        ("provisioningState", state),
        ("createdTime", created.clone()),
        ("changedTime", created),
    ] {
        if !value.is_null() {
            members.insert(name.to_owned(), value);
        }
    }
    shown
}
