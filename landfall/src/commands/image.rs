//! `landfall image`: node images, built, listed, moved, checked; container images, pushed to a registry.

mod push;

use anyhow::{Context as _, Result};
use image::{NodeImage, Release, Source};
use serde_json::{Value, json};

use super::Context;
use crate::{
    args::{self, SourceArg},
    images,
    printer::{self, size},
    problem::Problem,
};

pub(crate) async fn run(context: &Context, args: args::Image) -> Result<()> {
    match args {
        args::Image::Build(args) => build(context, &args).await,
        args::Image::List => list(context),
        args::Image::Export { version, file } => {
            let version = images::resolve(&version)?;
            let step = context.printer.step("export", format!("Node image {version}"));
            step.now("packing");
            let (store, target) = (images::store(&context.places)?, file.clone());
            let image = blocking(move || store.export(&version, &target)).await?;
            let bytes = std::fs::metadata(&file).map(|file| file.len()).unwrap_or(0);
            step.done(format!("{} in {}", size(bytes), file.display()));
            finish(
                context,
                &image,
                &format!(
                    "Bring it to another host: landfall image import {}",
                    file.display()
                ),
            );
            Ok(())
        }
        args::Image::Import { file } => {
            if !file.is_file() {
                return Err(Problem::usage(
                    format!("there is no file {}", file.display()),
                    "give one that landfall image export wrote",
                )
                .into());
            }
            let step = context.printer.step("import", "Node image");
            step.now("unpacking and checking every digest");
            let store = images::store(&context.places)?;
            let image = blocking(move || store.import(&file)).await?;
            step.done(format!(
                "Kubernetes {}, {}",
                image.version,
                images::summary(&image)
            ));
            finish(
                context,
                &image,
                &format!("Use it: landfall up --kubernetes {}", image.version),
            );
            Ok(())
        }
        args::Image::Verify { version, repair } => verify(context, version.as_deref(), repair).await,
        args::Image::Push(args) => push::run(context, &args).await,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, image::ImageError> + Send + 'static,
) -> Result<T> {
    blocking_raw(work).await?.map_err(images::problem)
}

/// The same, with the error as it is.
async fn blocking_raw<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, image::ImageError> + Send + 'static,
) -> Result<Result<T, image::ImageError>> {
    tokio::task::spawn_blocking(work)
        .await
        .context("the work ended unexpectedly")
}

async fn build(context: &Context, args: &args::ImageBuild) -> Result<()> {
    let version = match &args.kubernetes {
        Some(text) => images::resolve(text)?,
        None => images::preferred_version(),
    };
    let wanted = wanted(args)?;
    let step = context.printer.step("image", format!("Node image {version}"));
    if let (images::Wanted::Any, Some(image)) = (
        &wanted,
        images::store(&context.places)?
            .current(&version)
            .map_err(images::problem)?,
    ) {
        step.skip(format!("is there: {}", images::summary(&image)));
        finish(context, &image, "");
        return Ok(());
    }
    let image = images::ensure(&context.places, &version, wanted, &step).await?;
    step.done(images::summary(&image));
    finish(context, &image, "");
    Ok(())
}

/// Without `--source` any image is accepted; with it, only one from there.
fn wanted(args: &args::ImageBuild) -> Result<images::Wanted> {
    Ok(match args.source {
        None if args.from.is_none() => images::Wanted::Any,
        chosen => images::Wanted::From(source(chosen.unwrap_or(SourceArg::Modules), args)?),
    })
}

fn source(source: SourceArg, args: &args::ImageBuild) -> Result<Source> {
    Ok(match (source, &args.from) {
        (SourceArg::Modules, None) => Source::Modules,
        (SourceArg::Modules, Some(_)) => {
            return Err(
                Problem::usage("--from is for --source directory or release", "leave --from out").into(),
            );
        }
        (SourceArg::Directory, Some(dir)) => Source::Directory(dir.into()),
        (SourceArg::Directory, None) => {
            return Err(
                Problem::usage("--source directory needs a directory", "add --from DIRECTORY").into(),
            );
        }
        (SourceArg::Release, mirror) => Source::Release(Release {
            mirror: mirror.clone(),
            pins: args.pins.clone(),
        }),
    })
}

