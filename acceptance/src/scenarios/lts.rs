//! The Azure CLI of Azure Stack: a release of long-term support, in the hybrid profile, against a stamp of AD FS' shape, with the commands of
//! its guide.
//!
//! Under its own name only: `cargo xtask acceptance-lts`.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{guide, login::addresses, text};
use crate::{
    clients::{Az, Kubectl, run},
    journal::Journal,
    stamp::Stamp,
};

/// The name of this scenario.
pub(super) const NAME: &str = "lts";
/// The commands are run verbatim.
const GUIDE: &str = include_str!("../../../docs/guides/hybrid-profile.md");
const GROUP: &str = "hybrid";
/// The guide's name of its cluster.
const CLUSTER: &str = "jobs";
const PROFILE: &str = "2020-09-01-hybrid";

/// Runs a block of the guide.
fn follow(stamp: &Stamp, az: &Az, variables: &[(&str, &str)], block: &str) -> Result<String> {
    let mut shell = guide::shell(stamp, az, &[], block)?;
    shell
        .envs(addresses(stamp)?)
        .env("GROUP", GROUP)
        .envs(variables.iter().copied())
        // As for a reader of the guide: this shape does not need it.
        .env_remove("AZURE_CORE_INSTANCE_DISCOVERY");
    run(&mut shell)
}

/// Gives an `az` of the hybrid profile that is logged in.
pub(super) fn log_in(journal: &Journal, stamp: &Stamp, program: Option<&Path>) -> Result<Az> {
    let program = program.context("--az-lts is missing: 'cargo xtask acceptance-lts' names it")?;
    let mut az = stamp.other_az("azure-lts")?;
    program.clone_into(&mut az.program);
    let [first, ..] = guide::exactly::<6>(GUIDE)?;
    journal.step(NAME, "the guide logs in, in the hybrid profile", || {
        let told = follow(stamp, &az, &[], &first)?;
        ensure!(told.trim().ends_with("Enabled"), "{told}");
        let cloud = az.json(&["cloud", "show"])?;
        ensure!(text(&cloud, "/profile")? == PROFILE, "{cloud}");
        let version = az.json(&["version"])?;
        ensure!(text(&version, "/azure-cli")?.starts_with("2.66."), "{version}");
        Ok(())
    })?;
    journal.step(
        NAME,
        "a person logs in with a password, and a wrong one is refused",
        || {
            let mut other = stamp.other_az("azure-lts-person")?;
            program.clone_into(&mut other.program);
            let endpoint = format!("https://{}", stamp.listen);
            let register = ["cloud", "register", "--name", "plain", "--profile", PROFILE];
            run(&mut other.command(&[&register[..], &["--endpoint-resource-manager", &endpoint]].concat()))?;
            run(&mut other.command(&["cloud", "set", "--name", "plain"]))?;
            let name = text(&stamp.summary, "/administrator/login")?;
            let password = std::fs::read_to_string(text(&stamp.summary, "/administrator/passwordFile")?)?;
            let login = ["login", "--tenant", "adfs", "--username", name, "--password"];
            let said = other.fails(&[&login[..], &["wrong"]].concat())?;
            ensure!(said.contains("AADSTS50126"), "az says: {said}");
            let accounts = other.json(&[&login[..], &[password.trim()]].concat())?;
            ensure!(accounts[0]["user"]["type"] == "user", "{accounts}");
            Ok(())
        },
    )?;
    Ok(az)
}

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    let [_, create, pools, upgrade, roles, remove] = guide::exactly::<6>(GUIDE)?;
    let (older, newer) = versions(stamp)?;
    let versions = [("OLDER", &*older), ("NEWER", &*newer)];
    let kubectl = journal.step(NAME, "the guide creates a cluster", || {
        let told = follow(stamp, az, &versions, &create)?;
        ensure!(told.trim() == format!("{CLUSTER}\tSucceeded\t{older}"), "{told}");
        let group = az.json(&["group", "show", "--name", GROUP])?;
        ensure!(group["tags"]["for"] == "jobs", "{group}");
        ensure!(az.json(&["group", "exists", "--name", GROUP])? == true);
        let groups = az.json(&["group", "list", "--query", "[].name"])?;
        ensure!(
            groups.as_array().is_some_and(|all| all.contains(&GROUP.into())),
            "{groups}"
        );
        let kubectl = Kubectl {
            program: stamp.kubectl_program()?,
            kubeconfig: stamp.directory.path().join("jobs.kubeconfig"),
        };
        ensure!(kubectl.ready_nodes()?.len() == 1, "the node is not ready");
        Ok(kubectl)
    })?;
    journal.step(
        NAME,
        "the cluster shows as its api-version has it, also in a table",
        || {
            let cluster = cluster(az)?;
            ensure!(cluster["sku"]["tier"] == "Free", "{}", cluster["sku"]);
            ensure!(
                text(&cluster, "/identity/principalId")?.len() == 36,
                "{}",
                cluster["identity"]
            );
            let table = run(&mut az.command(&["aks", "list", "--output", "table"]))?;
            ensure!(table.contains(CLUSTER), "{table}");
            let missing = az.fails(&["aks", "show", "--resource-group", GROUP, "--name", "nobody"])?;
            ensure!(missing.contains("ResourceNotFound"), "az says: {missing}");
            Ok(())
        },
    )?;
    journal.step(NAME, "the guide adds a pool, scales and lists it", || {
        let told = follow(stamp, az, &versions, &pools)?;
        ensure!(told.contains("batch\t2\tSucceeded"), "{told}");
        ensure!(kubectl.ready_nodes()?.len() == 3, "not every node is ready");
        let labelled = kubectl.json(&["get", "nodes", "--selector", "for=batch"])?;
        ensure!(
            labelled["items"].as_array().is_some_and(|all| all.len() == 2),
            "{labelled}"
        );
        Ok(())
    })?;
    journal.step(
        NAME,
        "az aks scale: the first pool, and what others set stays",
        || {
            let scale = ["aks", "scale", "--resource-group", GROUP, "--name", CLUSTER];
            let told =
                az.json(&[&scale[..], &["--nodepool-name", "nodepool1", "--node-count", "2"]].concat())?;
            let pools = told["agentPoolProfiles"].as_array().context("no pools")?;
            let batch = pools
                .iter()
                .find(|pool| pool["name"] == "batch")
                .context("no batch")?;
            ensure!(
                batch["nodeLabels"]["for"] == "batch" && batch["count"] == 2,
                "{batch}"
            );
            ensure!(kubectl.ready_nodes()?.len() == 4, "not every node is ready");
            Ok(())
        },
    )?;
    journal.step(
        NAME,
        "the guide upgrades: control plane, pools, node images",
        || {
            let told = follow(stamp, az, &versions, &upgrade)?;
            ensure!(told.lines().any(|line| line == newer), "{told}");
            let nodes = kubectl.json(&["get", "nodes"])?;
            let nodes = nodes["items"].as_array().context("no nodes")?;
            let at = format!("v{newer}");
            ensure!(
                nodes.len() == 4
                    && nodes
                        .iter()
                        .all(|node| node["status"]["nodeInfo"]["kubeletVersion"] == *at),
                "{nodes:?}"
            );
            let cluster = cluster(az)?;
            ensure!(text(&cluster, "/kubernetesVersion")? == newer, "{cluster}");
            Ok(())
        },
    )?;
    journal.step(NAME, "the guide gives a role, lists it, and takes it", || {
        let group = az.json(&["group", "show", "--name", GROUP])?;
        let scope = [("SCOPE", text(&group, "/id")?)];
        let told = follow(stamp, az, &scope, &roles)?;
        ensure!(told.lines().any(|line| line == "Reader"), "{told}");
        let left = az.json(&["role", "assignment", "list", "--scope", scope[0].1])?;
        ensure!(left.as_array().is_some_and(Vec::is_empty), "{left}");
        Ok(())
    })?;
    journal.step(NAME, "az aks stop and start", || {
        for verb in ["stop", "start"] {
            run(&mut az.command(&["aks", verb, "--resource-group", GROUP, "--name", CLUSTER]))?;
        }
        ensure!(
            text(&cluster(az)?, "/powerState/code")? == "Running",
            "it does not run"
        );
        ensure!(kubectl.ready_nodes()?.len() == 4, "not every node is ready");
        Ok(())
    })?;
    journal.step(NAME, "the guide removes pool, cluster and group", || {
        follow(stamp, az, &versions, &remove)?;
        ensure!(az.json(&["group", "exists", "--name", GROUP])? == false);
        Ok(())
    })
}

