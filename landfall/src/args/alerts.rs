//! What `landfall alerts` takes.

use clap::Args;

/// `landfall alerts`.
#[derive(Debug, Args)]
#[command(after_help = "\
Alerts open and close by themselves: each says what closes it. Closed ones are kept for 30 days.

Examples:
  landfall alerts
  landfall alerts host-disk
  landfall alerts --all --output json")]
pub(crate) struct Alerts {
    /// Only this one, with all that is told of it
    #[arg(value_name = "NAME")]
    pub(crate) alert: Option<String>,

    /// Closed ones as well
    #[arg(long, conflicts_with = "alert")]
    pub(crate) all: bool,
}