fn list(context: &Context) -> Result<()> {
    let store = images::store(&context.places)?;
    let there = store.list().map_err(images::problem)?;
    let missing: Vec<&str> = cluster_versions::PINNED
        .iter()
        .copied()
        .filter(|version| !there.iter().any(|image| image.version == *version))
        .collect();
    let mut value: Vec<Value> = there.iter().map(describe).collect();
    value.extend(
        missing
            .iter()
            .map(|version| json!({ "version": version, "built": false })),
    );
    context.printer.result(&value, || {
        let mut rows: Vec<Vec<String>> = there
            .iter()
            .map(|image| {
                vec![
                    image.version.clone(),
                    size(image.size()),
                    image.manifest.source.clone(),
                    image.manifest.created.strftime("%Y-%m-%d %H:%M").to_string(),
                    image.directory().display().to_string(),
                ]
            })
            .collect();
        rows.extend(missing.iter().map(|version| {
            let how = "not built; built when first asked for".to_owned();
            vec![version.to_string(), String::new(), how]
        }));
        printer::table(&["KUBERNETES", "SIZE", "SOURCE", "BUILT", "WHERE"], rows)
    });
    Ok(())
}

fn describe(image: &NodeImage) -> Value {
    json!({
        "version": image.version,
        "built": true,
        "key": image.key,
        "created": image.manifest.created,
        "source": image.manifest.source,
        "bytes": image.size(),
        "layers": image.layers,
        "directory": image.directory(),
        "sbom": image.sbom(),
    })
}

fn finish(context: &Context, image: &NodeImage, hint: &str) {
    let mut value = describe(image);
    value["event"] = json!("result");
    if context.printer.is_json() {
        context.printer.result(&value, String::new);
    } else if !hint.is_empty() {
        context.printer.note(hint);
    }
}

async fn verify(context: &Context, version: Option<&str>, repair: bool) -> Result<()> {
    let versions: Vec<String> = match version {
        Some(version) => vec![images::resolve(version)?],
        // An image with a damaged manifest is in no list, but has to be repaired too.
        None if repair => cluster_versions::PINNED.iter().map(ToString::to_string).collect(),
        None => images::store(&context.places)?
            .list()
            .map_err(images::problem)?
            .into_iter()
            .map(|image| image.version)
            .collect(),
    };
    if versions.is_empty() {
        return Err(Problem::new(
            "there is no node image to verify",
            "build one: landfall image build",
        )
        .into());
    }
    let mut answers = Vec::new();
    let mut bad = Vec::new();
    for version in versions {
        if repair && !mend(context, &version).await? {
            continue;
        }
        let step = context.printer.step("verify", format!("Node image {version}"));
        step.now("computing every digest again");
        let (store, wanted) = (images::store(&context.places)?, version.clone());
        let verification = blocking(move || store.verify(&wanted)).await?;
        let differences: Vec<String> = verification.differences.iter().map(ToString::to_string).collect();
        answers.push(json!({ "version": version, "paths": verification.paths, "differences": differences }));
        if differences.is_empty() {
            step.done(format!("{} files as in the manifest", verification.paths));
        } else {
            drop(step);
            for difference in differences.iter().take(20) {
                context.printer.warn(difference);
            }
            bad.push(version);
        }
    }
    if !bad.is_empty() {
        return Err(Problem::new(
            format!("the node image of {} is damaged", bad.join(", ")),
            format!(
                "stop what runs on it (landfall down), then: landfall image verify --repair {}",
                bad[0]
            ),
        )
        .into());
    }
    if context.printer.is_json() {
        context
            .printer
            .result(&json!({ "event": "result", "images": answers }), String::new);
    }
    Ok(())
}

/// Removes a damaged image and builds it again. Returns whether there is an image now.
async fn mend(context: &Context, version: &str) -> Result<bool> {
    let step = context.printer.step("repair", format!("Node image {version}"));
    step.now("looking for damage");
    let (store, wanted) = (images::store(&context.places)?, version.to_owned());
    let gone = blocking(move || store.discard(&wanted)).await?;
    if gone.is_empty() {
        let there = images::store(&context.places)?
            .find(version)
            .map_err(images::problem)?
            .is_some();
        step.skip(if there { "nothing is damaged" } else { "not built" });
        return Ok(there);
    }
    step.now(&format!("{} damaged parts taken away", gone.len()));
    images::ensure(&context.places, version, images::Wanted::Any, &step).await?;
    step.done(format!("{} damaged parts made again", gone.len()));
    Ok(true)
}
