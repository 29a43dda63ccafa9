//! `cargo xtask conformance`: upstream's end-to-end tests, in a separate program (`conformance`), so that the
//! other tasks do not need its dependencies.

use std::process::Command;

use anyhow::Result;

use crate::{
    binary, build,
    test::{cache, install_packages, status},
    top,
};

/// Builds the product and the program, and runs the latter.
pub(crate) fn run(options: &[String]) -> Result<()> {
    // All at once: built one by one, crates of others would be compiled once for each set of features.
    build(&["--workspace", "--bins"])?;
    let only_tells = ["--help", "-h", "--list"];
    if !options.iter().any(|option| only_tells.contains(&option.as_str())) {
        install_packages()?;
    }
    status(
        Command::new(binary("conformance"))
            .arg("--landfall")
            .arg(binary("landfall"))
            .arg("--cache")
            .arg(cache()?)
            .arg("--checkout")
            .arg(top())
            .args(options),
    )
}
