//! What `landfall secrets` takes.

use clap::{Args, Subcommand};

/// `landfall secrets`.
#[derive(Debug, Subcommand)]
pub(crate) enum Secrets {
    /// List the sealing keys: their age, and what is sealed with each; no key itself is shown
    List,
    /// Make another sealing key, and seal every secret of the stamp with it
    #[command(after_help = "\
Records, the keys of backups and of their copy, and the key of the endpoint's CA are sealed anew while everything goes on. It may be
interrupted, and the service killed, at any point; given again before it has ended, it goes on. The key before is kept in the same file for
copies of the store that need it: for 15 days, and as long as there is such a copy.

Afterwards, keep a copy of secrets/sealing.key again: those of before do not have the new key.")]
    RotateSealingKey {
        /// Do not wait until everything is sealed with the new key
        #[arg(long)]
        no_wait: bool,
    },
    /// Drop a sealing key before its time: for when somebody else has it
    DropSealingKey(DropSealingKey),
}

/// `landfall secrets drop-sealing-key`.
#[derive(Debug, Args)]
#[command(after_help = "\
A key that seals, or that something is still sealed with, is not dropped: landfall secrets rotate-sealing-key comes first. Copies of the store
that were made while it sealed can be put back no more, except with a copy of secrets/sealing.key that has it.")]
pub(crate) struct DropSealingKey {
    /// Its id, as the list has it
    pub(crate) key: String,

    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}
