//! Roles and locks with the commands of the guide: assignments and their removal take effect at once, and a
//! restart changes neither.

use anyhow::{Result, ensure};

use super::{guide, login::register, text};
use crate::{
    clients::{Az, run},
    journal::Journal,
    stamp::Stamp,
};

/// The group of it.
const ACCESS: &str = "access";
/// The stamp's first cluster, and its group.
const FIRST: &str = "landfall";
/// The commands are run verbatim.
const GUIDE: &str = include_str!("../../../docs/guides/access.md");

/// The guide's blocks of commands.
struct Guide {
    scope: String,
    give: String,
    list: String,
    custom: String,
    take_away: String,
    lock: String,
    unlock: String,
    log: String,
    without_az: String,
}

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    let guide = commands()?;
    let location = az.json(&["account", "list-locations"])?;
    let location = text(&location, "/0/name")?;
    az.json(&["group", "create", "--name", ACCESS, "--location", location])?;
    let administrator = principal(az)?;
    let follow = |block: &str| follow(stamp, az, &administrator, &format!("{}{block}", guide.scope));
    let person = login(stamp)?;
    let show = ["group", "show", "--name", ACCESS];
    let change = ["group", "update", "--name", ACCESS, "--set", "tags.a=b"];

    journal.step(
        "access",
        "an owner loses its role: the next request is refused",
        || {
            person.json(&show)?;
            let owner = az.json(&[
                "role",
                "assignment",
                "list",
                "--all",
                "--query",
                &format!("[?principalId=='{administrator}'].id"),
            ])?;
            az.json(&["role", "assignment", "delete", "--ids", text(&owner, "/0")?])?;
            for arguments in [&show[..], &["group", "show", "--name", "nothing"]] {
                refused(&person, arguments)?;
            }
            Ok(())
        },
    )?;
    journal.step(
        "access",
        "the guide gives a role: it is seen, not changed",
        || {
            follow(&guide.give)?;
            person.json(&show)?;
            refused(&person, &change)?;
            let groups = person.json(&["group", "list"])?;
            ensure!(
                groups.as_array().is_some_and(|groups| groups.len() == 1),
                "{groups}"
            );
            let listed = follow(&guide.list)?;
            ensure!(
                listed
                    .lines()
                    .any(|line| line.contains(&administrator) && line.contains("Reader")),
                "{listed}"
            );
            let roles = follow(&guide.custom)?;
            ensure!(roles.trim_end().ends_with("Cluster operator"), "{roles}");
            Ok(())
        },
    )?;
    journal.step(
        "access",
        "a restart of the service neither gives nor takes away",
        || {
            stamp.kill_service()?;
            run(&mut stamp.landfall(&["up", "--output", "json"]))?;
            person.json(&show)?;
            refused(&person, &change)
        },
    )?;
    journal.step(
        "access",
        "the guide locks a group: not even its owner deletes it",
        || {
            let listed = follow(&guide.lock)?;
            ensure!(listed.contains("keep"), "{listed}");
            let said = az.fails(&["group", "delete", "--name", ACCESS, "--yes"])?;
            ensure!(said.contains("ScopeLocked"), "az says: {said}");
            follow(&guide.unlock).map(drop)
        },
    )?;
    journal.step(
        "access",
        "the guide's activity log tells of the lock, and of the refused change",
        || {
            let told = follow(&guide.log)?;
            for (action, status) in [
                ("Microsoft.Authorization/locks/write", "Succeeded"),
                ("Microsoft.Resources/subscriptions/resourceGroups/write", "Failed"),
            ] {
                ensure!(
                    told.lines()
                        .any(|line| line.contains(action) && line.ends_with(status)),
                    "no {action} {status} in: {told}"
                );
            }
            Ok(())
        },
    )?;
    journal.step(
        "access",
        "a cluster's user gets its kubeconfig, and neither the administrator's nor changes",
        || {
            let of_cluster = ["--resource-group", FIRST, "--name", FIRST];
            let aks = |verb: &[&'static str], more: &[&'static str]| -> Vec<&'static str> {
                [&["aks"], verb, &of_cluster, more].concat()
            };
            let kubeconfig = ["--file", "-"];
            refused(&person, &aks(&["get-credentials"], &kubeconfig))?;
            let role = "Azure Kubernetes Service Cluster User Role";
            let at = format!("{FIRST}/{FIRST}");
            run(&mut stamp.landfall(&["access", "grant", role, &administrator, "--at", &at]))?;
            let text = run(&mut person.command(&aks(&["get-credentials"], &kubeconfig)))?;
            ensure!(text.contains("clusters:"), "{text}");
            refused(&person, &aks(&["get-credentials", "--admin"], &kubeconfig))?;
            refused(&person, &aks(&["stop"], &[]))?;
            let seen = person.json(&["aks", "list"])?;
            ensure!(seen.as_array().is_some_and(|seen| seen.len() == 1), "{seen}");
            Ok(())
        },
    )?;
    journal.step("access", "the guide takes the role away", || {
        follow(&guide.take_away)?;
        refused(&person, &show)
    })?;
    journal.step(
        "access",
        "landfall access gives it again; it goes with its group",
        || {
            let listed = follow(&guide.without_az)?;
            ensure!(
                listed.contains(&administrator) && listed.contains("Reader"),
                "{listed}"
            );
            person.json(&show)?;
            az.json(&["group", "delete", "--name", ACCESS, "--yes"])?;
            az.json(&["group", "create", "--name", ACCESS, "--location", location])?;
            refused(&person, &show)?;
            az.json(&["group", "delete", "--name", ACCESS, "--yes"])?;
            let owner = ["access", "grant", "Owner", &administrator, "--at", "/"];
            run(&mut stamp.landfall(&owner)).map(drop)
        },
    )
}

