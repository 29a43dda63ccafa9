//! `landfall down`: stops everything of the stamp on this host; with `--purge` all its files are deleted as
//! well.
//!
//! Always true: it works in any state (a running stamp, half a stamp, one that is down already) and may be
//! repeated.

use std::{
    fs,
    io::{ErrorKind, IsTerminal as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::Context;
use crate::{
    admin::AdminClient,
    args, background,
    problem::Problem,
    serve,
    stamp::Settings,
    systemd::{self, Unit},
};

pub(crate) async fn run(context: &Context, args: &args::Down) -> Result<()> {
    let places = &context.places;
    let purge = args.purge;
    // A running stamp is found even if its files were deleted by hand.
    let running = || Settings::load_running(places).map(|(_, settings)| settings);
    let Some(settings) = Settings::load(places)?.or_else(running) else {
        let value = json!({ "event": "result", "stamp": places.name, "machines": 0, "purged": false });
        context.printer.result(&value, || {
            format!("There is no stamp {}: nothing to do.", places.name)
        });
        return Ok(());
    };
    context.require_root("stop machines and networks")?;
    if purge && !args.yes {
        confirm(context).await?;
    }

    let step = context.printer.step("service", "Service");
    if background::stop(places, &context.env).await? {
        step.done("stopped");
    } else {
        step.skip("was not running");
    }

    if purge && systemd::is_booted() {
        Unit::of(places)?.remove()?;
    }

    // Holding the lock, so that no service starts while its machines are being removed.
    places.make()?;
    let held = background::hold(places)?;
    let step = context.printer.step("fabric", "Machines and networks");
    let fabric = serve::open_fabric(context, &settings)?;
    let before = fabric.list().await.context("cannot see what the stamp has")?;
    let count = before.machines.len();
    if purge {
        step.now(&format!("deleting {count} machines"));
        fabric
            .delete_stamp()
            .await
            .context("cannot delete what the stamp has")?;
        let left = fabric
            .list()
            .await
            .context("cannot list the remaining machines")?;
        if !left.machines.is_empty() || !left.networks.is_empty() {
            return Err(Problem::new(
                format!(
                    "{} machines and {} networks are still there",
                    left.machines.len(),
                    left.networks.len()
                ),
                format!("run it again: landfall down --purge{}", context.name_flag()),
            )
            .into());
        }
        step.done(format!("deleted {count} machines"));
    } else {
        step.now(&format!("stopping {count} machines"));
        fabric
            .stop_stamp()
            .await
            .context("cannot stop what the stamp runs")?;
        step.done(format!("stopped {count} machines; their disks are kept"));
    }

    let step = context.printer.step("files", "Files");
    remove_dir(&places.run)?;
    remove_empty(places.run.parent());
    drop(held);
    if purge {
        remove_dir(&places.state)?;
        remove_empty(places.state.parent());
        step.done("deleted");
    } else {
        step.done(format!("kept in {}", places.state.display()));
    }
    let value = json!({ "event": "result", "stamp": places.name, "machines": count, "purged": purge });
    context.printer.result(&value, || {
        if purge {
            format!("\nStamp {} is gone.", places.name)
        } else {
            format!(
                "\nStamp {} is down. Bring it back: landfall up{}",
                places.name,
                context.name_flag()
            )
        }
    });
    Ok(())
}

/// On a terminal, asks before clusters are deleted.
async fn confirm(context: &Context) -> Result<()> {
    if context.printer.is_json() || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    // Without a running service the clusters are not known; then the question is a general one.
    let clusters = match AdminClient::new(&context.places)?.status().await {
        Ok(status) => status.clusters,
        Err(_) if !context.places.store().exists() => return Ok(()),
        Err(_) => Vec::new(),
    };
    let names: Vec<&str> = clusters.iter().map(|cluster| cluster.name.as_str()).collect();
    let what = match names.as_slice() {
        [] => format!(
            "stamp {} with all its clusters and their data",
            context.places.name
        ),
        [one] => format!("cluster {one} and its data"),
        many => format!("{} clusters ({}) and their data", many.len(), many.join(", ")),
    };
    if context.printer.confirm(&format!("This deletes {what}.")).await? {
        return Ok(());
    }
    Err(Problem::new("nothing was deleted", "type yes, or use --yes").into())
}

fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes the shared parent once the last stamp has left it.
fn remove_empty(path: Option<&Path>) {
    if let Some(path) = path {
        // Another stamp's directory in it is the usual reason for this to fail.
        drop(fs::remove_dir(path));
    }
}
