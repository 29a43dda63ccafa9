//! Errors of node images, each as one sentence with a next step.

use std::{io, path::Path};

/// Why an image cannot be built, found, moved or checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The place of the cache is neither in a variable nor in the user database.
    #[error("there is no place for the cache: set LANDFALL_CACHE_DIR to a directory")]
    NoCacheDirectory,
    /// Another user could change programs that root runs.
    #[error(
        "{path} is no safe place for what root runs, since {part} {why}: give it to root (chown root:root {part}; chmod go-w {part}), or \
         choose another place with LANDFALL_CACHE_DIR"
    )]
    UnsafeCache {
        /// The cache, or the program.
        path: String,
        /// The part of the path with the problem.
        part: String,
        /// The problem.
        why: String,
    },
    /// There are no pins for this version.
    #[error("kubernetes {version} is not among the versions that can be built: {known}")]
    UnknownVersion {
        /// The requested version.
        version: String,
        /// The versions with pins, separated by commas.
        known: String,
    },
    /// The version is not in the store.
    #[error(
        "there is no node image of kubernetes {version} here: build it with 'landfall image build --kubernetes \
         {version}' or bring one with 'landfall image import'"
    )]
    NotBuilt {
        /// The requested version.
        version: String,
    },
    /// There is no such build of a version.
    #[error(
        "there is no node image {build} of kubernetes {version} here: see which there are with 'landfall image list'"
    )]
    NoBuild {
        /// The version.
        version: String,
        /// The requested build.
        build: String,
    },
    /// There is no such image of an add-on.
    #[error("there is no image {name} of an add-on: {known}")]
    UnknownAddon {
        /// The requested name.
        name: String,
        /// All names, separated by commas.
        known: String,
    },
    /// The image of an add-on is not in the store.
    #[error(
        "there is no image {name} here: build it with 'landfall image build --addon {name}' or bring one with \
         'landfall image import'"
    )]
    AddonNotBuilt {
        /// The requested name.
        name: String,
    },
    /// The `modules` source needs Go.
    #[error(
        "the Go toolchain is not installed: install Go {at_least} or newer from https://go.dev/dl, or bring a finished \
         image with 'landfall image import'"
    )]
    NoGo {
        /// The minimum of the newest pinned module.
        at_least: String,
    },
    /// A command of the Go toolchain failed.
    #[error("'go {command}' failed: {detail}; install Go {at_least} or newer from https://go.dev/dl")]
    Go {
        /// The subcommand.
        command: String,
        /// Its last output.
        detail: String,
        /// The minimum of the newest pinned module.
        at_least: String,
    },
    /// A component that is partly in C needs a C compiler and libraries.
    #[error(
        "{component} is partly in C, and {lacking} to compile that is missing: run 'apt-get install {packages}', or bring a \
         finished image with 'landfall image import'"
    )]
    NoCompiler {
        /// The component.
        component: String,
        /// What was not found.
        lacking: String,
        /// The Debian packages that a host needs for it, separated by blanks.
        packages: String,
    },
    /// The base layer needs mmdebstrap.
    #[error(
        "mmdebstrap is not installed: run 'apt-get install mmdebstrap', or bring a finished image with 'landfall image \
         import'"
    )]
    NoMmdebstrap,
    /// The base layer has files of several owners.
    #[error(
        "building a node image needs root, for the owners of the files in it: repeat the command with sudo"
    )]
    NotRoot,
    /// A remote host does not answer.
    #[error(
        "{what} needs the network and it does not answer ({detail}): check the connection and proxy settings and \
         repeat, or bring a finished image with 'landfall image import'"
    )]
    Network {
        /// The step.
        what: String,
        /// The line of output with the error.
        detail: String,
    },
    /// The disk is too full to start, or became full.
    #[error(
        "{directory} has {free_mb} MB free and about {needed_mb} MB are needed: free some space, or choose a \
         larger disk with {variable}"
    )]
    Space {
        /// The directory.
        directory: String,
        /// Free megabytes.
        free_mb: u64,
        /// Required megabytes.
        needed_mb: u64,
        /// The variable that selects another directory.
        variable: &'static str,
    },
    /// A program that builds something failed.
    #[error("{what} failed: {detail}; all that it said is in {log}")]
    Failed {
        /// The step.
        what: String,
        /// The last line of its output.
        detail: String,
        /// The file with all output.
        log: String,
    },
    /// The step was stopped because another step failed first.
    #[error("{what} was stopped because another step failed")]
    Stopped {
        /// The step.
        what: String,
    },
    /// A program is missing in the given directory.
    #[error("{program} is not in {directory}: put the file there, or use another source")]
    NoProgram {
        /// File name.
        program: String,
        /// The directory that was searched.
        directory: String,
    },
    /// A program is of another version than the pinned one.
    #[error("{program} says it is '{said}' and version {wanted} is pinned: bring that version")]
    WrongVersion {
        /// File name.
        program: String,
        /// The pinned version.
        wanted: String,
        /// The first line of its answer.
        said: String,
    },
    /// A program does not answer with its version.
    #[error("{program} cannot be run to ask for its version: check that it is a program for this machine")]
    Unaskable {
        /// File name.
        program: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// There is no pin for a download.
    #[error(
        "no SHA-256 is pinned for {url}: add it under [sha256] in a file and name that file with --pins, or use the \
         source 'modules'"
    )]
    MissingPin {
        /// The download.
        url: String,
    },
    /// The file with pins is malformed.
    #[error(
        "the pin file {path} cannot be used ({detail}): it needs lines '\"URL\" = \"64 hex digits\"' under [sha256]"
    )]
    BadPins {
        /// The file.
        path: String,
        /// The problem.
        detail: String,
    },
    /// A download differs from its pin.
    #[error("{url} has SHA-256 {got} and {wanted} is pinned: do not use it; check the pin and the mirror")]
    PinMismatch {
        /// The download.
        url: String,
        /// The pinned SHA-256.
        wanted: String,
        /// The SHA-256 of the download.
        got: String,
    },
    /// A download failed for another reason than the network.
    #[error("{url} cannot be downloaded ({detail}): check the address of the mirror")]
    Download {
        /// The download.
        url: String,
        /// HTTP status or reason.
        detail: String,
    },
    /// An archive has another structure than expected.
    #[error("{archive} cannot be used: {detail}")]
    BadArchive {
        /// The archive.
        archive: String,
        /// The problem.
        detail: String,
    },
    /// A file in the store is damaged.
    #[error("{path} is damaged ({detail}): remove {remove} and build or import the image again")]
    Damaged {
        /// The file.
        path: String,
        /// The problem.
        detail: String,
        /// The path to remove.
        remove: String,
    },
    /// A damaged layer cannot be removed.
    #[error("{layer} is damaged and machines run on it: stop their stamps with 'landfall down' and repeat")]
    InUse {
        /// Its directory.
        layer: String,
    },
    /// An operation on files or directories failed.
    #[error("cannot {what}")]
    Io {
        /// Verb and path.
        what: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

/// Adds the action and the path to an I/O error.
pub(crate) trait IoContext<T> {
    fn at(self, verb: &str, path: &Path) -> Result<T, ImageError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, verb: &str, path: &Path) -> Result<T, ImageError> {
        self.map_err(|source| ImageError::Io {
            what: format!("{verb} {}", path.display()),
            source,
        })
    }
}
