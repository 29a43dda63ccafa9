//! What `landfall certificate` takes.

use clap::Subcommand;

/// `landfall certificate`.
#[derive(Debug, Subcommand)]
pub(crate) enum Certificates {
    /// List certificates and keys with their times: who has them, when they end, when they are renewed
    #[command(after_help = "\
Without a cluster: those of the stamp and of all clusters. What is told is read from the certificates themselves; no key is shown.

Examples:
  landfall certificate list
  landfall certificate list shop --output json")]
    List {
        /// Which cluster, as NAME or GROUP/NAME [default: the stamp and all clusters]
        cluster: Option<String>,
    },
}
