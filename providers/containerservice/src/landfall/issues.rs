//! `Landfall.ContainerService/managedClusters/knownIssues` and `…/knownIssues`: known issues of clusters (rule C7).
//!
//! | | |
//! |---|---|
//! | GET `{RG}/providers/Landfall.ContainerService/managedClusters/{name}/knownIssues/default` | those of a cluster; what their conditions rest on is read from its API now |
//! | GET `{SUB}/providers/Landfall.ContainerService/knownIssues` | those of all clusters, from the records alone |
//!
//! Always true: it only reads, and when it is asked; a cluster is asked for nothing that no issue of its versions rests on; what could not be observed is named, and the issue is
//! only possible then.

use std::collections::{BTreeMap, BTreeSet};

use arm_kernel::{Items, Operation, ResourceType, Scope, Verb, store_error};
use arm_wire::{ArmError, Request, Response};
use cluster_spec::vm_size;
use control_records::{ClusterRecord, MachineRecord, directory};
use futures::future::join_all;
use policy_catalogue::{Catalogue, Count, Flag, On, cves::KUBERNETES};
use policy_issues::{Facts, Finding, Installed, asked, findings};
use serde_json::{Value, json};

use super::{
    api::{HISTORY_API_VERSIONS, HISTORY_NAMESPACE, HistoryApi},
    cves::{NAME, check_name},
    knowledge::{InForce, kind},
};
use crate::{
    records::ClusterPath,
    rehearsal::{
        ClusterReader,
        seen::{ENDPOINTS, list},
    },
};

type Row = Operation<HistoryApi>;

/// Lists from the API server's cache.
const DEVICE_CLASSES: &str = "/apis/resource.k8s.io/v1/deviceclasses?resourceVersion=0";
const DRIVERS: &str = "/apis/storage.k8s.io/v1/csidrivers?resourceVersion=0";
const PRIORITY_CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses?resourceVersion=0";

/// Of a cluster.
pub(super) const CLUSTER_ISSUES: ResourceType<HistoryApi> = ResourceType {
    path: "managedClusters/knownIssues",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[Row::read(Verb::Get, "KnownIssues_Get", |api, call| {
        Box::pin(api.cluster_issues(&call.request))
    })],
};

/// Of all clusters.
pub(super) const ISSUES: ResourceType<HistoryApi> = ResourceType {
    path: "knownIssues",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[Row::items("KnownIssues_List", |api, call| {
        Box::pin(api.issues(&call.request))
    })
    .at(Scope::Subscription)],
};

impl HistoryApi {
    async fn cluster_issues(&self, request: &Request) -> Result<Response, ArmError> {
        let at = ClusterPath::of(&request.path)?;
        check_name(at.child)?;
        let of = self.cluster(at).await?;
        let in_force = self.known.catalogue().await;
        let mut facts = self.facts(&of.record, &in_force.catalogue).await?;
        let reader = self
            .rehearsals
            .as_ref()
            .map(|rehearsals| rehearsals.guard.reader());
        let (flags, counts) = asked(&in_force.catalogue, &facts.installed);
        let unseen = observe(reader, &of.record.uid, &flags, &counts, &mut facts).await;
        Ok(Response::ok(answer(&of.record, &in_force, &facts, &unseen)))
    }

    async fn issues(&self, request: &Request) -> Result<Items, ArmError> {
        let subscription = request.path.subscription.as_deref();
        let clusters = directory::clusters(&*self.store, subscription, None).await;
        let in_force = self.known.catalogue().await;
        let mut all = Vec::new();
        for cluster in clusters.map_err(store_error)? {
            let facts = self.facts(&cluster.value, &in_force.catalogue).await?;
            all.push(answer(&cluster.value, &in_force, &facts, &[]));
        }
        Ok(Items::ById(all))
    }

