//! `landfall az`: prepares the Azure CLI: registers this stamp as a cloud, logs in with the service
//! principal, and prints the variables to export. May be repeated.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use identity::Shape;
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
    // The secret is passed in a file: a command line can be read by every user of the host.
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
    let exports = environment(settings.identity, &places.ca(), config.as_deref());
    let tenant = match settings.identity {
        Shape::Aad => settings.tenant.as_str(),
        Shape::AdFs => "adfs",
    };
    let az = |arguments: &[&str]| -> Result<String> {
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .envs(exports.iter().map(|(name, value)| (name, value)))
            .env("AZURE_CORE_COLLECT_TELEMETRY", "false")
            .env("AZURE_CORE_NO_COLOR", "true");
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
        // Address and shape may have changed; only this makes `update` read the metadata again.
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
        tenant,
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

    let lines: Vec<String> = exports
        .iter()
        .map(|(name, value)| format!("export {name}={}", host::quoted(value)))
        .collect();
    let value = json!({ "event": "result", "cloud": cloud, "arm": url, "client": settings.client,
        "subscription": settings.subscription, "tenant": tenant,
        "environment": exports.iter().map(|(name, value)| (name.to_string(), json!(value))).collect::<serde_json::Map<_, _>>() });
    context.printer.result(&value, || lines.join("\n"));
    if !context.printer.is_json() && std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        context.printer.heading(&format!(
            "\nPaste these lines, or: eval \"$(landfall az{})\"",
            context.name_flag()
        ));
    }
    Ok(())
}

/// The environment variables that `az` needs in every shell.
fn environment(shape: Shape, ca: &Path, config: Option<&Path>) -> Vec<(&'static str, PathBuf)> {
    let mut exports = vec![("REQUESTS_CA_BUNDLE", ca.to_owned())];
    if shape == Shape::Aad {
        // For an unknown login endpoint of Azure's shape, the library of az queries a host of Microsoft's,
        // and fails without a response.
        exports.push(("AZURE_CORE_INSTANCE_DISCOVERY", "false".into()));
    }
    if let Some(config) = config {
        exports.push(("AZURE_CONFIG_DIR", config.to_owned()));
    }
    exports
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_az_is_told_depends_on_the_shape() {
        let names = |shape, config| {
            environment(shape, Path::new("/ca.pem"), config)
                .into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            names(Shape::Aad, Some(Path::new("/azure"))),
            [
                "REQUESTS_CA_BUNDLE",
                "AZURE_CORE_INSTANCE_DISCOVERY",
                "AZURE_CONFIG_DIR"
            ]
        );
        assert_eq!(names(Shape::AdFs, None), ["REQUESTS_CA_BUNDLE"]);
    }
}
