//! Without a secret on a command line: people with a code at another device, and programs with a certificate.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStderr, Command, Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    guide,
    login::{GUIDE, addresses, register},
    text,
};
use crate::{
    clients::{Az, run},
    journal::Journal,
    stamp::Stamp,
};

/// A program that acts as the browser of a person at another device.
pub(super) const BROWSER: &str = include_str!("browser.py");
/// The first cluster of a stamp.
const FIRST: &str = "landfall";
/// The guide's name of its program.
const PROGRAM: &str = "nightly";

pub(super) fn walk(journal: &Journal, stamp: &Stamp) -> Result<()> {
    device_codes(journal, stamp)?;
    certificates(journal, stamp)
}

fn device_codes(journal: &Journal, stamp: &Stamp) -> Result<()> {
    let name = text(&stamp.summary, "/administrator/login")?;
    let password = std::fs::read_to_string(text(&stamp.summary, "/administrator/passwordFile")?)?;
    let az = stamp.other_az("azure-device")?;
    register(stamp, &az)?;
    journal.step(
        "login",
        "with a device code: the page names the application, and a person approves",
        || {
            let waiting = Waiting::begin(&az)?;
            let pages = waiting.browse(&az, &json!({ "username": name, "password": password.trim() }))?;
            let asked = text(&pages[1], "/text")?;
            for told in ["Azure CLI", "127.0.0.1", "less than a minute ago"] {
                ensure!(asked.contains(told), "no {told} in: {asked}");
            }
            let end = waiting.end()?;
            ensure!(end.status.success(), "{}", said(&end));
            let account = az.json(&["account", "show"])?;
            ensure!(
                text(&account, "/user/type")? == "user" && text(&account, "/user/name")? == name,
                "{account}"
            );
            has_the_first_cluster(&az)
        },
    )?;
    journal.step(
        "login",
        "with a device code that a person says is not theirs: refused in words",
        || {
            let waiting = Waiting::begin(&az)?;
            waiting.browse(&az, &json!({ "cancel": "1" }))?;
            let end = waiting.end()?;
            let said = said(&end);
            ensure!(!end.status.success() && said.contains("AADSTS70018"), "{said}");
            Ok(())
        },
    )
}

fn certificates(journal: &Journal, stamp: &Stamp) -> Result<()> {
    let [as_application, with_certificate, _] = guide::exactly::<3>(GUIDE)?;
    // The program is made by the stamp's own application, which this `az` forgets with the guide's last commands.
    let maker = stamp.other_az("azure-maker")?;
    let home = stamp.directory.path().join("home-certificate");
    std::fs::create_dir_all(&home)?;
    let follow = |block: &str| -> Result<String> {
        let mut shell = guide::shell(stamp, &maker, &[], block)?;
        shell.envs(addresses(stamp)?).env("HOME", &home);
        run(&mut shell)
    };
    journal.step(
        "login",
        "the guide makes a program with a certificate, which logs in with it",
        || {
            follow(&as_application)?;
            let clusters = follow(&with_certificate)?;
            ensure!(clusters.lines().any(|line| line == FIRST), "{clusters}");
            let group = ["group", "create", "--name", PROGRAM, "--location", "local"];
            let refused = maker.fails(&group)?;
            ensure!(refused.contains("AuthorizationFailed"), "az says: {refused}");
            Ok(())
        },
    )?;
    journal.step(
        "login",
        "a certificate that was deleted is refused from then on",
        || {
            let tenant = text(&stamp.summary, "/tenantId")?;
            let secret = format!("@{}", text(&stamp.summary, "/servicePrincipal/secretFile")?);
            let own = text(&stamp.summary, "/servicePrincipal/clientId")?;
            let login = ["login", "--service-principal", "--tenant", tenant, "--username"];
            maker.json(&[&login[..], &[own, "--password", &secret]].concat())?;
            let found = maker.json(&["ad", "app", "list", "--display-name", PROGRAM])?;
            let client = text(&found, "/0/appId")?;
            let keys = maker.json(&["ad", "app", "credential", "list", "--id", client, "--cert"])?;
            let key = text(&keys, "/0/keyId")?;
            let delete = ["ad", "app", "credential", "delete", "--cert", "--id", client];
            maker.json(&[&delete[..], &["--key-id", key]].concat())?;
            let file = std::fs::read_dir(&home)?
                .filter_map(Result::ok)
                .map(|entry| entry.path())
                .find(|path| path.extension().is_some_and(|kind| kind == "pem"))
                .context("no certificate was written")?;
            let fresh = stamp.other_az("azure-certificate")?;
            register(stamp, &fresh)?;
            let file = file.to_string_lossy();
            let refused = fresh.fails(&[&login[..], &[client, "--certificate", &file]].concat())?;
            ensure!(refused.contains("AADSTS700027"), "az says: {refused}");
            maker.json(&["ad", "app", "delete", "--id", client]).map(drop)
        },
    )
}

