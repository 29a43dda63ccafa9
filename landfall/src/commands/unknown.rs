//! `landfall unknown`: machines, networks, volumes and backups without a record in the store, and their
//! release for deletion. Through the ARM API.

use anyhow::Result;
use serde_json::{Value, json};

use super::Context;
use crate::{
    args,
    arm::{ArmClient, OWN},
    printer,
    problem::Problem,
    stamp::Settings,
};

pub(crate) async fn run(context: &Context, command: &args::Unknown) -> Result<()> {
    let settings = Settings::required(&context.places)?;
    let arm = ArmClient::login(&context.places, &settings, &context.env).await?;
    let path = format!(
        "{}/providers/Landfall.ContainerService/unknown",
        arm.subscription()
    );
    match command {
        args::Unknown::List => list(context, &arm, &path).await,
        args::Unknown::Delete { name, yes } => {
            delete(context, &arm, &format!("{path}/{name}"), name, *yes).await
        }
    }
}

async fn list(context: &Context, arm: &ArmClient, path: &str) -> Result<()> {
    let unknown = arm.list(path, OWN, &[]).await?;
    let flag = context.name_flag();
    context
        .printer
        .result(&json!({ "event": "result", "unknown": unknown }), || {
            page(&unknown, &flag)
        });
    Ok(())
}

fn page(unknown: &[Value], flag: &str) -> String {
    if unknown.is_empty() {
        return "Nothing: every machine, network, volume and backup is in a record of the store.\n"
            .to_owned();
    }
    let text = |value: &Value, pointer: &str| {
        let found = value.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or("-").to_owned()
    };
    let rows = unknown
        .iter()
        .map(|found| {
            ["/name", "/labels/cluster-name", "/labels/role", "/since"]
                .map(|pointer| text(found, pointer))
                .to_vec()
        })
        .collect();
    format!(
        "{}\nThe store is new, or older than these. They are kept; delete those that are not needed: landfall unknown delete{flag} NAME\n",
        printer::table(&["NAME", "CLUSTER", "ROLE", "FOUND"], rows)
    )
}

async fn delete(context: &Context, arm: &ArmClient, path: &str, name: &str, yes: bool) -> Result<()> {
    if !yes
        && !context
            .printer
            .confirm(&format!("This deletes {name} for good."))
            .await?
    {
        return Err(Problem::new("nothing was deleted", "answer y, or give --yes").into());
    }
    arm.delete(path, OWN).await?;
    context
        .printer
        .result(&json!({ "event": "result", "deleted": name }), || {
            format!("{name} may go, and will.\n")
        });
    Ok(())
}
