//! What scripts do with the ingress controller and the Gateway API, and what has to be true of them: a cluster has what it asks for, and
//! nothing that it does not.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use control_records::ClusterRecord;
use serde_json::{Value, json};

use crate::{script::Player, stamp::Stamp};

const CONTROLLER: &str = "apps/v1/Deployment app-routing-system/traefik";
const SERVICE: &str = "v1/Service app-routing-system/traefik";
const CLASS: &str = "networking.k8s.io/v1/IngressClass webapprouting.kubernetes.azure.com";
const GATEWAY_CLASS: &str = "gateway.networking.k8s.io/v1/GatewayClass webapprouting.kubernetes.azure.com";
const KINDS: &str =
    "apiextensions.k8s.io/v1/CustomResourceDefinition gatewayclasses.gateway.networking.k8s.io";
/// What a controller consists of, as far as others see it.
const OF_CONTROLLER: [&str; 3] = [CONTROLLER, SERVICE, CLASS];

impl Player {
    /// The PUT of a cluster whose controller is reached in another way, or that has none.
    pub(crate) async fn ingress(&mut self, name: &str, reach: &str) -> Result<()> {
        let change = |body: &mut Value| {
            let routing = &mut body["properties"]["ingressProfile"]["webAppRouting"];
            routing["enabled"] = json!(reach != "off");
            if reach != "off" {
                routing["nginx"]["defaultIngressControllerType"] = json!(reach);
            }
        };
        let answer = self.stamp.put_again(name, change).await?;
        self.answered(&answer);
        Ok(())
    }

    /// The PUT of a cluster with the kinds of the Gateway API, or without.
    pub(crate) async fn gateways(&mut self, name: &str, installation: &str) -> Result<()> {
        let change = |body: &mut Value| {
            body["properties"]["ingressProfile"]["gatewayAPI"]["installation"] = json!(installation);
        };
        let answer = self.stamp.put_again(name, change).await?;
        self.answered(&answer);
        Ok(())
    }

    /// Prints what a cluster has of both.
    pub(crate) async fn routing(&mut self, name: &str) -> Result<()> {
        let cluster = self
            .stamp
            .cluster(name)
            .await?
            .context("there is no such cluster")?;
        let has = |object: &str| self.stamp.world.object(&cluster.uid, object).is_some();
        let parts = OF_CONTROLLER.iter().filter(|part| has(part)).count();
        let line = format!(
            "controller: {parts} of {} parts, its class of gateways: {}, kinds of gateways: {}; images of the host: {}",
            OF_CONTROLLER.len(),
            has(GATEWAY_CLASS),
            has(KINDS),
            self.stamp.world.addon_images().join(", ")
        );
        self.say(&line);
        Ok(())
    }
}

impl Stamp {
    /// Clusters that serve have what they are to have.
    pub(crate) fn check_ingress(
        &self,
        clusters: &BTreeMap<String, ClusterRecord>,
        problems: &mut Vec<String>,
    ) {
        let serves = |cluster: &&ClusterRecord| {
            !cluster.spec().stopped && !cluster.requests.halted && !cluster.deleting
        };
        for cluster in clusters.values().filter(serves) {
            let ingress = cluster.spec().ingress;
            let controller = ingress.controller.is_some();
            let wanted = OF_CONTROLLER.map(|part| (part, controller)).into_iter().chain([
                (GATEWAY_CLASS, ingress.has_gateways()),
                (KINDS, ingress.gateway_api),
            ]);
            for (object, wanted) in wanted {
                let there = self.world.object(&cluster.uid, object).is_some();
                if there != wanted {
                    problems.push(format!(
                        "{}: {object} is wanted: {wanted}, and there: {there}",
                        cluster.name
                    ));
                }
            }
        }
    }
}
