//! Two clusters with the same address ranges side by side, and the usual workloads of users in them.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{GROUP, aks};
use crate::{
    clients::{Az, Kubectl},
    journal::{Journal, wait_for},
    stamp::Stamp,
};

/// The image of all test pods; part of the node image, so it is not pulled.
pub(super) const BUSYBOX: &str = "landfall.dev/busybox:1";

/// A cluster with its kubectl.
pub(super) struct Cluster {
    pub(super) name: &'static str,
    pub(super) kubectl: Kubectl,
    scratch: std::path::PathBuf,
}

impl Cluster {
    /// Applies a manifest.
    pub(super) fn apply(&self, manifest: &Value) -> Result<()> {
        self.kubectl.apply(&self.scratch, manifest)
    }

    /// Waits until a workload is rolled out; an error contains its pods and the latest events.
    pub(super) fn rolled_out(&self, what: &str) -> Result<()> {
        self.kubectl.rolled_out(what)
    }
}

/// The two clusters.
pub(super) struct Clusters {
    pub(super) kubenet: Cluster,
    pub(super) overlay: Cluster,
}

/// `az aks create`, twice at the same time.
pub(super) fn create(journal: &Journal, az: &Az) -> Result<()> {
    journal.step(
        "clusters",
        "az aks create: kubenet and overlay, two nodes each, at the same time",
        || {
            std::thread::scope(|scope| {
                let kubenet = scope.spawn(|| {
                    aks(
                        az,
                        &["create"],
                        "kubenet",
                        &[
                            "--network-plugin",
                            "kubenet",
                            "--node-count",
                            "2",
                            "--generate-ssh-keys",
                        ],
                    )
                });
                let overlay = aks(
                    az,
                    &["create"],
                    "overlay",
                    &[
                        "--network-plugin",
                        "azure",
                        "--network-plugin-mode",
                        "overlay",
                        "--node-count",
                        "2",
                        "--no-ssh-key",
                    ],
                );
                let kubenet = kubenet
                    .join()
                    .map_err(|_| anyhow::anyhow!("the kubenet thread panicked"))?;
                for (plugin, cluster) in [("kubenet", kubenet?), ("azure", overlay?)] {
                    ensure!(cluster["provisioningState"] == "Succeeded", "{cluster}");
                    ensure!(cluster["networkProfile"]["networkPlugin"] == plugin, "{cluster}");
                    ensure!(cluster["agentPoolProfiles"][0]["count"] == 2, "{cluster}");
                }
                Ok(())
            })
        },
    )
}

/// `az aks delete`, `az group delete`.
pub(super) fn delete(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    journal.step("clusters", "az aks delete", || {
        aks(az, &["delete"], "overlay", &["--yes"])?;
        let left = az.json(&["aks", "list", "--resource-group", GROUP])?;
        ensure!(left.as_array().is_some_and(|left| left.len() == 1), "{left}");
        Ok(())
    })?;
    journal.step("clusters", "az group delete takes the rest along", || {
        az.json(&["group", "delete", "--name", GROUP, "--yes"])?;
        ensure!(az.json(&["group", "exists", "--name", GROUP])? == false);
        let status = stamp.status()?;
        let machines = status["machines"].as_array().context("status has no machines")?;
        let strangers: Vec<_> = machines
            .iter()
            .filter(|machine| machine["cluster"] != "landfall")
            .collect();
        ensure!(strangers.is_empty(), "machines are left: {strangers:?}");
        Ok(())
    })
}

impl Clusters {
    /// Credentials for both.
    pub(super) fn open(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<Self> {
        journal.step("clusters", "az aks get-credentials", || {
            Ok(Self {
                kubenet: Cluster::open(stamp, az, "kubenet")?,
                overlay: Cluster::open(stamp, az, "overlay")?,
            })
        })
    }

    /// All steps, in both.
    pub(super) fn walk(&self, journal: &Journal) -> Result<()> {
        std::thread::scope(|scope| {
            let kubenet = scope.spawn(|| self.kubenet.walk(journal));
            let overlay = self.overlay.walk(journal);
            kubenet
                .join()
                .map_err(|_| anyhow::anyhow!("the kubenet thread panicked"))?
                .and(overlay)
        })?;
        journal.step(
            "clusters",
            "the same ranges side by side: each sees its own nodes only",
            || {
                let (mine, yours) = (self.kubenet.addresses()?, self.overlay.addresses()?);
                ensure!(
                    mine.0 == yours.0,
                    "the node addresses should be the same: {mine:?} {yours:?}"
                );
                ensure!(
                    mine.1 != yours.1,
                    "the node names should differ: {mine:?} {yours:?}"
                );
                Ok(())
            },
        )
    }
}

impl Cluster {
    /// `az aks get-credentials`.
    pub(super) fn open(stamp: &Stamp, az: &Az, name: &'static str) -> Result<Self> {
        let scratch = stamp.directory.path().join(name);
        std::fs::create_dir_all(&scratch)?;
        Ok(Self {
            name,
            kubectl: stamp.kubectl(az, GROUP, name)?,
            scratch,
        })
    }

