//! What is known of a cluster, each fact with the time since when it is one.

use std::{fmt, str::FromStr};

use cluster_versions::Version;
use jiff::Timestamp;

/// A fact, and since when it is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact<T> {
    /// What is so.
    pub value: T,
    /// Since when at the latest; `None`: that is not known, and it is so now.
    pub since: Option<Timestamp>,
}

impl<T> Fact<T> {
    /// A fact since a time.
    pub fn since(value: T, since: Timestamp) -> Self {
        Self {
            value,
            since: Some(since),
        }
    }

    /// A fact of which it is not known since when it is one.
    pub fn now(value: T) -> Self {
        Self { value, since: None }
    }

    /// Whether it was a fact by then. One of unknown age is taken to have been.
    fn was(&self, at: Timestamp) -> bool {
        self.since.is_none_or(|since| since <= at)
    }
}

/// A minor release of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Minor {
    /// 1 so far.
    pub major: u32,
    /// The minor.
    pub minor: u32,
}

impl Minor {
    /// `1.{minor}`.
    pub const fn one(minor: u32) -> Self {
        Self { major: 1, minor }
    }
}

impl From<Version> for Minor {
    fn from(version: Version) -> Self {
        Self {
            major: version.major,
            minor: version.minor,
        }
    }
}

/// A text that is no version of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoMinor;

impl fmt::Display for NoMinor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a version of Kubernetes: write it as 1.36 or 1.36.3")
    }
}

impl std::error::Error for NoMinor {}

impl FromStr for Minor {
    type Err = NoMinor;

    /// Of `1.36` or `1.36.3`.
    fn from_str(text: &str) -> Result<Self, NoMinor> {
        let mut parts = text.split('.').map(str::parse::<u32>);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), None | Some(Ok(_)), None) => Ok(Self { major, minor }),
            _ => Err(NoMinor),
        }
    }
}

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A minor release that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// Which.
    pub minor: Minor,
    /// When it was released, or is to be.
    pub released: Timestamp,
    /// Whether this stamp has it.
    pub offered: bool,
}

/// A pool of nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// The version of its kubelets.
    pub version: Fact<Minor>,
    /// When the oldest of its nodes was made: its image is no newer. `None`: it has no nodes.
    pub oldest_node: Option<Timestamp>,
    /// When the newest node image of its version was built, where that is known.
    pub newest_image: Option<Timestamp>,
}

/// Where pods' network comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugin {
    /// kubenet.
    Kubenet,
    /// Azure CNI, with or without overlay.
    AzureCni,
    /// Flannel, which the documents of hybrid stamps name.
    Flannel,
    /// Calico, which they name as well.
    Calico,
    /// The tenant's own (`networkPlugin: none`).
    Own,
}

/// How something was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// Through ARM, a host, a machine or a disk: past Kubernetes and past the service.
    Infrastructure,
    /// By a DaemonSet, privileged or not: the way to tune nodes.
    DaemonSet,
    /// Through Kubernetes' API.
    Kubernetes,
    /// Through the service's API.
    Service,
}

/// What was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// An object of the service's in the cluster.
    ManagedObject,
    /// A node's files, processes, packages, units or network.
    Node,
    /// Labels or tags that the service made.
    SystemMetadata,
    /// A resource of the group of the nodes.
    NodeGroup,
    /// A security group of a subnet that is the service's, or of a node's card.
    ManagedRules,
    /// An extension of a node's machine, such as CustomScriptExtension.
    Extension,
    /// A node that a DaemonSet of the tenant's has broken.
    BrokenByDaemonSet,
}

/// A change that is not the service's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What.
    pub kind: ChangeKind,
    /// By which means.
    pub means: Means,
    /// The object, file or resource.
    pub what: String,
    /// Who, where that is known.
    pub who: Option<String>,
    /// When.
    pub at: Timestamp,
    /// When it was undone: reverted, or its node made anew.
    pub undone: Option<Timestamp>,
}

/// A flaw in what runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advisory {
    /// E.g. `CVE-2026-0001`.
    pub id: String,
    /// The component that has it.
    pub component: String,
    /// Whether that is a component of the service's: others are not counted.
    pub managed: bool,
    /// When its vendor released a fix; `None`: there is none.
    pub fixed: Option<Timestamp>,
    /// What brings the fix, e.g. `node image of 2026-11-20`; empty where this stamp has nothing.
    pub remedy: String,
    /// Since when the cluster is known to have it.
    pub since: Timestamp,
}

/// A reboot of a node that is planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reboot {
    /// The node.
    pub node: String,
    /// Why.
    pub why: String,
    /// When it was announced.
    pub announced: Timestamp,
    /// When it begins.
    pub at: Timestamp,
}

/// A known issue that the cluster has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// Its id in the registry.
    pub id: String,
    /// What it is, with its upstream link.
    pub title: String,
    /// What to do about it until then, or that the service has mitigated it.
    pub workaround: String,
    /// The version that ends it; empty: none yet.
    pub fixed_in: String,
}

/// A stamp's connection to its registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Nothing is known of one.
    Unknown,
    /// The stamp has no connection, by design.
    AirGapped,
    /// Its kind of host has no duty to connect.
    Exempt,
    /// It was reached last at this time.
    Reached(Timestamp),
}

/// What is known of the stamp that a cluster is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// When the release of the platform (host, stamp) goes out of support.
    pub platform_end: Option<Timestamp>,
    /// How many releases of the engine are newer than this stamp's.
    pub releases_behind: Option<Fact<u32>>,
    /// Its connection.
    pub registration: Registration,
}

impl Default for Stamp {
    fn default() -> Self {
        Self {
            platform_end: None,
            releases_behind: None,
            registration: Registration::Unknown,
        }
    }
}

