//! The bill of materials of a node image, as SPDX 2.3 JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{buildinfo::BuildInfo, manifest::Manifest};

/// `kind`: `node-image` or `addon-image`. `programs`: the build information of each program of the manifest, by name.
pub(crate) fn document(
    kind: &str,
    manifest: &Manifest,
    suite: &str,
    programs: &BTreeMap<String, BuildInfo>,
) -> Value {
    let mut packages = Vec::new();
    let mut relationships = Vec::new();
    let mut relate = |from: &str, kind: &str, to: &str| {
        relationships.push(json!({
            "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to
        }));
    };

    let image = "SPDXRef-NodeImage";
    relate("SPDXRef-DOCUMENT", "DESCRIBES", image);
    packages.push(package(
        image,
        &format!("landfall-{kind}"),
        &manifest.version,
        None,
    ));

    for debian in &manifest.packages {
        let id = identifier(&["Debian", &debian.name, &debian.version]);
        let purl = format!(
            "pkg:deb/debian/{}@{}?arch={}&distro={suite}",
            encode(&debian.name),
            encode(&debian.version),
            debian.architecture
        );
        packages.push(package(&id, &debian.name, &debian.version, Some(purl)));
        relate(image, "CONTAINS", &id);
    }

    let mut modules = BTreeMap::new();
    let mut libraries = BTreeMap::new();
    for program in &manifest.programs {
        let id = identifier(&["Program", &program.name]);
        let purl = (!program.module.is_empty()).then(|| {
            format!(
                "pkg:golang/{}@{}",
                encode(&program.module),
                encode(&program.version)
            )
        });
        let mut record = package(&id, &program.name, &program.version, purl);
        record["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": program.sha256 }]);
        record["packageFileName"] = json!(program.path);
        packages.push(record);
        relate(image, "CONTAINS", &id);
        let Some(info) = programs.get(&program.name) else {
            continue;
        };
        let standard = (
            "stdlib".to_owned(),
            info.go.strip_prefix("go").unwrap_or(&info.go).to_owned(),
        );
        for (path, version) in info.modules.iter().chain([&standard]) {
            let module = identifier(&["Go", path, version]);
            relate(&id, "CONTAINS", &module);
            modules
                .entry(module)
                .or_insert_with(|| (path.clone(), version.clone()));
        }
        for (name, version) in &info.libraries {
            let library = identifier(&["C", name, version]);
            relate(&id, "CONTAINS", &library);
            libraries
                .entry(library)
                .or_insert_with(|| (name.clone(), version.clone()));
        }
    }
    for (kind, found) in [("golang", &modules), ("generic", &libraries)] {
        for (id, (path, version)) in found {
            let purl = format!("pkg:{kind}/{}@{}", encode(path), encode(version));
            packages.push(package(id, path, version, Some(purl)));
        }
    }

    for container in &manifest.images {
        let id = identifier(&["Image", &container.reference]);
        let (name, version) = container
            .reference
            .rsplit_once(':')
            .unwrap_or((&container.reference, ""));
        let mut record = package(&id, name, version, None);
        record["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": container.sha256 }]);
        record["packageFileName"] = json!(container.path);
        packages.push(record);
        relate(image, "CONTAINS", &id);
        for program in manifest
            .programs
            .iter()
            .filter(|program| program.image.as_ref() == Some(&container.reference))
        {
            relate(&id, "CONTAINS", &identifier(&["Program", &program.name]));
        }
    }

    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("landfall-{kind}-{}", manifest.version),
        "documentNamespace": format!("https://landfall.dev/spdx/{kind}/{}/{}", manifest.version, manifest.key),
        "creationInfo": {
            "created": manifest.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "creators": [concat!("Tool: landfall-", env!("CARGO_PKG_VERSION"))],
        },
        "packages": packages,
        "relationships": relationships,
    })
}

fn package(id: &str, name: &str, version: &str, purl: Option<String>) -> Value {
    let mut record = json!({
        "SPDXID": id,
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
    });
    if let Some(purl) = purl {
        record["externalRefs"] = json!([{
            "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl
        }]);
    }
    record
}

/// SPDX allows letters, digits, dots and hyphens. Other characters of a name become a hyphen with their code,
/// so that two names never become one.
fn identifier(parts: &[&str]) -> String {
    let mut id = "SPDXRef".to_owned();
    for part in parts {
        id.push('-');
        for byte in part.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' => id.push(char::from(byte)),
                other => id.push_str(&format!("-{other:02X}")),
            }
        }
    }
    id
}

/// Percent-encoding of package URLs; path separators stay.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b'/' => {
                encoded.push(char::from(byte))
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn packages_programs_and_modules_are_in_it() {
        let manifest = fixture::manifest();
        let info = BuildInfo {
            go: "go1.26.8".to_owned(),
            modules: vec![("k8s.io/kubernetes".to_owned(), "v1.36.3".to_owned())],
            libraries: vec![("glibc".to_owned(), "2.36-9+deb12u14".to_owned())],
        };
        let document = document(
            "node-image",
            &manifest,
            "bookworm",
            &BTreeMap::from([("kubelet".to_owned(), info)]),
        );
        let text = document.to_string();
        for wanted in [
            "pkg:deb/debian/runc@1.1.5%2Bds1-1?arch=amd64&distro=bookworm",
            "pkg:golang/k8s.io/kubernetes@v1.36.3",
            "pkg:golang/stdlib@1.26.8",
            "pkg:generic/glibc@2.36-9%2Bdeb12u14",
            "SPDXRef-Program-kubelet",
            "2026-02-03T04:05:06Z",
        ] {
            assert!(text.contains(wanted), "{wanted}");
        }
        // Every relationship refers to an existing element, and no identifier is used twice.
        let ids: Vec<_> = document["packages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["SPDXID"].as_str().unwrap())
            .collect();
        let unique: std::collections::BTreeSet<_> = ids.iter().copied().collect();
        assert_eq!(ids.len(), unique.len());
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        assert!(ids.iter().all(|id| id.chars().all(plain)));
        for relationship in document["relationships"].as_array().unwrap() {
            assert!(unique.contains(relationship["relatedSpdxElement"].as_str().unwrap()));
        }
    }

    #[test]
    fn names_stay_apart() {
        assert_ne!(identifier(&["Go", "a/b", "c"]), identifier(&["Go", "a-b", "c"]));
    }
}
