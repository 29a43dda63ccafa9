//! The stamp under test, with one cluster, and the loading of images onto its nodes.
//!
//! Always true: it uses only functions of every stamp: `landfall up`, `kubeconfig` and `down`, a privileged
//! pod that passes an archive to its node's own `ctr`, and a registry on each node for the few tests that
//! pull present images; a stamp that was made for this run is taken down, whether the tests pass or not.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::{
    images::{Archive, Images, REGISTRY, REGISTRY_ADDRESS, UPSTREAM},
    place::{last_words, ran},
};

/// The namespace of the pods that load images.
const NAMESPACE: &str = "conformance-images";

/// A running stamp with its cluster.
pub(crate) struct Cluster {
    landfall: PathBuf,
    name: String,
    /// Where its state is, when it is only for this run.
    state: Option<PathBuf>,
    /// The kubeconfig, and the state of a stamp that is only for this run.
    scratch: tempfile::TempDir,
    kubectl: PathBuf,
}

impl Cluster {
    /// Makes a stamp, or uses the one of a name.
    pub(crate) fn up(landfall: &Path, version: &str, nodes: u32, kept: Option<&str>) -> Result<Self> {
        let scratch = tempfile::Builder::new()
            .prefix("landfall-conformance-")
            .tempdir()
            .context("cannot make a directory")?;
        let port = base_testkit::port();
        let mut cluster = Self {
            landfall: landfall.to_owned(),
            name: kept.map_or_else(|| format!("con{port}"), str::to_owned),
            state: kept.is_none().then(|| scratch.path().join("state")),
            scratch,
            kubectl: PathBuf::new(),
        };
        println!(
            "stamp {}: a cluster of Kubernetes {version} with {nodes} nodes",
            cluster.name
        );
        let began = cluster.begin(version, nodes, port);
        if let Err(error) = began {
            // Parts of a failed stamp are removed as well.
            if let Err(left) = cluster.down() {
                println!("stamp {} is left: {left:#}", cluster.name);
            }
            return Err(error);
        }
        Ok(cluster)
    }

    fn begin(&mut self, version: &str, nodes: u32, port: u16) -> Result<()> {
        let mut up = self.landfall(&["up", "--uplink", "none", "--kubernetes", version]);
        up.args(["--nodes", &nodes.to_string(), "--output", "json"]);
        // An existing stamp has its address already.
        if !self.is_there() {
            up.args(["--listen", &format!("127.0.0.1:{port}")]);
            // All tests of a version take longer on a small host than a kubeconfig is good for by default.
            up.args(["--kubeconfig-hours", "24"]);
        }
        ran(&mut up)?;
        self.kubectl = self.kubectl_of(version)?;
        let kubeconfig = ran(&mut self.landfall(&["kubeconfig"]))?;
        let path = self.kubeconfig();
        fs::write(&path, kubeconfig).with_context(|| format!("cannot write {}", path.display()))?;
        // A stamp that was there may have a cluster of another version.
        let told: Value = self.json(&["version"])?;
        let runs = told["serverVersion"]["gitVersion"].as_str().unwrap_or_default();
        if runs != format!("v{version}") {
            bail!(
                "the cluster of stamp {} runs {runs}; name another stamp, or --kubernetes",
                self.name
            );
        }
        self.kubectl(&[
            "wait",
            "--for=condition=Ready",
            "nodes",
            "--all",
            "--timeout=300s",
        ])
        .map(drop)
    }

    /// Whether a stamp of this name was there before.
    fn is_there(&self) -> bool {
        let base =
            std::env::var_os("LANDFALL_STATE_DIR").map_or_else(|| "/var/lib/landfall".into(), PathBuf::from);
        self.state.is_none() && base.join(&self.name).join("stamp.toml").is_file()
    }

