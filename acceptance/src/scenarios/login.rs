//! Cloud, login, account, groups, and what is refused.

use anyhow::{Result, ensure};

use super::{GROUP, text};
use crate::{
    clients::{Az, run},
    journal::Journal,
    stamp::Stamp,
};

/// Has an `az` know the stamp, and speak to it.
pub(super) fn register(stamp: &Stamp, az: &Az) -> Result<()> {
    let endpoint = format!("https://{}", stamp.listen);
    let cloud = ["cloud", "register", "--name", "landfall"];
    let registered = [&cloud[..], &["--endpoint-resource-manager", &endpoint]].concat();
    run(&mut az.command(&registered))?;
    run(&mut az.command(&["cloud", "set", "--name", "landfall"])).map(drop)
}

/// Gives an `az` that is logged in.
pub(super) fn walk(journal: &Journal, stamp: &Stamp) -> Result<Az> {
    let az = stamp.fresh_az()?;
    let id = text(&stamp.summary, "/servicePrincipal/clientId")?;
    let secret = std::fs::read_to_string(text(&stamp.summary, "/servicePrincipal/secretFile")?)?;
    let secret = secret.trim();

    journal.step("login", "cloud register and set", || register(stamp, &az))?;
    journal.step("login", "a wrong secret is refused in words", || {
        let said = az.fails(&[
            "login",
            "--service-principal",
            "--username",
            id,
            "--password",
            "wrong",
            "--tenant",
            "adfs",
        ])?;
        ensure!(said.contains("AADSTS7000215"), "az says: {said}");
        Ok(())
    })?;
    let user = text(&stamp.summary, "/administrator/login")?;
    let password = std::fs::read_to_string(text(&stamp.summary, "/administrator/passwordFile")?)?;
    journal.step("login", "the administrator logs in with a password", || {
        let mut arguments = [
            "login",
            "--username",
            user,
            "--password",
            "wrong",
            "--tenant",
            "adfs",
        ];
        let said = az.fails(&arguments)?;
        ensure!(said.contains("AADSTS50126"), "az says: {said}");
        arguments[4] = password.trim();
        let accounts = az.json(&arguments)?;
        ensure!(accounts[0]["user"]["type"] == "user", "{accounts}");
        Ok(())
    })?;
    journal.step("login", "a service principal logs in", || {
        let accounts = az.json(&[
            "login",
            "--service-principal",
            "--username",
            id,
            "--password",
            secret,
            "--tenant",
            "adfs",
        ])?;
        ensure!(accounts[0]["state"] == "Enabled", "{accounts}");
        Ok(())
    })?;
    journal.step(
        "login",
        "locations, versions, group create, show, list, exists",
        || {
            let locations = az.json(&["account", "list-locations"])?;
            let location = text(&locations, "/0/name")?.to_owned();
            let versions = az.json(&["aks", "get-versions", "--location", &location])?;
            ensure!(
                versions["values"]
                    .as_array()
                    .is_some_and(|values| values.len() == 2),
                "{versions}"
            );
            let group = az.json(&["group", "create", "--name", GROUP, "--location", &location])?;
            ensure!(
                text(&group, "/properties/provisioningState")? == "Succeeded",
                "{group}"
            );
            az.json(&["group", "show", "--name", GROUP])?;
            ensure!(az.json(&["group", "exists", "--name", GROUP])? == true);
            ensure!(az.json(&["group", "exists", "--name", "nobody"])? == false);
            Ok(())
        },
    )?;
    journal.step("login", "an unknown cluster is a 404 in words", || {
        let said = az.fails(&["aks", "show", "--resource-group", GROUP, "--name", "nobody"])?;
        ensure!(said.contains("ResourceNotFound"), "az says: {said}");
        Ok(())
    })?;
    Ok(az)
}
