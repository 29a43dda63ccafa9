//! Cloud, login, account, groups, and refusals.

use anyhow::{Result, ensure};

use super::{GROUP, guide, text};
use crate::{
    clients::{Az, run},
    journal::Journal,
    stamp::Stamp,
};

/// The commands are run verbatim.
pub(super) const GUIDE: &str = include_str!("../../../docs/guides/login.md");

/// Registers the stamp as a cloud with `az`.
pub(super) fn register(stamp: &Stamp, az: &Az) -> Result<()> {
    let endpoint = format!("https://{}", stamp.listen);
    let cloud = ["cloud", "register", "--name", "landfall"];
    let registered = [&cloud[..], &["--endpoint-resource-manager", &endpoint]].concat();
    run(&mut az.command(&registered))?;
    run(&mut az.command(&["cloud", "set", "--name", "landfall"])).map(drop)
}

/// The variables of the guides for the output of `landfall up`.
pub(super) fn addresses(stamp: &Stamp) -> Result<Vec<(&'static str, &str)>> {
    [
        ("CA", "/caFile"),
        ("ENDPOINT", "/armEndpoint"),
        ("TENANT", "/tenantId"),
        ("CLIENT", "/servicePrincipal/clientId"),
        ("SECRET_FILE", "/servicePrincipal/secretFile"),
        ("USER_NAME", "/administrator/login"),
        ("PASSWORD_FILE", "/administrator/passwordFile"),
    ]
    .into_iter()
    .map(|(name, pointer)| Ok((name, text(&stamp.summary, pointer)?)))
    .collect()
}

/// Gives an `az` that is logged in.
pub(super) fn walk(journal: &Journal, stamp: &Stamp) -> Result<Az> {
    let az = stamp.fresh_az()?;
    let id = text(&stamp.summary, "/servicePrincipal/clientId")?;
    let secret = std::fs::read_to_string(text(&stamp.summary, "/servicePrincipal/secretFile")?)?;
    let secret = secret.trim();

    let [as_application, _, as_person] = guide::exactly::<3>(GUIDE)?;
    let follow = |block: &str| -> Result<String> {
        let mut shell = guide::shell(stamp, &az, &[], block)?;
        shell.envs(addresses(stamp)?);
        run(&mut shell)
    };
    journal.step("login", "the guide: as an application", || {
        let account = follow(&as_application)?;
        ensure!(
            account.contains("servicePrincipal") && account.contains(text(&stamp.summary, "/tenantId")?),
            "{account}"
        );
        Ok(())
    })?;
    // A profile without tokens: with tokens, `az` would send no request.
    let fresh = stamp.other_az("azure-wrong")?;
    register(stamp, &fresh)?;
    let wrong = |who: &[&str], code: &str| {
        let said = fresh.fails(&[&["login", "--password", "wrong"], who].concat())?;
        ensure!(said.contains(code), "az says: {said}");
        Ok(())
    };
    let tenant = text(&stamp.summary, "/tenantId")?;
    for tenant in [tenant, "adfs"] {
        journal.step("login", "a wrong secret is refused in words", || {
            wrong(
                &["--service-principal", "--username", id, "--tenant", tenant],
                "AADSTS7000215",
            )
        })?;
    }
    let user = text(&stamp.summary, "/administrator/login")?;
    journal.step("login", "a wrong password is refused in words", || {
        wrong(&["--username", user, "--tenant", "adfs"], "AADSTS50126")
    })?;
    journal.step("login", "the guide: as a person", || {
        let kind = follow(&as_person)?;
        ensure!(kind.trim() == "user", "{kind}");
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
            tenant,
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
    az.loaded()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_the_blocks_that_are_followed() {
        let [as_application, with_certificate, as_person] = guide::exactly::<3>(GUIDE).unwrap();
        assert!(as_application.contains("--service-principal") && as_person.contains("--tenant adfs"));
        assert!(with_certificate.contains("--certificate"));
    }
}
