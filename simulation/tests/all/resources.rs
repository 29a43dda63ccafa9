//! Effects of ARM resources on a running cluster, through the real edge, provider and loops.

use anyhow::{Context as _, Result, ensure};
use control_records::{ChildRecord, child, command::CommandRecord};
use serde_json::{Value, json};
use simulation::{run, script::Player};

use crate::stand::{converged, put, settled};

const CLUSTER: &str = "resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/c1";

#[test]
fn children_of_a_cluster_go_with_it() -> Result<()> {
    run(async || {
        let (mut player, uid) = settled().await?;
        let schedule = json!({ "weekly": { "intervalWeeks": 1, "dayOfWeek": "Friday" } });
        let window = json!({ "maintenanceWindow": { "schedule": schedule, "startTime": "01:00" } });
        for name in ["default", "aksManagedAutoUpgradeSchedule"] {
            put(
                &mut player,
                &format!("{CLUSTER}/maintenanceConfigurations/{name}"),
                window.clone(),
            )
            .await?;
        }
        let children = child::all(&uid);
        let there = player.stamp.records::<ChildRecord>(&children).await?.len();
        ensure!(there == 2, "{there} are kept");
        // No work follows.
        player.command("settle").await?;
        for line in ["delete c1", "settle"] {
            player.command(line).await?;
        }
        let left = player.stamp.records::<ChildRecord>(&children).await?;
        ensure!(left.is_empty(), "{left:?} are left over");
        Ok(())
    })
}

#[test]
fn rights_and_locks_at_a_cluster_go_with_it() -> Result<()> {
    run(async || {
        let (mut player, _) = settled().await?;
        let reader =
            "/providers/Microsoft.Authorization/roleDefinitions/acdd72a7-3385-48ef-bd42-f606fba81ae7";
        let below = |scope: &str, rest: &str| format!("{scope}/providers/Microsoft.Authorization/{rest}");
        let nodes = player.stamp.cluster("c1").await?.context("no cluster")?;
        let nodes = format!("resourceGroups/{}", nodes.spec().node_resource_group);
        // More than are removed in one transaction.
        for number in 0..10 {
            let name = format!("0a0a0a0a-0000-4000-8000-0000000000{number:02}");
            let properties = json!({
                "roleDefinitionId": reader, "principalId": name, "principalType": "ServicePrincipal",
            });
            put(
                &mut player,
                &below(CLUSTER, &format!("roleAssignments/{name}")),
                properties,
            )
            .await?;
        }
        let of_nodes = "0b0a0a0a-0000-4000-8000-000000000000";
        let properties = json!({
            "roleDefinitionId": reader, "principalId": of_nodes, "principalType": "ServicePrincipal",
        });
        put(
            &mut player,
            &below(&nodes, &format!("roleAssignments/{of_nodes}")),
            properties,
        )
        .await?;
        let pool = format!("{CLUSTER}/agentPools/np1");
        let locks = [below(&pool, "locks/l"), below(CLUSTER, "locks/l")];
        for lock in &locks {
            put(&mut player, lock, json!({ "level": "CanNotDelete" })).await?;
        }
        let refused = player.stamp.arm("DELETE", CLUSTER, None).await?;
        ensure!(
            refused.status == 409 && refused.body["error"]["code"] == "ScopeLocked",
            "{}",
            refused.body
        );
        // One below the cluster is enough.
        player.stamp.arm("DELETE", &locks[1], None).await?;
        let refused = player.stamp.arm("DELETE", CLUSTER, None).await?;
        ensure!(refused.body["error"]["code"] == "ScopeLocked", "{}", refused.body);
        player.stamp.arm("DELETE", &locks[0], None).await?;
        // The cluster's own work is not a request, so no lock stops it; a lock that is made late is deleted
        // with it.
        player.command("delete c1").await?;
        player.command("settle").await?;
        let access = player.stamp.records::<Value>("/access/").await?;
        let of_cluster = |key: &&String| key.contains("managedclusters") || key.contains("/0b0a0a0a");
        ensure!(!access.keys().any(|key| of_cluster(&key)), "{access:?}");
        ensure!(!access.is_empty(), "the owner's own stay");
        Ok(())
    })
}

