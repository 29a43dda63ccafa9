//! What can go wrong with node images, each as one sentence with a next step.

use std::{io, path::Path};

/// Why an image cannot be built, found, moved or checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Neither a variable nor the user database says where the cache is.
    #[error("there is no place for the cache: set LANDFALL_CACHE_DIR to a directory")]
    NoCacheDirectory,
    /// Somebody else could change what root runs.
    #[error(
        "{path} is no safe place for what root runs, since {part} {why}: give it to root (chown root:root {part}; chmod go-w {part}), or \
         choose another place with LANDFALL_CACHE_DIR"
    )]
    UnsafeCache {
        /// The cache, or the program.
        path: String,
        /// The part of the path that is at fault.
        part: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing is pinned for this version.
    #[error("kubernetes {version} is not among the versions that can be built: {known}")]
    UnknownVersion {
        /// As asked for.
        version: String,
        /// The versions that are, separated by commas.
        known: String,
    },
    /// The version is not in the store.
    #[error(
        "there is no node image of kubernetes {version} here: build it with 'landfall image build --kubernetes \
         {version}' or bring one with 'landfall image import'"
    )]
    NotBuilt {
        /// As asked for.
        version: String,
    },
    /// The `modules` source needs Go.
    #[error(
        "the Go toolchain is not installed: install Go {at_least} or newer from https://go.dev/dl, or bring a finished \
         image with 'landfall image import'"
    )]
    NoGo {
        /// What the newest pinned module asks for.
        at_least: String,
    },
    /// The Go toolchain does not do what it should.
    #[error("'go {command}' failed: {detail}; install Go {at_least} or newer from https://go.dev/dl")]
    Go {
        /// The subcommand.
        command: String,
        /// The last thing it said.
        detail: String,
        /// What the newest pinned module asks for.
        at_least: String,
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
    /// Something outside does not answer.
    #[error(
        "{what} needs the network and it does not answer ({detail}): check the connection and proxy settings and \
         repeat, or bring a finished image with 'landfall image import'"
    )]
    Network {
        /// The step.
        what: String,
        /// The line that said so.
        detail: String,
    },
    /// The disk is too full to start, or became full.
    #[error(
        "{directory} has {free_mb} MB free and about {needed_mb} MB are needed: free some space, or choose a \
         larger disk with {variable}"
    )]
    Space {
        /// Where.
        directory: String,
        /// Megabytes that are there.
        free_mb: u64,
        /// Megabytes that are needed.
        needed_mb: u64,
        /// What moves the directory.
        variable: &'static str,
    },
    /// A program that builds something failed.
    #[error("{what} failed: {detail}; all that it said is in {log}")]
    Failed {
        /// The step.
        what: String,
        /// Its last line.
        detail: String,
        /// The whole log.
        log: String,
    },
    /// Another step failed first and this one was stopped.
    #[error("{what} was stopped because another step failed")]
    Stopped {
        /// The step.
        what: String,
    },
    /// A brought-along program is not there.
    #[error("{program} is not in {directory}: put the file there, or use another source")]
    NoProgram {
        /// File name.
        program: String,
        /// Where it was looked for.
        directory: String,
    },
    /// A program is of another version than the one pinned.
    #[error("{program} says it is '{said}' and version {wanted} is pinned: bring that version")]
    WrongVersion {
        /// File name.
        program: String,
        /// What is pinned.
        wanted: String,
        /// First line of what it answered.
        said: String,
    },
    /// A program cannot be asked for its version.
    #[error("{program} cannot be run to ask for its version: check that it is a program for this machine")]
    Unaskable {
        /// File name.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A release download has no known checksum.
    #[error(
        "no SHA-256 is pinned for {url}: add it under [sha256] in a file and name that file with --pins, or use the \
         source 'modules'"
    )]
    MissingPin {
        /// The download.
        url: String,
    },
    /// The file with checksums is not one.
    #[error(
        "the pin file {path} cannot be used ({detail}): it needs lines '\"URL\" = \"64 hex digits\"' under [sha256]"
    )]
    BadPins {
        /// The file.
        path: String,
        /// What is wrong.
        detail: String,
    },
    /// A download is not what was pinned.
    #[error("{url} has SHA-256 {got} and {wanted} is pinned: do not use it; check the pin and the mirror")]
    PinMismatch {
        /// The download.
        url: String,
        /// The pin.
        wanted: String,
        /// What came.
        got: String,
    },
    /// A download failed for a reason that is not the network.
    #[error("{url} cannot be downloaded ({detail}): check the address of the mirror")]
    Download {
        /// The download.
        url: String,
        /// Status or reason.
        detail: String,
    },
    /// An archive has another shape than expected.
    #[error("{archive} cannot be used: {detail}")]
    BadArchive {
        /// Which.
        archive: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Something in the store cannot be read as what it should be.
    #[error("{path} is damaged ({detail}): remove {remove} and build or import the image again")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        detail: String,
        /// What to remove.
        remove: String,
    },
    /// A damaged layer cannot be taken away.
    #[error("{layer} is damaged and machines run on it: stop their stamps with 'landfall down' and repeat")]
    InUse {
        /// Its directory.
        layer: String,
    },
    /// Files and directories.
    #[error("cannot {what}")]
    Io {
        /// Verb and path.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Says what was being done to which path when an I/O error came.
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
