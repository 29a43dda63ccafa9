//! Add-ons: objects that Landfall keeps in every cluster, one value of [`Addon`] each, listed in [`ADDONS`].
//!
//! Pure: a desired cluster in, Kubernetes objects out. The control loops apply them (server-side, forced)
//! whenever the cluster changes and whenever another client changes one of them. The watches for that, the
//! images that nodes import, and the page `docs/reference/addons.md` follow from the list.
//!
//! Always true: every object carries [`MANAGED_LABEL`], so that changes to it can be watched; images are those of the node
//! image and are never pulled; an object's name does not depend on its content.
//!
//! To add one: a folder with its value, a line in [`ADDONS`], its golden (`tests/golden/`), and its image in
//! `components/components.toml`, in each node image or, where few clusters want it, built when first asked for
//! (`cluster/spec/src/images.rs`).

mod directory;
mod dns;
mod health;
mod identity_bindings;
mod ingress;
mod metrics;
mod page;
pub mod policies;
mod policy;
mod preserve;
mod roles;
mod storage;
mod trust;
mod trusted;
mod workload;

use std::{collections::BTreeSet, net::IpAddr};

use cluster_api::{AddonAilment, ObjectRef, Watch};
use cluster_spec::ClusterSpec;
use jiff::Timestamp;
use serde_json::{Value, json};

pub use page::page;
pub use roles::{
    CREDENTIAL_BINDINGS, SUPPORT_OBJECTS, credential_binding, credential_user, is_credential_binding,
    namespace_binding, support_objects, trusted_binding,
};

/// All add-ons, in the order in which they are applied.
pub const ADDONS: &[Addon] = &[
    roles::ROLES,
    preserve::NODE_PRESERVE,
    policy::NETWORK_POLICY,
    policies::ENGINE,
    ingress::CONTROLLER,
    ingress::GATEWAY_CLASS,
    ingress::GATEWAY_KINDS,
    workload::WORKLOAD_IDENTITY,
    identity_bindings::IDENTITY_BINDINGS,
    directory::ADMINS,
    trusted::TRUSTED_ACCESS,
    storage::DISKS,
    storage::SHARES,
    storage::SNAPSHOTS,
    dns::DNS,
    metrics::METRICS,
];

/// The label (key, value) of every managed object.
pub const MANAGED_LABEL: (&str, &str) = ("kubernetes.azure.com/managedby", "aks");
/// The same label as a selector.
const MANAGED: &str = "kubernetes.azure.com/managedby=aks";
/// The label with AKS' word for the handling of edits.
const MODE: &str = "addonmanager.kubernetes.io/mode";
/// The namespace of namespaced objects.
const KUBE_SYSTEM: Option<&str> = Some("kube-system");

/// An add-on.
#[derive(Debug, Clone, Copy)]
pub struct Addon {
    /// Its name.
    pub name: &'static str,
    /// Its purpose: half a sentence.
    pub about: &'static str,
    /// Container images that nodes import before they run its pods.
    pub images: &'static [Image],
    /// Names of images that are part of no node image ([`cluster_spec::ADDON_IMAGES`]). Its objects are applied once the host
    /// has all of them.
    pub built: &'static [&'static str],
    /// Objects whose changes are handled at once. Others are corrected at the next apply of the add-ons.
    pub watches: &'static [Watch],
    /// Objects in the cluster that its own depend on: a tenant's settings, and the status of its own objects.
    pub reads: &'static [ObjectRef],
    /// All its Deployments in `kube-system`. They are read together with [`Addon::reads`].
    pub deployments: &'static [&'static str],
    /// Its ailment, from the read objects: [`health::available`], unless it has a more specific check.
    pub health: fn(&Place<'_>, &Addon) -> Option<Ailment>,
    /// The handling of a tenant's edits to its objects.
    pub edits: Edits,
    /// The add-on that takes its place in a cluster that has both.
    pub replaced_by: Option<&'static str>,
    /// Its objects that are removed from a cluster that does not want it any more, in this order. The last of them, which it
    /// also reads, says whether any are left, if it is managed: an object of that name that a tenant made stays, and so do all
    /// others. None: it is never taken away.
    pub leaves: &'static [ObjectRef],
    /// Whether a cluster has it.
    pub wanted: fn(&ClusterSpec) -> bool,
    /// Its objects, in apply order.
    pub objects: fn(&Place<'_>) -> Vec<Value>,
}

/// The inputs of an add-on's objects.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The cluster.
    pub spec: &'a ClusterSpec,
    /// The stamp's options.
    pub options: &'a AddonOptions,
    /// The existing objects of [`Addon::reads`].
    pub read: &'a [Value],
}