    /// What the records tell of a cluster, and the bills of materials of its machines' images.
    async fn facts(&self, record: &ClusterRecord, catalogue: &Catalogue) -> Result<Facts, ArmError> {
        let machines = directory::machines(&*self.store, &record.uid).await;
        let machines = machines.map_err(store_error)?;
        let mut facts = recorded(record, &machines, catalogue);
        for build in self.images(&machines).await.builds {
            for component in &catalogue.components {
                // Kubernetes' own version is in the records.
                let version = build.bill.version_of(&component.package);
                let Some(version) = version.filter(|_| component.package != KUBERNETES) else {
                    continue;
                };
                let on = component.on.iter().filter(|on| build.on.contains(on));
                facts.installed.extend(on.map(|on| Installed {
                    component: component.name.clone(),
                    version: version.to_owned(),
                    on: *on,
                }));
            }
        }
        Ok(facts)
    }
}

/// What the records alone tell.
fn recorded(record: &ClusterRecord, machines: &[MachineRecord], catalogue: &Catalogue) -> Facts {
    let mut facts = Facts::default();
    if let Some(component) = catalogue.of_package(KUBERNETES) {
        let of = machines.iter().filter_map(|machine| {
            Some(Installed {
                component: component.name.clone(),
                version: machine.image.clone(),
                on: kind(machine)?,
            })
        });
        facts.installed.extend(of);
    }
    let members = machines
        .iter()
        .filter(|machine| kind(machine) == Some(On::ControlPlane));
    let away = |machine: &&MachineRecord| machine.deleting || machine.work.is_some();
    facts
        .flags
        .insert(Flag::MemberAway, members.clone().any(|machine| away(&machine)));
    facts.flags.insert(Flag::SeveralMembers, members.count() > 1);
    let pools = record.spec().pools.iter();
    let cores = pools.filter_map(|pool| vm_size(&pool.vm_size).map(|size| u64::from(size.cores)));
    if let Some(cores) = cores.max() {
        facts.counts.insert(Count::CoresOfANode, cores);
    }
    facts
}

/// The list that tells of a fact that the records do not have.
fn list_of(flag: Flag) -> Option<&'static str> {
    match flag {
        Flag::DynamicResourceAllocation => Some(DEVICE_CLASSES),
        Flag::RepublishingDrivers => Some(DRIVERS),
        Flag::PriorityClasses => Some(PRIORITY_CLASSES),
        Flag::SeveralMembers | Flag::MemberAway => None,
    }
}

/// What the objects of that list tell.
fn tells(flag: Flag, items: &[Value]) -> bool {
    let republishes = |driver: &Value| driver["spec"]["requiresRepublish"] == true;
    let own = |class: &Value| {
        let name = class["metadata"]["name"].as_str().unwrap_or_default();
        !name.starts_with("system-")
    };
    match flag {
        Flag::DynamicResourceAllocation => !items.is_empty(),
        Flag::RepublishingDrivers => items.iter().any(republishes),
        Flag::PriorityClasses => items.iter().any(own),
        // These are in the records.
        Flag::SeveralMembers | Flag::MemberAway => false,
    }
}

/// A list with its path.
async fn read(
    reader: &dyn ClusterReader,
    uid: &str,
    path: &'static str,
) -> (&'static str, Result<Vec<Value>, String>) {
    (path, list(reader, uid, path).await)
}

/// Reads the facts that are asked for from a cluster's API, all at the same time; what could not be read, with the reason.
async fn observe(
    reader: Option<&dyn ClusterReader>,
    uid: &str,
    flags: &BTreeSet<Flag>,
    counts: &BTreeSet<Count>,
    facts: &mut Facts,
) -> Vec<String> {
    let lists = flags.iter().filter_map(|flag| list_of(*flag));
    let mut paths: BTreeSet<&'static str> = lists.collect();
    if counts.contains(&Count::Endpoints) {
        paths.insert(ENDPOINTS);
    }
    let Some(reader) = reader else {
        let unread = paths.iter();
        return unread
            .map(|path| format!("{path}: this service has no way to the APIs of clusters"))
            .collect();
    };
    let mut reads = Vec::new();
    for path in paths {
        reads.push(read(reader, uid, path));
    }
    let mut unseen = Vec::new();
    let mut lists: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for (path, outcome) in join_all(reads).await {
        match outcome {
            Ok(items) => {
                lists.insert(path, items);
            }
            Err(why) => unseen.push(format!("{path}: {why}")),
        }
    }
    for flag in flags {
        if let Some(items) = list_of(*flag).and_then(|path| lists.get(path)) {
            facts.flags.insert(*flag, tells(*flag, items));
        }
    }
    if let Some(slices) = lists.get(ENDPOINTS) {
        let endpoints = slices
            .iter()
            .map(|slice| slice["endpoints"].as_array().map_or(0, Vec::len));
        let endpoints = u64::try_from(endpoints.sum::<usize>()).unwrap_or(u64::MAX);
        facts.counts.insert(Count::Endpoints, endpoints);
    }
    unseen
}

