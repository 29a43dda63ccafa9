//! What scripts do with the engine of network policies, and what has to be true of it: nodes of a cluster that asks for it have its
//! image, and the cluster has either the engine or the warning that nothing enforces policies.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use cluster_spec::{AddonImage, KUBE_ROUTER, PodNetworking};
use control_records::ClusterRecord;
use serde_json::{Value, json};

use crate::{script::Player, stamp::Stamp};

const ENGINE: &str = "apps/v1/DaemonSet kube-system/network-policies";
const WARNING: &str =
    "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicyBinding landfall-network-policy-warning";

impl Player {
    /// The PUT of a cluster with another engine.
    pub(crate) async fn policy(&mut self, name: &str, engine: &str) -> Result<()> {
        let change = |body: &mut Value| {
            body["properties"]["networkProfile"]["networkPolicy"] = json!(engine);
        };
        let answer = self.stamp.put_again(name, change).await?;
        self.answered(&answer);
        Ok(())
    }

    /// Prints what enforces the policies of a cluster.
    pub(crate) async fn policies(&mut self, name: &str) -> Result<()> {
        let cluster = self
            .stamp
            .cluster(name)
            .await?
            .context("there is no such cluster")?;
        let seen = self.stamp.engine(&cluster.uid);
        let images = self.stamp.world.addon_images();
        self.say(&format!(
            "engine: {}, warning: {}, {} of {} nodes have the image; images of the host: {}",
            seen.there,
            seen.warning,
            seen.with_image,
            seen.nodes,
            if images.is_empty() {
                "none".to_owned()
            } else {
                images.join(", ")
            }
        ));
        Ok(())
    }
}

/// What a cluster has.
struct Engine {
    there: bool,
    warning: bool,
    nodes: usize,
    with_image: usize,
}

impl Stamp {
    fn engine(&self, uid: &str) -> Engine {
        let nodes = self.world.nodes(uid);
        let label = AddonImage::named(KUBE_ROUTER).map(AddonImage::label);
        let has = |labels: &BTreeMap<String, String>| {
            label.as_ref().is_some_and(|label| labels.contains_key(label))
        };
        Engine {
            there: self.world.object(uid, ENGINE).is_some(),
            warning: self.world.object(uid, WARNING).is_some(),
            with_image: nodes.iter().filter(|node| has(&node.labels)).count(),
            nodes: nodes.len(),
        }
    }

    /// Clusters that serve have what they are to have.
    pub(crate) fn check_policies(
        &self,
        clusters: &BTreeMap<String, ClusterRecord>,
        problems: &mut Vec<String>,
    ) {
        let serves = |cluster: &&ClusterRecord| {
            !cluster.spec().stopped && !cluster.requests.halted && !cluster.deleting
        };
        for cluster in clusters.values().filter(serves) {
            let network = &cluster.spec().network;
            let wanted = network.policy.is_enforced();
            let Engine {
                there,
                warning,
                nodes,
                with_image,
            } = self.engine(&cluster.uid);
            let warns = !wanted && network.plugin != PodNetworking::None;
            let expected = if wanted { nodes } else { 0 };
            if there != wanted || warning != warns || with_image != expected {
                problems.push(format!(
                    "{}: an engine of network policies is wanted: {wanted}, and there: {there}; the warning: {warning}; {with_image} of \
                     {nodes} nodes have its image",
                    cluster.name
                ));
            }
        }
    }
}
