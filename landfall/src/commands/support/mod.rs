//! `landfall support`: what the service owes clusters, through the ARM API (but for access under tickets, which is the operator's). A file a
//! command.

mod cves;
mod deadlines;
mod issues;
mod state;
mod tickets;

use anyhow::Result;
use serde_json::Value;

use super::{Context, kubeconfig::choose};
use crate::{
    admin::AdminClient,
    args,
    arm::{ArmClient, OWN},
    problem::Problem,
    stamp::Settings,
};

pub(crate) async fn run(context: &Context, command: &args::Support) -> Result<()> {
    match command {
        args::Support::Status(args) => state::status(context, args).await,
        args::Support::Scope { profile } => state::scope(context, *profile).await,
        args::Support::Policy { deadlines } => deadlines::policy(context, *deadlines).await,
        args::Support::Archive { cluster } => deadlines::archive(context, cluster.as_deref()).await,
        args::Support::Cves { cluster } => cves::run(context, cluster.as_deref()).await,
        args::Support::Issues { cluster } => issues::run(context, cluster.as_deref()).await,
        args::Support::Ticket(command) => tickets::run(context, command).await,
        args::Support::Access(args) => tickets::access(context, args).await,
        args::Support::AccessRecord { ticket, cluster } => {
            tickets::record(context, ticket, cluster.as_deref()).await
        }
    }
}

/// A client, logged in.
async fn client(context: &Context) -> Result<ArmClient> {
    let settings = Settings::required(&context.places)?;
    ArmClient::login(&context.places, &settings, &context.env).await
}

/// A report of a cluster, by the segment of its type.
async fn report(context: &Context, wanted: Option<&str>, kind: &str) -> Result<Value> {
    let arm = client(context).await?;
    let status = AdminClient::new(&context.places)?.status().await?;
    let flag = context.name_flag();
    let cluster = choose(&status.clusters, wanted, &flag)?;
    let path = format!(
        "{}/resourceGroups/{}/providers/Landfall.ContainerService/managedClusters/{}/{kind}/default",
        arm.subscription(),
        cluster.resource_group,
        cluster.name,
    );
    let found = arm.get(&path, OWN).await?;
    found.ok_or_else(|| {
        Problem::new(
            format!("the cluster {} is not there any more", cluster.name),
            format!("see what there is: landfall status{flag}"),
        )
        .into()
    })
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}

fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value[key].as_array().into_iter().flatten()
}

/// A list of texts, in one.
fn joined(value: &Value, key: &str) -> String {
    let texts: Vec<&str> = items(value, key).filter_map(Value::as_str).collect();
    if texts.is_empty() {
        "-".to_owned()
    } else {
        texts.join(", ")
    }
}