impl<'a> Place<'a> {
    /// An object that was read.
    pub fn find(&self, object: &ObjectRef) -> Option<&'a Value> {
        self.read.iter().find(|found| {
            found["apiVersion"] == object.version
                && found["kind"] == object.kind
                && found["metadata"]["name"] == object.name
                && found["metadata"]["namespace"].as_str() == object.namespace
        })
    }
}

/// An add-on that does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ailment {
    /// The start of the problem, as reported by the cluster.
    pub since: Option<Timestamp>,
    /// The problem and where to look: a sentence without a full stop.
    pub why: String,
}

/// The handling of a tenant's edits to an add-on's objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edits {
    /// Fields that the add-on sets, and deleted objects, are restored; other fields stay.
    PutBack,
    /// Existing StorageClasses and VolumeSnapshotClasses stay as they are. All else is restored, and deleted
    /// objects are created again, at the next apply of the add-ons.
    Kept,
    /// As [`Edits::PutBack`], but only when all is compared: no watch tells of a deleted object.
    Compared,
}

impl Addon {
    /// Whether the host has the images that it needs beside those of node images.
    fn is_built(&self, options: &AddonOptions) -> bool {
        self.built.iter().all(|name| options.images.contains(*name))
    }

    /// Whether its objects are in the cluster, of one that may be taken away. If the last is on its way out, all others have been
    /// removed.
    fn is_there(&self, place: &Place<'_>) -> bool {
        let last = self.leaves.last().and_then(|last| place.find(last));
        last.map(|last| &last["metadata"]).is_some_and(|metadata| {
            metadata["labels"][MANAGED_LABEL.0] == MANAGED_LABEL.1 && metadata["deletionTimestamp"].is_null()
        })
    }

    /// Whether another one has its place.
    fn is_replaced(&self, place: &Place<'_>) -> bool {
        let other = ADDONS.iter().find(|addon| Some(addon.name) == self.replaced_by);
        other.is_some_and(|other| {
            (other.wanted)(place.spec) && (other.is_built(place.options) || other.is_there(place))
        })
    }

    /// Whether its objects are to be in the cluster now.
    fn applies(&self, place: &Place<'_>) -> bool {
        (self.wanted)(place.spec) && self.is_built(place.options) && !self.is_replaced(place)
    }
}

/// A container image that is part of every node image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// The name of its archive in the node image: `/opt/landfall/images/{name}.tar`.
    pub name: &'static str,
    /// Name and tag in pods.
    pub reference: &'static str,
}

/// Inputs of the objects besides the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddonOptions {
    /// DNS servers for names outside the cluster; empty for a stamp without an uplink.
    pub upstream_dns: Vec<IpAddr>,
    /// The URL of the stamp's token service for pods, with a trailing slash.
    pub authority: String,
    /// PEM of the CA of its certificate.
    pub authority_ca: String,
    /// GUID of its tenant.
    pub tenant: String,
    /// Names of the images of [`cluster_spec::ADDON_IMAGES`] that the host has.
    pub images: BTreeSet<String>,
}

/// The objects of all add-ons of a cluster, in apply order. `read` are the existing objects of [`reads`].
pub fn manifests(spec: &ClusterSpec, options: &AddonOptions, read: &[Value]) -> Vec<Value> {
    let place = Place { spec, options, read };
    let wanted = ADDONS.iter().filter(|addon| addon.applies(&place));
    let mut objects: Vec<Value> = wanted.flat_map(|addon| (addon.objects)(&place)).collect();
    objects.iter_mut().for_each(label);
    trust::stamp(&place, &mut objects);
    objects
}

/// The objects of add-ons that are in a cluster and that it does not want any more, in the order of their removal. `read` are the
/// existing objects of [`reads`].
pub fn leaving(spec: &ClusterSpec, options: &AddonOptions, read: &[Value]) -> Vec<ObjectRef> {
    let place = Place { spec, options, read };
    let gone = ADDONS
        .iter()
        .filter(|addon| addon.is_there(&place) && (!(addon.wanted)(spec) || addon.is_replaced(&place)));
    gone.flat_map(|addon| addon.leaves).copied().collect()
}