/// The object id of the administrator, an owner of the stamp.
fn principal(az: &Az) -> Result<String> {
    let found = az.json(&[
        "role",
        "assignment",
        "list",
        "--all",
        "--query",
        "[?principalType=='User'].principalId",
    ])?;
    Ok(text(&found, "/0")?.to_owned())
}

/// An `az` of the administrator's.
fn login(stamp: &Stamp) -> Result<Az> {
    let mut az = stamp.fresh_az()?;
    az.config = stamp.directory.path().join("azure-person");
    std::fs::create_dir_all(&az.config)?;
    register(stamp, &az)?;
    let user = text(&stamp.summary, "/administrator/login")?;
    let password = std::fs::read_to_string(text(&stamp.summary, "/administrator/passwordFile")?)?;
    let password = password.trim();
    az.json(&[
        "login",
        "--username",
        user,
        "--password",
        password,
        "--tenant",
        "adfs",
    ])?;
    Ok(az)
}

fn refused(az: &Az, arguments: &[&str]) -> Result<()> {
    let said = az.fails(arguments)?;
    ensure!(
        said.contains("AuthorizationFailed"),
        "az {arguments:?} says: {said}"
    );
    Ok(())
}

fn commands() -> Result<Guide> {
    let blocks: Vec<String> = GUIDE
        .split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split("```\n").next())
        .map(str::to_owned)
        .collect();
    let blocks = <[String; 9]>::try_from(blocks)
        .map_err(|blocks| anyhow::anyhow!("the guide has other blocks: {blocks:?}"))?;
    let [
        scope,
        give,
        list,
        custom,
        take_away,
        lock,
        unlock,
        log,
        without_az,
    ] = blocks;
    Ok(Guide {
        scope,
        give,
        list,
        custom,
        take_away,
        lock,
        unlock,
        log,
        without_az,
    })
}

/// Runs commands of the guide.
fn follow(stamp: &Stamp, az: &Az, principal: &str, script: &str) -> Result<String> {
    let variables = [("GROUP", ACCESS), ("PRINCIPAL", principal), ("KIND", "User")];
    run(&mut guide::with_landfall(stamp, az, &variables, script)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_the_blocks_that_are_followed() {
        let guide = commands().unwrap();
        assert!(guide.give.contains("role assignment create") && guide.unlock.contains("lock delete"));
        assert!(guide.custom.contains("role definition create") && guide.without_az.starts_with("landfall "));
    }
}
