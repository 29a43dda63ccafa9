//! Arguments of `landfall image`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `landfall image`.
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Build the node image of a Kubernetes version, unless it is there
    Build(ImageBuild),
    /// List the node images that are there, and the versions that can be built
    List,
    /// Build a newer node image with the packages that Debian has by now, where they are other ones; the service does that once a week
    Renew {
        /// Kubernetes version [default: the default version]
        #[arg(long, value_name = "VERSION")]
        kubernetes: Option<String>,
    },
    /// List the packages and components that differ between two node images of a version, with both versions
    Changes {
        /// Kubernetes version
        version: String,
        /// The older one, as 2026.11.28 [default: the second newest]
        #[arg(long, value_name = "BUILD")]
        from: Option<String>,
        /// The newer one [default: the newest]
        #[arg(long, value_name = "BUILD")]
        to: Option<String>,
    },
    /// Write a node image to a file, for a host without network
    Export {
        /// Kubernetes version
        version: String,
        /// Where to write it
        file: PathBuf,
    },
    /// Add a node image from a file that `image export` wrote
    Import {
        /// The file
        file: PathBuf,
    },
    /// Compare every file of a node image with its manifest
    Verify {
        /// Kubernetes version [default: every image that is there]
        version: Option<String>,

        /// Take away what is damaged, and build it again
        #[arg(long)]
        repair: bool,
    },
}

/// `landfall image build`.
#[derive(Debug, Args)]
pub(crate) struct ImageBuild {
    /// Kubernetes version [default: the default version]
    #[arg(long, value_name = "VERSION")]
    pub(crate) kubernetes: Option<String>,

    /// Where the programs come from; an image from elsewhere is then built anew [default: any image will do, else modules]
    #[arg(long, value_enum)]
    pub(crate) source: Option<SourceArg>,

    /// With `--source directory`: the directory. With `--source release`: the mirror's URL [default: the official one]
    #[arg(long, value_name = "DIRECTORY|URL")]
    pub(crate) from: Option<String>,

    /// With `--source release`: a file with further checksums
    #[arg(long, value_name = "FILE")]
    pub(crate) pins: Option<PathBuf>,
}

/// Where upstream programs come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SourceArg {
    /// Built from their Go modules
    Modules,
    /// Binaries brought along in a directory
    Directory,
    /// Official downloads, checksums pinned
    Release,
}
