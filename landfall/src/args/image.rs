//! Arguments of `landfall image`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `landfall image`.
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Build the node image of a Kubernetes version, or the image of an add-on, unless it is there
    Build(ImageBuild),
    /// List the images that are there, and those that can be built
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
    /// Write an image to a file, for a host without network
    Export {
        /// Kubernetes version, or the name of an add-on's image
        image: String,
        /// Where to write it
        file: PathBuf,
    },
    /// Add an image from a file that `image export` wrote
    Import {
        /// The file
        file: PathBuf,
    },
    /// Compare every file of an image with its manifest
    Verify {
        /// Kubernetes version, or the name of an add-on's image [default: every image that is there]
        image: Option<String>,

        /// Take away what is damaged, and build it again
        #[arg(long)]
        repair: bool,
    },
    /// Push a container image from an archive to a registry of the stamp; no other registry and no network is needed
    Push(ImagePush),
}

/// `landfall image push`.
#[derive(Debug, Args)]
#[command(after_help = "\
The archive is one that docker save, podman save or skopeo copy writes (docker-archive, oci-archive), not compressed.
What the registry has already is not sent again: repeat the command after an interruption.

Examples:
  landfall image push app.tar acme1/team/app:1.0
  landfall image push images.tar acme1/app:2 --image example.com/app:2 --output json")]
pub(crate) struct ImagePush {
    /// The archive
    pub(crate) archive: PathBuf,

    /// Registry, repository and tag, as REGISTRY/REPOSITORY:TAG [default tag: latest]
    #[arg(value_name = "REGISTRY/REPOSITORY:TAG")]
    pub(crate) reference: String,

    /// Which image of an archive with several, as the archive calls it
    #[arg(long, value_name = "NAME")]
    pub(crate) image: Option<String>,
}

/// `landfall image build`.
#[derive(Debug, Args)]
pub(crate) struct ImageBuild {
    /// Kubernetes version [default: the default version]
    #[arg(long, value_name = "VERSION")]
    pub(crate) kubernetes: Option<String>,

    /// The image of an add-on in the place of a node image; `image list` shows their names
    #[arg(long, value_name = "NAME", conflicts_with = "kubernetes")]
    pub(crate) addon: Option<String>,

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
