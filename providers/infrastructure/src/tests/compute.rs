//! Pools as scale sets, nodes as their instances, and volumes of claims as disks.

use cluster_spec::PodNetworking;
use control_records::{ObservedRecord, key, volume::VolumeRecord};
use control_store::{Txn, get_record, put_record};
use serde_json::{Value, json};

use super::{Asked, at};

const COMPUTE: &str = "resourceGroups/MC/providers/Microsoft.Compute";

#[tokio::test]
async fn pools_are_scale_sets_and_nodes_their_instances() {
    let asked = Asked::new(false, PodNetworking::AzureOverlay).await;
    let sets = asked.names(&format!("{COMPUTE}/virtualMachineScaleSets")).await;
    assert_eq!(sets.len(), 2);
    assert_eq!(
        asked
            .names("providers/Microsoft.Compute/virtualMachineScaleSets")
            .await,
        sets
    );
    let other = "resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets";
    assert!(
        asked.names(other).await.is_empty(),
        "they are in the group of the nodes only"
    );
    let first = sets.iter().find(|name| name.starts_with("aks-np1-")).unwrap();
    assert!(first.ends_with("-vmss"), "{first}");
    let at = format!("{COMPUTE}/virtualMachineScaleSets/{first}");
    let set = asked.get(&at).await;
    assert_eq!(
        (&set["sku"]["capacity"], &set["properties"]["provisioningState"]),
        (&json!(2), &json!("Updating"))
    );
    assert_eq!(set["tags"]["aks-managed-poolName"], "np1");

    // The node of an earlier pool of that name is not shown.
    let instances = asked
        .get(&format!("{at}/virtualMachines?$expand=instanceView"))
        .await;
    let numbers: Vec<&Value> = instances["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["instanceId"])
        .collect();
    assert_eq!(numbers, ["0", "40"]);
    let second = asked.get(&format!("{at}/virtualMachines/40")).await;
    let name = second["properties"]["osProfile"]["computerName"]
        .as_str()
        .unwrap();
    assert_eq!(name, format!("{first}000014"), "36 and 4");
    assert_eq!(second["properties"]["provisioningState"], "Updating");
    let codes = |view: &Value| -> Vec<String> {
        let statuses = view["statuses"].as_array().unwrap().iter();
        statuses
            .map(|status| status["code"].as_str().unwrap().to_owned())
            .collect()
    };
    let view = asked.get(&format!("{at}/virtualMachines/40/instanceView")).await;
    assert_eq!(
        codes(&view),
        [
            "ProvisioningState/updating",
            "PowerState/starting",
            "Healing/repaired"
        ]
    );
    assert_eq!(view["statuses"][2]["message"], "its agent says nothing");
    let view = &instances["value"][0]["properties"]["instanceView"];
    assert_eq!(codes(view), ["ProvisioningState/succeeded", "PowerState/running"]);
    let summary = asked.get(&format!("{at}/instanceView")).await;
    assert_eq!(
        summary["virtualMachine"]["statusesSummary"][0],
        json!({ "code": "PowerState/running", "count": 1 })
    );

    let disks = asked.names(&format!("{COMPUTE}/disks")).await;
    assert_eq!(disks, [format!("{first}_0_OsDisk"), format!("{first}_40_OsDisk")]);
    let disk = asked.get(&format!("{COMPUTE}/disks/{}", disks[0])).await;
    assert_eq!(disk["properties"]["diskState"], "Attached");
    assert!(
        disk["managedBy"]
            .as_str()
            .unwrap()
            .ends_with(&format!("{first}/virtualMachines/0"))
    );
    for missing in [
        format!("{COMPUTE}/virtualMachineScaleSets/none"),
        format!("{at}/virtualMachines/7"),
        format!("{at}/virtualMachines/x/instanceView"),
        format!("{COMPUTE}/disks/none"),
        format!("{other}/{first}"),
    ] {
        assert_eq!(
            asked.get(&missing).await["error"]["code"],
            "ResourceNotFound",
            "{missing}"
        );
    }
}

#[tokio::test]
async fn machines_of_a_stopped_cluster_are_deallocated() {
    let asked = Asked::new(true, PodNetworking::Kubenet).await;
    let sets = asked.names(&format!("{COMPUTE}/virtualMachineScaleSets")).await;
    let view = format!(
        "{COMPUTE}/virtualMachineScaleSets/{}/virtualMachines/0/instanceView",
        sets[0]
    );
    assert_eq!(
        asked.get(&view).await["statuses"][1]["code"],
        "PowerState/deallocated"
    );
    let disks = asked.get(&format!("{COMPUTE}/disks")).await;
    assert_eq!(disks["value"][0]["properties"]["diskState"], "Reserved");
}

#[tokio::test]
async fn the_volume_of_a_claim_is_a_disk() {
    let asked = Asked::new(false, PodNetworking::AzureOverlay).await;
    let of_nodes = asked.names(&format!("{COMPUTE}/disks")).await;
    let own = key::observed("u1");
    let observed = get_record::<ObservedRecord>(&*asked.store, &own).await.unwrap();
    let observed = ObservedRecord {
        volumes: true,
        ..observed.unwrap().value
    };
    let first = VolumeRecord {
        v: 1,
        id: "v1".to_owned(),
        name: "pvc-1".to_owned(),
        claim: "1".to_owned(),
        claim_namespace: "shop".to_owned(),
        claim_name: "data".to_owned(),
        bytes: 5 << 30,
        sku: "Premium_LRS".to_owned(),
        shared: false,
        snapshot: false,
        source: None,
        disk: None,
        object: String::new(),
        published: true,
        deleting: false,
        created_at: at(),
    };
    let copy = VolumeRecord {
        id: "v2".to_owned(),
        name: "pvc-2".to_owned(),
        source: Some("v1".to_owned()),
        published: false,
        ..first.clone()
    };
    let found_again = VolumeRecord {
        id: "v3".to_owned(),
        name: "pvc-3".to_owned(),
        claim_name: String::new(),
        sku: String::new(),
        deleting: true,
        ..first.clone()
    };
    let share = VolumeRecord {
        id: "v4".to_owned(),
        name: "pvc-4".to_owned(),
        shared: true,
        ..first.clone()
    };
    let taken = VolumeRecord {
        id: "v5".to_owned(),
        name: "snapcontent-s1".to_owned(),
        claim: "s1".to_owned(),
        claim_name: "before".to_owned(),
        snapshot: true,
        source: Some("v1".to_owned()),
        ..first.clone()
    };
    let restored = VolumeRecord {
        id: "v6".to_owned(),
        name: "pvc-6".to_owned(),
        source: Some("v5".to_owned()),
        ..first.clone()
    };
    let txn = [first, copy, found_again, share, taken, restored]
        .iter()
        .fold(Txn::default().with(put_record(own, &observed)), |txn, record| {
            txn.with(put_record(VolumeRecord::key("u1", &record.id), record))
        });
    asked.store.txn(txn).await.unwrap();
    let disks = asked.names(&format!("{COMPUTE}/disks")).await;
    assert_eq!(
        disks,
        [
            &of_nodes[..],
            &["pvc-1", "pvc-2", "pvc-3", "pvc-6"].map(str::to_owned)
        ]
        .concat()
    );
    assert_eq!(asked.names("providers/Microsoft.Compute/disks").await, disks);

    let disk = asked.get(&format!("{COMPUTE}/disks/PVC-1")).await;
    assert_eq!(disk["sku"], json!({ "name": "Premium_LRS", "tier": "Premium" }));
    let properties = &disk["properties"];
    assert_eq!(
        (&properties["diskSizeGB"], &properties["provisioningState"]),
        (&json!(5), &json!("Succeeded"))
    );
    assert_eq!(properties["creationData"], json!({ "createOption": "Empty" }));
    let tags = &disk["tags"];
    assert_eq!(tags["kubernetes.io-created-for-pv-name"], "pvc-1");
    assert_eq!(tags["kubernetes.io-created-for-pvc-name"], "data");
    assert_eq!(tags["kubernetes.io-created-for-pvc-namespace"], "shop");
    assert_eq!(tags["k8s-azure-created-by"], "kubernetes-azure-dd");
    assert_eq!(tags["aks-managed-cluster-rg"], "g");
    // Unknown without a request to the fabric.
    assert!(properties["diskState"].is_null() && disk["managedBy"].is_null());

    let copy = asked.get(&format!("{COMPUTE}/disks/pvc-2")).await;
    assert_eq!(copy["properties"]["provisioningState"], "Creating");
    let source = copy["properties"]["creationData"]["sourceResourceId"]
        .as_str()
        .unwrap();
    assert!(source.ends_with("/disks/pvc-1"), "{source}");
    let going = asked.get(&format!("{COMPUTE}/disks/pvc-3")).await;
    assert_eq!(going["properties"]["provisioningState"], "Deleting");
    assert_eq!(
        asked.names(&format!("{COMPUTE}/snapshots")).await,
        ["snapshot-s1"]
    );
    let taken = asked.get(&format!("{COMPUTE}/snapshots/snapshot-s1")).await;
    assert_eq!(taken["tags"]["kubernetes.io-created-for-snapshot-name"], "before");
    assert!(taken["tags"]["kubernetes.io-created-for-pvc-name"].is_null());
    let of_disk = taken["properties"]["creationData"]["sourceResourceId"]
        .as_str()
        .unwrap();
    assert!(of_disk.ends_with("/disks/pvc-1"), "{of_disk}");
    let again = asked.get(&format!("{COMPUTE}/disks/pvc-6")).await;
    let from = again["properties"]["creationData"]["sourceResourceId"]
        .as_str()
        .unwrap();
    assert!(from.ends_with("/snapshots/snapshot-s1"), "{from}");
    assert!(going["sku"].is_null() && going["tags"]["kubernetes.io-created-for-pvc-name"].is_null());
}

#[tokio::test]
async fn what_is_asked_of_instances_is_asked_of_their_pool() {
    let asked = Asked::new(false, PodNetworking::AzureOverlay).await;
    let sets = asked.names(&format!("{COMPUTE}/virtualMachineScaleSets")).await;
    let set = format!("{COMPUTE}/virtualMachineScaleSets/{}", sets[0]);
    let post = async |path: String, body: Value| asked.ask(http::Method::POST, &path, body).await;
    let pool = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/c/agentPools/np1";
    let restart = post(format!("{set}/restart"), Value::Null).await;
    assert_eq!(
        restart,
        json!({ "pool": pool, "nodes": null, "order": "Repair(Reboot)", "name": "VirtualMachineScaleSets_Restart" })
    );
    let some = json!({ "instanceIds": ["40"] });
    assert_eq!(
        post(format!("{set}/reimage"), some.clone()).await["nodes"],
        json!([40])
    );
    assert_eq!(
        post(format!("{set}/delete"), some).await["order"],
        "Repair(Replace)"
    );
    assert_eq!(
        post(format!("{set}/delete"), Value::Null).await["error"]["target"],
        "instanceIds"
    );
    assert_eq!(
        post(format!("{set}/virtualMachines/40/restart"), Value::Null).await["nodes"],
        json!([40])
    );
    let gone = asked
        .ask(
            http::Method::DELETE,
            &format!("{set}/virtualMachines/0"),
            Value::Null,
        )
        .await;
    assert_eq!(
        (&gone["order"], &gone["nodes"]),
        (&json!("Repair(Replace)"), &json!([0]))
    );
    let off = post(format!("{set}/deallocate"), json!({ "instanceIds": ["40"] })).await;
    assert_eq!((&off["order"], &off["nodes"]), (&json!("Off"), &json!([40])));
    let on = post(format!("{set}/virtualMachines/40/start"), Value::Null).await;
    assert_eq!((&on["order"], &on["nodes"]), (&json!("On"), &json!([40])));
    for wrong in [
        format!("{set}/virtualMachines/x/restart"),
        format!("{set}x/restart"),
    ] {
        assert!(
            post(wrong.clone(), Value::Null).await["error"]["code"].is_string(),
            "{wrong}"
        );
    }
}
