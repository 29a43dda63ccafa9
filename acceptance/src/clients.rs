//! The real clients: `az` and `kubectl`, each with a separate home directory.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::loaded::Loaded;

/// The most lines of a list in an error.
const LAST: usize = 40;

/// Runs a command to its end and gives its output; an error contains its output.
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

/// Runs a command to its end, whether it fails or not.
pub(crate) fn attempt(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {command:?}"))
}

/// The Azure CLI with a separate configuration directory.
#[derive(Clone)]
pub(crate) struct Az {
    pub(crate) program: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) ca: PathBuf,
    /// A process of it that has its modules loaded, where many commands follow.
    loaded: Option<Arc<Loaded>>,
}

impl Az {
    /// One with a separate configuration directory.
    pub(crate) fn new(program: PathBuf, config: PathBuf, ca: PathBuf) -> Self {
        Self {
            program,
            config,
            ca,
            loaded: None,
        }
    }

    /// The same, with its modules loaded once for all commands to come.
    pub(crate) fn loaded(mut self) -> Result<Self> {
        self.loaded = Some(Arc::new(Loaded::start(&self)?));
        Ok(self)
    }

    /// `az …`, ready to run.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.with_settings(Command::new(&self.program));
        command.args(arguments);
        command
    }

    /// Its Python, with the same settings.
    pub(crate) fn interpreter(&self) -> Command {
        self.with_settings(Command::new(self.program.with_file_name("python3")))
    }

    fn with_settings(&self, mut command: Command) -> Command {
        command
            .env("AZURE_CONFIG_DIR", &self.config)
            .env("REQUESTS_CA_BUNDLE", &self.ca)
            // The token service of a stamp is not Microsoft's, so instance discovery there is turned off.
            .env("AZURE_CORE_INSTANCE_DISCOVERY", "false")
            .env("AZURE_CORE_COLLECT_TELEMETRY", "false")
            .env("AZURE_CORE_SURVEY_MESSAGE", "false")
            .env("AZURE_CORE_ONLY_SHOW_ERRORS", "true")
            .env("AZURE_EXTENSION_USE_DYNAMIC_INSTALL", "no")
            .env_remove("HTTPS_PROXY")
            .env_remove("https_proxy")
            // Python's compiled modules are cached, as on users' machines: otherwise each command would
            // compile all of them anew.
            .env_remove("PYTHONDONTWRITEBYTECODE");
        command
    }

    /// Runs `az` and parses its JSON; `Null` for empty output.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let (success, text, said) = self.ended(&[arguments, &["--output", "json"]].concat())?;
        if !success {
            bail!("az {arguments:?} failed\n{text}{said}");
        }
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).with_context(|| format!("az {arguments:?} did not print JSON: {text}"))
    }

    /// Runs `az`, which has to fail; gives its standard error.
    pub(crate) fn fails(&self, arguments: &[&str]) -> Result<String> {
        let (success, _, said) = self.ended(arguments)?;
        if success {
            bail!("az {arguments:?} should have failed");
        }
        Ok(said)
    }

    /// Runs `az` to its end: whether it succeeded, its output, and its standard error.
    fn ended(&self, arguments: &[&str]) -> Result<(bool, String, String)> {
        if let Some(loaded) = &self.loaded {
            let answer = loaded.run(arguments)?;
            return Ok((answer.code == 0, answer.out, answer.err));
        }
        let output = attempt(&mut self.command(arguments))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((
            output.status.success(),
            text(&output.stdout),
            text(&output.stderr),
        ))
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

    /// Runs kubectl and gives its output.
    pub(crate) fn text(&self, arguments: &[&str]) -> Result<String> {
        run(&mut self.command(arguments))
    }

    /// Runs kubectl and reads its JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = run(self.command(arguments).args(["-o", "json"]))?;
        serde_json::from_str(&text).with_context(|| format!("kubectl {arguments:?} did not print JSON"))
    }

    /// Waits until a workload of the namespace `default` is rolled out.
    pub(crate) fn rolled_out(&self, what: &str) -> Result<()> {
        self.rolled_out_in("default", what)
    }

    /// Waits until a workload of a namespace is rolled out. How long that takes depends on the load of the
    /// host.
    pub(crate) fn rolled_out_in(&self, namespace: &str, what: &str) -> Result<()> {
        self.explained(namespace, &["rollout", "status", what, "--timeout=300s"])
    }

    /// Waits until a pod of the namespace `default` is ready.
    pub(crate) fn pod_ready(&self, pod: &str) -> Result<()> {
        let pod = format!("pod/{pod}");
        self.explained(
            "default",
            &["wait", "--for=condition=Ready", &pod, "--timeout=300s"],
        )
    }

    /// Runs kubectl in a namespace; an error contains the pods and the latest events as well.
    fn explained(&self, namespace: &str, arguments: &[&str]) -> Result<()> {
        let within = ["--namespace", namespace];
        let Err(error) = self.text(&[&within[..], arguments].concat()) else {
            return Ok(());
        };
        let mut told = String::new();
        for look in [
            &["get", "pods", "--output", "wide"][..],
            &["get", "events", "--sort-by", ".lastTimestamp"],
        ] {
            let output = attempt(&mut self.command(&[&within[..], look].concat()))?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines.len().saturating_sub(LAST);
            for line in &lines[last..] {
                told.push_str("\n        ");
                told.push_str(line);
            }
            told.push_str(&String::from_utf8_lossy(&output.stderr));
        }
        bail!("{error:#}{told}")
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
