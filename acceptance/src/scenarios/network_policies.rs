//! Network policies as the guide has them: an engine is asked for, its image built and brought, and policies are seen in the traffic
//! of pods. Then the engine goes.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::{GROUP, aks, guide, workload::Cluster};
use crate::{
    clients::{Az, attempt, run},
    journal::{Journal, PATIENCE, wait_for},
    stamp::Stamp,
};

/// How this scenario is called.
pub(super) const NAME: &str = "network-policies";

const GUIDE: &str = include_str!("../../../docs/guides/network-policies.md");
/// The cluster of the guide.
const CLUSTER: &str = "policed";
/// Rules follow within seconds; a name that is looked up through a rule that has just come may take a while.
const FOLLOWS: Duration = Duration::from_secs(60);

/// Where a client is, what it asks, and whether it is to get an answer.
type Probe = (&'static str, &'static str, bool);

const WEB: &str = "http://web.shop:8080/";
const STORE: &str = "http://store.shop:8080/";
/// The other port of `web`, which its Service does not have.
const OTHER: &str = "8081";

struct Walk<'a> {
    stamp: &'a Stamp,
    az: &'a Az,
    cluster: Cluster,
}

impl Walk<'_> {
    fn follow(&self, script: &str) -> Result<String> {
        let kubectl = &self.cluster.kubectl;
        let mut shell = guide::shell(self.stamp, self.az, &[&kubectl.program], script)?;
        shell.env("KUBECONFIG", &kubectl.kubeconfig).env("GROUP", GROUP);
        run(&mut shell)
    }

    /// Whether a client gets an answer.
    fn answers(&self, namespace: &str, target: &str) -> Result<bool> {
        let url = if target == OTHER {
            let address = [
                "-n",
                "shop",
                "get",
                "pod",
                "web",
                "-o",
                "jsonpath={.status.podIP}",
            ];
            format!("http://{}:{OTHER}/", self.cluster.kubectl.text(&address)?.trim())
        } else {
            target.to_owned()
        };
        let wget = format!("timeout 3 wget -q -O - {url}");
        let ask = ["-n", namespace, "exec", "client", "--", "sh", "-c", &wget];
        let output = attempt(&mut self.cluster.kubectl.command(&ask))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success() || said.contains("command terminated with exit code"),
            "kubectl exec: {said}"
        );
        Ok(output.status.success() && output.stdout.starts_with(b"here"))
    }

    /// Waits until all that is to come through does, and nothing else.
    fn see(&self, probes: &[Probe]) -> Result<()> {
        wait_for("the rules", FOLLOWS, || {
            for (namespace, target, passes) in probes {
                if self.answers(namespace, target)? != *passes {
                    bail!("from {namespace} to {target}: answered is {}", !passes);
                }
            }
            Ok(())
        })
    }

    /// What is printed when a policy is stored.
    fn warned(&self) -> Result<bool> {
        let dry = "kubectl create --dry-run=server --filename - <<END 2>&1\n\
            apiVersion: networking.k8s.io/v1\n\
            kind: NetworkPolicy\n\
            metadata: { name: tried, namespace: default }\n\
            spec: { podSelector: {} }\n\
            END\n";
        Ok(self.follow(dry)?.contains("Warning"))
    }
}

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    let [create, pods, close, label, namespace, egress, open, remove] = guide::exactly::<8>(GUIDE)?;
    journal.step(
        NAME,
        "the guide: a cluster with an engine, whose image is built for it",
        || {
            let program = stamp.kubectl_program()?;
            let mut shell = guide::shell(stamp, az, &[&program], &create)?;
            shell.env("GROUP", GROUP);
            run(&mut shell)?;
            let shown = aks(az, &["show"], CLUSTER, &[])?;
            ensure!(shown["networkProfile"]["networkPolicy"] == "calico", "{shown}");
            Ok(())
        },
    )?;
    let walk = Walk {
        stamp,
        az,
        cluster: Cluster::open(stamp, az, CLUSTER)?,
    };
    let kubectl = &walk.cluster.kubectl;
    let all = [
        ("shop", WEB, true),
        ("shop", OTHER, true),
        ("audit", WEB, true),
        ("audit", STORE, true),
    ];
    journal.step(
        NAME,
        "the guide: pods that reach each other, and no warning any more",
        || {
            let said = walk.follow(&pods)?;
            ensure!(said.trim_end().ends_with("here"), "{said}");
            walk.see(&all)?;
            ensure!(!walk.warned()?, "a warning that nothing enforces policies");
            Ok(())
        },
    )?;
    journal.step(NAME, "the guide: a closed namespace", || {
        walk.follow(&close)?;
        walk.see(&[
            ("shop", WEB, false),
            ("shop", OTHER, false),
            ("audit", WEB, false),
            ("audit", STORE, false),
        ])
    })?;
    journal.step(NAME, "the guide: by label and port", || {
        walk.follow(&label)?;
        walk.see(&[("shop", WEB, true), ("shop", OTHER, false), ("audit", WEB, false)])
    })?;
    journal.step(NAME, "the guide: by namespace", || {
        walk.follow(&namespace)?;
        walk.see(&[
            ("audit", WEB, true),
            ("audit", OTHER, true),
            ("audit", STORE, true),
            ("shop", OTHER, false),
        ])
    })?;
    journal.step(NAME, "the guide: outwards, by addresses", || {
        walk.follow(&egress)?;
        walk.see(&[("audit", WEB, false), ("audit", STORE, true), ("shop", WEB, true)])
    })?;
    journal.step(
        NAME,
        "kill -9 of the service and a restart of the engine change no rule",
        || {
            stamp.kill_service()?;
            kubectl.text(&[
                "-n",
                "kube-system",
                "rollout",
                "restart",
                "daemonset/network-policies",
            ])?;
            walk.see(&[("audit", WEB, false), ("audit", STORE, true)])?;
            run(&mut stamp.landfall(&["up", "--output", "json"]))?;
            stamp.wait_for_service(PATIENCE)?;
            kubectl.rolled_out_in("kube-system", "daemonset/network-policies")?;
            walk.see(&[
                ("audit", WEB, false),
                ("audit", STORE, true),
                ("shop", OTHER, false),
            ])
        },
    )?;
    journal.step(NAME, "the guide: open again", || {
        walk.follow(&open)?;
        walk.see(&all)
    })?;
    journal.step(
        NAME,
        "the guide: without the engine the nodes are new ones, and the warning is back",
        || {
            let uids = || kubectl.text(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.uid}"]);
            let before = uids()?;
            walk.follow(&remove)?;
            let after = uids()?;
            for uid in before.split_whitespace() {
                ensure!(!after.contains(uid), "before: {before}; after: {after}");
            }
            let engine = ["-n", "kube-system", "get", "daemonset", "network-policies"];
            ensure!(!attempt(&mut kubectl.command(&engine))?.status.success());
            ensure!(walk.warned()?, "no warning that nothing enforces policies");
            Ok(())
        },
    )?;
    journal.step(NAME, "az aks delete", || {
        aks(az, &["delete"], CLUSTER, &["--yes"]).map(drop)
    })
}
