//! Kubeconfigs as in the guide: kinds, permissions, expiry, and revocation.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{guide, text};
use crate::{
    clients::{Az, Kubectl, attempt, run},
    journal::{Journal, wait_for},
    stamp::Stamp,
};

const GUIDE: &str = include_str!("../../../docs/guides/kubernetes-credentials.md");

/// The command fails with this reason.
fn refused(kubectl: &Kubectl, arguments: &[&str], why: &str) -> Result<()> {
    let output = attempt(&mut kubectl.command(arguments))?;
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    ensure!(
        !output.status.success() && said.contains(why),
        "{arguments:?} said {said}, not {why}"
    );
    Ok(())
}

fn listed(stamp: &Stamp) -> Result<Vec<Value>> {
    let said = run(&mut stamp.landfall(&["credentials", "list", "--output", "json"]))?;
    let last = said.lines().last().context("nothing was printed")?;
    let answer: Value = serde_json::from_str(last)?;
    Ok(answer["credentials"]
        .as_array()
        .context("no credentials")?
        .clone())
}

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    let status = stamp.status()?;
    let first = status.pointer("/clusters/0").context("no cluster")?;
    let (group, cluster) = (text(first, "/resourceGroup")?, text(first, "/name")?);
    let [get, until, hours, list, revoke] = guide::exactly::<5>(GUIDE)?;
    let program = stamp.kubectl_program()?;
    let beside = program.parent().context("no directory")?;
    let follow = |script: &str| {
        let script = format!("PATH='{}':$PATH\n{script}", beside.display());
        let variables = [("GROUP", group), ("CLUSTER", cluster)];
        run(&mut guide::with_landfall(stamp, az, &variables, &script)?)
    };
    let own = |name: &str| Kubectl {
        program: program.clone(),
        kubeconfig: stamp.directory.path().join(format!("{name}.kubeconfig")),
    };
    let (admin, user) = (own("admin"), own("user"));
    let before = listed(stamp)?.len();
    journal.step(
        "credentials",
        "az aks get-credentials, as administrator and as user",
        || {
            follow(&get)?;
            // As with AKS: the same again, into the same files.
            follow(&get)?;
            ensure!(!admin.ready_nodes()?.is_empty());
            admin.text(&["auth", "can-i", "*", "*"]).map(drop)
        },
    )?;
    journal.step(
        "credentials",
        "a user works in namespaces and is no administrator",
        || {
            user.text(&["create", "namespace", "theirs"])?;
            user.text(&[
                "--namespace=theirs",
                "create",
                "configmap",
                "a",
                "--from-literal=b=c",
            ])?;
            user.text(&["delete", "namespace", "theirs", "--wait=false"])?;
            refused(&user, &["auth", "can-i", "*", "*"], "no")?;
            refused(&user, &["get", "clusterrolebindings"], "forbidden")?;
            refused(
                &user,
                &[
                    "--namespace=kube-system",
                    "create",
                    "configmap",
                    "a",
                    "--from-literal=b=c",
                ],
                "an administrator may",
            )
        },
    )?;
    journal.step(
        "credentials",
        "a certificate says who it is and until when",
        || {
            let said = follow(&until)?;
            ensure!(
                said.contains("landfall:credential:admin:") && said.contains("notAfter="),
                "{said}"
            );
            let username = "jsonpath={.status.userInfo.username}";
            let username = user.text(&["auth", "whoami", "--output", username])?;
            let id = username.trim().rsplit(':').next().context("no id")?;
            let all = listed(stamp)?;
            ensure!(all.len() <= before + 2, "asked twice, each is one: {all:?}");
            let own = all.iter().find(|listed| listed["name"] == id);
            let own = own.with_context(|| format!("{id} is not among {all:?}"))?;
            ensure!(own["kind"] == "user" && own["state"] == "Active", "{own}");
            ensure!(text(own, "/address")?.parse::<std::net::IpAddr>().is_ok());
            let said = follow(&list)?;
            ensure!(said.contains("admin") && said.contains(id), "{said}");
            Ok(())
        },
    )?;
    journal.step(
        "credentials",
        "how long they are good is the stamp's to say",
        || {
            follow(&hours)?;
            stamp.wait_for_service(Duration::from_secs(180))?;
            stamp.kubectl(az, group, cluster)?.ready_nodes()?;
            let all = listed(stamp)?;
            let newest = all.last().context("none")?;
            let time = |key: &str| -> Result<jiff::Timestamp> { Ok(text(newest, key)?.parse()?) };
            let lasts = time("/expiresAt")?.duration_since(time("/issuedAt")?);
            ensure!(lasts.as_hours() == 4, "{newest}");
            Ok(())
        },
    )?;
    journal.step(
        "credentials",
        "one that is revoked is refused within seconds, and no other is",
        || {
            let said = follow(&revoke)?;
            ensure!(said.contains("does not work any more"), "{said}");
            wait_for("kubectl to be refused", Duration::from_secs(180), || {
                refused(&admin, &["get", "nodes"], "orbidden")
            })?;
            ensure!(!user.ready_nodes()?.is_empty());
            let all = listed(stamp)?;
            let revoked = all.iter().filter(|one| one["state"] == "Revoked").count();
            ensure!(revoked == 1, "{all:?}");
            Ok(())
        },
    )?;
    journal.step("credentials", "the stamp's operator needs none", || {
        let before = listed(stamp)?.len();
        // The arguments after `kubectl` are passed on to kubectl.
        let said = run(stamp.landfall(&[]).args(["kubectl", "auth", "whoami"]))?;
        ensure!(said.contains("landfall:operator"), "{said}");
        ensure!(listed(stamp)?.len() == before);
        let said = run(&mut stamp.landfall(&["kubeconfig"]))?;
        ensure!(said.contains("client-certificate-data"), "no kubeconfig");
        Ok(())
    })
}