fn has_the_first_cluster(az: &Az) -> Result<()> {
    let clusters = az.json(&["aks", "list"])?;
    let clusters = clusters.as_array().context("no list")?;
    ensure!(
        clusters.iter().any(|cluster| cluster["name"] == FIRST),
        "{clusters:?}"
    );
    Ok(())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `az login --use-device-code` that waits for a person.
struct Waiting {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// The address and the code for the person.
    address: String,
    code: String,
}

impl Waiting {
    fn begin(az: &Az) -> Result<Self> {
        let mut child = az
            .command(&["login", "--use-device-code", "--output", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start az")?;
        let stderr = child.stderr.take().context("az has a standard error")?;
        // From here on it is ended with this value.
        let mut waiting = Self {
            child,
            stderr: BufReader::new(stderr),
            address: String::new(),
            code: String::new(),
        };
        let mut before = String::new();
        loop {
            let mut line = String::new();
            ensure!(
                waiting.stderr.read_line(&mut line)? > 0,
                "az tells no code: {before}"
            );
            if let Some((address, code)) = told(&line) {
                (waiting.address, waiting.code) = (address, code);
                return Ok(waiting);
            }
            before.push_str(&line);
        }
    }

    /// A person opens the page, types the code, and fills in the form that names the application; gives the
    /// pages.
    fn browse(&self, az: &Az, answer: &Value) -> Result<Vec<Value>> {
        let forms = json!([{ "user_code": self.code }, answer]);
        let mut python = Command::new(az.program.with_file_name("python3"));
        python.args(["-c", BROWSER]);
        guide::has_environment_of(&mut python, &az.command(&[]));
        let mut child = python
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start the Azure CLI's interpreter")?;
        let asked = json!({ "address": self.address, "forms": forms });
        // Its input ends with the write.
        let mut input = child.stdin.take().context("it has an input")?;
        write!(input, "{asked}")?;
        drop(input);
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "the browser says: {}", said(&output));
        let pages: Vec<Value> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        let well = pages.iter().all(|page| page["status"] == 200);
        ensure!(well && pages.len() == 3, "the pages: {pages:?}");
        Ok(pages)
    }

    /// The result of `az`, and its remaining output.
    fn end(mut self) -> Result<Output> {
        let mut stderr = Vec::new();
        std::io::Read::read_to_end(&mut self.stderr, &mut stderr)?;
        Ok(Output {
            status: self.child.wait()?,
            stdout: Vec::new(),
            stderr,
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // It has ended, or must not wait for a quarter of an hour.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The address and the code of a line that contains both.
fn told(line: &str) -> Option<(String, String)> {
    let address = line
        .split_whitespace()
        .find(|word| word.starts_with("https://"))?;
    let (_, code) = line.rsplit_once("code ")?;
    let code = code.split_whitespace().next()?;
    Some((address.to_owned(), code.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_address_and_code() {
        let line = "To sign in, open https://a.test/deviceauth in a browser and enter the code BCDFGHJKL\n";
        let both = ("https://a.test/deviceauth".to_owned(), "BCDFGHJKL".to_owned());
        assert_eq!(told(line), Some(both));
        assert_eq!(told("a warning\n"), None);
        assert_eq!(told("see https://a.test\n"), None);
    }
}
