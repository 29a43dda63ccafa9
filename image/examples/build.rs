//! Builds a node image into the user's cache: `cargo run -p image --example build -- 1.36.3`.
#![expect(clippy::print_stdout, reason = "it is for people to watch")]

use image::{Event, ImageError, ImageStore, Source};

fn main() -> Result<(), ImageError> {
    let version = std::env::args()
        .nth(1)
        .unwrap_or_else(|| image::supported().swap_remove(0));
    let store = ImageStore::open(image::cache_dir()?)?;
    let progress = |event: Event<'_>| println!("{event:?}");
    let built = store.ensure(&version, &Source::Modules, &progress)?;
    println!("{} {} {} MB", built.version, built.key, built.size() / 1_000_000);
    for layer in &built.layers {
        println!("{}", layer.display());
    }
    Ok(())
}