#[test]
fn labels_and_taints_of_a_pool_reach_old_and_new_nodes_and_leave_them() -> Result<()> {
    run(async || {
        let (mut player, uid) = settled().await?;
        let pool = format!("{CLUSTER}/agentPools/np1");
        let labels = json!({ "a": "1" });
        let taints = json!(["k=v:NoSchedule"]);
        for (count, properties, expected) in [
            (
                1,
                json!({ "mode": "System", "count": 1, "nodeLabels": labels, "nodeTaints": taints }),
                true,
            ),
            (
                2,
                json!({ "mode": "System", "count": 2, "nodeLabels": labels, "nodeTaints": taints }),
                true,
            ),
            // A PUT that does not name them.
            (2, json!({ "mode": "System", "count": 2 }), false),
            (
                2,
                json!({ "mode": "System", "count": 2, "nodeLabels": labels, "nodeTaints": taints }),
                true,
            ),
            (
                2,
                json!({ "mode": "System", "count": 2, "nodeLabels": {}, "nodeTaints": [] }),
                false,
            ),
        ] {
            put(&mut player, &pool, properties.clone()).await?;
            // Virtual time: far more than making a node takes. (`settle` considers only requests of scripts.)
            player.command("wait 600").await?;
            let nodes = player.stamp.world.nodes(&uid);
            ensure!(nodes.len() == count, "{properties}: {} nodes", nodes.len());
            for node in &nodes {
                let label = node.labels.get("a").map(String::as_str) == Some("1");
                let taint = node.taints.iter().any(|taint| taint == "k=v:NoSchedule");
                ensure!((label, taint) == (expected, expected), "{properties}: {node:?}");
            }
        }
        Ok(())
    })
}

#[test]
fn tags_of_a_cluster_are_a_resource_of_their_own() -> Result<()> {
    run(async || {
        let (mut player, _) = settled().await?;
        let tags = format!("{CLUSTER}/providers/Microsoft.Resources/tags/default");
        let of = |tags: Value| json!({ "properties": { "tags": tags } });
        let patch = |operation: &str, tags: Value| {
            let mut body = of(tags);
            body["operation"] = json!(operation);
            body
        };
        for (method, body, expected) in [
            (
                "PUT",
                Some(of(json!({ "a": "1", "b": "2" }))),
                json!({ "a": "1", "b": "2" }),
            ),
            (
                "PATCH",
                Some(patch("Merge", json!({ "A": "3" }))),
                json!({ "A": "3", "b": "2" }),
            ),
            (
                "PATCH",
                Some(patch("Delete", json!({ "b": "2" }))),
                json!({ "A": "3" }),
            ),
            ("DELETE", None, json!({})),
        ] {
            let before = player.stamp.arm("GET", CLUSTER, None).await?;
            let answer = player.stamp.arm(method, &tags, body).await?;
            ensure!(
                answer.status == 200,
                "{method}: {} {}",
                answer.status,
                answer.body
            );
            let shown = player.stamp.arm("GET", &tags, None).await?;
            ensure!(
                shown.body["properties"]["tags"] == expected,
                "{method}: {}",
                shown.body
            );
            player.command("settle").await?;
            let after = player.stamp.arm("GET", CLUSTER, None).await?;
            let (state, own) = (
                &after.body["properties"]["provisioningState"],
                &after.body["tags"],
            );
            ensure!(
                own == &expected && state == "Succeeded",
                "{method}: {state} {own}"
            );
            ensure!(
                after.body["eTag"] != before.body["eTag"],
                "{method}: a change has another eTag"
            );
        }
        let none = tags.replace("/c1/", "/none/");
        let answer = player.stamp.arm("GET", &none, None).await?;
        ensure!(answer.status == 404, "{} {}", answer.status, answer.body);
        Ok(())
    })
}

