//! The real clients: `az` and `kubectl`, each with a home of its own.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Runs a command to its end and gives its output; an error holds what it said.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = attempt(command)?;
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command to its end, whatever it says.
pub(crate) fn attempt(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {command:?}"))
}

/// The Azure CLI with a configuration directory of its own.
#[derive(Clone)]
pub(crate) struct Az {
    pub(crate) program: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) ca: PathBuf,
}

impl Az {
    /// `az …`, ready to run.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("AZURE_CONFIG_DIR", &self.config)
            .env("REQUESTS_CA_BUNDLE", &self.ca)
            // A stamp's token service is none of Microsoft's, and that is not asked.
            .env("AZURE_CORE_INSTANCE_DISCOVERY", "false")
            .env("AZURE_CORE_COLLECT_TELEMETRY", "false")
            .env("AZURE_CORE_SURVEY_MESSAGE", "false")
            .env("AZURE_CORE_ONLY_SHOW_ERRORS", "true")
            .env("AZURE_EXTENSION_USE_DYNAMIC_INSTALL", "no")
            .env_remove("HTTPS_PROXY")
            .env_remove("https_proxy");
        command
    }

    /// Runs `az` and reads its JSON; `Null` where it says nothing.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = run(self.command(arguments).args(["--output", "json"]))?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).with_context(|| format!("az {arguments:?} did not print JSON: {text}"))
    }

    /// Runs `az`, which has to fail; gives what it said on standard error.
    pub(crate) fn fails(&self, arguments: &[&str]) -> Result<String> {
        let output = attempt(&mut self.command(arguments))?;
        if output.status.success() {
            bail!("az {arguments:?} should have failed");
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// kubectl with one cluster's kubeconfig.
#[derive(Clone)]
pub(crate) struct Kubectl {
    pub(crate) program: PathBuf,
    pub(crate) kubeconfig: PathBuf,
}

impl Kubectl {
    /// `kubectl …`, ready to run.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// Runs kubectl and gives what it printed.
    pub(crate) fn text(&self, arguments: &[&str]) -> Result<String> {
        run(&mut self.command(arguments))
    }

    /// Runs kubectl and reads its JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = run(self.command(arguments).args(["-o", "json"]))?;
        serde_json::from_str(&text).with_context(|| format!("kubectl {arguments:?} did not print JSON"))
    }

    /// Applies a manifest.
    pub(crate) fn apply(&self, directory: &Path, manifest: &Value) -> Result<()> {
        let file = directory.join("manifest.json");
        std::fs::write(&file, serde_json::to_vec(manifest)?)?;
        self.text(&["apply", "-f", &file.to_string_lossy()]).map(drop)
    }

    /// Names of nodes that are Ready.
    pub(crate) fn ready_nodes(&self) -> Result<Vec<String>> {
        let nodes = self.json(&["get", "nodes"])?;
        let items = nodes["items"].as_array().context("no items")?;
        Ok(items
            .iter()
            .filter(|node| {
                node["status"]["conditions"].as_array().is_some_and(|conditions| {
                    conditions
                        .iter()
                        .any(|c| c["type"] == "Ready" && c["status"] == "True")
                })
            })
            .filter_map(|node| node["metadata"]["name"].as_str().map(str::to_owned))
            .collect())
    }
}
