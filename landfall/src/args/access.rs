//! Arguments of `landfall access`.

use clap::{Args, Subcommand};

/// `landfall access`.
#[derive(Debug, Subcommand)]
pub(crate) enum Access {
    /// List who has which role where: at a place, above it and below
    List(AccessPlace),
    /// Give a principal a role at a place and all that is below
    #[command(after_help = "\
Examples:
  landfall access grant Reader 9846525c-475f-49d3-a62f-fe96c5e5c5c5
  landfall access grant Contributor 9846525c-475f-49d3-a62f-fe96c5e5c5c5 --at shop
  landfall access grant 'Azure Kubernetes Service Cluster User Role' 9846525c-475f-49d3-a62f-fe96c5e5c5c5 --at shop/web")]
    Grant {
        /// The role's name or id, as in `az role definition list`
        role: String,

        /// The principal's object id
        principal: String,

        #[command(flatten)]
        place: AccessPlace,
    },
    /// Take a role away from a principal
    Revoke {
        /// The assignment's name, as the list has it
        #[arg(id = "assignment", value_name = "NAME")]
        name: String,

        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Where.
#[derive(Debug, Args)]
pub(crate) struct AccessPlace {
    /// A resource group, a cluster as GROUP/NAME, `/` for the whole stamp, or any ARM id [default: the subscription]
    #[arg(long, value_name = "PLACE")]
    pub(crate) at: Option<String>,
}