/// What may be done in the subscription of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscription {
    /// Everything.
    Active,
    /// It was suspended.
    Suspended,
    /// It was deleted.
    Deleted,
}

/// Everything that the rules ask about one cluster. A fact that nobody has collected is absent, and its rule says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// When the cluster was made.
    pub created: Timestamp,
    /// The minor releases that are known.
    pub releases: Vec<Release>,
    /// The version that the control plane runs.
    pub control_plane: Fact<Minor>,
    /// Whether the cluster has the plan for long-term support.
    pub long_term: bool,
    /// Its pools.
    pub pools: Vec<Pool>,
    /// Where pods' network comes from.
    pub plugin: Fact<Plugin>,
    /// Members of its control plane.
    pub members: u32,
    /// Its nodes.
    pub nodes: u32,
    /// Whether it is for production; `None`: nobody has said.
    pub production: Option<bool>,
    /// Whether it is of the tier where alpha features may be tried.
    pub sandbox: bool,
    /// Alpha feature gates that are on.
    pub alpha_gates: Vec<Fact<String>>,
    /// Preview features that are used.
    pub previews: Vec<Fact<String>>,
    /// Changes that are not the service's.
    pub changes: Vec<Change>,
    /// What is wrong with it, as the service tells of it.
    pub problem: Option<Fact<String>>,
    /// The last request, if it has failed: what and why.
    pub failed: Option<Fact<String>>,
    /// Machines that are being repaired, and why.
    pub repairs: Vec<Fact<String>>,
    /// Since when the backup is behind the cluster.
    pub backup_behind: Option<Timestamp>,
    /// Flaws in what runs.
    pub advisories: Vec<Advisory>,
    /// Reboots that are planned.
    pub reboots: Vec<Reboot>,
    /// Since when it is stopped.
    pub stopped: Option<Timestamp>,
    /// Since when all its nodes are deallocated by hand.
    pub deallocated: Option<Timestamp>,
    /// Since when no node is Ready, of those that are to be there.
    pub unready: Option<Timestamp>,
    /// How many of its nodes' machines run, where that is known.
    pub running: Option<u32>,
    /// Since when its control plane is archived.
    pub archived: Option<Timestamp>,
    /// Its subscription.
    pub subscription: Fact<Subscription>,
    /// Its stamp.
    pub stamp: Stamp,
    /// Known issues that it has.
    pub issues: Vec<Fact<Issue>>,
    /// Options of the definition that an engine made it from, of those that are not supported: paths, see [`crate::engine`].
    pub options: Vec<Fact<String>>,
}

impl Facts {
    /// A cluster of which nothing is known but its control plane's version: everything else is as after a creation.
    pub fn of(created: Timestamp, version: Minor, releases: Vec<Release>) -> Self {
        Self {
            created,
            releases,
            control_plane: Fact::since(version, created),
            long_term: false,
            pools: Vec::new(),
            plugin: Fact::since(Plugin::AzureCni, created),
            members: 1,
            nodes: 0,
            production: None,
            sandbox: false,
            alpha_gates: Vec::new(),
            previews: Vec::new(),
            changes: Vec::new(),
            problem: None,
            failed: None,
            repairs: Vec::new(),
            backup_behind: None,
            advisories: Vec::new(),
            reboots: Vec::new(),
            stopped: None,
            deallocated: None,
            unready: None,
            running: None,
            archived: None,
            subscription: Fact::since(Subscription::Active, created),
            stamp: Stamp::default(),
            issues: Vec::new(),
            options: Vec::new(),
        }
    }

    /// The facts that were so at an earlier time, and the names of those of which that is not known: they began later, and what was before is
    /// kept nowhere, so that they are taken as they are now. What was so then and has ended since is not known, and not shown.
    #[must_use]
    pub fn at(&self, at: Timestamp) -> (Self, Vec<String>) {
        let mut then = self.clone();
        let mut unknown = Vec::new();
        let mut known = |name: &str, fact_since: Option<Timestamp>| {
            if fact_since.is_none_or(|since| since > at) {
                unknown.push(name.to_owned());
            }
        };
        known("controlPlane.version", self.control_plane.since);
        for pool in &self.pools {
            known(&format!("pools.{}.version", pool.name), pool.version.since);
        }
        known("network.plugin", self.plugin.since);
        // One that is active again now may have been suspended then.
        known("subscription.state", self.subscription.since);
        if self.subscription.value != Subscription::Active && !self.subscription.was(at) {
            then.subscription = Fact::now(Subscription::Active);
        }
        then.alpha_gates.retain(|fact| fact.was(at));
        then.previews.retain(|fact| fact.was(at));
        then.changes.retain(|change| change.at <= at);
        then.advisories.retain(|advisory| advisory.since <= at);
        then.reboots.retain(|reboot| reboot.announced <= at);
        then.repairs.retain(|fact| fact.was(at));
        then.issues.retain(|fact| fact.was(at));
        then.options.retain(|fact| fact.was(at));
        then.problem = then.problem.filter(|fact| fact.was(at));
        then.failed = then.failed.filter(|fact| fact.was(at));
        for since in [
            &mut then.backup_behind,
            &mut then.stopped,
            &mut then.deallocated,
            &mut then.unready,
            &mut then.archived,
        ] {
            *since = since.filter(|since| *since <= at);
        }
        for pool in &mut then.pools {
            // Nodes that were made later took the place of others, or are more.
            pool.oldest_node = pool.oldest_node.filter(|made| *made <= at);
            pool.newest_image = pool.newest_image.filter(|built| *built <= at);
        }
        (then, unknown)
    }
}
