//! The images that the tests use: their list, and how each is made here.
//!
//! Always true: the tests list the names (`e2e.test --list-images`), so an image is loaded under exactly the
//! name that a test uses; two names are two images, even with the same contents; a name without an image is
//! listed with the reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result};
use image::container::{self, Image};
use serde::{Deserialize, Serialize};

use crate::{
    debian::{self, Files},
    place::{self, Place},
    programs::Programs,
};

/// The contents of an image. A change of their meaning needs another [`RECIPE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Debian's small programs, and Kubernetes' own program for tests.
    Agnhost,
    /// The same with a picture and its description.
    Picture(&'static str),
    /// Debian's small programs and CoreDNS: looks names up with glibc.
    Lookups,
    /// Debian's small programs.
    Programs,
    /// The same, for a user that is not root.
    NonRoot,
    /// Debian's static busybox.
    Busybox,
    /// Debian's catatonit.
    Pause,
    /// Debian's nginx.
    Nginx,
    /// etcd, as the control planes run it.
    Etcd,
    /// An API server beside the API server.
    SampleApiServer,
    /// A program that prints its effective user, with the set-user-id bit.
    NoNewPrivileges,
    /// Uses processor time and memory on request.
    ResourceConsumer,
    /// Sends TCP packets that a firewall must not take for invalid.
    Regression74839,
    /// A registry with the images that tests pull.
    Registry,
    /// Not made, for this reason.
    Missing(&'static str),
}

const NOT_ASKED: &str = "no test of [Conformance] asks for it";
const SIDECAR: &str = "a part of CSI drivers for tests, whose modules no module proxy has; no test of [Conformance] asks for it";

/// By the name of the repository: tags change with the version.
const KINDS: &[(&str, Kind)] = &[
    ("registry.k8s.io/e2e-test-images/agnhost", Kind::Agnhost),
    ("registry.k8s.io/e2e-test-images/busybox", Kind::Busybox),
    ("registry.k8s.io/e2e-test-images/glibc-dns-testing", Kind::Lookups),
    ("registry.k8s.io/e2e-test-images/ipc-utils", Kind::Programs),
    ("registry.k8s.io/e2e-test-images/kitten", Kind::Picture("kitten")),
    (
        "registry.k8s.io/e2e-test-images/nautilus",
        Kind::Picture("nautilus"),
    ),
    ("registry.k8s.io/e2e-test-images/nginx", Kind::Nginx),
    (
        "registry.k8s.io/e2e-test-images/nonewprivs",
        Kind::NoNewPrivileges,
    ),
    ("registry.k8s.io/e2e-test-images/nonroot", Kind::NonRoot),
    (
        "registry.k8s.io/e2e-test-images/regression-issue-74839",
        Kind::Regression74839,
    ),
    (
        "registry.k8s.io/e2e-test-images/resource-consumer",
        Kind::ResourceConsumer,
    ),
    (
        "registry.k8s.io/e2e-test-images/sample-apiserver",
        Kind::SampleApiServer,
    ),
    ("registry.k8s.io/etcd", Kind::Etcd),
    ("registry.k8s.io/pause", Kind::Pause),
    (
        "gcr.io/k8s-authenticated-test/agnhost",
        Kind::Missing("needs its owner's key to pull; tests that use it run at provider gce alone"),
    ),
    (
        "invalid.registry.k8s.io/invalid/alpine",
        Kind::Missing("is meant not to be there"),
    ),
    (
        "registry.k8s.io/build-image/distroless-iptables",
        Kind::Missing(NOT_ASKED),
    ),
];

/// Raised when the same kinds are made in another way.
const RECIPE: u32 = 1;

/// The inputs besides programs and packages, for the key of a place.
pub(crate) fn recipe() -> String {
    format!(
        "{RECIPE} {KINDS:?} {NGINX} {} {OS_RELEASE}",
        registry_configuration()
    )
}

/// On each node, serves images that some tests pull even if the node has them. No test uses it directly.
pub(crate) const REGISTRY: &str = "landfall.dev/conformance-registry:1";
/// The registry that it replaces.
pub(crate) const UPSTREAM: &str = "registry.k8s.io";
/// Where it listens, for its node alone.
pub(crate) const REGISTRY_ADDRESS: &str = "127.0.0.1:55000";

/// A read-only registry is a directory of files, under the paths of requests.
fn registry_configuration() -> String {
    format!(
        "worker_processes 1;
pid /run/registry.pid;
error_log /dev/stderr;
events {{ worker_connections 512; }}
http {{
    access_log /dev/stdout;
    server {{
        listen {REGISTRY_ADDRESS};
        root /registry;
        location = /v2/ {{ return 200; }}
        location ~ /manifests/ {{ default_type application/vnd.oci.image.manifest.v1+json; }}
        location / {{ default_type application/octet-stream; }}
    }}
}}
"
    )
}

/// Whether tests pull it even where a node has it: image volumes, and pods with certificates.
fn is_pulled(kind: Kind) -> bool {
    matches!(kind, Kind::Agnhost | Kind::Picture("kitten"))
}

/// Identifies the system, and contains the text that a test of image volumes looks for: the volume's own
/// file, and not one of the container.
const OS_RELEASE: &str = "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux, in the place of Alpine Linux\"\n";

const NGINX: &str = "\
user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr;
events { worker_connections 512; }
http {
    include /etc/nginx/mime.types;
    access_log /dev/stdout;
    server {
        listen 80;
        listen [::]:80;
        root /usr/share/nginx/html;
        index index.html;
    }
}
";

/// An archive, and its contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Archive {
    pub(crate) reference: String,
    /// Of the image's manifest, `sha256:…`: a node with the image shows this digest.
    pub(crate) digest: String,
    pub(crate) file: PathBuf,
}

