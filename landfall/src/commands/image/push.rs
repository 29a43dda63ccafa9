//! `landfall image push`: an image of an archive into a registry of the stamp. Needs no other registry and no network.

use anyhow::Result;
use control_records::is_registry_name;
use image::{
    ImageError,
    container::{Packed, read},
};
use serde_json::json;
use storage_images::{Repository, Tag};

use super::Context;
use crate::{
    args, arm::ArmClient, images, printer::size, problem::Problem, registry::Pusher, stamp::Settings,
};

/// A parsed reference: registry, repository and tag.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    registry: String,
    repository: Repository,
    tag: Tag,
}

/// Parses `REGISTRY/REPOSITORY[:TAG]`, also with the stamp's host before it.
fn parse(text: &str, host: &str) -> Result<Wanted> {
    let wrong = |why: &str| {
        Problem::usage(
            format!("{text} is no image of a registry here: {why}"),
            "give REGISTRY/REPOSITORY:TAG, e.g. acme1/team/app:1.0",
        )
    };
    let own = text
        .strip_prefix(host)
        .and_then(|rest| rest.strip_prefix('/'))
        .unwrap_or(text);
    let (registry, rest) = own
        .split_once('/')
        .ok_or_else(|| wrong("it names no repository of a registry"))?;
    if !is_registry_name(registry) {
        return Err(wrong("a registry's name has 5 to 50 letters and digits").into());
    }
    let (repository, tag) = rest.rsplit_once(':').unwrap_or((rest, "latest"));
    Ok(Wanted {
        registry: registry.to_ascii_lowercase(),
        repository: Repository::parse(repository)
            .ok_or_else(|| wrong("a repository has lower-case letters, digits, '.', '_', '-' and '/'"))?,
        tag: Tag::parse(tag)
            .ok_or_else(|| wrong("a tag has at most 128 letters, digits, '_', '.' and '-'"))?,
    })
}

/// The archive's image.
async fn packed(args: &args::ImagePush) -> Result<Packed> {
    if !args.archive.is_file() {
        return Err(Problem::usage(
            format!("there is no file {}", args.archive.display()),
            "give an archive of docker save, podman save or skopeo copy docker-archive:… or oci-archive:…",
        )
        .into());
    }
    let (archive, name) = (args.archive.clone(), args.image.clone());
    let read = super::blocking_raw(move || read(&archive, name.as_deref())).await?;
    read.map_err(|error| match error {
        ImageError::BadArchive { archive, detail } => Problem::new(
            format!("{archive} cannot be used: {detail}"),
            "write it again with docker save, podman save or skopeo; --image NAME chooses one of several",
        )
        .into(),
        other => images::problem(other),
    })
}

pub(super) async fn run(context: &Context, args: &args::ImagePush) -> Result<()> {
    let settings = Settings::required(&context.places)?;
    let url = settings.arm_url();
    let host = url.trim_start_matches("https://");
    let wanted = parse(&args.reference, host)?;
    let step = context.printer.step("archive", "Archive");
    step.now("computing digests");
    let packed = packed(args).await?;
    let total: u64 = packed.blobs.iter().map(|blob| blob.size).sum();
    step.done(format!(
        "{}{} in {} layers",
        packed
            .name
            .as_ref()
            .map(|name| format!("{name}, "))
            .unwrap_or_default(),
        size(total),
        packed.blobs.len()
    ));
    let step = context.printer.step("push", "Push");
    step.now("logging in");
    let arm = ArmClient::login(&context.places, &settings, &context.env).await?;
    let mut pusher = Pusher::login(&arm, &context.env, &wanted.registry, wanted.repository.as_str()).await?;
    let (mut there, mut sent) = (0, 0);
    for blob in &packed.blobs {
        let new = pusher
            .blob(&args.archive, blob, |bytes| {
                step.now(&format!("{} of {}", size(there + bytes), size(total)));
            })
            .await?;
        there += blob.size;
        sent += if new { blob.size } else { 0 };
    }
    let mut digest = String::new();
    for (number, manifest) in packed.manifests.iter().enumerate() {
        let last = number + 1 == packed.manifests.len();
        let reference = if last {
            wanted.tag.as_str()
        } else {
            &manifest.digest
        };
        pusher.manifest(manifest, reference).await?;
        digest.clone_from(&manifest.digest);
    }
    step.done(format!("{} sent, {} was there", size(sent), size(total - sent)));
    let reference = format!(
        "{host}/{}/{}:{}",
        wanted.registry,
        wanted.repository,
        wanted.tag.as_str()
    );
    let value = json!({
        "event": "result", "image": reference, "digest": digest, "bytes": total, "sent": sent,
    });
    context
        .printer
        .result(&value, || format!("{reference}\n{digest}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_registry_repository_and_tag() {
        let host = "127.0.0.1:8443";
        let expected = Wanted {
            registry: "acme1".to_owned(),
            repository: Repository::parse("team/app").unwrap(),
            tag: Tag::parse("1.0").unwrap(),
        };
        for text in ["acme1/team/app:1.0", "127.0.0.1:8443/Acme1/team/app:1.0"] {
            assert_eq!(parse(text, host).unwrap(), expected, "{text}");
        }
        assert_eq!(parse("acme1/app", host).unwrap().tag.as_str(), "latest");
        for wrong in [
            "app:1",
            "acme/app:1",
            "acme1/App:1",
            "acme1/app:",
            "other:5000/app:1",
        ] {
            assert!(parse(wrong, host).is_err(), "{wrong}");
        }
    }
}
