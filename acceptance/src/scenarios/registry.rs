//! Registries of images: made and listed with `az acr`, pushed to with `landfall image push`, pulled from by nodes. The commands are those
//! of the guide.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{GROUP, guide, text, workload::Cluster};
use crate::{
    clients::{Az, run},
    journal::{Journal, PATIENCE, wait_for},
    stamp::Stamp,
};

/// The name of this scenario.
pub(super) const NAME: &str = "registry";

/// The source of the commands.
const GUIDE: &str = include_str!("../../../docs/guides/registry.md");
const REGISTRY: &str = "acceptance1";

/// The archive of an image that is in each node image.
fn archive(stamp: &Stamp) -> Result<PathBuf> {
    let listed = run(&mut stamp.landfall(&["image", "list", "--output", "json"]))?;
    let listed: Value = serde_json::from_str(&listed)?;
    let images = listed.as_array().context("no list of node images")?;
    let layers = images
        .iter()
        .filter_map(|image| image["layers"].as_array())
        .flatten();
    layers
        .filter_map(Value::as_str)
        .map(|layer| PathBuf::from(layer).join("opt/landfall/images/busybox.tar"))
        .find(|path| path.is_file())
        .context("no node image has busybox.tar")
}

fn acr(az: &Az, arguments: &[&str]) -> Result<Value> {
    az.json(&[&["acr"], arguments].concat())
}

/// The last line that a command printed.
fn last(said: &str) -> &str {
    said.lines().next_back().unwrap_or_default()
}

