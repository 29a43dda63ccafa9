//! `landfall kubeconfig`: the administrator's credential of a cluster, from the ARM API as `az aks get-credentials` gets it; the operator's
//! own where the cluster hands out none.

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::Context;
use crate::{
    admin::{AdminClient, ClusterStatus},
    args,
    arm::{AKS, ArmClient},
    problem::Problem,
    stamp::Settings,
};

pub(crate) async fn run(context: &Context, args: &args::Kubeconfig) -> Result<()> {
    let settings = Settings::required(&context.places)?;
    let admin = AdminClient::new(&context.places)?;
    let status = admin.status().await?;
    let cluster = choose(&status.clusters, args.cluster.as_deref(), &context.name_flag())?;
    let arm = ArmClient::login(&context.places, &settings, &context.env).await?;
    let text = fetch(context, &arm, &admin, cluster).await?;
    context.printer.text("kubeconfig", &text);
    Ok(())
}

/// Gets the administrator's kubeconfig.
pub(crate) async fn fetch(
    context: &Context,
    arm: &ArmClient,
    admin: &AdminClient,
    cluster: &ClusterStatus,
) -> Result<String> {
    if cluster.local_accounts_disabled {
        context.printer.warn(&format!(
            "the local accounts of cluster {} are disabled; this is the operator's own kubeconfig, for an hour",
            cluster.name
        ));
        return admin.kubeconfig(&cluster.uid).await;
    }
    let path = format!(
        "{}/resourceGroups/{}/providers/Microsoft.ContainerService/managedClusters/{}/listClusterAdminCredential",
        arm.subscription(),
        cluster.resource_group,
        cluster.name
    );
    let answer = arm.post(&path, AKS).await?;
    let encoded = answer
        .pointer("/kubeconfigs/0/value")
        .and_then(Value::as_str)
        .context("the answer has no kubeconfig")?;
    let bytes = STANDARD.decode(encoded).context("the kubeconfig is not base64")?;
    String::from_utf8(bytes).context("the kubeconfig is not text")
}

pub(crate) fn choose<'a>(
    clusters: &'a [ClusterStatus],
    wanted: Option<&str>,
    flag: &str,
) -> Result<&'a ClusterStatus> {
    let full = |cluster: &ClusterStatus| format!("{}/{}", cluster.resource_group, cluster.name);
    let fits: Vec<&ClusterStatus> = clusters
        .iter()
        .filter(|cluster| {
            wanted.is_none_or(|wanted| {
                cluster.name.eq_ignore_ascii_case(wanted) || full(cluster).eq_ignore_ascii_case(wanted)
            })
        })
        .collect();
    match (fits.as_slice(), wanted) {
        ([one], _) => Ok(one),
        ([], None) => Err(Problem::new(
            "this stamp has no cluster",
            format!("make one: landfall up{flag}, or az aks create"),
        )
        .into()),
        ([], Some(wanted)) => Err(Problem::usage(
            format!("there is no cluster {wanted}"),
            format!("see what there is: landfall status{flag}"),
        )
        .into()),
        (many, _) => Err(Problem::usage(
            format!("{} clusters fit", many.len()),
            format!(
                "say which: {}",
                many.iter()
                    .map(|cluster| full(cluster))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        )
        .into()),
    }
}