/// An image that is not made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Missing {
    pub(crate) reference: String,
    pub(crate) why: String,
}

/// The images to load, and the missing ones.
#[derive(Debug)]
pub(crate) struct Images {
    pub(crate) made: Vec<Archive>,
    pub(crate) missing: Vec<Missing>,
}

/// Makes the missing ones.
pub(crate) fn have(place: &Place, programs: &Programs) -> Result<Images> {
    let mut command = Command::new(programs.path("e2e.test")?);
    command.arg("--list-images").env_remove("KUBECONFIG");
    let text =
        String::from_utf8(place::ran(&mut command)?).context("the tests list their images as no text")?;
    let (wanted, missing) = sorted(&references(&text));
    let dir = place.images();
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut workshop = Workshop {
        place,
        programs,
        packages: None,
        pulled: Vec::new(),
        unpacked: None,
    };
    let mut made = Vec::new();
    for (reference, kind) in wanted {
        let archive = workshop.have(&reference, kind)?;
        if is_pulled(kind) {
            workshop.pulled.push(archive.clone());
        }
        made.push(archive);
    }
    made.push(workshop.have(REGISTRY, Kind::Registry)?);
    Ok(Images { made, missing })
}

/// The references in the list that the tests print, each once. Other output is skipped.
fn references(text: &str) -> BTreeSet<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| {
            let is_name = |c: char| c.is_ascii_alphanumeric() || "-._/:@".contains(c);
            line.contains('/')
                && line.chars().all(is_name)
                && line.rsplit('/').next().is_some_and(|last| last.contains(':'))
        })
        .map(str::to_owned)
        .collect()
}

/// A reference without its tag.
fn repository(reference: &str) -> &str {
    match reference.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => reference,
    }
}

/// The path without the host, and the tag, of a registry request.
fn path_of(reference: &str) -> Option<(&str, &str)> {
    let (_, path) = reference.split_once('/')?;
    path.rsplit_once(':')
}

/// The images to be made, with their contents, and those that are not.
fn sorted(references: &BTreeSet<String>) -> (Vec<(String, Kind)>, Vec<Missing>) {
    let (mut wanted, mut missing) = (Vec::new(), Vec::new());
    for reference in references {
        let repository = repository(reference);
        let known = KINDS.iter().find(|(name, _)| *name == repository);
        let kind = known.map_or_else(
            || {
                Kind::Missing(if repository.starts_with("registry.k8s.io/sig-storage/") {
                    SIDECAR
                } else {
                    NOT_ASKED
                })
            },
            |(_, kind)| *kind,
        );
        match kind {
            Kind::Missing(why) => missing.push(Missing {
                reference: reference.clone(),
                why: why.to_owned(),
            }),
            kind => wanted.push((reference.clone(), kind)),
        }
    }
    (wanted, missing)
}

/// A file name for a reference.
fn file_name(reference: &str) -> String {
    reference
        .chars()
        .map(|own| {
            if own.is_ascii_alphanumeric() || own == '.' {
                own
            } else {
                '-'
            }
        })
        .collect()
}

/// Makes images, and reads the packages only when one needs them.
struct Workshop<'a> {
    place: &'a Place,
    programs: &'a Programs,
    packages: Option<Files>,
    /// The contents of the registry.
    pulled: Vec<Archive>,
    /// The blobs of those, while the registry is made.
    unpacked: Option<tempfile::TempDir>,
}

