//! Azure's SDKs for Python and JavaScript: applications that speak ARM speak to a stamp without a change.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::text;
use crate::{
    Program,
    clients::{Az, run},
    journal::Journal,
    stamp::Stamp,
};

/// What the SDK for Python is used for.
const PYTHON: &str = include_str!("sdk.py");
/// What the SDK for JavaScript is used for.
const JAVASCRIPT: &str = include_str!("sdk.mjs");

/// Drives the stamp with each installed generation of the SDK for Python.
pub(super) fn python(journal: &Journal, stamp: &Stamp, az: &Az, programs: &[Program]) -> Result<()> {
    for (number, program) in programs.iter().enumerate() {
        let what = format!(
            "azure-mgmt-containerservice {} lists, creates, scales, tags, deletes, and gets errors in ARM's words",
            program.version
        );
        journal.step("sdk", &what, || {
            let mut command = Command::new(&program.path);
            command.args(["-c", PYTHON]);
            drive(stamp, az, program, &mut command, &format!("sdk{number}"))
        })?;
    }
    Ok(())
}

/// The same with the SDK for JavaScript.
pub(super) fn javascript(journal: &Journal, stamp: &Stamp, az: &Az, programs: &[Program]) -> Result<()> {
    for (number, program) in programs.iter().enumerate() {
        let what = format!(
            "@azure/arm-containerservice {} lists, creates, scales, tags, deletes, and gets errors in ARM's words",
            program.version
        );
        journal.step("sdk", &what, || {
            let group = format!("sdkjs{number}");
            az.json(&["group", "create", "--name", &group, "--location", "local"])?;
            let mut command = Command::new("node");
            command
                .args(["--input-type=module", "--eval", JAVASCRIPT])
                .env("MODULES", &program.path)
                .env("NODE_EXTRA_CA_CERTS", &az.ca);
            drive(stamp, az, program, &mut command, &group)?;
            az.json(&["group", "delete", "--name", &group, "--yes"]).map(drop)
        })?;
    }
    Ok(())
}

/// Runs a program that tells what it has tried, to its end.
fn drive(stamp: &Stamp, az: &Az, program: &Program, command: &mut Command, group: &str) -> Result<()> {
    let account = az.json(&["account", "show"])?;
    let cloud = az.json(&["cloud", "show"])?;
    let secret = std::fs::read_to_string(text(&stamp.summary, "/servicePrincipal/secretFile")?)?;
    let tenant = text(&account, "/homeTenantId").or_else(|_| text(&account, "/tenantId"))?;
    let audience = text(&cloud, "/endpoints/management")?;
    command
        .current_dir(stamp.directory.path())
        .env("ENDPOINT", format!("https://{}", stamp.listen))
        .env("TENANT", tenant)
        .env("SUBSCRIPTION", text(&account, "/id")?)
        .env("CLIENT", text(&stamp.summary, "/servicePrincipal/clientId")?)
        .env("SECRET", secret.trim())
        .env("AUDIENCE", audience.trim_end_matches('/'))
        .env("GROUP", group)
        .env("KUBECTL", stamp.kubectl_program()?)
        .env("REQUESTS_CA_BUNDLE", &az.ca)
        .env_remove("HTTPS_PROXY")
        .env_remove("https_proxy");
    let told = run(command)?;
    let tried: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
        .collect::<Result<_>>()?;
    let last = tried.last().context("nothing was tried")?;
    ensure!(last["tried"] == "delete", "it ended with {last}");
    ensure!(tried[0]["sdk"] == program.version.as_str(), "{}", tried[0]);
    Ok(())
}
