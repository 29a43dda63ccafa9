//! Arguments of `landfall subscription`.

use clap::Subcommand;

/// `landfall subscription`.
#[derive(Debug, Subcommand)]
pub(crate) enum Subscription {
    /// List subscriptions, and whether anything may be changed in them
    List,
    /// Let nothing be made or changed in a subscription any more
    #[command(after_help = "\
What is in it is still read and can be deleted, and kubeconfigs can be taken back. All else is refused with
ReadOnlyDisabledSubscription, new kubeconfigs (az aks get-credentials) among it. Clusters run on, and what was under way
goes on; nodes are still healed.

Example:
  landfall subscription disable 5a0e2b6c-93d1-4b6f-8d0a-1c2d3e4f5a6b")]
    Disable {
        /// Its id or its name; may be left out where there is only one
        subscription: Option<String>,
    },
    /// Let everything be done in a subscription again
    Enable {
        /// Its id or its name; may be left out where there is only one
        subscription: Option<String>,
    },
}
