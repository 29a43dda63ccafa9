//! What a manifest refers to. Pure.

use serde_json::Value;

use crate::{Digest, ImagesError};

/// The largest manifest, bytes, as other registries have it.
pub const LARGEST_MANIFEST: usize = 4 * 1024 * 1024;
/// The most blobs and manifests that a manifest refers to.
const MOST_REFERENCES: usize = 4096;

/// A parsed manifest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    /// As the manifest says; `None` if it does not.
    pub(crate) media_type: Option<String>,
    /// Blobs that have to be in the repository.
    pub(crate) blobs: Vec<Digest>,
    /// Manifests that have to be in the repository.
    pub(crate) manifests: Vec<Digest>,
    /// The configuration, if it is an image's, and its media type.
    pub(crate) config: Option<(Digest, String)>,
    /// The bytes of all that it refers to.
    pub(crate) size: u64,
    /// The manifest that it is about, which may be missing.
    pub(crate) subject: Option<Digest>,
    /// What it is, if it is no image.
    pub(crate) artifact_type: Option<String>,
}

/// Layers that clients get elsewhere.
fn is_foreign(media_type: &str) -> bool {
    media_type.contains(".foreign.") || media_type.contains(".nondistributable.")
}

fn invalid(why: impl Into<String>) -> ImagesError {
    ImagesError::Manifest(why.into())
}

/// Parses a manifest of the second schema: of an image, an index or an artifact.
pub(crate) fn parse(content: &[u8]) -> Result<Parsed, ImagesError> {
    if content.len() > LARGEST_MANIFEST {
        return Err(invalid(format!("it has more than {LARGEST_MANIFEST} bytes")));
    }
    let value: Value =
        serde_json::from_slice(content).map_err(|error| invalid(format!("it is not JSON: {error}")))?;
    if value["schemaVersion"] != 2 {
        return Err(invalid("'schemaVersion' is not 2"));
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut parsed = Parsed {
        media_type: text(&value["mediaType"]),
        blobs: Vec::new(),
        manifests: Vec::new(),
        config: None,
        size: content.len() as u64,
        subject: None,
        artifact_type: text(&value["artifactType"]),
    };
    let digest = |descriptor: &Value, what: &str| {
        descriptor["digest"]
            .as_str()
            .and_then(Digest::parse)
            .ok_or_else(|| invalid(format!("{what} has no digest of SHA-256")))
    };
    let size = |descriptor: &Value| descriptor["size"].as_u64().unwrap_or(0);
    if let Some(config) = value.get("config").filter(|config| !config.is_null()) {
        let own = digest(config, "'config'")?;
        let media_type = text(&config["mediaType"]).unwrap_or_default();
        parsed.size = parsed.size.saturating_add(size(config));
        parsed.blobs.push(own.clone());
        if parsed.artifact_type.is_none() && !is_image_config(&media_type) {
            parsed.artifact_type = Some(media_type.clone()).filter(|kind| !kind.is_empty());
        }
        parsed.config = Some((own, media_type));
    }
    for list in ["layers", "blobs"] {
        for layer in value[list].as_array().into_iter().flatten() {
            if layer["mediaType"].as_str().is_some_and(is_foreign) {
                continue;
            }
            parsed.size = parsed.size.saturating_add(size(layer));
            parsed.blobs.push(digest(layer, "a layer")?);
        }
    }
    for manifest in value["manifests"].as_array().into_iter().flatten() {
        parsed
            .manifests
            .push(digest(manifest, "a manifest of the index")?);
    }
    if let Some(subject) = value.get("subject").filter(|subject| !subject.is_null()) {
        parsed.subject = Some(digest(subject, "'subject'")?);
    }
    if parsed.blobs.len() + parsed.manifests.len() > MOST_REFERENCES {
        return Err(invalid(format!(
            "it refers to more than {MOST_REFERENCES} others"
        )));
    }
    let is_list = value["manifests"].is_array();
    if parsed.blobs.is_empty() && !is_list {
        return Err(invalid("it has neither 'config' and 'layers' nor 'manifests'"));
    }
    Ok(parsed)
}

/// Whether a configuration tells of platform and time of an image.
pub(crate) fn is_image_config(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn descriptor(content: &[u8], media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": Digest::of(content).to_string(), "size": content.len() })
    }

    #[test]
    fn all_that_is_needed_is_found() {
        let config = "application/vnd.oci.image.config.v1+json";
        let image = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor(b"c", config),
            "layers": [
                descriptor(b"l", "application/vnd.oci.image.layer.v1.tar"),
                descriptor(b"f", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
            ],
            "subject": descriptor(b"s", "x"),
        });
        let parsed = parse(image.to_string().as_bytes()).unwrap();
        assert_eq!(parsed.blobs, [Digest::of(b"c"), Digest::of(b"l")]);
        assert_eq!(parsed.subject, Some(Digest::of(b"s")));
        assert_eq!((parsed.artifact_type, parsed.manifests), (None, Vec::new()));
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor(b"m", "x")] });
        let parsed = parse(index.to_string().as_bytes()).unwrap();
        assert_eq!(parsed.manifests, [Digest::of(b"m")]);
        let chart = json!({ "schemaVersion": 2, "config": descriptor(b"c", "application/vnd.cncf.helm.config.v1+json"), "layers": [] });
        let parsed = parse(chart.to_string().as_bytes()).unwrap();
        assert_eq!(
            parsed.artifact_type.as_deref(),
            Some("application/vnd.cncf.helm.config.v1+json")
        );
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for wrong in [
            json!({}),
            json!([]),
            json!({ "schemaVersion": 1 }),
            json!({ "schemaVersion": 2 }),
            json!({ "schemaVersion": 2, "config": { "digest": "sha512:0" } }),
            json!({ "schemaVersion": 2, "layers": [1] }),
        ] {
            assert!(parse(wrong.to_string().as_bytes()).is_err(), "{wrong}");
        }
        assert!(parse(b"{").is_err());
    }
}