fn cluster(az: &Az) -> Result<Value> {
    az.json(&["aks", "show", "--resource-group", GROUP, "--name", CLUSTER])
}

/// The two versions of a stamp, the older one first. This client's `get-versions` sends no request in this
/// profile.
fn versions(stamp: &Stamp) -> Result<(String, String)> {
    let images = run(&mut stamp.landfall(&["image", "list", "--output", "json"]))?;
    newest_two(&serde_json::from_str::<Vec<Value>>(&images)?)
}

/// Of the images that are built: of an earlier release there may be older ones.
fn newest_two(images: &[Value]) -> Result<(String, String)> {
    let built = images.iter().filter(|image| image["built"] == true);
    let mut all: Vec<Vec<u32>> = built
        .filter_map(|image| {
            image["version"]
                .as_str()?
                .split('.')
                .map(|part| part.parse().ok())
                .collect()
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    let [.., older, newer] = &all[..] else {
        anyhow::bail!("fewer than two versions are built: {images:?}");
    };
    let text = |version: &[u32]| version.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
    Ok((text(older), text(newer)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_two_newest_versions_are_those_of_a_stamp() {
        let image = |version: &str, built: bool| json!({ "version": version, "built": built });
        let images = [
            image("1.36.10", true),
            image("1.37.1", true),
            image("1.36.9", true),
            image("1.37.1", true),
            image("1.38.0", false),
        ];
        let both = newest_two(&images).unwrap();
        assert_eq!(both, ("1.36.10".to_owned(), "1.37.1".to_owned()));
        newest_two(&images[1..2]).unwrap_err();
    }

    #[test]
    fn the_guide_has_the_blocks_that_are_followed() {
        let blocks = guide::exactly::<6>(GUIDE).unwrap();
        for (block, word) in blocks.iter().zip([
            PROFILE,
            "aks create",
            "nodepool scale",
            "node-image-only",
            "role assignment",
            "group delete",
        ]) {
            assert!(block.contains(word), "{word}");
        }
    }
}
