//! What the host needs from its distribution.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{host, problem::Problem};

/// A program and the Debian package that has it.
struct Needed {
    program: &'static str,
    package: &'static str,
    /// Only for building node images.
    build: bool,
}

const NEEDED: &[Needed] = &[
    Needed {
        program: "runc",
        package: "runc",
        build: false,
    },
    Needed {
        program: "ip",
        package: "iproute2",
        build: false,
    },
    Needed {
        program: "nft",
        package: "nftables",
        build: false,
    },
    Needed {
        program: "mount",
        package: "mount",
        build: false,
    },
    Needed {
        program: "mmdebstrap",
        package: "mmdebstrap",
        build: true,
    },
];

/// The packages that are missing. `build`: also those for building node images.
pub(crate) fn missing(build: bool) -> Vec<&'static str> {
    NEEDED
        .iter()
        .filter(|needed| (build || !needed.build) && host::find(needed.program).is_none())
        .map(|needed| needed.package)
        .collect()
}

/// Installs packages with apt-get.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let by_hand = format!("install them by hand and repeat: {}", packages.join(" "));
    if host::find("apt-get").is_none() {
        return Err(Problem::new(
            format!(
                "this host lacks {} and has no apt-get to install it",
                packages.join(", ")
            ),
            by_hand,
        )
        .into());
    }
    let install = || {
        let mut command = Command::new("apt-get");
        command
            .args(["install", "--yes", "--quiet", "--no-install-recommends"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive");
        host::run_command(&mut command)
    };
    // On a fresh machine the package lists are empty or old; fetching them is only needed then.
    if install().is_err() {
        host::run("apt-get", &["update", "--quiet"])
            .context("cannot fetch Debian's package lists")
            .map_err(|error| {
                Problem::new("the package lists cannot be fetched", by_hand.clone()).because(error)
            })?;
        install().map_err(|error| {
            Problem::new(format!("{} cannot be installed", packages.join(", ")), by_hand).because(error)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn building_needs_at_least_what_running_needs() {
        let (run, build) = (super::missing(false), super::missing(true));
        assert!(run.iter().all(|package| build.contains(package)));
    }
}
