//! `landfall kubectl`: the node image's own kubectl, as administrator of a cluster.
//!
//! Always true: the kubeconfig is in memory only, readable by this process and what becomes of it; kubectl takes this process' place, so
//! that terminal, signals and exit code are its own.

use std::{
    ffi::{CStr, OsString},
    io::Write as _,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{
    Context,
    kubeconfig::{choose, fetch},
};
use crate::{
    admin::{AdminClient, ClusterStatus},
    args,
    arm::ArmClient,
    images,
    problem::Problem,
    stamp::Settings,
};

/// Shows up in /proc only.
const MEMORY_FILE: &CStr = c"landfall-kubeconfig";

pub(crate) async fn run(context: &Context, args: &args::Kubectl) -> Result<()> {
    let settings = Settings::required(&context.places)?;
    let status = AdminClient::new(&context.places)?.status().await?;
    let cluster = choose(&status.clusters, args.cluster.as_deref(), &context.name_flag())?;
    let program = program(context, cluster)?;
    let arm = ArmClient::login(&context.places, &settings, &context.env).await?;
    let text = fetch(&arm, &cluster.resource_group, &cluster.name).await?;
    let (text, host) = local(&text, cluster);

    // Without MFD_CLOEXEC: kubectl, and the plugins that it runs, open it by its number.
    let mut file: std::fs::File = memfd_create(MEMORY_FILE, MFdFlags::empty())
        .context("cannot keep the kubeconfig in memory")?
        .into();
    file.write_all(text.as_bytes())
        .context("cannot keep the kubeconfig in memory")?;
    let mut command = Command::new(&program);
    command
        .args(&args.arguments)
        .env("KUBECONFIG", format!("/proc/self/fd/{}", file.as_raw_fd()));
    // The API server is on this host: no proxy leads to it.
    for name in ["NO_PROXY", "no_proxy"] {
        command.env(name, exempted(std::env::var_os(name), &host));
    }
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

/// The kubectl of the cluster's own version, else one of another image: a minor version away works.
fn program(context: &Context, cluster: &ClusterStatus) -> Result<PathBuf> {
    if let Some(program) = images::kubectl(&context.places, &cluster.kubernetes_version)? {
        return Ok(program);
    }
    let images = images::store(&context.places)?.list().map_err(images::problem)?;
    images
        .iter()
        .find_map(|image| image.program("kubectl"))
        .ok_or_else(|| {
            Problem::new(
                "no node image on this host has a kubectl",
                format!(
                    "make one: landfall image build --kubernetes {}",
                    cluster.kubernetes_version
                ),
            )
            .into()
        })
}

/// The kubeconfig with the API server's address instead of its name, which this host need not be able to resolve; and the host that is
/// in it. The certificate has both.
fn local(kubeconfig: &str, cluster: &ClusterStatus) -> (String, String) {
    const BEFORE: &str = "    server: https://";
    let Some(line) = kubeconfig.lines().find(|line| line.starts_with(BEFORE)) else {
        return (kubeconfig.to_owned(), String::new());
    };
    let address = &line[BEFORE.len()..];
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "443"));
    match cluster.vip {
        Some(vip) => (
            kubeconfig.replace(line, &format!("{BEFORE}{vip}:{port}")),
            vip.to_string(),
        ),
        None => (kubeconfig.to_owned(), host.to_owned()),
    }
}

fn exempted(present: Option<OsString>, host: &str) -> OsString {
    match present {
        Some(mut list) if !list.is_empty() => {
            list.push(",");
            list.push(host);
            list
        }
        _ => host.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_server_is_reached_by_its_address() {
        let cluster: ClusterStatus = serde_json::from_value(serde_json::json!({
            "resourceGroup": "g", "name": "c", "uid": "u", "state": "Succeeded", "kubernetesVersion": "1.36.3",
            "vip": "100.64.24.9", "nodesReady": 1, "nodesWanted": 1, "step": "",
            "createdAt": "2026-01-01T00:00:00Z", "milestones": {}
        }))
        .unwrap();
        let text = "clusters:\n- cluster:\n    certificate-authority-data: QQ==\n    server: https://c.hcp.local.example.test:443\n";
        let (changed, host) = local(text, &cluster);
        assert!(
            changed.ends_with("    server: https://100.64.24.9:443\n"),
            "{changed}"
        );
        assert_eq!(host, "100.64.24.9");
        let (same, host) = local(text, &ClusterStatus { vip: None, ..cluster });
        assert_eq!((same.as_str(), host.as_str()), (text, "c.hcp.local.example.test"));
    }

    #[test]
    fn proxies_of_before_stay_exempted() {
        assert_eq!(exempted(None, "1.2.3.4"), "1.2.3.4");
        assert_eq!(exempted(Some("a,b".into()), "1.2.3.4"), "a,b,1.2.3.4");
    }
}
