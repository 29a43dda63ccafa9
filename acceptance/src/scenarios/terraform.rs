//! Terraform with its provider `azurerm`: the configuration and the commands of the guide, and their effects
//! on the cluster.
//!
//! Runs only when it is requested by name: the provider is compiled for it. `cargo xtask terraform`.

use std::{ffi::OsStr, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{guide, login::addresses, text};
use crate::{
    clients::{Az, attempt, run},
    journal::Journal,
    stamp::Stamp,
};

/// The name of this scenario.
pub(super) const NAME: &str = "terraform";
/// The commands and the configuration are used verbatim.
const GUIDE: &str = include_str!("../../../docs/guides/terraform.md");
const GROUP: &str = "terraform";
const CLUSTER: &str = "shop";

/// The configuration of the guide.
fn configuration() -> Result<&'static str> {
    let (_, rest) = GUIDE
        .split_once("```hcl\n")
        .context("the guide has no configuration")?;
    let (configuration, _) = rest.split_once("```").context("the configuration has no end")?;
    Ok(configuration)
}

/// Whether a variable is Terraform's or its provider's.
fn is_theirs(name: &OsStr) -> bool {
    ["ARM_", "TF_", "TOFU_"]
        .iter()
        .any(|start| name.as_encoded_bytes().starts_with(start.as_bytes()))
}

pub(super) fn walk(
    journal: &Journal,
    stamp: &Stamp,
    az: &Az,
    terraform: Option<&Path>,
    azurerm: Option<&Path>,
) -> Result<()> {
    let told = "is missing: 'cargo xtask terraform' names it";
    let terraform = terraform.with_context(|| format!("--terraform {told}"))?;
    let azurerm = azurerm.with_context(|| format!("--azurerm {told}"))?;
    let [settings, apply, change, destroy] = guide::exactly::<4>(GUIDE)?;
    let directory = stamp.directory.path().join(NAME);
    let programs = directory.join("bin");
    std::fs::create_dir_all(&programs)?;
    // OpenTofu does as well; the guide's commands name Terraform.
    let terraform = terraform.canonicalize().context("--terraform")?;
    let named = programs.join("terraform");
    std::os::unix::fs::symlink(terraform, &named)?;
    std::fs::write(directory.join("main.tf"), configuration()?)?;
    // In place of 'terraform init', which would connect to a registry.
    let azurerm = azurerm.canonicalize().context("--azurerm")?;
    let overrides = format!(
        "provider_installation {{\n  dev_overrides {{ \"hashicorp/azurerm\" = \"{}\" }}\n  direct {{}}\n}}\n",
        azurerm.display()
    );
    std::fs::write(directory.join("cli.tfrc"), overrides)?;
    let account = az.json(&["account", "show"])?;
    let subscription = text(&account, "/id")?;
    let shell = |script: &str| -> Result<std::process::Command> {
        let mut shell = guide::shell(stamp, az, &[&named], script)?;
        // Users of Azure have settings for it, which would select another cloud.
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_theirs(name)) {
            shell.env_remove(name);
        }
        shell
            .current_dir(&directory)
            .envs(addresses(stamp)?)
            .env("SUBSCRIPTION", subscription)
            .env("TF_CLI_CONFIG_FILE", directory.join("cli.tfrc"))
            .env("TF_CLI_ARGS", "-no-color")
            .env("TF_IN_AUTOMATION", "1")
            .env("CHECKPOINT_DISABLE", "1");
        Ok(shell)
    };
    let follow = |block: &str| run(&mut shell(&format!("{settings}\n{block}"))?);
    let state = || -> Result<Value> {
        let cluster = ["--resource-group", GROUP, "--name", CLUSTER];
        az.json(&[&["aks", "show"][..], &cluster].concat())
    };
    journal.step(NAME, "the guide applies, and the plan after it is empty", || {
        let told = follow(&apply)?;
        ensure!(told.contains("3 added, 0 changed, 0 destroyed"), "{told}");
        let cluster = state()?;
        ensure!(cluster["tags"]["app"] == "shop", "{}", cluster["tags"]);
        let kubectl = stamp.kubectl(az, GROUP, CLUSTER)?;
        ensure!(kubectl.ready_nodes()?.len() == 2, "not every node is ready");
        let jobs = kubectl.json(&["get", "nodes", "--selector", "app=jobs"])?;
        ensure!(
            jobs["items"].as_array().is_some_and(|all| all.len() == 1),
            "{jobs}"
        );
        Ok(())
    })?;
    journal.step(NAME, "the guide changes the count and the tags, in place", || {
        let told = follow(&change)?;
        ensure!(told.contains("0 added, 3 changed, 0 destroyed"), "{told}");
        let cluster = state()?;
        ensure!(cluster["tags"]["stage"] == "trial", "{}", cluster["tags"]);
        let kubectl = stamp.kubectl(az, GROUP, CLUSTER)?;
        ensure!(kubectl.ready_nodes()?.len() == 3, "not every node is ready");
        Ok(())
    })?;
    journal.step(NAME, "what was changed by another client is in the plan", || {
        let scale = ["aks", "scale", "--resource-group", GROUP, "--name", CLUSTER];
        az.json(&[&scale[..], &["--nodepool-name", "default", "--node-count", "1"]].concat())?;
        let plan =
            "terraform plan -detailed-exitcode -var nodes=2 -var 'tags={app=\"shop\",stage=\"trial\"}'";
        let planned = attempt(&mut shell(&format!("{settings}\n{plan}"))?)?;
        let told = String::from_utf8_lossy(&planned.stdout);
        ensure!(
            planned.status.code() == Some(2) && told.contains("0 to add, 1 to change, 0 to destroy"),
            "{told}"
        );
        Ok(())
    })?;
    journal.step(NAME, "with az in place of a secret", || {
        let plan = "unset ARM_CLIENT_ID ARM_CLIENT_SECRET\nterraform plan -detailed-exitcode -var nodes=1 -var 'tags={app=\"shop\",stage=\"trial\"}'";
        run(&mut shell(&format!("{settings}\n{plan}"))?).map(drop)
    })?;
    journal.step(NAME, "the guide destroys, and nothing is left", || {
        let told = follow(&destroy)?;
        ensure!(told.contains("3 destroyed"), "{told}");
        ensure!(az.json(&["group", "exists", "--name", GROUP])? == false);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_for_another_cloud_are_known_by_their_names() {
        for (name, theirs) in [
            ("ARM_CLIENT_ID", true),
            ("TF_CLI_CONFIG_FILE", true),
            ("HARM_DONE", false),
            ("PATH", false),
        ] {
            assert_eq!(is_theirs(OsStr::new(name)), theirs, "{name}");
        }
    }

    #[test]
    fn the_guide_has_what_is_followed() {
        let blocks = guide::exactly::<4>(GUIDE).unwrap();
        for (block, word) in
            blocks
                .iter()
                .zip(["ARM_CLIENT_SECRET", "-detailed-exitcode", "nodes=2", "destroy"])
        {
            assert!(block.contains(word), "{word}");
        }
        let configuration = configuration().unwrap();
        assert!(configuration.contains("azurerm_kubernetes_cluster"));
        // Without a type, the value of '-var' is taken for a text.
        assert!(configuration.contains("= map(string)"));
    }
}