    fn walk(&self, journal: &Journal) -> Result<()> {
        let step = |what: &str, act: &dyn Fn() -> Result<()>| journal.step(self.name, what, act);
        step("nodes are Ready, named and labelled as AKS does", &|| {
            self.nodes()
        })?;
        step("a Deployment on both nodes", &|| self.deploy())?;
        step(
            "a ClusterIP service by its DNS name, from each node to each",
            &|| self.service_by_name(),
        )?;
        step("a NodePort on each node", &|| self.node_port())?;
        step("logs and exec", &|| self.logs_and_exec())?;
        step("port-forward", &|| self.port_forward())?;
        step("kubectl top", &|| self.top())?;
        step("a managed add-on that was changed is put back", &|| self.drift())?;
        step("kubectl version tells the truth", &|| {
            let version = self.kubectl.json(&["version"])?;
            let text = version["serverVersion"]["gitVersion"]
                .as_str()
                .unwrap_or_default();
            ensure!(text.starts_with("v1.") && !text.contains("master"), "{version}");
            Ok(())
        })
    }

    fn addresses(&self) -> Result<(Vec<String>, Vec<String>)> {
        let nodes = self.kubectl.json(&["get", "nodes"])?;
        let of = |pointer: &str| -> Vec<String> {
            let items = nodes["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            items
                .iter()
                .filter_map(|node| node.pointer(pointer)?.as_str().map(str::to_owned))
                .collect()
        };
        let mut addresses = of("/status/addresses/0/address");
        addresses.sort();
        Ok((addresses, of("/metadata/name")))
    }

    fn nodes(&self) -> Result<()> {
        let ready = self.kubectl.ready_nodes()?;
        ensure!(ready.len() == 2, "ready: {ready:?}");
        let nodes = self.kubectl.json(&["get", "nodes"])?;
        for node in nodes["items"].as_array().context("no items")? {
            let name = node["metadata"]["name"].as_str().unwrap_or_default();
            ensure!(
                name.starts_with("aks-nodepool1-") && name.contains("-vmss00000"),
                "{name}"
            );
            let labels = &node["metadata"]["labels"];
            for (label, value) in [
                ("agentpool", "nodepool1"),
                ("kubernetes.azure.com/mode", "system"),
                ("kubernetes.azure.com/role", "agent"),
                ("node.kubernetes.io/instance-type", "Standard_DS2_v2"),
            ] {
                ensure!(labels[label] == value, "{label} of {name}: {labels}");
            }
            let provider = node["spec"]["providerID"].as_str().unwrap_or_default();
            ensure!(provider.starts_with("azure:///subscriptions/"), "{provider}");
        }
        Ok(())
    }

    pub(super) fn deploy(&self) -> Result<()> {
        self.apply(&web())?;
        self.rolled_out("deployment/web")?;
        let pods = self.pods()?;
        let nodes: std::collections::BTreeSet<_> = pods.iter().map(|(_, node)| node).collect();
        ensure!(nodes.len() == 2, "pods are not on both nodes: {pods:?}");
        Ok(())
    }

    fn pods(&self) -> Result<Vec<(String, String)>> {
        let pods = self.kubectl.json(&["get", "pods", "-l", "app=web"])?;
        pods["items"]
            .as_array()
            .context("no items")?
            .iter()
            .map(|pod| {
                let field = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
                Ok((
                    field("/metadata/name").context("a pod without a name")?,
                    field("/spec/nodeName").context("a pod without a node")?,
                ))
            })
            .collect()
    }

    pub(super) fn service_by_name(&self) -> Result<()> {
        for (pod, _) in self.pods()? {
            let mut heard = std::collections::BTreeSet::new();
            wait_for("answers from both pods", Duration::from_secs(180), || {
                let url = "http://web.default.svc.cluster.local/";
                let answer = self
                    .kubectl
                    .text(&["exec", &pod, "--", "timeout", "5", "wget", "-q", "-O", "-", url])?;
                heard.insert(answer.trim().to_owned());
                ensure!(heard.len() == 2, "{pod} heard only {heard:?}");
                Ok(())
            })?;
            ensure!(
                heard.iter().all(|name| name.starts_with("web-")),
                "somebody else answered: {heard:?}"
            );
        }
        Ok(())
    }

    pub(super) fn node_port(&self) -> Result<()> {
        let service = self.kubectl.json(&["get", "service", "web"])?;
        let port = service["spec"]["ports"][0]["nodePort"]
            .as_u64()
            .context("no nodePort")?;
        let pod = &self.pods()?[0].0;
        for address in self.addresses()?.0 {
            let url = format!("http://{address}:{port}/");
            wait_for("the NodePort", Duration::from_secs(180), || {
                let answer = self
                    .kubectl
                    .text(&["exec", pod, "--", "timeout", "5", "wget", "-q", "-O", "-", &url])?;
                ensure!(answer.starts_with("web-"), "{answer}");
                Ok(())
            })?;
        }
        Ok(())
    }

    fn logs_and_exec(&self) -> Result<()> {
        let pod = &self.pods()?[0].0;
        ensure!(
            self.kubectl.text(&["logs", pod])?.contains("serving as"),
            "the log lacks the first line"
        );
        let name = self.kubectl.text(&["exec", pod, "--", "hostname"])?;
        ensure!(name.trim() == pod, "hostname says {name}");
        Ok(())
    }

    fn port_forward(&self) -> Result<()> {
        let mut forward = self
            .kubectl
            .command(&[
                "port-forward",
                "deployment/web",
                ":8080",
                "--address",
                "127.0.0.1",
            ])
            .stdout(Stdio::piped())
            .spawn()?;
        let outcome = (|| {
            // Held to the end: kubectl writes a line a connection, and a closed pipe would end it.
            let mut output = BufReader::new(forward.stdout.take().context("no stdout")?);
            let mut line = String::new();
            output.read_line(&mut line)?;
            let port: u16 = line
                .split("127.0.0.1:")
                .nth(1)
                .and_then(|rest| rest.split(' ').next()?.parse().ok())
                .with_context(|| format!("port-forward said {line:?}"))?;
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            ensure!(answer.contains("web-"), "{answer}");
            Ok(())
        })();
        forward.kill()?;
        forward.wait()?;
        outcome
    }

    fn top(&self) -> Result<()> {
        wait_for("metrics", Duration::from_secs(180), || {
            let nodes = self.kubectl.text(&["top", "nodes", "--no-headers"])?;
            ensure!(
                nodes.lines().count() == 2 && !nodes.contains("<unknown>"),
                "{nodes}"
            );
            let pods = self.kubectl.text(&["top", "pods", "--no-headers"])?;
            ensure!(pods.lines().count() >= 2, "{pods}");
            Ok(())
        })
    }

    fn drift(&self) -> Result<()> {
        let image = |kubectl: &Kubectl| {
            kubectl.text(&[
                "-n",
                "kube-system",
                "get",
                "deployment",
                "coredns",
                "-o",
                "jsonpath={.spec.template.spec.containers[0].image}",
            ])
        };
        let before = image(&self.kubectl)?;
        self.kubectl.text(&[
            "-n",
            "kube-system",
            "set",
            "image",
            "deployment/coredns",
            &format!("coredns={BUSYBOX}"),
        ])?;
        wait_for("the change to be put back", Duration::from_secs(180), || {
            let now = image(&self.kubectl)?;
            if now == before {
                Ok(())
            } else {
                bail!("the image is {now}")
            }
        })?;
        self.kubectl.rolled_out_in("kube-system", "deployment/coredns")
    }
}

/// Two pods, one a node, each answering with its own name; a service in front.
fn web() -> Value {
    let serve = "mkdir /tmp/www && hostname > /tmp/www/index.html && echo serving as $(hostname) && exec httpd -f -p 8080 -h /tmp/www";
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
            "spec": {
                "replicas": 2,
                "selector": { "matchLabels": { "app": "web" } },
                "template": {
                    "metadata": { "labels": { "app": "web" } },
                    "spec": {
                        "terminationGracePeriodSeconds": 0,
                        "topologySpreadConstraints": [{
                            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
                            "labelSelector": { "matchLabels": { "app": "web" } }
                        }],
                        "containers": [{
                            "name": "web", "image": BUSYBOX, "imagePullPolicy": "Never",
                            "command": ["sh", "-c", serve],
                            "ports": [{ "containerPort": 8080 }]
                        }]
                    }
                }
            }
        },
        {
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
            "spec": { "type": "NodePort", "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }] }
        }
    ]})
}
