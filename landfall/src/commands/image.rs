//! `landfall image`: node images and images of add-ons, built, listed, moved, checked; container images, pushed to a
//! registry.

mod push;

use anyhow::{Context as _, Result};
use cluster_spec::node_image_version;
use image::{AddonImage, Change, ImageStore, Imported, NodeImage, Release, Source};
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
        args::Image::Renew { kubernetes } => renew(context, kubernetes.as_deref()).await,
        args::Image::Changes { version, from, to } => changes(context, &version, from, to),
        args::Image::Export { image, file } => {
            let store = images::store(&context.places)?;
            let name = Name::of(&store, &image)?;
            let step = context.printer.step("export", name.title());
            step.now("packing");
            let target = file.clone();
            let value = blocking(move || match name {
                Name::Node(version) => store.export(&version, &target).map(|image| describe(&image)),
                Name::Addon(name) => {
                    let image = store.export_addon(&name, &target)?;
                    Ok(describe_addon(&image))
                }
            })
            .await?;
            let bytes = std::fs::metadata(&file).map(|file| file.len()).unwrap_or(0);
            step.done(format!("{} in {}", size(bytes), file.display()));
            finish(
                context,
                value,
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
            let step = context.printer.step("import", "Image");
            step.now("unpacking and checking every digest");
            let store = images::store(&context.places)?;
            match blocking(move || store.import_any(&file)).await? {
                Imported::Node(image) => {
                    step.done(format!(
                        "Kubernetes {}, {}",
                        image.version,
                        images::summary(&image)
                    ));
                    let hint = format!("Use it: landfall up --kubernetes {}", image.version);
                    finish(context, describe(&image), &hint);
                }
                Imported::Addon(image) => {
                    step.done(format!("add-on {}", addon_summary(&image)));
                    finish(context, describe_addon(&image), "");
                }
            }
            Ok(())
        }
        args::Image::Verify { image, repair } => verify(context, image.as_deref(), repair).await,
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

/// An image, as an argument names it.
#[derive(Clone)]
enum Name {
    /// The node image of a full version.
    Node(String),
    /// The image of an add-on.
    Addon(String),
}

impl Name {
    fn of(store: &ImageStore, text: &str) -> Result<Self> {
        if store.addon_names().iter().any(|name| name == text) {
            return Ok(Self::Addon(text.to_owned()));
        }
        images::resolve(text).map(Self::Node)
    }

    fn title(&self) -> String {
        match self {
            Self::Node(version) => format!("Node image {version}"),
            Self::Addon(name) => format!("Image of add-on {name}"),
        }
    }

    /// Its key in answers.
    fn told(&self) -> (&'static str, &str) {
        match self {
            Self::Node(version) => ("version", version),
            Self::Addon(name) => ("addon", name),
        }
    }

    /// As an argument.
    fn text(&self) -> &str {
        self.told().1
    }
}

/// A line about the image of an add-on.
fn addon_summary(image: &AddonImage) -> String {
    let manifest = &image.manifest;
    let packages = manifest.packages.len();
    format!(
        "{} {}, {}, {packages} packages",
        image.name(),
        manifest.program.version,
        size(manifest.image.size)
    )
}

async fn build_addon(context: &Context, name: &str, args: &args::ImageBuild) -> Result<()> {
    let wanted = wanted(args)?;
    let step = context
        .printer
        .step("image", Name::Addon(name.to_owned()).title());
    let there = images::store(&context.places)?
        .addon(name)
        .map_err(images::problem)?;
    if let (images::Wanted::Any, Some(image)) = (&wanted, there) {
        step.skip(format!("is there: {}", addon_summary(&image)));
        finish(context, describe_addon(&image), "");
        return Ok(());
    }
    let image = images::ensure_addon(&context.places, name, wanted, &step).await?;
    step.done(addon_summary(&image));
    finish(context, describe_addon(&image), "");
    Ok(())
}

async fn build(context: &Context, args: &args::ImageBuild) -> Result<()> {
    if let Some(name) = &args.addon {
        return build_addon(context, name, args).await;
    }
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
        finish(context, describe(&image), "");
        return Ok(());
    }
    let image = images::ensure(&context.places, &version, wanted, &step).await?;
    step.done(images::summary(&image));
    finish(context, describe(&image), "");
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

const NOT_BUILT: &str = "not built; built when first asked for";

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
    let mut addons: Vec<(String, Option<AddonImage>)> = Vec::new();
    for name in store.addon_names() {
        let image = store.addon(&name).map_err(images::problem)?;
        addons.push((name, image));
    }
    value.extend(addons.iter().map(|(name, image)| match image {
        Some(image) => describe_addon(image),
        None => json!({ "addon": name, "built": false }),
    }));
    context.printer.result(&value, || {
        let mut rows: Vec<Vec<String>> = there
            .iter()
            .map(|image| {
                vec![
                    format!("Kubernetes {}", image.version),
                    name(image),
                    size(image.size()),
                    image.manifest.source.clone(),
                    image.manifest.created.strftime("%Y-%m-%d %H:%M").to_string(),
                    image.directory().display().to_string(),
                ]
            })
            .collect();
        rows.extend(missing.iter().map(|version| {
            vec![
                format!("Kubernetes {version}"),
                String::new(),
                String::new(),
                NOT_BUILT.to_owned(),
            ]
        }));
        rows.extend(addons.iter().map(|(name, image)| match image {
            Some(image) => vec![
                format!("{name} {}", image.manifest.program.version),
                String::new(),
                size(image.manifest.image.size),
                image.manifest.source.clone(),
                image.manifest.created.strftime("%Y-%m-%d %H:%M").to_string(),
                image.directory().display().to_string(),
            ],
            None => vec![name.clone(), String::new(), String::new(), NOT_BUILT.to_owned()],
        }));
        printer::table(&["IMAGE", "NODE IMAGE", "SIZE", "SOURCE", "BUILT", "WHERE"], rows)
    });
    Ok(())
}

