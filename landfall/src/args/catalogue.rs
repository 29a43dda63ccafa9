//! Arguments of `landfall catalogue`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `landfall catalogue`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
The program brings a catalogue along. A newer one needs no newer program: it is a file that somebody has signed whose key the
stamp trusts. Nothing is fetched; where the file comes from is nobody's matter.

Examples:
  landfall catalogue show
  landfall catalogue trust vendor.key.pub
  landfall catalogue import catalogue.signed")]
pub(crate) enum Catalogue {
    /// Show the catalogue that is in force: minors with their windows, and what it has of each component
    Show,
    /// Print the catalogue that is in force as TOML, as a base for another one
    Text,
    /// Check a signed catalogue without importing it
    Verify {
        /// The file [default: the one that was imported]
        file: Option<PathBuf>,
    },
    /// Put a signed catalogue in force; it has to be newer than the one before
    Import {
        /// The file
        file: PathBuf,
    },
    /// Trust signatures of these keys, in place of those before
    Trust {
        /// Files with a public key of Ed25519, in PEM
        #[arg(required_unless_present = "none")]
        files: Vec<PathBuf>,

        /// Trust no key: the catalogue of the program is in force
        #[arg(long, conflicts_with = "files")]
        none: bool,
    },
    /// Sign a catalogue
    Sign(CatalogueSign),
    /// Make a key to sign catalogues with: the private key in FILE, the public one in FILE.pub
    Key {
        /// Where to write it; it must not be there yet
        file: PathBuf,
    },
}

/// `landfall catalogue sign`.
#[derive(Debug, Args)]
pub(crate) struct CatalogueSign {
    /// The catalogue, TOML
    pub(crate) file: PathBuf,

    /// The private key: PEM, as `landfall catalogue key` or `openssl genpkey -algorithm ed25519` writes it
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,

    /// Where to write the signed catalogue [default: FILE.signed]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}
