//! The arguments of `landfall upgrade`.

use clap::{Args, Subcommand};

/// `landfall upgrade`.
#[derive(Debug, Subcommand)]
pub(crate) enum Upgrade {
    /// Report the obstacles of an upgrade, what each node waits for, and how long it will take
    #[command(after_help = "\
Obstacles are removed APIs, disruption budgets, webhooks, pods without a controller, volumes of one node, quotas. Times are those that
the same steps took on this stamp before; where nothing was measured yet, a node takes 60 s to start and 45 s to leave, and a control
plane member 30 s.

Examples:
  landfall upgrade plan --cluster mycluster --kubernetes-version 1.37
  landfall upgrade plan --cluster mygroup/mycluster --kubernetes-version 1.37.1 --output json")]
    Plan(UpgradePlan),
    /// Upgrade a control plane to the next minor release with a way back: its programs emulate the present one until that is finalised
    #[command(after_help = "\
The new programs serve the APIs of the present minor release and store what it can read. Until 'landfall upgrade finalize', or
until the hours are over, 'landfall upgrade rollback' takes the control plane back. Node pools stay: they are upgraded once the
control plane is finalised. az aks upgrade, which leaves no way back, does both at once.

Examples:
  landfall upgrade soak mycluster --kubernetes-version 1.37
  landfall upgrade soak mygroup/mycluster --kubernetes-version 1.37.1 --hours 24")]
    Soak(UpgradeSoak),
    /// End the emulation of the minor release of before: from then on there is no way back
    Finalize(UpgradeOf),
    /// Take a control plane back to the minor release that it emulates
    Rollback(UpgradeOf),
    /// Show whether a control plane has a way back, and until when
    Status(UpgradeOf),
}

/// `landfall upgrade plan`.
#[derive(Debug, Args)]
pub(crate) struct UpgradePlan {
    /// The cluster, as NAME or GROUP/NAME [default: the only one]
    #[arg(long, value_name = "CLUSTER")]
    pub(crate) cluster: Option<String>,
    /// The version, as 1.37 or 1.37.1
    #[arg(long, value_name = "VERSION")]
    pub(crate) kubernetes_version: String,
}

/// `landfall upgrade soak`.
#[derive(Debug, Args)]
pub(crate) struct UpgradeSoak {
    /// The cluster, as NAME or GROUP/NAME; may be left out where there is only one
    pub(crate) cluster: Option<String>,
    /// The version, as 1.37 or 1.37.1
    #[arg(long, value_name = "VERSION")]
    pub(crate) kubernetes_version: String,
    /// How long there is a way back
    #[arg(long, value_name = "HOURS", default_value_t = 168, value_parser = clap::value_parser!(u32).range(1..=168))]
    pub(crate) hours: u32,
}

/// One cluster.
#[derive(Debug, Args)]
pub(crate) struct UpgradeOf {
    /// The cluster, as NAME or GROUP/NAME; may be left out where there is only one
    pub(crate) cluster: Option<String>,
}