/// As in `nodeImageVersion` and on nodes.
fn name(image: &NodeImage) -> String {
    node_image_version(&image.version, Some(&image.build()))
}

async fn renew(context: &Context, version: Option<&str>) -> Result<()> {
    let version = match version {
        Some(text) => images::resolve(text)?,
        None => images::preferred_version(),
    };
    let step = context.printer.step("image", format!("Node image {version}"));
    let renewed = images::renew(&context.places, &version, &step).await?;
    let image = &renewed.image;
    if renewed.is_new {
        step.done(images::summary(image));
    } else {
        step.skip(format!("nothing is newer than {}", name(image)));
    }
    let value = json!({
        "event": "result",
        "isNew": renewed.is_new,
        "image": describe(image),
        "changes": told(&renewed.changes),
    });
    context.printer.result(&value, || lines(&renewed.changes));
    Ok(())
}

fn changes(context: &Context, version: &str, from: Option<String>, to: Option<String>) -> Result<()> {
    let version = images::resolve(version)?;
    let store = images::store(&context.places)?;
    let there = store.of_version(&version).map_err(images::problem)?;
    let builds: Vec<String> = there.iter().map(NodeImage::build).collect();
    let (Some(to), Some(from)) = (
        to.or_else(|| builds.first().cloned()),
        from.or_else(|| builds.get(1).cloned()),
    ) else {
        return Err(Problem::usage(
            format!("there are no two node images of Kubernetes {version}"),
            "landfall image list shows which there are; landfall image renew builds a newer one",
        )
        .into());
    };
    let changes = store.changes(&version, &from, &to).map_err(images::problem)?;
    let value = json!({
        "event": "result",
        "version": version,
        "from": node_image_version(&version, Some(&from)),
        "to": node_image_version(&version, Some(&to)),
        "changes": told(&changes),
    });
    context.printer.result(&value, || match changes.as_slice() {
        [] => format!("Nothing differs between {from} and {to}."),
        changes => lines(changes),
    });
    Ok(())
}

fn told(changes: &[Change]) -> Vec<Value> {
    let each = changes.iter();
    each.map(
        |change| json!({ "kind": change.kind, "name": change.name, "from": change.from, "to": change.to }),
    )
    .collect()
}

/// A table of what differs; nothing where nothing does.
fn lines(changes: &[Change]) -> String {
    if changes.is_empty() {
        return String::new();
    }
    let text = |version: &Option<String>| version.clone().unwrap_or_else(|| "-".to_owned());
    let rows = changes.iter().map(|change| {
        vec![
            change.name.clone(),
            change.kind.to_owned(),
            text(&change.from),
            text(&change.to),
        ]
    });
    printer::table(&["NAME", "KIND", "FROM", "TO"], rows.collect())
}

