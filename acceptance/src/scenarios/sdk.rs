//! Azure's SDKs for Python and JavaScript: applications that use ARM work with a stamp without a change.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{sign_in::BROWSER, text};
use crate::{
    Program,
    clients::{Az, run},
    journal::Journal,
    stamp::Stamp,
};

/// The program with the SDK for Python.
const PYTHON: &str = include_str!("sdk.py");
/// The program with the SDK for JavaScript.
const JAVASCRIPT: &str = include_str!("sdk.mjs");

/// Drives the stamp with each installed generation of the SDK for Python.
pub(super) fn python(journal: &Journal, stamp: &Stamp, az: &Az, programs: &[Program]) -> Result<()> {
    if programs.is_empty() {
        return Ok(());
    }
    let proofs = journal.step(
        "sdk",
        "a program gets a certificate, and trusts tokens of an issuer",
        || Proofs::make(stamp, az),
    )?;
    for (number, program) in programs.iter().enumerate() {
        let what = format!(
            "azure-mgmt-containerservice {} logs in in each way, calls what the other clients have no command for, and gets errors in ARM's words",
            program.version
        );
        journal.step("sdk", &what, || {
            let mut command = Command::new(&program.path);
            command.args(["-c", PYTHON]).env_remove("PYTHONDONTWRITEBYTECODE");
            proofs.told(stamp, &mut command)?;
            drive(stamp, az, program, &mut command, &format!("sdk{number}"))
        })?;
    }
    Ok(())
}

/// The same with the SDK for JavaScript.
pub(super) fn javascript(journal: &Journal, stamp: &Stamp, az: &Az, programs: &[Program]) -> Result<()> {
    for (number, program) in programs.iter().enumerate() {
        let what = format!(
            "@azure/arm-containerservice {} lists, creates, scales, tags, changes the principal, deletes, and gets errors in ARM's words",
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

/// Credentials of a program beside a secret.
struct Proofs {
    client: String,
    certificate: String,
    /// A file with a token of an issuer that the program trusts.
    assertion: PathBuf,
    /// The directory of the Python module that acts as the browser of a device code login.
    modules: PathBuf,
}

impl Proofs {
    fn make(stamp: &Stamp, az: &Az) -> Result<Self> {
        let modules = stamp.directory.path().join("python");
        std::fs::create_dir_all(&modules)?;
        std::fs::write(modules.join("browser.py"), BROWSER)?;
        let scope = az.json(&["account", "show"])?;
        let scope = format!("/subscriptions/{}", text(&scope, "/id")?);
        let create = ["ad", "sp", "create-for-rbac", "--name", "sdk", "--create-cert"];
        let role = ["--role", "Reader", "--scopes", &scope, "--output", "json"];
        // The Azure CLI writes the file into the home directory.
        let made = run(az.command(&create).args(role).env("HOME", &modules))?;
        let made: Value = serde_json::from_str(&made)?;
        let client = text(&made, "/appId")?.to_owned();
        // A stamp without an uplink fetches no other issuer's keys, and has its own: the program trusts
        // tokens of the stamp's application.
        let token = az.json(&["account", "get-access-token"])?;
        let token = text(&token, "/accessToken")?;
        let assertion = modules.join("assertion");
        std::fs::write(&assertion, token)?;
        let claims = claims(token)?;
        let trusted = json!({
            "name": "own", "issuer": claims["iss"], "subject": claims["sub"], "audiences": [claims["aud"]],
        })
        .to_string();
        let trust = [
            "ad",
            "app",
            "federated-credential",
            "create",
            "--id",
            &client,
            "--parameters",
        ];
        az.json(&[&trust[..], &[trusted.as_str()]].concat())?;
        Ok(Self {
            client,
            assertion,
            certificate: text(&made, "/fileWithCertAndPrivateKey")?.to_owned(),
            modules,
        })
    }

    fn told(&self, stamp: &Stamp, command: &mut Command) -> Result<()> {
        let password = std::fs::read_to_string(text(&stamp.summary, "/administrator/passwordFile")?)?;
        command
            .env("PYTHONPATH", &self.modules)
            .env("PROGRAM", &self.client)
            .env("CERTIFICATE", &self.certificate)
            .env("ASSERTION_FILE", &self.assertion)
            .env("USER_NAME", text(&stamp.summary, "/administrator/login")?)
            .env("PASSWORD", password.trim());
        Ok(())
    }
}

/// The claims of a token.
fn claims(token: &str) -> Result<Value> {
    let claims = token.split('.').nth(1).context("the token has no claims")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?)
}

/// Runs a program that prints its steps, to its end.
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