#[test]
fn a_command_runs_once_and_leaves_nothing() -> Result<()> {
    run(async || {
        let (mut player, uid) = settled().await?;
        let run = format!("{CLUSTER}/runCommand");
        let asked = player
            .stamp
            .arm("POST", &run, Some(json!({ "command": "kubectl get nodes" })))
            .await?;
        ensure!(asked.status == 202, "{} {}", asked.status, asked.body);
        let id = asked.body["id"].as_str().context("no id")?.to_owned();
        let before = player.stamp.arm("GET", CLUSTER, None).await?;
        player.command("wait 30").await?;
        let came = player
            .stamp
            .arm("GET", &format!("{CLUSTER}/commandResults/{id}"), None)
            .await?;
        let properties = &came.body["properties"];
        ensure!(
            came.status == 200 && properties["exitCode"] == 0 && properties["logs"] == "done",
            "{} {}",
            came.status,
            came.body
        );
        let after = player.stamp.arm("GET", CLUSTER, None).await?;
        ensure!(after.body == before.body, "the cluster is what it was");
        let records = player
            .stamp
            .records::<CommandRecord>(&CommandRecord::all(&uid))
            .await?;
        ensure!(
            records.values().all(|record| !record.is_open()),
            "nothing is left to do"
        );
        for line in ["delete c1", "settle"] {
            player.command(line).await?;
        }
        let left = player
            .stamp
            .records::<CommandRecord>(&CommandRecord::all(&uid))
            .await?;
        ensure!(left.is_empty(), "{left:?} are left over");
        Ok(())
    })
}

#[test]
fn nodes_go_by_name_and_are_made_anew() -> Result<()> {
    run(async || {
        let (mut player, uid) = settled().await?;
        let pool = format!("{CLUSTER}/agentPools/np1");
        put(&mut player, &pool, json!({ "mode": "System", "count": 3 })).await?;
        player.command("wait 600").await?;
        let names = |player: &Player| -> Vec<String> {
            let nodes = player.stamp.world.nodes(&uid);
            nodes.into_iter().map(|node| node.name).collect()
        };
        let there = names(&player);
        ensure!(there.len() == 3, "{there:?}");
        let body = json!({ "machineNames": [there[0]] });
        let asked = player
            .stamp
            .arm("POST", &format!("{pool}/deleteMachines"), Some(body))
            .await?;
        ensure!(asked.status == 202, "{} {}", asked.status, asked.body);
        player.command("wait 600").await?;
        ensure!(names(&player) == there[1..], "{:?} of {there:?}", names(&player));
        let machines = player
            .stamp
            .arm("GET", &format!("{pool}/machines"), None)
            .await?
            .body;
        let asked = player
            .stamp
            .arm("POST", &format!("{pool}/upgradeNodeImageVersion"), None)
            .await?;
        ensure!(asked.status == 202, "{} {}", asked.status, asked.body);
        player.command("wait 1200").await?;
        let anew = player
            .stamp
            .arm("GET", &format!("{pool}/machines"), None)
            .await?
            .body;
        let count = |list: &Value| list["value"].as_array().map(Vec::len);
        ensure!(
            count(&anew) == Some(2) && anew != machines,
            "{machines} became {anew}"
        );
        let cluster = player.stamp.arm("GET", CLUSTER, None).await?.body;
        ensure!(
            cluster["properties"]["provisioningState"] == "Succeeded",
            "{cluster}"
        );
        Ok(())
    })
}