fn describe(image: &NodeImage) -> Value {
    json!({
        "version": image.version,
        "build": image.build(),
        "nodeImageVersion": name(image),
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

fn describe_addon(image: &AddonImage) -> Value {
    let manifest = &image.manifest;
    json!({
        "addon": image.name(),
        "version": manifest.program.version,
        "built": true,
        "key": manifest.key,
        "created": manifest.created,
        "source": manifest.source,
        "bytes": manifest.image.size,
        "image": manifest.image.reference,
        "directory": image.directory(),
        "sbom": image.sbom(),
    })
}

fn finish(context: &Context, mut value: Value, hint: &str) {
    value["event"] = json!("result");
    if context.printer.is_json() {
        context.printer.result(&value, String::new);
    } else if !hint.is_empty() {
        context.printer.note(hint);
    }
}

/// The images that are there; with `damaged` also those that may be.
fn all(store: &ImageStore, damaged: bool) -> Result<Vec<Name>> {
    // An image with a damaged manifest is in no list, but has to be repaired too.
    let versions: Vec<String> = if damaged {
        cluster_versions::PINNED.iter().map(ToString::to_string).collect()
    } else {
        let there = store.list().map_err(images::problem)?;
        let mut versions: Vec<String> = there.into_iter().map(|image| image.version).collect();
        // By version: one may have several builds, and the newest is the one that counts.
        versions.dedup();
        versions
    };
    let mut all: Vec<Name> = versions.into_iter().map(Name::Node).collect();
    for name in store.addon_names() {
        if damaged || store.addon(&name).map_err(images::problem)?.is_some() {
            all.push(Name::Addon(name));
        }
    }
    Ok(all)
}

async fn verify(context: &Context, image: Option<&str>, repair: bool) -> Result<()> {
    let store = images::store(&context.places)?;
    let names: Vec<Name> = match image {
        Some(text) => vec![Name::of(&store, text)?],
        None => all(&store, repair)?,
    };
    if names.is_empty() {
        return Err(Problem::new("there is no image to verify", "build one: landfall image build").into());
    }
    let mut answers = Vec::new();
    let mut bad = Vec::new();
    for name in names {
        if repair && !mend(context, &name).await? {
            continue;
        }
        let step = context.printer.step("verify", name.title());
        step.now("computing every digest again");
        let (store, wanted) = (images::store(&context.places)?, name.clone());
        let verification = blocking(move || match &wanted {
            Name::Node(version) => store.verify(version),
            Name::Addon(name) => store.verify_addon(name),
        })
        .await?;
        let differences: Vec<String> = verification.differences.iter().map(ToString::to_string).collect();
        let mut answer = json!({ "paths": verification.paths, "differences": differences });
        let (key, told) = name.told();
        answer[key] = json!(told);
        answers.push(answer);
        if differences.is_empty() {
            step.done(format!("{} files as in the manifest", verification.paths));
        } else {
            drop(step);
            for difference in differences.iter().take(20) {
                context.printer.warn(difference);
            }
            bad.push(name);
        }
    }
    if let Some(first) = bad.first() {
        let all: Vec<&str> = bad.iter().map(Name::text).collect();
        return Err(Problem::new(
            format!("the image of {} is damaged", all.join(", ")),
            format!(
                "stop what runs on it (landfall down), then: landfall image verify --repair {}",
                first.text()
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
async fn mend(context: &Context, name: &Name) -> Result<bool> {
    let step = context.printer.step("repair", name.title());
    step.now("looking for damage");
    let (store, wanted) = (images::store(&context.places)?, name.clone());
    let gone = blocking(move || match &wanted {
        Name::Node(version) => store.discard(version),
        Name::Addon(name) => store.discard_addon(name),
    })
    .await?;
    if gone.is_empty() {
        let store = images::store(&context.places)?;
        let there = match name {
            Name::Node(version) => store.find(version).map(|found| found.is_some()),
            Name::Addon(name) => store.addon(name).map(|found| found.is_some()),
        };
        let there = there.map_err(images::problem)?;
        step.skip(if there { "nothing is damaged" } else { "not built" });
        return Ok(there);
    }
    step.now(&format!("{} damaged parts taken away", gone.len()));
    match name {
        Name::Node(version) => {
            images::ensure(&context.places, version, images::Wanted::Any, &step).await?;
        }
        Name::Addon(name) => {
            images::ensure_addon(&context.places, name, images::Wanted::Any, &step).await?;
        }
    }
    step.done(format!("{} damaged parts made again", gone.len()));
    Ok(true)
}
