//! `landfall service`: the stamp as a systemd service, so that it starts at boot and again after a fault.

use anyhow::Result;
use owo_colors::OwoColorize as _;
use serde_json::json;

use super::Context;
use crate::{args, background, printer, stamp::Settings, systemd::Unit};

pub(crate) async fn run(context: &Context, args: &args::Service) -> Result<()> {
    let unit = Unit::of(&context.places)?;
    unit.require_systemd(&context.name_flag())?;
    match args {
        args::Service::Install => install(context, &unit).await,
        args::Service::Remove => remove(context, &unit).await,
        args::Service::Status => status(context, &unit),
    }
}

async fn install(context: &Context, unit: &Unit) -> Result<()> {
    context.require_root("write a unit of systemd")?;
    // The unit starts an existing stamp; it makes none.
    Settings::required(&context.places)?;
    let step = context.printer.step("unit", "Unit");
    let changed = unit.write()?;
    unit.enable()?;
    step.done(unit.path().display().to_string());

    let step = context.printer.step("service", "Service");
    if changed || !unit.is_active() {
        step.now("starting under systemd; clusters go on meanwhile");
        background::stop(&context.places, &context.env).await?;
    }
    let (status, started) = background::ensure_running(&context.places, &context.env).await?;
    let detail = format!("process {}", status.service.pid);
    if started {
        step.done(detail)
    } else {
        step.skip(detail)
    }
    let name = unit.name();
    context.printer.result(
        &json!({ "event": "result", "unit": name, "path": unit.path(), "enabled": true }),
        || {
            format!(
                "\nStamp {} starts at boot, and again after a fault: systemctl status {name}",
                context.places.name
            )
        },
    );
    Ok(())
}

async fn remove(context: &Context, unit: &Unit) -> Result<()> {
    context.require_root("remove a unit of systemd")?;
    let step = context.printer.step("unit", "Unit");
    let was_there = unit.remove()?;
    let running = background::stop(&context.places, &context.env).await?;
    if was_there {
        step.done("removed")
    } else {
        step.skip("was not there")
    }
    let name = &context.places.name;
    context.printer.result(
        &json!({ "event": "result", "unit": unit.name(), "removed": was_there, "stopped": running }),
        || {
            format!(
                "\nStamp {name} does not start at boot any more. Its clusters go on; start its service again: landfall up{}",
                context.name_flag()
            )
        },
    );
    Ok(())
}

fn status(context: &Context, unit: &Unit) -> Result<()> {
    let (installed, enabled, active) = (unit.is_installed(), unit.is_enabled(), unit.is_active());
    let program = unit.program();
    let value = json!({ "event": "result", "unit": unit.name(), "path": unit.path(), "installed": installed,
        "enabled": enabled, "active": active, "program": program });
    context.printer.result(&value, || {
        let yes = |yes: bool| {
            if yes {
                "yes".green().to_string()
            } else {
                "no".yellow().to_string()
            }
        };
        let program = program.map(|path| path.display().to_string()).unwrap_or_default();
        printer::table(
            &["UNIT", "INSTALLED", "STARTS AT BOOT", "RUNS", "PROGRAM"],
            vec![vec![
                unit.name(),
                yes(installed),
                yes(enabled),
                yes(active),
                program,
            ]],
        )
    });
    Ok(())
}