fn answer(record: &ClusterRecord, in_force: &InForce, facts: &Facts, unseen: &[String]) -> Value {
    let found = findings(&in_force.catalogue, facts);
    let id = arm_ids::resource_id(
        &record.subscription,
        &record.resource_group,
        HISTORY_NAMESPACE,
        &[("managedClusters", record.name.as_str()), ("knownIssues", NAME)],
    );
    json!({
        "id": id,
        "name": NAME,
        "type": format!("{HISTORY_NAMESPACE}/managedClusters/knownIssues"),
        "cluster": record.name,
        "resourceGroup": record.resource_group,
        "catalogue": in_force.answer(),
        "issues": found.iter().map(told).collect::<Vec<_>>(),
        "notObserved": unseen,
    })
}

fn told(finding: &Finding<'_>) -> Value {
    let issue = finding.issue;
    json!({
        "id": issue.id,
        "title": issue.title,
        "verdict": finding.verdict.name(),
        "component": issue.component,
        "versions": finding.versions,
        "fixedIn": finding.fixed,
        "on": issue.on.name(),
        "impact": issue.impact,
        "workaround": issue.workaround,
        "mitigation": issue.mitigation.name(),
        "timeline": issue.timeline,
        "upstream": issue.upstream,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;

    /// A cluster's API that knows a few lists, and what it was asked for.
    struct Lists(Mutex<Vec<String>>);

    #[async_trait]
    impl ClusterReader for Lists {
        async fn text(&self, _: &str, path: &str) -> Result<String, String> {
            self.0.lock().unwrap().push(path.to_owned());
            match path {
                PRIORITY_CLASSES => {
                    let names = ["system-node-critical", "important"];
                    let items = names.map(|name| json!({ "metadata": { "name": name } }));
                    Ok(json!({ "items": items }).to_string())
                }
                DRIVERS => Ok(json!({ "items": [{ "spec": { "requiresRepublish": false } }] }).to_string()),
                ENDPOINTS => {
                    Ok(json!({ "items": [{ "endpoints": [{}, {}] }, { "endpoints": null }] }).to_string())
                }
                _ => Err("404".to_owned()),
            }
        }
    }

    #[tokio::test]
    async fn only_what_is_asked_for_is_read_and_what_cannot_be_read_is_named() {
        let lists = Lists(Mutex::default());
        let flags = BTreeSet::from([Flag::PriorityClasses, Flag::DynamicResourceAllocation]);
        let mut facts = Facts::default();
        let unseen = observe(Some(&lists), "u", &flags, &BTreeSet::new(), &mut facts).await;
        assert_eq!(facts.flags, BTreeMap::from([(Flag::PriorityClasses, true)]));
        assert_eq!(unseen, [format!("{DEVICE_CLASSES}: 404")]);
        assert_eq!(lists.0.lock().unwrap().len(), 2, "nothing else was read");

        let flags = BTreeSet::from([Flag::RepublishingDrivers, Flag::SeveralMembers]);
        let counts = BTreeSet::from([Count::Endpoints]);
        let mut facts = Facts::default();
        assert!(
            observe(Some(&lists), "u", &flags, &counts, &mut facts)
                .await
                .is_empty()
        );
        assert_eq!(facts.flags, BTreeMap::from([(Flag::RepublishingDrivers, false)]));
        assert_eq!(facts.counts, BTreeMap::from([(Count::Endpoints, 2)]));

        let unseen = observe(None, "u", &flags, &BTreeSet::new(), &mut facts).await;
        assert_eq!(unseen.len(), 1);
    }
}