/// Adds the label of managed objects.
fn label(object: &mut Value) {
    object["metadata"]["labels"][MANAGED_LABEL.0] = json!(MANAGED_LABEL.1);
    let mode = &mut object["metadata"]["labels"][MODE];
    if mode.is_null() {
        *mode = json!("Reconcile");
    }
}

/// The watches of every cluster: each kind once.
pub fn watches() -> Vec<Watch> {
    let all: BTreeSet<Watch> = ADDONS.iter().flat_map(|addon| addon.watches).copied().collect();
    all.into_iter().collect()
}

/// The objects to read in every cluster before rendering: each once.
pub fn reads() -> Vec<ObjectRef> {
    let all: BTreeSet<ObjectRef> = ADDONS
        .iter()
        .flat_map(|addon| {
            let deployments = addon.deployments.iter().map(|name| health::deployment(name));
            addon.reads.iter().copied().chain(deployments)
        })
        .chain([trust::PUBLISHED])
        .collect();
    all.into_iter().collect()
}

/// The add-ons of a cluster that do not work. `read` are the existing objects of [`reads`]; a missing object,
/// or one without a status yet, is no problem.
pub fn ailments(spec: &ClusterSpec, options: &AddonOptions, read: &[Value]) -> Vec<AddonAilment> {
    let place = Place { spec, options, read };
    ADDONS
        .iter()
        .filter(|addon| (addon.wanted)(spec))
        .filter_map(|addon| {
            let ailment = (addon.health)(&place, addon)?;
            Some(AddonAilment {
                addon: addon.name.to_owned(),
                since: ailment.since.unwrap_or(Timestamp::UNIX_EPOCH),
                why: ailment.why,
            })
        })
        .collect()
}

/// The images that nodes import.
pub fn images() -> impl Iterator<Item = Image> {
    ADDONS.iter().flat_map(|addon| addon.images).copied()
}

/// Managed objects of a kind.
const fn managed(version: &'static str, kind: &'static str, namespace: Option<&'static str>) -> Watch {
    Watch {
        version,
        kind,
        namespace,
        labels: Some(MANAGED),
        name: None,
    }
}

/// The placement of add-ons' pods: on system pools if there are any, whatever taints those have.
fn placement() -> Value {
    json!({
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": { "kubernetes.io/os": "linux" },
        "tolerations": [
            { "key": "CriticalAddonsOnly", "operator": "Exists" },
            { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30 },
            { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30 }
        ],
        "affinity": { "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "preference": { "matchExpressions": [
                { "key": "kubernetes.azure.com/mode", "operator": "In", "values": ["system"] }
            ] }
        }] } }
    })
}

