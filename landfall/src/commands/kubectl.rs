//! `landfall kubectl`: the node image's kubectl, with the permissions of the stamp's operator: administrator
//! of every cluster, even one with disabled local accounts. Requires root.
//!
//! Always true: the kubeconfig is in memory only, readable by this process and its successor; kubectl
//! replaces this process by exec, so that terminal, signals and exit code are its own.

use std::{
    ffi::{CStr, OsString},
    io::Write as _,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{Context, kubeconfig::choose};
use crate::{
    admin::{AdminClient, ClusterStatus},
    args, images,
    problem::Problem,
};

/// Visible in /proc only.
const MEMORY_FILE: &CStr = c"landfall-kubeconfig";

pub(crate) async fn run(context: &Context, args: &args::Kubectl) -> Result<()> {
    let admin = AdminClient::new(&context.places)?;
    let status = admin.status().await?;
    let cluster = choose(&status.clusters, args.cluster.as_deref(), &context.name_flag())?;
    let program = program(context, cluster)?;
    // The operator's kubeconfig, by address: independent of the cluster's local accounts and of name
    // resolution on this host.
    let text = admin.kubeconfig(&cluster.uid).await?;
    let host = cluster.vip.map_or_else(String::new, |vip| vip.to_string());

    // Without MFD_CLOEXEC: kubectl, and its plugins, open it by its number.
    let mut file: std::fs::File = memfd_create(MEMORY_FILE, MFdFlags::empty())
        .context("cannot keep the kubeconfig in memory")?
        .into();
    file.write_all(text.as_bytes())
        .context("cannot keep the kubeconfig in memory")?;
    let mut command = Command::new(&program);
    command
        .args(&args.arguments)
        .env("KUBECONFIG", format!("/proc/self/fd/{}", file.as_raw_fd()));
    // The API server is on this host, so no proxy is used.
    for name in ["NO_PROXY", "no_proxy"] {
        command.env(name, exempted(std::env::var_os(name), &host));
    }
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

/// The kubectl of the cluster's own version, else of another image: one minor version of difference is
/// supported.
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
    fn proxies_of_before_stay_exempted() {
        assert_eq!(exempted(None, "1.2.3.4"), "1.2.3.4");
        assert_eq!(exempted(Some("a,b".into()), "1.2.3.4"), "a,b,1.2.3.4");
    }
}