    /// `landfall …` for this stamp.
    fn landfall(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.landfall);
        command.args(arguments).args(["--name", &self.name]);
        if let Some(state) = &self.state {
            command.env("LANDFALL_STATE_DIR", state);
        }
        command
    }

    /// The kubectl of the node image: it has the cluster's version, and no other has to be installed.
    fn kubectl_of(&self, version: &str) -> Result<PathBuf> {
        let text = ran(&mut self.landfall(&["image", "list", "--output", "json"]))?;
        let images: Vec<Value> =
            serde_json::from_slice(&text).context("'landfall image list' answered no JSON")?;
        let layers = images
            .iter()
            .find(|image| image["version"] == version)
            .and_then(|image| image["layers"].as_array())
            .with_context(|| format!("'landfall image list' shows no node image {version}"))?;
        layers
            .iter()
            .filter_map(Value::as_str)
            .map(|layer| Path::new(layer).join("usr/local/bin/kubectl"))
            .find(|path| path.is_file())
            .context("no layer of the node image has a kubectl")
    }

    /// The administrator's.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.scratch.path().join("kubeconfig")
    }

    /// Where kubectl is.
    pub(crate) fn kubectl_program(&self) -> &Path {
        &self.kubectl
    }

    fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.args(arguments).env("KUBECONFIG", self.kubeconfig());
        command
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        ran(&mut self.kubectl_command(arguments))
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_slice(&text).with_context(|| format!("kubectl {arguments:?} did not print JSON"))
    }

    /// Loads the images onto every node without them.
    pub(crate) fn load(&self, images: &Images) -> Result<()> {
        let nodes = self.json(&["get", "nodes"])?;
        let nodes: Vec<&str> = nodes["items"]
            .as_array()
            .context("kubectl lists no nodes")?
            .iter()
            .filter_map(|node| node["metadata"]["name"].as_str())
            .collect();
        println!("loading {} images onto {} nodes", images.made.len(), nodes.len());
        self.pods(&list(loaders(&nodes)))?;
        // One node after the other would leave all but one idle.
        let outcomes: Vec<Result<()>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..nodes.len())
                .map(|number| scope.spawn(move || self.load_one(&pod(number), &images.made)))
                .collect();
            workers
                .into_iter()
                .map(|worker| {
                    worker
                        .join()
                        .unwrap_or_else(|_| bail!("a thread that loads images panicked"))
                })
                .collect()
        });
        outcomes.into_iter().collect::<Result<()>>()?;
        // Remains of the loaders would disturb tests that read a node's capacity.
        self.kubectl(&[
            "--namespace",
            NAMESPACE,
            "delete",
            "pods",
            "--all",
            "--timeout=180s",
        ])?;
        self.pods(&list(registries(&nodes)))
    }

    /// Makes pods, and waits until they are ready.
    fn pods(&self, manifest: &Value) -> Result<()> {
        let file = self.scratch.path().join("pods.json");
        fs::write(&file, manifest.to_string()).context("cannot write a manifest")?;
        self.kubectl(&["apply", "-f", &file.to_string_lossy()])?;
        self.kubectl(&[
            "--namespace",
            NAMESPACE,
            "wait",
            "--for=condition=Ready",
            "pods",
            "--all",
            "--timeout=180s",
        ])
        .map(drop)
    }

    fn load_one(&self, pod: &str, archives: &[Archive]) -> Result<()> {
        let there = ran(&mut self.on_node(pod, false, &["images", "list"]))?;
        let there = String::from_utf8_lossy(&there);
        for archive in archives.iter().filter(|archive| !has(&there, archive)) {
            let file = File::open(&archive.file)
                .with_context(|| format!("cannot open {}", archive.file.display()))?;
            let output = self
                .on_node(
                    pod,
                    true,
                    &[
                        "images",
                        "import",
                        "--local",
                        // Never collected as garbage: there is nowhere to pull it from again.
                        "--label",
                        "io.cri-containerd.pinned=pinned",
                        "-",
                    ],
                )
                .stdin(Stdio::from(file))
                .output()
                .context("cannot run kubectl")?;
            if !output.status.success() {
                bail!(
                    "{} cannot be loaded by {pod}: {}",
                    archive.reference,
                    last_words(&output.stderr)
                );
            }
        }
        // Pulls are served by the registry on the node itself; containerd reads this with each pull.
        let command = format!(
            "mkdir -p /node/etc/containerd/certs.d/{UPSTREAM} && printf '{}' > /node/etc/containerd/certs.d/{UPSTREAM}/hosts.toml",
            hosts()
        );
        self.kubectl(&["--namespace", NAMESPACE, "exec", pod, "--", "sh", "-c", &command])?;
        // An image in a node's list has the name that tests use.
        let there = ran(&mut self.on_node(pod, false, &["images", "list"]))?;
        let there = String::from_utf8_lossy(&there);
        match archives.iter().find(|archive| !has(&there, archive)) {
            Some(archive) => bail!(
                "{} was loaded by {pod}, and its node does not have it",
                archive.reference
            ),
            None => Ok(()),
        }
    }

    /// The node's `ctr`, in the node's own files.
    fn on_node(&self, pod: &str, reads: bool, arguments: &[&str]) -> Command {
        let mut command = self.kubectl_command(&["--namespace", NAMESPACE, "exec"]);
        if reads {
            command.arg("--stdin");
        }
        command
            .args([pod, "--", "chroot", "/node", "/usr/local/bin/ctr"])
            .args(["--namespace", "k8s.io"])
            .args(arguments);
        command
    }

    /// Takes down a stamp that was made for this run.
    pub(crate) fn down(&self) -> Result<()> {
        if self.state.is_none() {
            println!("stamp {} is kept", self.name);
            return Ok(());
        }
        ran(&mut self.landfall(&["down", "--purge", "--yes"])).map(drop)
    }
}

