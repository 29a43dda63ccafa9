//! Arguments of `landfall credentials`.

use clap::Subcommand;

/// `landfall credentials`.
#[derive(Debug, Subcommand)]
pub(crate) enum Credentials {
    /// List credentials that have not ended: whose rights they have, who asked for them, from where, and until when they are good
    List {
        /// A cluster, as NAME or GROUP/NAME [default: all]
        cluster: Option<String>,
    },
    /// Take credentials back: they stop working within seconds, and no machine is started again for it
    #[command(after_help = "\
Examples:
  landfall credentials list
  landfall credentials revoke k3v1q09a2b")]
    Revoke {
        /// Their ids, as the list has them
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
}