#[test]
fn a_pool_is_stopped_and_comes_back_under_its_names() -> Result<()> {
    run(async || {
        let (mut player, uid) = settled().await?;
        let pool = format!("{CLUSTER}/agentPools/np2");
        player.command("pool c1 np2 2").await?;
        converged(&mut player).await?;
        let names = |player: &Player| -> Vec<String> {
            let nodes = player.stamp.world.nodes(&uid);
            nodes.into_iter().map(|node| node.name).collect()
        };
        let there = names(&player);
        ensure!(there.len() == 3, "{there:?}");
        let power = |code: &str| json!({ "powerState": { "code": code } });
        put(&mut player, &pool, power("Stopped")).await?;
        // The service that accepted the stop need not live until its end.
        for line in ["wait 5", "kill", "start"] {
            player.command(line).await?;
        }
        converged(&mut player).await?;
        let left = names(&player);
        ensure!(left.len() == 1 && !left[0].contains("np2"), "{left:?}");
        let shown = player.stamp.arm("GET", &pool, None).await?.body;
        let properties = &shown["properties"];
        ensure!(
            properties["powerState"]["code"] == "Stopped"
                && properties["count"] == 2
                && properties["provisioningState"] == "Succeeded",
            "{shown}"
        );
        // The cluster as a whole goes and comes; the pool stays as it is.
        for line in ["power c1 off", "settle", "power c1 on", "settle"] {
            player.command(line).await?;
        }
        ensure!(names(&player) == left, "{:?}", names(&player));
        put(&mut player, &pool, power("Running")).await?;
        converged(&mut player).await?;
        ensure!(names(&player) == there, "{:?} of {there:?}", names(&player));
        Ok(())
    })
}

#[test]
fn clusters_in_one_vnet_share_its_addresses_and_lead_to_each_other() -> Result<()> {
    run(async || {
        let mut player = Player::new(1).await?;
        for line in ["start", "create c0 np1=1", "settle"] {
            player.command(line).await?;
        }
        let network = "resourceGroups/rg/providers/Microsoft.Network/virtualNetworks";
        let vnet = json!({ "location": "local", "properties": {
            "addressSpace": { "addressPrefixes": ["10.1.0.0/16"] },
            "subnets": [{ "name": "a", "properties": { "addressPrefix": "10.1.0.0/28" } }],
        } });
        let made = player
            .stamp
            .arm("PUT", &format!("{network}/v"), Some(vnet))
            .await?;
        ensure!(made.status == 201, "{} {}", made.status, made.body);
        let subnet = made.body["properties"]["subnets"][0]["id"].clone();
        let of = |name: &str| {
            format!("resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/{name}")
        };
        let body = |count: u32| {
            json!({ "location": "local", "properties": { "agentPoolProfiles": [
                { "name": "np1", "mode": "System", "count": count, "vnetSubnetID": subnet },
            ] } })
        };
        // At the same time: they reach for the same addresses.
        for name in ["c1", "c2"] {
            let answer = player.stamp.arm("PUT", &of(name), Some(body(3))).await?;
            ensure!(answer.status == 201, "{} {}", answer.status, answer.body);
        }
        converged(&mut player).await?;
        let full = player.stamp.arm("PUT", &of("c3"), Some(body(6))).await?;
        ensure!(full.body["error"]["code"] == "SubnetIsFull", "{}", full.body);
        let used = player.stamp.arm("DELETE", &format!("{network}/v"), None).await?;
        ensure!(
            used.body["error"]["code"] == "InUseSubnetCannotBeDeleted",
            "{}",
            used.body
        );
        // The other cluster gets routes to an added node; a removed node releases its addresses.
        let answer = player.stamp.arm("PUT", &of("c1"), Some(body(5))).await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
        converged(&mut player).await?;
        player.stamp.arm("DELETE", &of("c1"), None).await?;
        converged(&mut player).await?;
        let leases = player
            .stamp
            .records::<control_records::LeaseRecord>(control_records::key::LEASES)
            .await?;
        let inside = leases.keys().filter(|key| key.contains("/10.1.0.")).count();
        ensure!(inside == 3, "{leases:?}");
        player.stamp.arm("DELETE", &of("c2"), None).await?;
        converged(&mut player).await?;
        let gone = player.stamp.arm("DELETE", &format!("{network}/v"), None).await?;
        ensure!(gone.status == 200, "{} {}", gone.status, gone.body);
        Ok(())
    })
}

