//! Bills of materials of node images (SPDX 2.3 JSON, as `image` writes them): the programs and packages in them, each with its package URL and version.
//!
//! The libraries that a program is linked from are counted, not compared: whether a program can be attacked through one of them is said by the program's own project, and
//! mended by a release of the program.

use std::collections::BTreeSet;

use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use crate::Catalogue;

/// The most packages that are read.
const MOST: usize = 50_000;
/// What identifiers of libraries begin with: Go's modules, and C libraries of programs that are partly in C.
const LIBRARIES: &[&str] = &["SPDXRef-Go-", "SPDXRef-C-"];

/// Why a document is no bill of materials of a node image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BillError {
    /// Not JSON, or not of the form.
    #[error("it is no SPDX document: {0}")]
    Malformed(String),
    /// Too many packages.
    #[error("it has more than {MOST} packages")]
    TooLarge,
}

/// What is in a node image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bill {
    /// What tells this build from others of its version: the name that the stamp has for it, e.g. `2026.11.28`; in a document that was only read, the
    /// key in its namespace.
    pub build: String,
    /// When it was built.
    pub created: Timestamp,
    /// Programs and packages.
    pub parts: Vec<Part>,
    /// The number of libraries that programs are linked from.
    pub libraries: usize,
}

/// A program's release or a package. Programs of one release are one part.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Part {
    /// Its package URL without version and qualifiers.
    pub package: String,
    /// Its version, without a `v` before it.
    pub version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    document_namespace: String,
    creation_info: Creation,
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Creation {
    created: Timestamp,
}

#[derive(Deserialize)]
struct Package {
    #[serde(rename = "SPDXID")]
    id: String,
    #[serde(default, rename = "externalRefs")]
    references: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    #[serde(rename = "referenceType")]
    kind: String,
    #[serde(rename = "referenceLocator")]
    locator: String,
}

impl Bill {
    /// Reads a document.
    ///
    /// # Errors
    /// As [`BillError`] says.
    pub fn of_spdx(bytes: &[u8]) -> Result<Self, BillError> {
        let document = serde_json::from_slice::<Document>(bytes);
        let document = document.map_err(|error| BillError::Malformed(error.to_string()))?;
        if document.packages.len() > MOST {
            return Err(BillError::TooLarge);
        }
        let build = document.document_namespace.rsplit('/').next();
        let mut libraries = 0;
        let mut parts = BTreeSet::new();
        for package in &document.packages {
            if LIBRARIES.iter().any(|kind| package.id.starts_with(kind)) {
                libraries += 1;
                continue;
            }
            let purl = package
                .references
                .iter()
                .find(|reference| reference.kind == "purl");
            parts.extend(purl.and_then(|purl| part(&purl.locator)));
        }
        Ok(Self {
            build: build.unwrap_or_default().chars().take(64).collect(),
            created: document.creation_info.created,
            parts: parts.into_iter().collect(),
            libraries,
        })
    }

    /// The version of a component, where it is in there.
    pub fn version_of(&self, package: &str) -> Option<&str> {
        let part = self.parts.iter().find(|part| part.package == package);
        part.map(|part| part.version.as_str())
    }

    /// The number of packages that the catalogue says nothing of.
    pub fn not_watched(&self, catalogue: &Catalogue) -> usize {
        let unknown = |part: &&Part| catalogue.of_package(&part.package).is_none();
        self.parts.iter().filter(unknown).count()
    }

    /// The components of the catalogue whose version here cannot be compared, so that nothing can be said of them.
    pub fn unreadable<'a>(&self, catalogue: &'a Catalogue) -> Vec<&'a str> {
        let components = catalogue.components.iter();
        let unreadable = components.filter(|component| {
            let version = self.version_of(&component.package);
            version.is_some_and(|version| !component.versions.reads(version))
        });
        unreadable.map(|component| component.name.as_str()).collect()
    }
}

/// A package URL with a version, taken apart.
fn part(purl: &str) -> Option<Part> {
    let purl = purl.split(['?', '#']).next()?;
    let (package, version) = purl.rsplit_once('@')?;
    let decode = |text: &str| {
        let decoded = percent_decode_str(text).decode_utf8().ok()?;
        Some(decoded.into_owned())
    };
    let version = decode(version)?;
    Some(Part {
        package: decode(package)?,
        version: version.strip_prefix('v').unwrap_or(&version).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn programs_and_packages_are_read_and_libraries_counted() {
        let package = |id: &str, purl: Option<&str>| {
            let references = purl.map(|purl| {
                json!([{ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl }])
            });
            match references {
                Some(references) => json!({ "SPDXID": id, "name": "x", "externalRefs": references }),
                None => json!({ "SPDXID": id, "name": "x" }),
            }
        };
        let kubernetes = "pkg:golang/k8s.io/kubernetes@v1.36.3";
        let document = json!({
            "spdxVersion": "SPDX-2.3",
            "documentNamespace": "https://landfall.dev/spdx/node-image/1.36.3/abc",
            "creationInfo": { "created": "2026-11-01T02:03:04Z", "creators": ["Tool: x"] },
            "packages": [
                package("SPDXRef-NodeImage", None),
                package("SPDXRef-Program-kubelet", Some(kubernetes)),
                package("SPDXRef-Program-kube-proxy", Some(kubernetes)),
                package("SPDXRef-Program-runc", Some("pkg:golang/github.com/opencontainers/runc@v1.4.4")),
                package("SPDXRef-Debian-runc", Some("pkg:deb/debian/runc@1.1.5%2Bds1-1%2Bdeb12u1?arch=amd64&distro=bookworm")),
                package("SPDXRef-Go-x", Some("pkg:golang/golang.org/x/net@v0.61.0")),
                package("SPDXRef-C-glibc-2.36-2D9", Some("pkg:generic/glibc@2.36-9%2Bdeb12u14")),
            ],
        });
        let bill = Bill::of_spdx(document.to_string().as_bytes()).unwrap();
        assert_eq!(bill.build, "abc");
        assert_eq!(bill.created, "2026-11-01T02:03:04Z".parse().unwrap());
        assert_eq!((bill.parts.len(), bill.libraries), (3, 2));
        assert_eq!(
            bill.version_of("pkg:golang/github.com/opencontainers/runc"),
            Some("1.4.4")
        );
        assert_eq!(
            bill.version_of("pkg:deb/debian/runc"),
            Some("1.1.5+ds1-1+deb12u1")
        );
        assert_eq!(bill.version_of("pkg:golang/k8s.io/kubernetes"), Some("1.36.3"));
        assert_eq!(bill.version_of("pkg:golang/golang.org/x/net"), None);
        assert_eq!(bill.version_of("pkg:generic/glibc"), None);
        assert_eq!(bill.not_watched(&Catalogue::built_in()), 0);
        assert!(bill.unreadable(&Catalogue::built_in()).is_empty());
        assert!(matches!(Bill::of_spdx(b"{}"), Err(BillError::Malformed(_))));
    }
}
