//! Arguments of `landfall support`.

use clap::Subcommand;

/// `landfall support`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  landfall support cves
  landfall support cves mygroup/mycluster --output json
  landfall support issues
  landfall support issues mycluster")]
pub(crate) enum Support {
    /// List vulnerabilities of the components that a cluster's machines run, with the fix, whose turn it is, and the upgrade that brings it
    Cves {
        /// The cluster, as NAME or GROUP/NAME [default: the only one]
        cluster: Option<String>,
    },
    /// List known issues of a cluster, with a workaround; of all clusters without one
    Issues {
        /// The cluster, as NAME or GROUP/NAME [default: all, from what is recorded of them]
        cluster: Option<String>,
    },
}
