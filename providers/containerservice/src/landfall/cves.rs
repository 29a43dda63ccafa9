//! `Landfall.ContainerService/managedClusters/cves`: vulnerabilities of the managed components that a cluster's machines run (rules R6, R7).
//!
//! | | |
//! |---|---|
//! | GET `{RG}/providers/Landfall.ContainerService/managedClusters/{name}/cves/default` | from the bills of materials of its machines' images, with the fix, whose turn it is, and the upgrade that brings it |
//!
//! Always true: it only reads; components and images of which nothing can be said are named.

use std::{collections::BTreeSet, sync::Arc};

use arm_kernel::{Operation, ResourceType, Verb, quote, store_error};
use arm_wire::{ArmError, ErrorCode, Request, Response};
use cluster_spec::node_image_version;
use cluster_versions::Version;
use control_records::directory;
use policy_catalogue::{
    On,
    bill::Bill,
    cves::{Duty, Finding, Offer, Remedy, Running, findings},
};
use serde_json::{Value, json};

use super::{
    api::{HISTORY_API_VERSIONS, HISTORY_NAMESPACE, HistoryApi},
    knowledge::{Build, today},
};
use crate::records::ClusterPath;

type Row = Operation<HistoryApi>;

/// The name of the only report of a cluster.
pub(super) const NAME: &str = "default";

/// The resource type.
pub(super) const CVES: ResourceType<HistoryApi> = ResourceType {
    path: "managedClusters/cves",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[Row::read(Verb::Get, "Cves_Get", |api, call| {
        Box::pin(api.cves(&call.request))
    })],
};

/// Refuses other names than that of the only report.
pub(super) fn check_name(name: &str) -> Result<(), ArmError> {
    if name.eq_ignore_ascii_case(NAME) {
        return Ok(());
    }
    let message = format!("There is no report {}; the only one is '{NAME}'.", quote(name));
    Err(ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message))
}

impl HistoryApi {
    async fn cves(&self, request: &Request) -> Result<Response, ArmError> {
        let at = ClusterPath::of(&request.path)?;
        check_name(at.child)?;
        let of = self.cluster(at).await?;
        let machines = directory::machines(&*self.store, &of.record.uid).await;
        let machines = machines.map_err(store_error)?;
        let images = self.images(&machines).await;
        let in_force = self.known.catalogue().await;
        let catalogue = &*in_force.catalogue;
        let today = today(self.env.clock.now());
        let (mut found, mut seen, mut watched) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut unread = images.unread.clone();
        for build in &images.builds {
            let offers = self.offers(build.version, &mut unread).await;
            let offers: Vec<Offer<'_>> = offers
                .iter()
                .map(|(version, bill)| Offer {
                    version: *version,
                    bill: bill.as_deref(),
                })
                .collect();
            let running = Running {
                version: build.version,
                bill: &build.bill,
                on: build.on.clone(),
            };
            let of_build = findings(catalogue, &running, &build.newest, &offers, today);
            found.extend(of_build.iter().map(|finding| told(finding, build)));
            let unreadable = build.bill.unreadable(catalogue);
            let components = catalogue.components.iter();
            watched.extend(
                components
                    .filter(|component| build.bill.version_of(&component.package).is_some())
                    .filter(|component| !unreadable.contains(&component.name.as_str()))
                    .map(|component| component.name.as_str()),
            );
            seen.push(json!({
                "kubernetesVersion": build.version.to_string(),
                "build": build.bill.build,
                "nodeImageVersion": name(build),
                "built": build.bill.created.to_string(),
                "newest": build.bill.build == build.newest.build,
                "machines": build.machines,
                "on": build.on.iter().map(|on| on.name()).collect::<Vec<_>>(),
                "otherPackages": build.bill.not_watched(catalogue),
                "libraries": build.bill.libraries,
                "unreadable": unreadable,
            }));
        }
        let count = |duty: Duty| {
            let of = |finding: &&Value| finding["duty"] == duty.name();
            found.iter().filter(of).count()
        };
        let id = arm_ids::resource_id(
            &of.record.subscription,
            &of.record.resource_group,
            HISTORY_NAMESPACE,
            &[("managedClusters", of.record.name.as_str()), ("cves", NAME)],
        );
        let summary = json!({
            "service": count(Duty::Service), "upgrade": count(Duty::Upgrade),
            "young": count(Duty::Young), "noFix": count(Duty::NoFix),
        });
        Ok(Response::ok(json!({
            "id": id,
            "name": NAME,
            "type": format!("{HISTORY_NAMESPACE}/managedClusters/cves"),
            "cluster": of.record.name,
            "resourceGroup": of.record.resource_group,
            "catalogue": in_force.answer(),
            "summary": summary,
            "findings": found,
            "watched": watched,
            "images": seen,
            "unread": unread,
        })))
    }

    /// The versions that machines can go to from one, with the newest image of each that is built.
    async fn offers(&self, from: Version, unread: &mut Vec<String>) -> Vec<(Version, Option<Arc<Bill>>)> {
        let mut offers = Vec::new();
        for version in self.offered.upgrades(from) {
            let bill = match self.known.bills(&version.to_string()).await {
                Ok(bills) => bills.first().cloned(),
                Err(why) => {
                    unread.push(format!("the node image of Kubernetes {version}: {why}"));
                    None
                }
            };
            offers.push((version, bill));
        }
        offers
    }
}

/// What the node image of a build is called.
fn name(build: &Build) -> String {
    node_image_version(&build.version.to_string(), Some(&build.bill.build))
}

fn told(finding: &Finding<'_>, build: &Build) -> Value {
    let fix = finding.range.fix();
    let own = finding.range.fixed.is_some();
    json!({
        "id": finding.cve.id,
        "summary": finding.cve.summary,
        "component": finding.component.name,
        "version": finding.version,
        "kubernetesVersion": build.version.to_string(),
        "nodeImageVersion": name(build),
        "on": finding.on.iter().map(|on| on.name()).collect::<Vec<_>>(),
        "fixedIn": fix.map(|(fixed, _)| fixed),
        "fixedOn": fix.and_then(|(_, on)| on).map(|on| on.to_string()),
        "fixedBy": fix.map(|_| if own { "component" } else { "upstream" }),
        "duty": finding.duty.name(),
        "onThisStamp": finding.remedy != Remedy::None,
        "remedy": remedy(finding),
        "sources": finding.cve.sources,
    })
}

/// What brings the fix, for people.
fn remedy(finding: &Finding<'_>) -> String {
    let component = &finding.component.name;
    let fix = finding.range.fix();
    match (finding.remedy, fix) {
        (_, None) => format!("Nobody has published a fix of {component}."),
        (Remedy::NodeImage { built }, _) => {
            let how = if finding.on.contains(&On::Node) {
                "az aks nodepool upgrade --node-image-only"
            } else {
                // The image is that of the version; machines of control planes are started with the newest build of it.
                "az aks stop, then az aks start"
            };
            format!("The node image that was built on {} has it: {how}", today(built))
        }
        (Remedy::Kubernetes { version }, _) => {
            format!(
                "The node image of Kubernetes {version} has it: az aks upgrade --kubernetes-version {version}"
            )
        }
        (Remedy::None, Some((fixed, _))) => match &finding.range.upstream {
            Some(_) => format!(
                "This stamp has no image with it: {fixed} of the project has it, and the package of its base system ({component}) does not."
            ),
            None => format!(
                "This stamp has no image with it: it comes with a release of Landfall that has {component} {fixed}."
            ),
        },
    }
}
