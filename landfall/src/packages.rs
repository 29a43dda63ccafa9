//! Programs of the host that Landfall runs, with their Debian packages.
//!
//! Always true: each program that is run is in [`PROGRAMS`], so that `up` installs it and a check that needs
//! it can name its package.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::{host, problem::Problem};

/// A program, or a file by its path, and the Debian package that has it.
struct Program {
    name: &'static str,
    package: &'static str,
    /// Only for building node images.
    build: bool,
}

const PROGRAMS: &[Program] = &[
    program("runc", "runc"),
    program("ip", "iproute2"),
    program("nft", "nftables"),
    program("mount", "mount"),
    program("unshare", "util-linux"),
    // A node's disk is a separate filesystem, and a claim's volume a loop device.
    program("mkfs.ext4", "e2fsprogs"),
    program("losetup", "mount"),
    program("findmnt", "util-linux"),
    // A share is made with a filesystem.
    program("debugfs", "e2fsprogs"),
    // A volume may be made as a copy of another one, whose filesystem is frozen meanwhile.
    program("cp", "coreutils"),
    program("timeout", "coreutils"),
    program("fsfreeze", "util-linux"),
    Program {
        name: "mmdebstrap",
        package: "mmdebstrap",
        build: true,
    },
    // Go fetches modules over TLS.
    Program {
        name: "/etc/ssl/certs/ca-certificates.crt",
        package: "ca-certificates",
        build: true,
    },
    // runc is partly in C.
    Program {
        name: "gcc",
        package: "gcc",
        build: true,
    },
    Program {
        name: "/usr/include/stdio.h",
        package: "libc6-dev",
        build: true,
    },
    Program {
        name: "pkg-config",
        package: "pkg-config",
        build: true,
    },
    Program {
        name: "/usr/include/seccomp.h",
        package: "libseccomp-dev",
        build: true,
    },
];

const fn program(name: &'static str, package: &'static str) -> Program {
    Program {
        name,
        package,
        build: false,
    }
}

/// A program and the Debian package that has it, for people.
pub(crate) fn named(program: &str) -> String {
    match PROGRAMS.iter().find(|known| known.name == program) {
        Some(known) => format!("{program} (Debian package {})", known.package),
        None => program.to_owned(),
    }
}

/// The packages that are missing. `build`: also those for building node images.
pub(crate) fn missing(build: bool) -> Vec<&'static str> {
    lacking(build, |program| {
        if program.starts_with('/') {
            Path::new(program).exists()
        } else {
            host::find(program).is_some()
        }
    })
}

fn lacking(build: bool, is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages = Vec::new();
    for program in PROGRAMS {
        let wanted = (build || !program.build) && !is_there(program.name);
        if wanted && !packages.contains(&program.package) {
            packages.push(program.package);
        }
    }
    packages
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
    // On a fresh machine the package lists are empty or outdated; they are fetched only then.
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
    use super::*;

    #[test]
    fn what_is_missing_follows_from_what_is_there() {
        let server = |program: &str| ["ip", "mount", "losetup", "cp", "timeout"].contains(&program);
        let always = ["runc", "nftables", "util-linux", "e2fsprogs"];
        assert_eq!(lacking(false, server), always, "each once");
        assert_eq!(
            lacking(true, server),
            [
                &always[..],
                &[
                    "mmdebstrap",
                    "ca-certificates",
                    "gcc",
                    "libc6-dev",
                    "pkg-config",
                    "libseccomp-dev"
                ]
            ]
            .concat()
        );
        assert!(lacking(true, |_| true).is_empty());
    }

    #[test]
    fn what_components_are_compiled_with_is_installed() {
        for package in image::build_packages() {
            let known = PROGRAMS.iter().find(|program| program.package == package);
            assert!(known.is_some_and(|program| program.build), "{package}");
        }
    }
}
