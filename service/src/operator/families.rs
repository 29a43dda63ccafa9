//! All metrics of a stamp. Names stay: dashboards and rules of operators rest on them.
//!
//! Those of the edge and of the loops are theirs ([`arm_edge::measures`], [`control_loops::measures`]).

use base_metrics::Family;

/// The most clusters with series of their own; more are counted in the others, and told by [`CLUSTERS_LEFT_OUT`].
pub const MOST_CLUSTERS: usize = 2_000;

/// What a cluster's series are labelled with.
const OF_CLUSTER: &[&str] = &["subscription", "resource_group", "cluster"];
/// Total and used.
const KIND: &[&str] = &["kind"];

macro_rules! families {
    ($($(#[$doc:meta])* $name:ident = $family:expr;)*) => {
        $($(#[$doc])* pub static $name: Family = $family;)*
        /// Those that are written here.
        static OWN: &[&Family] = &[$(&$name),*];
    };
}

families! {
    /// The release.
    INFO = Family::gauge("landfall_info", "Always 1; the label is the release of the service.", &["version"], 1);
    /// Panics.
    PANICS = Family::counter("landfall_panics_total", "Faults of the service itself since it began; each was contained.", &[], 1);
    /// Memory.
    RESIDENT = Family::gauge("process_resident_memory_bytes", "Resident memory of the service.", &[], 1);
    /// CPU.
    CPU = Family::counter("process_cpu_seconds_total", "User and system time of the service.", &[], 1);
    /// Files.
    OPEN_FILES = Family::gauge("process_open_fds", "Open files of the service.", &[], 1);
    /// Files.
    MOST_FILES = Family::gauge("process_max_fds", "How many files the service may open.", &[], 1);
    /// Threads.
    THREADS = Family::gauge("process_threads", "Threads of the service.", &[], 1);
    /// Begin.
    STARTED = Family::gauge("process_start_time_seconds", "When the service began, since 1970.", &[], 1);

    /// Commits.
    COMMITS = Family::counter("landfall_store_commits_total", "Transactions of the store: ok, conflict (somebody else had written), failed.", &["result"], 3);
    /// Duration of commits.
    COMMIT_DURATION = Family::histogram("landfall_store_commit_duration_seconds", "Time until a transaction of the store was durable.", &[], 1);
    /// Revision.
    REVISION = Family::gauge("landfall_store_revision", "The store's revision: it grows by one with each transaction.", &[], 1);
    /// Size.
    STORE_BYTES = Family::gauge("landfall_store_size_bytes", "Size of the store's file.", &[], 1);
    /// Age of the newest copy.
    COPY_AGE = Family::gauge("landfall_store_copy_age_seconds", "Age of the newest copy of the store that was made since the service began.", &[], 1);
    /// How far the copies are behind.
    COPY_BEHIND = Family::gauge("landfall_store_copy_behind_seconds", "Since when the store has changes that are in no copy; 0: it has none.", &[], 1);
    /// Whether copies fail.
    COPY_FAILING = Family::gauge("landfall_store_copy_failing", "1 while the last copy of the store has failed.", &[], 1);
    /// The disk.
    DISK_BYTES = Family::gauge("landfall_disk_size_bytes", "Size of the filesystem that has the stamp's files.", &[], 1);
    /// The disk.
    DISK_FREE = Family::gauge("landfall_disk_free_bytes", "What is free of it for the service.", &[], 1);

    /// Clusters.
    CLUSTERS = Family::gauge("landfall_clusters", "Clusters, by provisioningState and by whether they are to run.", &["state", "power"], 60);
    /// Machines.
    MACHINES = Family::gauge("landfall_machines", "Machines, by role and by what is being done with them.", &["role", "state"], 30);
    /// Agents.
    AGENTS = Family::gauge("landfall_agents", "Agents of machines that are to run: connected, silent, or never heard since the service began.", &["state"], 3);
    /// Operations.
    OPERATIONS = Family::gauge("landfall_operations", "Operations of clusters that are kept, by status.", &["status"], 4);
    /// Running operations by age.
    OPERATION_AGES = Family::gauge("landfall_operations_in_progress", "Operations that have not ended, by age.", &["age"], 4);
    /// The oldest operation.
    OPERATION_OLDEST = Family::gauge("landfall_operation_oldest_seconds", "Age of the oldest operation that has not ended; 0 without one.", &[], 1);
    /// Held planned work.
    HELD = Family::gauge("landfall_planned_work_held", "1 while an operator holds planned work up.", &[], 1);

    /// Ready nodes of a cluster.
    CLUSTER_READY = Family::gauge("landfall_cluster_nodes_ready", "Nodes of a cluster that are Ready.", OF_CLUSTER, MOST_CLUSTERS);
    /// Wanted nodes of a cluster.
    CLUSTER_WANTED = Family::gauge("landfall_cluster_nodes_wanted", "Nodes that a cluster is to have.", OF_CLUSTER, MOST_CLUSTERS);
    /// Whether a cluster has a problem.
    CLUSTER_PROBLEM = Family::gauge("landfall_cluster_problem", "1 while a cluster tells of a problem.", OF_CLUSTER, MOST_CLUSTERS);
    /// How far a cluster's backup is behind.
    CLUSTER_LAG = Family::gauge("landfall_cluster_backup_lag_seconds", "Age of the oldest change of a cluster that its backup does not have, as its machines report it.", OF_CLUSTER, MOST_CLUSTERS);
    /// Clusters without series.
    CLUSTERS_LEFT_OUT = Family::gauge("landfall_clusters_without_series", "Clusters that have no series of their own, because there are more than 2,000.", &[], 1);
    /// The worst backup.
    LAG = Family::gauge("landfall_backup_lag_seconds", "The largest landfall_cluster_backup_lag_seconds of all clusters.", &[], 1);
    /// Backups that are behind.
    BEHIND = Family::gauge("landfall_backups_behind", "Clusters whose backup is told to be behind.", &[], 1);

    /// Builds.
    IMAGE_BUILDS = Family::gauge("landfall_image_builds", "Node images that are being built.", &[], 1);
    /// Age of images.
    IMAGE_AGE = Family::gauge("landfall_image_age_seconds", "How long ago the newest node image of a Kubernetes version that machines use was built, or seen to have the newest packages.", &["version"], 50);

    /// Cores.
    CORES = Family::gauge("landfall_capacity_cores", "Cores that may be given out to nodes (total), and that are asked for (used).", KIND, 2);
    /// Memory.
    MEMORY = Family::gauge("landfall_capacity_memory_bytes", "Memory for machines (total), and what they take at least (used).", KIND, 2);
    /// Disk.
    DISK = Family::gauge("landfall_capacity_disk_bytes", "Disk for machines (total, when the service began), and what they take at least (used).", KIND, 2);
    /// Addresses.
    ADDRESSES = Family::gauge("landfall_capacity_addresses", "Addresses of the stamp's network, by pool: machines or vips; total, and leased (used).", &["pool", "kind"], 4);

    /// Certificates.
    CERTIFICATES = Family::gauge("landfall_certificate_remaining_seconds", "The least that is left of the life of a certificate of a kind, in the stamp and all clusters.", &["kind"], 10);
    /// Alerts.
    ALERTS = Family::gauge("landfall_alerts_open", "Open alerts of the stamp, by severity.", &["severity"], 3);

    /// Series that were left out.
    LEFT_OUT = Family::gauge("landfall_metrics_left_out", "Series of this page that were left out because a metric would have had too many.", &[], 1);
    /// Duration of a scrape.
    SCRAPE = Family::gauge("landfall_metrics_scrape_seconds", "How long this page took.", &[], 1);
}

/// All metrics that a page may have.
pub fn all() -> impl Iterator<Item = &'static Family> {
    let edge = arm_edge::measures::FAMILIES.iter();
    let loops = control_loops::measures::FAMILIES.iter();
    OWN.iter().chain(edge).chain(loops).copied()
}
