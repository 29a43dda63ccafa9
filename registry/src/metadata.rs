//! Azure's API of repositories, tags and manifests: what `az acr repository` and `az acr manifest` ask.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use storage_images::{Digest, ManifestSeen, Repository, Tag, TagSeen};

use crate::{
    Asked, Outcome, Registries,
    answer::{empty, of_json, ok},
    content::{count, link, page},
};

/// Nothing can be locked here.
fn changeable() -> Value {
    json!({ "deleteEnabled": true, "listEnabled": true, "readEnabled": true, "writeEnabled": true })
}

fn tag(tag: &TagSeen) -> Value {
    json!({
        "name": tag.name,
        "digest": tag.digest,
        "createdTime": tag.created_at.to_string(),
        "lastUpdateTime": tag.updated_at.to_string(),
        "signed": false,
        "changeableAttributes": changeable(),
    })
}

fn manifest(manifest: &ManifestSeen) -> Value {
    let mut shown = json!({
        "digest": manifest.digest.to_string(),
        "imageSize": manifest.image_size,
        "createdTime": manifest.created_at.to_string(),
        "lastUpdateTime": manifest.updated_at.to_string(),
        "mediaType": manifest.media_type,
        "changeableAttributes": changeable(),
    });
    for (name, value) in [
        ("architecture", &manifest.architecture),
        ("os", &manifest.os),
        ("configMediaType", &manifest.config_media_type),
    ] {
        if let Some(value) = value {
            shown[name] = json!(value);
        }
    }
    if !manifest.tags.is_empty() {
        shown["tags"] = json!(manifest.tags);
    }
    shown
}

/// The order that the query asks for; by names without one.
fn in_order<T>(asked: &Asked<'_>, all: &mut [T], time: impl Fn(&T) -> jiff::Timestamp) -> String {
    match asked.query("orderby") {
        Some("timeasc") => all.sort_by_key(&time),
        Some("timedesc") => all.sort_by_key(|item| std::cmp::Reverse(time(item))),
        _ => return String::new(),
    }
    let order = asked.query("orderby").unwrap_or_default();
    format!("&orderby={order}")
}

impl Registries {
    fn about(asked: &Asked<'_>, repository: &Repository) -> Value {
        json!({ "registry": asked.registry.login_server, "imageName": repository.as_str() })
    }

    /// A repository: shown, or deleted with all that is in it.
    pub(crate) async fn attributes(&self, asked: &Asked<'_>, repository: Repository) -> Outcome {
        let images = self.inner.images.of(&asked.registry.uid);
        let wanted = repository.clone();
        if *asked.method == Method::DELETE {
            let removed = self.on_disk(move || images.delete_repository(&wanted)).await?;
            tracing::info!(path = asked.path, "a repository was deleted");
            return Ok(of_json(
                StatusCode::ACCEPTED,
                &json!({ "manifestsDeleted": removed.manifests, "tagsDeleted": removed.tags }),
            ));
        }
        let (manifests, tags) = self
            .on_disk(move || Ok((images.manifests(&wanted)?, images.tags(&wanted)?)))
            .await?;
        let created = manifests.iter().map(|manifest| manifest.created_at).min();
        let updated = manifests.iter().map(|manifest| manifest.updated_at).max();
        let mut body = Self::about(asked, &repository);
        body["createdTime"] = json!(created.map(|time| time.to_string()));
        body["lastUpdateTime"] = json!(updated.map(|time| time.to_string()));
        body["manifestCount"] = json!(manifests.len());
        body["tagCount"] = json!(tags.len());
        body["changeableAttributes"] = changeable();
        Ok(ok(&body))
    }

    /// Tags.
    pub(crate) async fn tag_list(&self, asked: &Asked<'_>, repository: Repository) -> Outcome {
        let images = self.inner.images.of(&asked.registry.uid);
        let wanted = repository.clone();
        let mut all = self
            .on_disk(move || {
                // Without it there is no repository.
                images.manifests(&wanted)?;
                images.tags(&wanted)
            })
            .await?;
        if let Some(digest) = asked.query("digest") {
            all.retain(|tag| tag.digest == digest);
        }
        let order = in_order(asked, &mut all, |tag| tag.updated_at);
        let (shown, more) = page(&all, |tag| tag.name.as_str(), asked.query("last"), count(asked)?);
        let mut body = Self::about(asked, &repository);
        body["tags"] = shown.iter().map(tag).collect();
        let mut answer = ok(&body);
        if let Some(last) = shown.last().filter(|_| more) {
            link(&mut answer, asked, &last.name, &order);
        }
        Ok(answer)
    }

    /// A tag: shown, or taken from its manifest, which stays.
    pub(crate) async fn tag_attributes(
        &self,
        asked: &Asked<'_>,
        repository: Repository,
        name: Tag,
    ) -> Outcome {
        let images = self.inner.images.of(&asked.registry.uid);
        let wanted = repository.clone();
        if *asked.method == Method::DELETE {
            self.on_disk(move || images.delete_tag(&wanted, &name)).await?;
            return Ok(empty(StatusCode::ACCEPTED));
        }
        let tags = self.on_disk(move || images.tags(&wanted)).await?;
        let found = tags.iter().find(|tag| tag.name == name.as_str());
        let found = found.ok_or(storage_images::ImagesError::NoManifest)?;
        let mut body = Self::about(asked, &repository);
        body["tag"] = tag(found);
        Ok(ok(&body))
    }

    /// Manifests.
    pub(crate) async fn manifest_list(&self, asked: &Asked<'_>, repository: Repository) -> Outcome {
        let images = self.inner.images.of(&asked.registry.uid);
        let wanted = repository.clone();
        let mut all = self.on_disk(move || images.manifests(&wanted)).await?;
        let order = in_order(asked, &mut all, |manifest| manifest.updated_at);
        let named: Vec<(String, ManifestSeen)> = all
            .into_iter()
            .map(|manifest| (manifest.digest.to_string(), manifest))
            .collect();
        let (shown, more) = page(
            &named,
            |(digest, _)| digest.as_str(),
            asked.query("last"),
            count(asked)?,
        );
        let mut body = Self::about(asked, &repository);
        body["manifests"] = shown.iter().map(|(_, seen)| manifest(seen)).collect();
        let mut answer = ok(&body);
        if let Some((last, _)) = shown.last().filter(|_| more) {
            link(&mut answer, asked, last, &order);
        }
        Ok(answer)
    }

    /// A manifest: shown, or deleted with its tags.
    pub(crate) async fn manifest_attributes(
        &self,
        asked: &Asked<'_>,
        repository: Repository,
        digest: Digest,
    ) -> Outcome {
        let images = self.inner.images.of(&asked.registry.uid);
        let wanted = repository.clone();
        if *asked.method == Method::DELETE {
            self.on_disk(move || images.delete_manifest(&wanted, &digest))
                .await?;
            return Ok(empty(StatusCode::ACCEPTED));
        }
        let all = self.on_disk(move || images.manifests(&wanted)).await?;
        let found = all.iter().find(|seen| seen.digest == digest);
        let found = found.ok_or(storage_images::ImagesError::NoManifest)?;
        let mut body = Self::about(asked, &repository);
        body["manifest"] = manifest(found);
        Ok(ok(&body))
    }
}