/// Why a pod's only container waits.
fn waits_for(cluster: &Cluster, pod: &str) -> Result<String> {
    let pod = cluster.kubectl.json(&["get", "pod", pod])?;
    let waiting = pod.pointer("/status/containerStatuses/0/state/waiting/reason");
    Ok(waiting.and_then(Value::as_str).unwrap_or_default().to_owned())
}

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az, cluster: &Cluster) -> Result<()> {
    let [make, push, start, delete] = guide::exactly::<4>(GUIDE)?;
    let kubectl = &cluster.kubectl;
    let archive = archive(stamp)?.to_string_lossy().into_owned();
    let kubeconfig = kubectl.kubeconfig.to_string_lossy().into_owned();
    let beside = kubectl.program.parent().context("kubectl has no directory")?;
    let follow = |script: &str| {
        // kubectl as users have it on their path.
        let script = format!("PATH='{}':\"$PATH\"\n{script}", beside.display());
        let variables = [
            ("KUBECONFIG", kubeconfig.as_str()),
            ("GROUP", GROUP),
            ("CLUSTER", cluster.name),
            ("REGISTRY", REGISTRY),
            ("ARCHIVE", archive.as_str()),
        ];
        run(&mut guide::with_landfall(stamp, az, &variables, &script)?)
    };
    let server = format!("{}/{REGISTRY}", stamp.listen);
    let image = format!("{server}/tools/busybox:1");
    journal.step(
        NAME,
        "the guide: a registry is made, and az logs in to it",
        || {
            let checked = acr(az, &["check-name", "--name", REGISTRY])?;
            ensure!(checked["nameAvailable"] == true, "{checked}");
            let said = follow(&make)?;
            let lines: Vec<&str> = said.lines().collect();
            ensure!(lines == [server.as_str(), server.as_str()], "{said}");
            let token = acr(az, &["login", "--name", REGISTRY, "--expose-token"])?;
            ensure!(text(&token, "/accessToken")?.split('.').count() == 3, "no token");
            let listed = acr(az, &["list", "--resource-group", GROUP])?;
            ensure!(listed[0]["name"] == REGISTRY, "{listed}");
            let again = az.fails(&[
                "acr",
                "create",
                "--resource-group",
                GROUP,
                "--name",
                REGISTRY,
                "--sku",
                "Basic",
                "--admin-enabled",
                "true",
            ])?;
            ensure!(again.contains("no admin user"), "az says: {again}");
            Ok(())
        },
    )?;
    journal.step(NAME, "the guide: an archive is pushed, and az lists it", || {
        let said = follow(&push)?;
        ensure!(said.contains("tools/busybox") && last(&said) == "1", "{said}");
        let mut again = stamp.landfall(&["image", "push", &archive]);
        again
            .arg(format!("{REGISTRY}/tools/busybox:1"))
            .args(["--output", "json"]);
        let again: Value = serde_json::from_str(last(&run(&mut again)?))?;
        ensure!(again["sent"] == 0, "it was sent again: {again}");
        let shown = acr(
            az,
            &[
                "repository",
                "show-tags",
                "--name",
                REGISTRY,
                "--repository",
                "tools/busybox",
                "--detail",
            ],
        )?;
        ensure!(shown[0]["digest"] == again["digest"], "{shown}");
        let manifests = acr(
            az,
            &[
                "manifest",
                "list-metadata",
                "--registry",
                REGISTRY,
                "--name",
                "tools/busybox",
            ],
        )?;
        ensure!(manifests[0]["os"] == "linux", "{manifests}");
        Ok(())
    })?;
    journal.step(NAME, "a cluster that is not attached does not pull", || {
        kubectl.text(&["run", "early", &format!("--image={image}"), "--restart=Never"])?;
        wait_for("the pull to be refused", PATIENCE, || {
            let reason = waits_for(cluster, "early")?;
            ensure!(
                ["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()),
                "it waits for {reason:?}"
            );
            Ok(())
        })?;
        kubectl.text(&["delete", "pod", "early", "--now"]).map(drop)
    })?;
    journal.step(NAME, "the guide: attached, a pod runs from the registry", || {
        let said = follow(&start)?;
        ensure!(last(&said).contains("/tools/busybox@sha256:"), "{said}");
        kubectl.text(&["delete", "pod", "pulled", "--now"]).map(drop)
    })?;
    journal.step(
        NAME,
        "kill -9 of the service: what was pushed is there, and is pulled",
        || {
            stamp.kill_service()?;
            run(&mut stamp.landfall(&["up", "--output", "json"]))?;
            stamp.wait_for_service(PATIENCE)?;
            let said = follow(&start)?;
            ensure!(last(&said).contains("/tools/busybox@sha256:"), "{said}");
            kubectl.text(&["delete", "pod", "pulled", "--now"]).map(drop)
        },
    )?;
    journal.step(NAME, "a larger tier is chosen, and tags are taken away", || {
        let larger = acr(az, &["update", "--name", REGISTRY, "--sku", "Standard"])?;
        ensure!(larger["sku"]["name"] == "Standard", "{larger}");
        let mut other = stamp.landfall(&["image", "push", &archive]);
        other.arg(format!("{REGISTRY}/tools/busybox:2"));
        run(&mut other)?;
        acr(
            az,
            &[
                "repository",
                "untag",
                "--name",
                REGISTRY,
                "--image",
                "tools/busybox:2",
            ],
        )?;
        let tags = acr(
            az,
            &[
                "repository",
                "show-tags",
                "--name",
                REGISTRY,
                "--repository",
                "tools/busybox",
            ],
        )?;
        ensure!(tags == serde_json::json!(["1"]), "{tags}");
        Ok(())
    })?;
    journal.step(NAME, "the guide: deleted", || {
        let said = follow(&delete)?;
        ensure!(said.contains(&(100_u64 << 30).to_string()), "{said}");
        let left = acr(az, &["list"])?;
        ensure!(left == Value::Array(Vec::new()), "{left}");
        wait_for("the images to be gone", PATIENCE, || {
            let directory = stamp.state().join("registries");
            let left = match std::fs::read_dir(&directory) {
                Ok(entries) => entries.count(),
                Err(_) => 0,
            };
            ensure!(left == 0, "{left} registries are left on the host");
            Ok(())
        })
    })
}
