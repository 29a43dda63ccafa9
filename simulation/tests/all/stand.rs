//! A stamp with a cluster, and what tests of resources do with it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use simulation::script::Player;

/// A stamp with a cluster of one node that has settled, and the cluster's uid.
pub(crate) async fn settled() -> Result<(Player, String)> {
    let mut player = Player::new(1).await?;
    for line in ["start", "create c1 np1=1", "settle"] {
        player.command(line).await?;
    }
    let cluster = player.stamp.cluster("c1").await?.context("there is no cluster")?;
    Ok((player, cluster.uid))
}

/// No work is left, and all checks pass.
pub(crate) async fn converged(player: &mut Player) -> Result<()> {
    let problems = player.stamp.converge(Duration::from_secs(30 * 60)).await?;
    ensure!(problems.is_empty(), "{problems:#?}");
    Ok(())
}

/// Makes or changes a resource with these properties; it has to be accepted.
pub(crate) async fn put(player: &mut Player, path: &str, properties: Value) -> Result<()> {
    let body = json!({ "properties": properties });
    let answer = player.stamp.arm("PUT", path, Some(body)).await?;
    ensure!(
        answer.status < 300,
        "{path} was answered {} {}",
        answer.status,
        answer.body
    );
    Ok(())
}
