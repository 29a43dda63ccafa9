//! Guides: their blocks of commands, which are run verbatim, as a user would who is logged in.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::{
    GROUP,
    workload::{BUSYBOX, Cluster},
};
use crate::{
    clients::{Az, run},
    stamp::Stamp,
};

/// The blocks of a guide, in their order.
pub(super) fn blocks(guide: &str) -> Vec<String> {
    guide
        .split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .map(str::to_owned)
        .collect()
}

/// The blocks of a guide that has so many.
pub(super) fn exactly<const N: usize>(guide: &str) -> Result<[String; N]> {
    let blocks = <[String; N]>::try_from(blocks(guide));
    blocks.map_err(|blocks| anyhow::anyhow!("the guide has other blocks: {blocks:?}"))
}

/// A shell that runs `script` in the stamp's directory, with `az` and the directories of `programs` on its path.
pub(super) fn shell(stamp: &Stamp, az: &Az, programs: &[&Path], script: &str) -> Result<Command> {
    let mut path = Vec::new();
    for program in [&*az.program].iter().chain(programs) {
        path.push(program.parent().context("no directory")?.to_owned());
    }
    let present = std::env::var_os("PATH").unwrap_or_default();
    path.extend(std::env::split_paths(&present));
    let mut shell = Command::new("bash");
    shell
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(stamp.directory.path())
        .env("PATH", std::env::join_paths(path)?);
    has_environment_of(&mut shell, &az.command(&[]));
    Ok(shell)
}

/// Runs a block of a guide in a cluster, whose kubectl is on the path, with an image that needs no registry.
pub(super) fn follow(stamp: &Stamp, az: &Az, cluster: &Cluster, block: &str) -> Result<String> {
    let kubectl = &cluster.kubectl;
    let mut shell = shell(stamp, az, &[&kubectl.program], block)?;
    shell
        .env("KUBECONFIG", &kubectl.kubeconfig)
        .env("GROUP", GROUP)
        .env("CLUSTER", cluster.name)
        .env("IMAGE", BUSYBOX);
    run(&mut shell)
}

/// A shell with additional variables, and with `landfall` for this stamp.
pub(super) fn with_landfall(
    stamp: &Stamp,
    az: &Az,
    variables: &[(&str, &str)],
    script: &str,
) -> Result<Command> {
    // The stamp's name is this run's; the rest of the command is the guide's.
    let landfall = stamp.landfall(&[]);
    let program = landfall.get_program().to_string_lossy().into_owned();
    let own = format!("landfall() {{ '{program}' \"$@\" --name {}; }}\n", stamp.name);
    let mut shell = shell(stamp, az, &[], &format!("{own}{script}"))?;
    shell.envs(variables.iter().copied());
    has_environment_of(&mut shell, &landfall);
    Ok(shell)
}

/// Gives a command the variables of another.
pub(super) fn has_environment_of(command: &mut Command, other: &Command) {
    for (name, value) in other.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
}
