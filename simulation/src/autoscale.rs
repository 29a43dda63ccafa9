//! Commands of scripts for pools with an autoscaler.

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::script::Player;

impl Player {
    /// Turns the autoscaler of a pool on.
    pub(crate) async fn autoscale(
        &mut self,
        cluster: &str,
        pool: &str,
        least: &str,
        most: &str,
    ) -> Result<()> {
        let (least, most): (u32, u32) = (least.parse()?, most.parse()?);
        let answer = self
            .stamp
            .put_pool(cluster, pool, |properties| {
                properties["enableAutoScaling"] = json!(true);
                properties["minCount"] = json!(least);
                properties["maxCount"] = json!(most);
            })
            .await?;
        self.say(&format!("{}", answer.status));
        Ok(())
    }

    /// Prints the pods of a cluster and the counts of its pools, one per line.
    pub(crate) async fn placed(&mut self, name: &str) -> Result<()> {
        let cluster = self.stamp.cluster(name).await?;
        let cluster = cluster.context("there is no such cluster")?;
        let mut lines = Vec::new();
        for (pod, node) in self.stamp.world.pods(&cluster.uid) {
            let node = node.unwrap_or_else(|| "no node".to_owned());
            lines.push(format!("pod {pod}: {node}"));
            let told = self.stamp.world.told_of_work(&cluster.uid, &pod);
            lines.extend(told.map(|told| format!("  {told}")));
        }
        for pool in &cluster.spec().pools {
            lines.push(format!("pool {}: {} nodes", pool.name, pool.count));
        }
        for line in lines {
            let line = self.stamp.trace.told(&line);
            self.say(&line);
        }
        Ok(())
    }
}
