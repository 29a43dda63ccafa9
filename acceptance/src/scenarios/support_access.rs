//! Tickets and access of support, with the commands of the guide: what the kubeconfig may, that all of it is recorded, and that it ends.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{GROUP, guide, workload::Cluster};
use crate::{
    clients::{Az, Kubectl, attempt, run},
    journal::{Journal, wait_for},
    stamp::Stamp,
};

/// The commands are run verbatim.
const GUIDE: &str = include_str!("../../../docs/guides/support-access.md");

/// What the kubeconfig must not do; what it asks for is forbidden.
const REFUSED: &[&[&str]] = &[
    &["get", "secrets", "--all-namespaces"],
    &["get", "configmaps", "--all-namespaces"],
    &["get", "clusterroles"],
    &["get", "--raw", "/api/v1/nodes/x/proxy/logs/"],
    &["create", "namespace", "supports-own"],
    &[
        "create",
        "clusterrolebinding",
        "x",
        "--clusterrole=cluster-admin",
        "--user=eve",
    ],
    &["delete", "pod", "x", "--namespace=kube-system"],
];

/// The command is refused by the cluster.
fn refused(kubectl: &Kubectl, arguments: &[&str]) -> Result<()> {
    let output = attempt(&mut kubectl.command(arguments))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        !output.status.success() && said.contains("orbidden"),
        "{arguments:?} said {said}"
    );
    Ok(())
}

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az, cluster: &Cluster) -> Result<()> {
    let [open, rest, access, record] = guide::exactly(GUIDE)?;
    let variables = [("GROUP", GROUP), ("CLUSTER", cluster.name)];
    let play = |script: &str| run(&mut guide::with_landfall(stamp, az, &variables, script)?);
    let support = Kubectl {
        program: cluster.kubectl.program.clone(),
        kubeconfig: stamp.directory.path().join("support.kubeconfig"),
    };
    let role = |kind: &str, name: &str| attempt(&mut cluster.kubectl.command(&["get", kind, name]));
    journal.step("support", "the guide's ticket, and consent to it", || {
        let told = play(&open)?;
        ensure!(told.contains("t1 of") && told.contains("Consented"), "{told}");
        let there = role("clusterrole", "aks-service")?;
        ensure!(
            !there.status.success(),
            "consent alone puts nothing into the cluster"
        );
        Ok(())
    })?;
    journal.step("support", "the same with az rest, and taken back", || {
        let told = play(&rest)?;
        ensure!(told.contains("t2\tOpen"), "{told}");
        let arguments = ["support", "access", "--ticket", "t2", "--engineer", "eve"];
        let output = attempt(&mut stamp.landfall(&arguments))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains("consents"), "{said}");
        Ok(())
    })?;
    journal.step("support", "access under it reads, and does nothing else", || {
        let told = play(&access)?;
        ensure!(told.contains("eve") && told.contains("Good"), "{told}");
        ensure!(!support.ready_nodes()?.is_empty());
        support.text(&["get", "pods", "--all-namespaces"])?;
        for arguments in REFUSED {
            refused(&support, arguments)?;
        }
        ensure!(
            role("clusterrolebinding", "aks-service-rolebinding")?
                .status
                .success()
        );
        Ok(())
    })?;
    journal.step(
        "support",
        "all of it is in the record, and ends with the ticket",
        || {
            let told = play(&record)?;
            for word in ["eve", "/api/v1/pods", "/api/v1/secrets", "403", "t1 of"] {
                ensure!(told.contains(word), "{word}: {told}");
            }
            let closed = told.lines().find(|line| line.starts_with("t1 of"));
            ensure!(closed.context("no ticket")?.contains("Closed"), "{told}");
            wait_for("kubectl to be refused", Duration::from_secs(180), || {
                refused(&support, &["get", "nodes"])
            })?;
            wait_for("the role to be gone", Duration::from_secs(180), || {
                for (kind, name) in [
                    ("clusterrole", "aks-service"),
                    ("clusterrolebinding", "aks-service-rolebinding"),
                ] {
                    let there = role(kind, name)?;
                    ensure!(!there.status.success(), "the {kind} is still there");
                }
                Ok(())
            })
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_the_blocks_that_are_run() {
        let [open, rest, access, record] = guide::exactly::<4>(GUIDE).unwrap();
        assert!(open.contains("support ticket consent t1 --hours"), "{open}");
        assert!(rest.contains("/t2/revoke"), "{rest}");
        assert!(access.contains("> support.kubeconfig"), "{access}");
        assert!(record.contains("support ticket close t1"), "{record}");
    }
}
