//! What `landfall maintenance` takes.

use clap::Subcommand;

/// `landfall maintenance`.
#[derive(Debug, Subcommand)]
pub(crate) enum Maintenance {
    /// Show whether planned work is held up, and what clusters wait for
    Status,
    /// Hold planned work up in the whole stamp
    #[command(after_help = "\
Planned work is what the service does to clusters although nobody has asked for it: upgrades by a channel
(autoUpgradeProfile), newer node images, and the configurations of a newer release. What was begun goes on. Nodes are still
healed, certificates renewed, and everything that somebody asks for is done.

Example:
  landfall maintenance pause --reason 'the year's end'")]
    Pause {
        /// Why, for people
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Let planned work go on, each cluster's in its window
    Resume,
}
