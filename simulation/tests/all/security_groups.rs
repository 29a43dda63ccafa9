//! Effects of the rules of tenants' security groups, through the real edge, providers and loops.

use anyhow::{Context as _, Result, ensure};
use fabric_api::Filter;
use serde_json::{Value, json};
use simulation::{run, script::Player};

use crate::stand::converged;

const NETWORK: &str = "resourceGroups/rg/providers/Microsoft.Network";

fn cluster(name: &str) -> String {
    format!("resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/{name}")
}

async fn put(player: &mut Player, path: &str, body: Value) -> Result<Value> {
    let answer = player.stamp.arm("PUT", path, Some(body)).await?;
    ensure!(answer.status < 300, "{path}: {} {}", answer.status, answer.body);
    Ok(answer.body)
}

/// The filters of all subnets that have one.
fn filters(player: &Player) -> Vec<Filter> {
    let networks = player.stamp.world.networks();
    let subnets = networks.iter().flat_map(|network| &network.subnets);
    subnets.filter_map(|subnet| subnet.filter.clone()).collect()
}

/// How many rules for this one port each of them has.
fn about(player: &Player, port: u16) -> Vec<usize> {
    let of = |filter: &Filter| {
        let rules = filter.inbound.iter();
        rules
            .filter(|rule| {
                rule.to_ports
                    .iter()
                    .any(|ports| (ports.first, ports.last) == (port, port))
            })
            .count()
    };
    filters(player).iter().map(of).collect()
}

#[test]
fn rules_are_taken_to_every_cluster_in_the_subnet_and_no_machine_is_touched() -> Result<()> {
    run(async || {
        let mut player = Player::new(1).await?;
        for line in ["start", "create c0 np1=1", "settle"] {
            player.command(line).await?;
        }
        let group = put(
            &mut player,
            &format!("{NETWORK}/networkSecurityGroups/n"),
            json!({ "location": "local" }),
        )
        .await?;
        let vnet = |guarded: bool| {
            let mut subnet = json!({ "name": "a", "properties": { "addressPrefix": "10.1.0.0/28" } });
            if guarded {
                subnet["properties"]["networkSecurityGroup"] = json!({ "id": group["id"] });
            }
            json!({ "location": "local", "properties": {
                "addressSpace": { "addressPrefixes": ["10.1.0.0/16"] }, "subnets": [subnet],
            } })
        };
        let place = format!("{NETWORK}/virtualNetworks/v");
        let made = put(&mut player, &place, vnet(true)).await?;
        let subnet = made["properties"]["subnets"][0]["id"].clone();
        // A subnet with a security group takes nodes.
        for name in ["c1", "c2"] {
            let body = json!({ "location": "local", "properties": { "agentPoolProfiles": [
                { "name": "np1", "mode": "System", "count": 1, "vnetSubnetID": subnet },
            ] } });
            put(&mut player, &cluster(name), body).await?;
        }
        converged(&mut player).await?;
        ensure!(filters(&player).len() == 2, "{:?}", filters(&player));
        let before = player.stamp.machines().await?;
        let rule = format!("{NETWORK}/networkSecurityGroups/n/securityRules/closed");
        let body = json!({ "properties": {
            "priority": 100, "direction": "Inbound", "access": "Deny", "protocol": "Tcp",
            "sourceAddressPrefix": "*", "sourcePortRange": "*",
            "destinationAddressPrefix": "*", "destinationPortRange": "8099",
        } });
        put(&mut player, &rule, body).await?;
        converged(&mut player).await?;
        ensure!(about(&player, 8099) == [1, 1], "{:?}", filters(&player));
        // The rules are persistent: they hold after a restart of the service.
        for line in ["kill", "start"] {
            player.command(line).await?;
        }
        converged(&mut player).await?;
        ensure!(about(&player, 8099) == [1, 1], "{:?}", filters(&player));
        let gone = player.stamp.arm("DELETE", &rule, None).await?;
        ensure!(gone.status == 200, "{} {}", gone.status, gone.body);
        converged(&mut player).await?;
        ensure!(about(&player, 8099) == [0, 0], "{:?}", filters(&player));
        put(&mut player, &place, vnet(false)).await?;
        converged(&mut player).await?;
        ensure!(filters(&player).is_empty(), "{:?}", filters(&player));
        let after = player.stamp.machines().await?;
        ensure!(before.keys().eq(after.keys()), "{before:?} became {after:?}");
        let first = player.stamp.cluster("c1").await?.context("no cluster")?;
        ensure!(first.generation == 1, "nobody asked for another cluster");
        Ok(())
    })
}
