//! A stamp for this run only: made by `landfall up`, taken down and checked for left-overs at the end.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    Args,
    calls::Ledger,
    clients::{Az, Kubectl, run},
    host::Host,
    journal::wait_for,
};

/// A running stamp.
pub(crate) struct Stamp {
    /// Its name, different in each run, so that runs beside each other do not meet.
    pub(crate) name: String,
    /// Scratch space: state, az configuration, kubeconfigs.
    pub(crate) directory: tempfile::TempDir,
    /// `127.0.0.1:{port}`.
    pub(crate) listen: String,
    landfall: PathBuf,
    /// The program of an earlier release that runs it until [`Self::is_taken_over`].
    earlier: Option<PathBuf>,
    /// Set once this release has taken over from the earlier one.
    taken_over: AtomicBool,
    az: PathBuf,
    before: Host,
    calls: Arc<Ledger>,
    /// The result of `landfall up --output json`.
    pub(crate) summary: Value,
}

impl Stamp {
    /// Chooses a name and a port, and lists the host's objects first. Calls in it are counted in `calls`.
    pub(crate) fn new(args: &Args, calls: &Arc<Ledger>) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("landfall-acceptance-")
            .tempdir()?;
        let port = base_testkit::port();
        let before = Host::look(&format!("acc{port}"))?;
        Ok(Self {
            name: format!("acc{port}"),
            listen: format!("127.0.0.1:{port}"),
            directory,
            landfall: args.landfall.canonicalize().context("--landfall")?,
            earlier: None,
            taken_over: AtomicBool::new(false),
            az: args.az.clone(),
            before,
            calls: Arc::clone(calls),
            summary: Value::Null,
        })
    }

    /// Lets an earlier release make the stamp.
    pub(crate) fn begins_with(&mut self, earlier: &Path) -> Result<()> {
        self.earlier = Some(earlier.canonicalize().context("--earlier")?);
        Ok(())
    }

    /// From now on, all commands are this release's.
    pub(crate) fn is_taken_over(&self) {
        self.taken_over.store(true, Ordering::SeqCst);
    }

    fn program(&self) -> &Path {
        match &self.earlier {
            Some(earlier) if !self.taken_over.load(Ordering::SeqCst) => earlier,
            _ => &self.landfall,
        }
    }

    /// `landfall … ` for this stamp, ready to run.
    pub(crate) fn landfall(&self, arguments: &[&str]) -> Command {
        // These end the service, or may start it anew.
        if matches!(arguments, ["up" | "down" | "service", ..]) {
            self.calls.read(&self.name);
        }
        let mut command = Command::new(self.program());
        command
            .args(arguments)
            .args(["--name", &self.name])
            .env("LANDFALL_STATE_DIR", self.directory.path().join("state"));
        command
    }

    /// `landfall up`: all steps, including the stamp's first cluster.
    pub(crate) fn up(&mut self, shape: &str) -> Result<()> {
        let text = run(&mut self.landfall(&[
            "up",
            "--uplink",
            "none",
            "--listen",
            &self.listen,
            "--identity",
            shape,
            "--nodes",
            "1",
            "--output",
            "json",
        ]))?;
        let last = text
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .context("up printed nothing")?;
        self.summary =
            serde_json::from_str(last).with_context(|| format!("the last line of up is not JSON: {last}"))?;
        Ok(())
    }

    /// Where its state is kept.
    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("state").join(&self.name)
    }

    /// The store's file.
    pub(crate) fn store(&self) -> PathBuf {
        self.state().join("store.redb")
    }

    /// Where the disk of a machine is.
    pub(crate) fn machine_disk(&self, machine: &str) -> PathBuf {
        self.state().join("fabric/machines").join(machine)
    }

    /// The result of `landfall status`.
    pub(crate) fn status(&self) -> Result<Value> {
        let text = run(&mut self.landfall(&["status", "--output", "json"]))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// The process id of this stamp's `landfall serve`.
    pub(crate) fn serve_pid(&self) -> Result<u32> {
        let status = self.status()?;
        let pid = status["service"]["pid"]
            .as_u64()
            .context("landfall status names no service pid")?;
        Ok(u32::try_from(pid)?)
    }

    /// `kill -9` of the service; its clusters must keep running.
    pub(crate) fn kill_service(&self) -> Result<()> {
        self.calls.read(&self.name);
        let pid = self.serve_pid()?;
        run(Command::new("kill").args(["-9", &pid.to_string()])).map(drop)
    }

    /// Power failure: the service and every machine are gone at once, and all that is not on disk.
    pub(crate) fn power_failure(&self) -> Result<()> {
        self.kill_service()?;
        crate::host::power_failure(&self.name, &self.before)
    }

    /// A kubectl for a cluster, from `az aks get-credentials`.
    pub(crate) fn kubectl(&self, az: &Az, group: &str, cluster: &str) -> Result<Kubectl> {
        let kubeconfig = self.directory.path().join(format!("kubeconfig-{cluster}"));
        run(&mut az.command(&[
            "aks",
            "get-credentials",
            "--resource-group",
            group,
            "--name",
            cluster,
            "--admin",
            "--overwrite-existing",
            "--file",
            &kubeconfig.to_string_lossy(),
        ]))?;
        Ok(Kubectl {
            program: self.kubectl_program()?,
            kubeconfig,
        })
    }

    /// The kubectl of the node image: no other has to be installed.
    pub(crate) fn kubectl_program(&self) -> Result<PathBuf> {
        let text = run(&mut self.landfall(&["image", "list", "--output", "json"]))?;
        let images: Value = serde_json::from_str(&text)?;
        let layers = images[0]["layers"]
            .as_array()
            .with_context(|| format!("no layers in {text}"))?;
        layers
            .iter()
            .filter_map(Value::as_str)
            .map(|layer| Path::new(layer).join("usr/local/bin/kubectl"))
            .find(|path| path.is_file())
            .context("no layer of the image has a kubectl")
    }

    /// An `az` with a separate configuration, not logged in.
    pub(crate) fn fresh_az(&self) -> Result<Az> {
        self.other_az("azure")
    }

    /// The same beside others.
    pub(crate) fn other_az(&self, name: &str) -> Result<Az> {
        let config = self.directory.path().join(name);
        std::fs::create_dir_all(&config)?;
        let ca = self.summary["caFile"].as_str().context("up told no caFile")?;
        Ok(Az::new(self.az.clone(), config, ca.into()))
    }

    /// Waits until the service responds again.
    pub(crate) fn wait_for_service(&self, bound: Duration) -> Result<()> {
        wait_for("the service", bound, || self.serve_pid().map(drop))
    }

    /// `landfall down --purge`; nothing may be left on the host.
    pub(crate) fn down(&self) -> Result<()> {
        run(&mut self.landfall(&["down", "--purge"]))?;
        let left = wait_for("processes to end", Duration::from_secs(180), || {
            let left = Host::look(&self.name)?.beyond(&self.before);
            ensure!(
                left.is_empty(),
                "left on the host:\n        {}",
                left.join("\n        ")
            );
            Ok(left)
        });
        left.map(drop)?;
        let state = self.state();
        if state.exists() {
            bail!("{} is still there", state.display());
        }
        Ok(())
    }
}