#[test]
fn instances_of_a_scale_set_are_restarted_made_anew_and_replaced() -> Result<()> {
    run(async || {
        let (mut player, uid) = settled().await?;
        let nodes = player.stamp.cluster("c1").await?.context("no cluster")?;
        let compute = format!(
            "resourceGroups/{}/providers/Microsoft.Compute/virtualMachineScaleSets",
            nodes.spec().node_resource_group
        );
        let sets = player.stamp.arm("GET", &compute, None).await?;
        let set = sets.body["value"][0]["name"]
            .as_str()
            .context("no scale set")?
            .to_owned();
        let ids = |list: &Value| -> Vec<String> {
            let items = list["value"].as_array().cloned().unwrap_or_default();
            items
                .iter()
                .filter_map(|one| one["instanceId"].as_str().map(str::to_owned))
                .collect()
        };
        let instances = format!("{compute}/{set}/virtualMachines");
        let all = ids(&player.stamp.arm("GET", &instances, None).await?.body);
        let first = all.first().context("no instance")?.clone();
        let machine_of = async |player: &Player, id: &str| -> Result<Option<String>> {
            let machines = player.stamp.machines().await?;
            Ok(machines
                .into_iter()
                .find_map(|(key, machine)| match machine.assignment?.role {
                    control_records::Role::Node { index, .. }
                        if index.to_string() == id && !machine.deleting =>
                    {
                        Some(key)
                    }
                    _ => None,
                }))
        };
        for (action, told) in [
            ("restart", "restarting the machine: somebody has asked for it"),
            ("reimage", "making the machine anew: somebody has asked for it"),
            ("delete", "replacing the machine: somebody has asked for it"),
        ] {
            let before = machine_of(&player, &first).await?;
            let body = json!({ "instanceIds": [first] });
            let path = format!("{compute}/{set}/{action}");
            let answer = player.stamp.arm("POST", &path, Some(body)).await?;
            ensure!(
                answer.status == 202,
                "{action}: {} {}",
                answer.status,
                answer.body
            );
            player.command("settle").await?;
            player.command("wait 1200").await?;
            player.command("settle").await?;
            let events = player
                .stamp
                .records::<control_records::EventRecord>(&control_records::key::events(&uid))
                .await?;
            let told = events
                .values()
                .filter(|event| event.event.message == told)
                .count();
            ensure!(told == 1, "{action} was told {told} times");
            let machines = player.stamp.machines().await?;
            let same = before.as_ref().is_some_and(|id| machines.contains_key(id));
            ensure!(
                same == (action != "delete"),
                "{action}: {before:?} is there: {same}"
            );
            let there = player.stamp.arm("GET", &instances, None).await?;
            ensure!(ids(&there.body).len() == all.len(), "{action}: {}", there.body);
            let operations = player.stamp.operations().await?;
            let done = operations.values().any(|operation| {
                operation.name.to_lowercase().contains(action)
                    && operation.status == control_records::OperationStatus::Succeeded
            });
            ensure!(done, "{action}: {operations:?}");
        }
        let none = json!({ "instanceIds": ["999"] });
        let answer = player
            .stamp
            .arm("POST", &format!("{compute}/{set}/restart"), Some(none))
            .await?;
        ensure!(answer.status == 400, "{} {}", answer.status, answer.body);
        // Stopped, whatever happens meanwhile, and started again: the same machine.
        let now = ids(&player.stamp.arm("GET", &instances, None).await?.body);
        let body = json!({ "instanceIds": [now.first()] });
        let state = async |player: &mut Player| -> Result<String> {
            let view = format!("{instances}/{}/instanceView", now.first().context("no instance")?);
            let view = player.stamp.arm("GET", &view, None).await?;
            Ok(view.body["statuses"][1]["code"].to_string())
        };
        let before = player.stamp.machines().await?;
        for (action, power) in [("deallocate", "deallocated"), ("start", "running")] {
            let path = format!("{compute}/{set}/{action}");
            let answer = player.stamp.arm("POST", &path, Some(body.clone())).await?;
            ensure!(
                answer.status == 202,
                "{action}: {} {}",
                answer.status,
                answer.body
            );
            player.command("settle").await?;
            player.command("wait 3600").await?;
            player.command("settle").await?;
            let state = state(&mut player).await?;
            ensure!(
                state.contains(&format!("PowerState/{power}")),
                "{action}: {state}"
            );
        }
        let after = player.stamp.machines().await?;
        ensure!(before.keys().eq(after.keys()), "{before:?} {after:?}");
        Ok(())
    })
}