/// A pod specification with the placement of add-ons.
fn placed(mut pod: Value) -> Value {
    if let (Some(pod), Value::Object(placement)) = (pod.as_object_mut(), placement()) {
        pod.extend(placement);
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_spec::{PodNetworking, testkit};

    pub(crate) fn spec(nodes: u32) -> ClusterSpec {
        ClusterSpec {
            network: testkit::network(PodNetworking::Kubenet),
            pools: vec![testkit::pool("nodepool1", nodes)],
            ..testkit::cluster()
        }
    }

    fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
        objects
            .iter()
            .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
            .unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    /// A change of these reaches existing clusters. `UPDATE_GOLDEN=1 cargo test -p cluster-addons` writes
    /// them.
    #[test]
    fn what_is_rendered_is_pinned() {
        let options = AddonOptions {
            upstream_dns: vec!["192.0.2.53".parse().unwrap()],
            authority: "https://100.64.16.1:7443/".to_owned(),
            authority_ca: "CA".to_owned(),
            tenant: "00000000-0000-0000-0000-00000000000f".to_owned(),
            images: BTreeSet::new(),
        };
        for addon in ADDONS {
            let objects = (addon.objects)(&Place {
                spec: &spec(2),
                options: &options,
                read: &[],
            });
            let text = serde_json::to_string_pretty(&objects).unwrap() + "\n";
            // A test runs in its crate's folder; the compile-time path may be another checkout.
            let path = std::path::Path::new("tests/golden").join(format!("{}.json", addon.name));
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, &text).unwrap();
            }
            let golden = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                golden == text,
                "{} differs from what {} renders: UPDATE_GOLDEN=1 writes it, git diff shows how",
                path.display(),
                addon.name
            );
        }
    }

    #[test]
    fn an_addon_watches_runs_and_imports_what_it_consists_of() {
        let mut names = std::collections::BTreeSet::new();
        for addon in ADDONS {
            assert!(names.insert(addon.name), "{} is there twice", addon.name);
            let objects = (addon.objects)(&Place {
                spec: &spec(2),
                options: &AddonOptions::default(),
                read: &[],
            });
            for watch in addon.watches.iter().filter(|watch| watch.name.is_none()) {
                let of = |object: &Value| {
                    object["apiVersion"] == watch.version
                        && object["kind"] == watch.kind
                        && object["metadata"]["namespace"].as_str() == watch.namespace
                };
                assert!(objects.iter().any(of), "{}: {watch:?}", addon.name);
                assert_eq!(
                    watch.labels,
                    Some(format!("{}={}", MANAGED_LABEL.0, MANAGED_LABEL.1).as_str())
                );
            }
            let is_deployment = |object: &&Value| object["kind"] == "Deployment";
            let named: Vec<&str> = objects
                .iter()
                .filter(is_deployment)
                .filter(|object| object["metadata"]["namespace"].as_str() == KUBE_SYSTEM)
                .filter_map(|object| object["metadata"]["name"].as_str())
                .collect();
            assert_eq!(named, addon.deployments, "{}", addon.name);
            let used: BTreeSet<&str> = objects
                .iter()
                .filter(|object| is_deployment(object) || object["kind"] == "DaemonSet")
                .flat_map(|object| {
                    object["spec"]["template"]["spec"]["containers"]
                        .as_array()
                        .unwrap()
                })
                .filter_map(|container| container["image"].as_str())
                .collect();
            let built = addon
                .built
                .iter()
                .map(|name| cluster_spec::AddonImage::named(name).unwrap());
            let brought = addon.images.iter().map(|image| image.reference);
            let known: BTreeSet<&str> = brought.chain(built.map(|image| image.reference)).collect();
            assert_eq!(used, known, "{}", addon.name);
            // What may be taken away is known by an object that is read, and is all that was made.
            if let Some(last) = addon.leaves.last() {
                assert!(addon.reads.contains(last), "{}", addon.name);
                assert_eq!(addon.leaves.len(), objects.len(), "{}", addon.name);
            }
        }
        let watches = watches();
        assert_eq!(watches.len(), 8, "{watches:?}");
    }

    #[test]
    fn every_object_is_named_labelled_and_unique() {
        let objects = manifests(&spec(2), &AddonOptions::default(), &[]);
        let mut seen = std::collections::BTreeSet::new();
        for object in &objects {
            assert!(
                object["apiVersion"].is_string() && object["kind"].is_string(),
                "{object}"
            );
            assert_eq!(object["metadata"]["labels"][MANAGED_LABEL.0], MANAGED_LABEL.1);
            assert!(seen.insert((
                object["kind"].to_string(),
                object["metadata"]["namespace"].to_string(),
                object["metadata"]["name"].to_string()
            )));
        }
    }

    #[test]
    fn dns_listens_where_kubelets_look_and_forwards_only_where_there_is_an_upstream() {
        let alone = manifests(&spec(1), &AddonOptions::default(), &[]);
        assert_eq!(
            find(&alone, "Service", "kube-dns")["spec"]["clusterIP"],
            "10.0.0.10"
        );
        assert_eq!(find(&alone, "Deployment", "coredns")["spec"]["replicas"], 1);
        let corefile = &find(&alone, "ConfigMap", "coredns")["data"]["Corefile"];
        assert!(!corefile.as_str().unwrap().contains("forward"));

        let options = AddonOptions {
            upstream_dns: vec!["192.0.2.53".parse().unwrap()],
            ..AddonOptions::default()
        };
        let outside = manifests(&spec(5), &options, &[]);
        assert_eq!(find(&outside, "Deployment", "coredns")["spec"]["replicas"], 2);
        let corefile = &find(&outside, "ConfigMap", "coredns")["data"]["Corefile"];
        assert!(corefile.as_str().unwrap().contains("forward . 192.0.2.53"));
        // For the cluster's own names, neither positive nor negative answers are cached.
        let kept = "    cache 30 {\n        disable success cluster.local\n        disable denial cluster.local\n    }\n";
        assert!(corefile.as_str().unwrap().contains(kept), "{corefile}");
    }
}
