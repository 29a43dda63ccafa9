//! Builds a node image into the user's cache, from exactly the named source:
//! `cargo run -p image --example build -- 1.36.3 [modules | directory PATH | release MIRROR PINS]`.
#![expect(clippy::print_stdout, reason = "it is for people to watch")]

use image::{Event, ImageError, ImageStore, Release, Source};

fn main() -> Result<(), ImageError> {
    let mut arguments = std::env::args().skip(1);
    let version = arguments
        .next()
        .unwrap_or_else(|| image::supported().swap_remove(0));
    let source = match (arguments.next().as_deref(), arguments.next(), arguments.next()) {
        (Some("directory"), Some(path), _) => Source::Directory(path.into()),
        (Some("release"), mirror, pins) => Source::Release(Release {
            mirror,
            pins: pins.map(Into::into),
        }),
        _ => Source::Modules,
    };
    let store = ImageStore::open(image::cache_dir(None)?)?;
    let progress = |event: Event<'_>| println!("{event:?}");
    let built = store.build(&version, &source, &progress)?;
    println!("{} {} {} MB", built.version, built.key, built.size() / 1_000_000);
    for layer in &built.layers {
        println!("{}", layer.display());
    }
    Ok(())
}
