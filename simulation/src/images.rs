//! Node images of the simulated world: builds that a script tells of. Until it does, nothing is known of any, as before images had builds.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use cluster_spec::node_image_version;
use control_records::{MachineRecord, Role, key};
use providers_containerservice::NodeImages;

use crate::script::Player;

/// Builds by version, the newest first.
#[derive(Debug, Default)]
pub(crate) struct SimImages(Mutex<BTreeMap<String, Vec<String>>>);

impl SimImages {
    /// From now on there is this build of a version, too.
    pub(crate) fn add(&self, version: &str, build: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let builds = known.entry(version.to_owned()).or_default();
        builds.insert(0, build.to_owned());
    }
}

impl NodeImages for SimImages {
    fn builds(&self, version: &str) -> Vec<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(version).cloned().unwrap_or_default()
    }
}

impl Player {
    /// Prints the node image of each pool of a cluster, and how many of its nodes have which.
    pub(crate) async fn images(&mut self, name: &str) -> Result<()> {
        let cluster = self
            .stamp
            .cluster(name)
            .await?
            .context("there is no such cluster")?;
        let machines = self
            .stamp
            .records::<MachineRecord>(&key::machines(&cluster.uid))
            .await?;
        let mut lines = Vec::new();
        for pool in &cluster.spec().pools {
            let mut nodes: BTreeMap<String, u32> = BTreeMap::new();
            for machine in machines.values() {
                let role = machine.assignment.as_ref().map(|given| &given.role);
                if matches!(role, Some(Role::Node { pool: own, .. }) if *own == pool.name) {
                    let image = node_image_version(&machine.image, machine.build.as_deref());
                    *nodes.entry(image).or_default() += 1;
                }
            }
            let own = node_image_version(&pool.kubernetes_version, pool.image.as_deref());
            lines.push(format!("{name} {}: {own}, nodes {nodes:?}", pool.name));
        }
        for line in lines {
            self.say(&line);
        }
        Ok(())
    }
}
