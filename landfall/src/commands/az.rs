//! `landfall az`: prepares the Azure CLI: registers this stamp as a cloud, logs in with the service principal, and prints
//! what to export. Repeating it is harmless.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::Context;
use crate::{
    args, arm, background, host,
    problem::Problem,
    stamp::{self, Settings},
};

pub(crate) async fn run(context: &Context, args: &args::Az) -> Result<()> {
    let places = &context.places;
    let settings = Settings::required(places)?;
    if background::pid(places)?.is_none() {
        return Err(Problem::new(
            format!("the service of stamp {} does not run", places.name),
            format!("start it: landfall up{}", context.name_flag()),
        )
        .into());
    }
    // The secret goes by file: what is on a command line, every user of the host can read.
    stamp::secret(places, arm::SECRET)?;
    let secret = format!("@{}", places.secrets().join(arm::SECRET).display());
    let program = find(&args.program)?;
    let config = if args.user {
        None
    } else {
        Some(places.state.join("azure"))
    };
    if let Some(config) = &config {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(config)
            .with_context(|| format!("cannot create {}", config.display()))?;
    }
    let cloud = format!("Landfall-{}", places.name);
    let az = |arguments: &[&str]| -> Result<String> {
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .env("REQUESTS_CA_BUNDLE", places.ca())
            .env("AZURE_CORE_COLLECT_TELEMETRY", "false")
            .env("AZURE_CORE_NO_COLOR", "true");
        if let Some(config) = &config {
            command.env("AZURE_CONFIG_DIR", config);
        }
        context.printer.detail(&format!(
            "az {} {}",
            arguments[0],
            arguments.get(1).unwrap_or(&"")
        ));
        host::run_command(&mut command)
    };

    let step = context.printer.step("cloud", "Azure CLI");
    step.now("registering the cloud");
    let known = az(&["cloud", "list", "--query", "[].name", "--output", "tsv"])?;
    let url = settings.arm_url();
    if known.lines().any(|line| line.trim() == cloud) {
        // The address may have changed; `update` reads the metadata again only for what it is given.
        az(&[
            "cloud",
            "update",
            "--name",
            &cloud,
            "--endpoint-resource-manager",
            &url,
        ])?;
    } else {
        az(&[
            "cloud",
            "register",
            "--name",
            &cloud,
            "--endpoint-resource-manager",
            &url,
        ])?;
    }
    az(&["cloud", "set", "--name", &cloud])?;
    step.now("logging in");
    az(&[
        "login",
        "--service-principal",
        "--username",
        &settings.client,
        "--password",
        &secret,
        "--tenant",
        "adfs",
        "--output",
        "none",
    ])
    .map_err(|error| {
        Problem::new(
            "az cannot log in",
            "repeat with --verbose; landfall logs has the service's side",
        )
        .because(error)
    })?;
    step.done(format!("cloud {cloud}, logged in as {}", settings.client));

    let mut exports = vec![("REQUESTS_CA_BUNDLE", places.ca())];
    if let Some(config) = config {
        exports.push(("AZURE_CONFIG_DIR", config));
    }
    let lines: Vec<String> = exports
        .iter()
        .map(|(name, path)| format!("export {name}={}", host::quoted(path)))
        .collect();
    let value = json!({ "event": "result", "cloud": cloud, "arm": url, "client": settings.client,
        "subscription": settings.subscription,
        "environment": exports.iter().map(|(name, path)| (name.to_string(), json!(path))).collect::<serde_json::Map<_, _>>() });
    context.printer.result(&value, || lines.join("\n"));
    if !context.printer.is_json() && std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        context.printer.heading(&format!(
            "\nPaste these lines, or: eval \"$(landfall az{})\"",
            context.name_flag()
        ));
    }
    Ok(())
}

fn find(program: &Path) -> Result<PathBuf> {
    let found = if program.components().count() > 1 {
        program.is_file().then(|| program.to_owned())
    } else {
        host::find(&program.to_string_lossy())
    };
    found.ok_or_else(|| {
        Problem::new(
            format!("there is no Azure CLI ({})", program.display()),
            "install it (python3 -m venv az && az/bin/pip install azure-cli), then: landfall az --program az/bin/az",
        )
        .into()
    })
}
