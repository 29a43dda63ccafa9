//! The arguments of `landfall upgrade`.

use clap::{Args, Subcommand};

/// `landfall upgrade`.
#[derive(Debug, Subcommand)]
pub(crate) enum Upgrade {
    /// Report the obstacles of an upgrade: removed APIs, disruption budgets, webhooks, pods without a controller, volumes of one node, quotas
    Plan(UpgradePlan),
}

/// `landfall upgrade plan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  landfall upgrade plan --cluster mycluster --kubernetes-version 1.37
  landfall upgrade plan --cluster mygroup/mycluster --kubernetes-version 1.37.1 --output json")]
pub(crate) struct UpgradePlan {
    /// The cluster, as NAME or GROUP/NAME [default: the only one]
    #[arg(long, value_name = "CLUSTER")]
    pub(crate) cluster: Option<String>,
    /// The version, as 1.37 or 1.37.1
    #[arg(long, value_name = "VERSION")]
    pub(crate) kubernetes_version: String,
}