/// Whether a node's list has the image under its name.
fn has(list: &str, archive: &Archive) -> bool {
    list.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(archive.reference.as_str()) && words.any(|word| word == archive.digest)
    })
}

fn pod(number: usize) -> String {
    format!("loader-{number}")
}

/// Where containerd pulls from instead, as printf takes it.
fn hosts() -> String {
    format!(r#"[host."http://{REGISTRY_ADDRESS}"]\n  capabilities = ["pull", "resolve"]\n"#)
}

/// A namespace with pods in it.
fn list(pods: Vec<Value>) -> Value {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    let items: Vec<Value> = [namespace].into_iter().chain(pods).collect();
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

/// A pod on each node that can reach all of it.
fn loaders(nodes: &[&str]) -> Vec<Value> {
    let made = nodes.iter().enumerate().map(|(number, node)| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": pod(number), "namespace": NAMESPACE },
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": 0,
                "tolerations": [{ "operator": "Exists" }],
                "containers": [{
                    "name": "loader", "image": "landfall.dev/busybox:1", "imagePullPolicy": "Never",
                    "command": ["sleep", "86400"],
                    "securityContext": { "privileged": true },
                    "volumeMounts": [{ "name": "node", "mountPath": "/node" }],
                }],
                "volumes": [{ "name": "node", "hostPath": { "path": "/" } }],
            },
        })
    });
    made.collect()
}

/// A registry on each node, for that node only. It requests no resources, so that tests which fill nodes are
/// not affected.
fn registries(nodes: &[&str]) -> Vec<Value> {
    let made = nodes.iter().enumerate().map(|(number, node)| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": format!("registry-{number}"), "namespace": NAMESPACE },
            "spec": {
                "nodeName": node,
                "hostNetwork": true,
                "priorityClassName": "system-node-critical",
                "terminationGracePeriodSeconds": 0,
                "tolerations": [{ "operator": "Exists" }],
                "containers": [{ "name": "registry", "image": REGISTRY, "imagePullPolicy": "Never" }],
            },
        })
    });
    made.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_an_image_by_name_and_digest() {
        let list = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n\
            r/a:1 application/vnd.oci.image.manifest.v1+json sha256:aa 1.0 MiB linux/amd64 io.cri-containerd.image=managed\n\
            r/a:10 application/vnd.oci.image.manifest.v1+json sha256:bb 1.0 MiB linux/amd64 -\n";
        let archive = |reference: &str, digest: &str| Archive {
            reference: reference.to_owned(),
            digest: digest.to_owned(),
            file: PathBuf::new(),
        };
        assert!(has(list, &archive("r/a:1", "sha256:aa")));
        assert!(!has(list, &archive("r/a:1", "sha256:bb")));
        assert!(!has(list, &archive("r/a:2", "sha256:aa")));
    }

    #[test]
    fn each_node_gets_pods_of_its_own() {
        let made = list(loaders(&["x", "y"]));
        assert_eq!(made["items"].as_array().map(Vec::len), Some(3));
        assert_eq!(made["items"][2]["spec"]["nodeName"], "y");
        assert_eq!(made["items"][2]["metadata"]["name"], "loader-1");
        let made = registries(&["x", "y"]);
        assert_eq!(made[1]["spec"]["nodeName"], "y");
        assert_eq!(made[1]["spec"]["hostNetwork"], true);
    }

    #[test]
    fn nodes_pull_from_themselves() {
        let text = hosts().replace("\\n", "\n");
        assert_eq!(text.lines().next(), Some("[host.\"http://127.0.0.1:55000\"]"));
        // It is printed by printf in single quotes.
        assert!(!hosts().contains('\'') && !hosts().contains('%'));
    }
}
