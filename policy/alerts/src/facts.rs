//! What alerts are decided from.

use std::time::Duration;

use cluster_versions::Version;
use control_records::alert::AlertCluster;
use jiff::Timestamp;

/// The facts of a stamp at one moment. What is `None` is not known at present.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Certificates of the stamp and its clusters.
    pub certificates: Option<Vec<CertificateFact>>,
    /// The disk that has the stamp's files.
    pub disk: Option<DiskFact>,
    /// The clusters.
    pub clusters: Option<Vec<ClusterFact>>,
    /// The newest node image of each version that a cluster uses.
    pub images: Option<Vec<ImageFact>>,
    /// The oldest version that is offered for new clusters.
    pub oldest_offered: Option<Version>,
    /// The machines' agents.
    pub agents: Option<AgentFacts>,
    /// The store.
    pub store: Option<StoreFacts>,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFact {
    /// What it is called among those of its owner, e.g. `endpoint`, `cluster-ca`; a name without spaces.
    pub name: String,
    /// The cluster that it is of; `None`: the stamp.
    pub cluster: Option<AlertCluster>,
    /// From when it is good.
    pub issued: Timestamp,
    /// Until when.
    pub expires: Timestamp,
    /// When it is renewed by itself; `None`: somebody has to do something.
    pub renews: Option<Timestamp>,
    /// How it is renewed, for people.
    pub remedy: &'static str,
}

/// A filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskFact {
    /// Its size, bytes.
    pub total: u64,
    /// What is free of it for the service, bytes.
    pub free: u64,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterFact {
    /// Which.
    pub cluster: AlertCluster,
    /// The version that its control plane runs, or is to run.
    pub version: Option<Version>,
    /// Whether it is stopped, or on its way out: nothing of it is looked at then but its version.
    pub rests: bool,
    /// Since when its backup is behind.
    pub backup_behind: Option<Timestamp>,
    /// Why repairs of its machines do not go on, for people; one for each machine.
    pub repairs_held: Vec<String>,
    /// What the configurations of this release wait for.
    pub release_waits: Option<String>,
}

/// A node image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFact {
    /// Its Kubernetes version.
    pub version: String,
    /// When it was built, or last seen to have the newest packages.
    pub built_at: Timestamp,
}

/// The agents of machines that are to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentFacts {
    /// How many there are.
    pub expected: u64,
    /// How many of them were heard since the service began, and are silent now.
    pub silent: u64,
}

/// The store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreFacts {
    /// How long a commit took on average since the last look; `None`: there was none.
    pub commit: Option<Duration>,
    /// Why it is not copied, or how far the copy is behind, for people.
    pub copy_problem: Option<String>,
}