impl Workshop<'_> {
    fn have(&mut self, reference: &str, kind: Kind) -> Result<Archive> {
        let file = self.place.images().join(format!("{}.tar", file_name(reference)));
        let record = file.with_extension("json");
        if let Ok(text) = fs::read(&record)
            && let Ok(archive) = serde_json::from_slice::<Archive>(&text)
            && archive.file.is_file()
        {
            return Ok(archive);
        }
        println!("making {reference}");
        let mut image = self.image(reference, kind)?;
        // Two names of the same files would be one image to a node, which would then show one of its names
        // only.
        image.labels = BTreeMap::from([(
            "org.opencontainers.image.ref.name".to_owned(),
            reference.to_owned(),
        )]);
        let unfinished = self.place.unfinished("image");
        let written =
            container::write(&image, &unfinished).with_context(|| format!("cannot make {reference}"))?;
        drop(self.unpacked.take());
        fs::rename(&unfinished, &file).with_context(|| format!("cannot write {}", file.display()))?;
        let archive = Archive {
            reference: reference.to_owned(),
            digest: written.digest,
            file,
        };
        // Last: without it the archive is made anew.
        let text = serde_json::to_vec(&archive).context("cannot describe an image")?;
        fs::write(&record, text).with_context(|| format!("cannot write {}", record.display()))?;
        Ok(archive)
    }

    /// Debian's small programs.
    fn packages(&mut self) -> Result<Files> {
        if let Some(files) = &self.packages {
            return Ok(files.clone());
        }
        debian::have(self.place)?;
        let files = Files::of_packages(&self.place.debian())?;
        self.packages = Some(files.clone());
        Ok(files)
    }

    /// Debian's small programs with a program of ours on top.
    fn with_program(&mut self, path: &str, program: &str) -> Result<Files> {
        let mut files = self.packages()?;
        files.file(path, 0o755, self.programs.path(program)?);
        Ok(files)
    }

    fn agnhost(&mut self) -> Result<Files> {
        let sources = self.programs.kubernetes.join("test/images/agnhost/porter");
        let mut files = self.with_program("agnhost", "agnhost")?;
        files.text("etc/os-release", OS_RELEASE);
        files.file("coredns", 0o755, self.programs.path("coredns")?);
        files.link("agnhost-2", "agnhost");
        for name in ["localhost.crt", "localhost.key"] {
            files.file(name, 0o644, &sources.join(name));
        }
        Ok(files)
    }

    /// Manifests and blobs of the pulled images, under the paths of registry requests.
    fn fill_registry(&mut self, files: &mut Files) -> Result<()> {
        let root = tempfile::tempdir_in(self.place.images()).context("cannot make a directory")?;
        for archive in &self.pulled {
            let dir = root.path().join(file_name(&archive.reference));
            fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
            let mut unpack = Command::new("tar");
            unpack
                .arg("--extract")
                .arg("--file")
                .arg(&archive.file)
                .arg("--directory")
                .arg(&dir);
            place::ran(&mut unpack)?;
            let blobs = dir.join("blobs/sha256");
            let (name, tag) = path_of(&archive.reference)
                .with_context(|| format!("{} names no repository and tag", archive.reference))?;
            for entry in fs::read_dir(&blobs).with_context(|| format!("cannot list {}", blobs.display()))? {
                let entry = entry.with_context(|| format!("cannot list {}", blobs.display()))?;
                let hash = entry.file_name().to_string_lossy().into_owned();
                files.file(
                    &format!("registry/v2/{name}/blobs/sha256:{hash}"),
                    0o644,
                    &entry.path(),
                );
                if archive.digest == format!("sha256:{hash}") {
                    for called in [tag, archive.digest.as_str()] {
                        files.file(
                            &format!("registry/v2/{name}/manifests/{called}"),
                            0o644,
                            &entry.path(),
                        );
                    }
                }
            }
        }
        // Until the archive is written.
        self.unpacked = Some(root);
        Ok(())
    }

    fn image(&mut self, reference: &str, kind: Kind) -> Result<Image> {
        let words = |words: &[&str]| {
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<String>>()
        };
        let image = |files: Files, entrypoint: &[&str], command: &[&str]| Image {
            reference: reference.to_owned(),
            created: "1970-01-01T00:00:00Z".to_owned(),
            entrypoint: words(entrypoint),
            command: words(command),
            files: files.members(),
            ..Image::default()
        };
        Ok(match kind {
            Kind::Agnhost => image(self.agnhost()?, &["/agnhost"], &["pause"]),
            Kind::Picture(name) => {
                let sources = self
                    .programs
                    .kubernetes
                    .join("test/images")
                    .join(name)
                    .join("html");
                let mut files = self.agnhost()?;
                for file in [format!("{name}.jpg"), "data.json".to_owned()] {
                    files.file(&file, 0o644, &sources.join(&file));
                }
                image(files, &["/agnhost"], &["test-webserver"])
            }
            Kind::Lookups => image(self.with_program("coredns", "coredns")?, &[], &["bash"]),
            Kind::Programs => image(self.packages()?, &[], &["sh"]),
            Kind::NonRoot => Image {
                user: "1234".to_owned(),
                ..image(self.packages()?, &[], &["bash"])
            },
            Kind::Busybox => {
                debian::have(self.place)?;
                container::busybox(&self.place.debian(), reference)?
            }
            Kind::Pause => {
                debian::have(self.place)?;
                container::pause(&self.place.debian(), reference)?
            }
            Kind::Nginx => {
                let mut files = self.packages()?;
                files.text("etc/nginx/nginx.conf", NGINX);
                files.text(
                    "usr/share/nginx/html/index.html",
                    "<title>Welcome to nginx!</title>\n",
                );
                image(files, &[], &["nginx", "-g", "daemon off;"])
            }
            Kind::Registry => {
                let mut files = self.packages()?;
                files.text("etc/nginx/nginx.conf", &registry_configuration());
                self.fill_registry(&mut files)?;
                image(files, &[], &["nginx", "-g", "daemon off;"])
            }
            Kind::Etcd => image(
                self.with_program("usr/local/bin/etcd", "etcd")?,
                &[],
                &["/usr/local/bin/etcd"],
            ),
            Kind::SampleApiServer => image(
                self.with_program("sample-apiserver", "sample-apiserver")?,
                &["/sample-apiserver"],
                &[],
            ),
            Kind::NoNewPrivileges => {
                let mut files = self.packages()?;
                files.file("usr/local/bin/nnp", 0o6755, self.programs.path("nonewprivs")?);
                image(files, &[], &["nnp"])
            }
            Kind::ResourceConsumer => {
                let mut files = self.with_program("consumer", "resource-consumer")?;
                files.file(
                    "consume-cpu/consume-cpu",
                    0o755,
                    self.programs.path("consume-cpu")?,
                );
                image(files, &["/consumer"], &[])
            }
            Kind::Regression74839 => image(
                self.with_program("regression-issue-74839", "regression-issue-74839")?,
                &["/regression-issue-74839"],
                &[],
            ),
            Kind::Missing(why) => anyhow::bail!("{reference} is not made here: {why}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
registry.k8s.io/e2e-test-images/agnhost:2.66.1
I1130 03:00:00.000000 1 test_context.go:1] some words about: a/b
registry.k8s.io/e2e-test-images/agnhost:2.55
registry.k8s.io/e2e-test-images/agnhost:2.55
gcr.io/k8s-authenticated-test/agnhost:2.6
registry.k8s.io/pause:3.10.2
registry.k8s.io/sig-storage/csi-attacher:v4.12.0
registry.k8s.io/e2e-test-images/perl:5.26
";

    #[test]
    fn the_list_names_images_and_nothing_else() {
        let found = references(LIST);
        assert_eq!(found.len(), 6, "{found:?}");
        assert!(found.contains("registry.k8s.io/e2e-test-images/agnhost:2.55"));
    }

    #[test]
    fn each_name_is_made_or_has_a_reason() {
        let (wanted, missing) = sorted(&references(LIST));
        let wanted: Vec<_> = wanted.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
        assert_eq!(
            wanted,
            [
                ("registry.k8s.io/e2e-test-images/agnhost:2.55", Kind::Agnhost),
                ("registry.k8s.io/e2e-test-images/agnhost:2.66.1", Kind::Agnhost),
                ("registry.k8s.io/pause:3.10.2", Kind::Pause),
            ]
        );
        assert_eq!(missing.len(), 3);
        assert!(missing.iter().all(|missing| !missing.why.is_empty()));
    }

    #[test]
    fn references_lose_their_tags_and_keep_their_ports() {
        assert_eq!(
            repository("registry.k8s.io/pause:3.10.2"),
            "registry.k8s.io/pause"
        );
        assert_eq!(repository("localhost:5000/x"), "localhost:5000/x");
        assert_eq!(path_of("registry.k8s.io/a/b:1.2"), Some(("a/b", "1.2")));
        assert_eq!(path_of("localhost:5000/x"), None);
        assert_eq!(file_name("registry.k8s.io/a-b:1.2"), "registry.k8s.io-a-b-1.2");
    }
}
