//! Arguments of `landfall backup` and `landfall store`: backups of clusters, copies of the store.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `landfall backup`.
#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    /// List clusters, deleted ones too, with what is backed up of them
    List,
    /// Show which seconds of a cluster can be restored
    Show {
        /// The cluster, as NAME or GROUP/NAME; may be left out where there is only one
        cluster: Option<String>,
    },
    /// Restore a backup into memory and compare it with what the cluster held
    Verify {
        /// The cluster, as NAME or GROUP/NAME; may be left out where there is only one
        cluster: Option<String>,
    },
    /// Bring a cluster back to what it was at a second, in place or as a new cluster
    Restore(BackupRestore),
}

/// `landfall backup restore`.
#[derive(Debug, Args)]
#[command(after_help = "\
The cluster keeps its keys, certificates, addresses and machines; its objects are those of the second that is given:
no more, no fewer. Its API is away for some seconds. Nodes register again, and pods that were not there then go.
Data in volumes is not touched.

With --as, a new cluster is made instead, like the other and with its objects of that second. It has its own name, certificates,
addresses and machines. The other goes on, or may have been deleted, up to seven days ago. Pods that nobody makes again
and what belonged to the other's nodes stay behind. Long-lived service account tokens in secrets work in both.

Examples:
  landfall backup restore --at 2026-11-21T12:41:07Z --preview
  landfall backup restore shop --at 2026-11-21T12:41:07Z --yes
  landfall backup restore shop --at 2026-11-21T12:41:07Z --as shop2")]
pub(crate) struct BackupRestore {
    /// The cluster, as NAME or GROUP/NAME; may be left out where there is only one
    pub(crate) cluster: Option<String>,

    /// The second to go back to, as in 2026-11-21T12:41:07Z
    #[arg(long, value_name = "TIME")]
    pub(crate) at: String,

    /// Make a new cluster of this name instead, as NAME or GROUP/NAME [default group: the cluster's]
    #[arg(long = "as", value_name = "NAME", conflicts_with = "preview")]
    pub(crate) new: Option<String>,

    /// Only say what would change
    #[arg(long)]
    pub(crate) preview: bool,

    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// `landfall store`.
#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// Show the store and its copies: when, how large, of which revision, and where they and the sealing key are
    Show,
    /// Make a copy now, and wait until it has been read back
    Backup,
    /// Put the store back from a copy, while the service does not run
    Restore(StoreRestore),
    /// Begin with an empty store where the store's file is gone: it knows no cluster, and all that there is is unknown to it
    New,
}

/// `landfall store restore`.
#[derive(Debug, Args)]
#[command(after_help = "\
The store that is there is kept beside the new one, as store.redb.kept-MILLISECONDS. Machines go on meanwhile.
What happened after the copy is unknown to the store: machines, networks, volumes and backups that it does not know are kept and shown by
`landfall unknown list`. What it knows becomes again as it was then.")]
pub(crate) struct StoreRestore {
    /// The newest copy that is not younger, e.g. 2026-11-21T12:41:07Z [default: the newest]
    #[arg(long, value_name = "TIME", conflicts_with = "file")]
    pub(crate) at: Option<String>,

    /// A copy in a directory: DIRECTORY/store-ID/NAME.copy, with the file `key` beside it
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// Which store, where there are copies of several: its identity [default: the one whose file is there]
    #[arg(long, value_name = "ID", conflicts_with = "file")]
    pub(crate) store: Option<String>,

    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}
