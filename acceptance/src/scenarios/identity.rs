//! The directory with the commands of the guide: new principals log in, groups give their roles to members,
//! revoked or disabled ones are refused.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{guide, login::register, text};
use crate::{
    clients::{Az, run},
    journal::Journal,
    stamp::Stamp,
};

/// The first cluster of a stamp, and its group.
const FIRST: &str = "landfall";
/// The group of it.
const IDENTITY: &str = "identity";
const ADA: &str = "ada@example.org";
const PASSWORD: &str = "Correct horse 1";
const NEW_PASSWORD: &str = "Another horse 2";
/// The commands are run verbatim.
const GUIDE: &str = include_str!("../../../docs/guides/identity.md");

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az) -> Result<()> {
    let [
        people,
        sessions,
        enable,
        groups,
        programs,
        reset,
        federated,
        managed,
        assigned,
        own,
        remove,
        log,
    ] = guide::exactly::<12>(GUIDE)?;
    let location = az.json(&["account", "list-locations"])?;
    let location = text(&location, "/0/name")?;
    let group = az.json(&["group", "create", "--name", IDENTITY, "--location", location])?;
    let scope = text(&group, "/id")?;
    let administrator = text(&stamp.summary, "/administrator/login")?;
    let follow = |block: &str| -> Result<String> {
        let variables = [
            ("GROUP", IDENTITY),
            ("CLUSTER", FIRST),
            ("CLUSTER_GROUP", FIRST),
            ("SCOPE", scope),
            ("PASSWORD", PASSWORD),
            ("NEW_PASSWORD", NEW_PASSWORD),
            ("ADMINISTRATOR", administrator),
        ];
        run(&mut guide::with_landfall(stamp, az, &variables, block)?)
    };
    let show = ["group", "show", "--name", IDENTITY];

    let ada = journal.step(
        "identity",
        "the guide makes a user, who logs in and is herself",
        || {
            let listed = follow(&people)?;
            ensure!(listed.contains(ADA), "{listed}");
            let ada = log_in(stamp, "azure-ada", &["--username", ADA, "--password", PASSWORD])?;
            let me = ada.json(&["ad", "signed-in-user", "show"])?;
            ensure!(text(&me, "/userPrincipalName")? == ADA, "{me}");
            let said = ada.fails(&["ad", "user", "list"])?;
            ensure!(said.contains("Insufficient privileges"), "az says: {said}");
            Ok(ada)
        },
    )?;
    let ada = journal.step(
        "identity",
        "the guide gives her group a role, and she has it",
        || {
            let said = ada.fails(&show)?;
            ensure!(said.contains("AuthorizationFailed"), "az says: {said}");
            let members = follow(&groups)?;
            ensure!(members.trim().ends_with(ADA), "{members}");
            // `az` reads the subscriptions at login; before, she saw none.
            let person = ["--username", ADA, "--password", PASSWORD];
            let ada = log_in(stamp, "azure-ada-member", &person)?;
            ada.json(&show)?;
            Ok(ada)
        },
    )?;
    journal.step(
        "identity",
        "the guide disables her: the next request is refused",
        || {
            follow(&sessions)?;
            let said = ada.fails(&show)?;
            ensure!(!said.contains("AuthorizationFailed"), "az says: {said}");
            follow(&enable)?;
            log_in(
                stamp,
                "azure-ada-2",
                &["--username", ADA, "--password", NEW_PASSWORD],
            )?
            .json(&show)
            .map(drop)
        },
    )?;
    let (client, secret) = journal.step(
        "identity",
        "the guide makes a program, which logs in with its secret",
        || {
            let told = follow(&programs)?;
            ensure!(told.contains("\tReader"), "{told}");
            let made = first_object(&told)?;
            let (client, secret) = (
                text(&made, "/appId")?.to_owned(),
                text(&made, "/password")?.to_owned(),
            );
            log_in(
                stamp,
                "azure-builds",
                &[
                    "--service-principal",
                    "--username",
                    &client,
                    "--password",
                    &secret,
                ],
            )?
            .json(&show)?;
            Ok((client, secret))
        },
    )?;
    journal.step(
        "identity",
        "the guide resets its secret: the old one is refused",
        || {
            let told = follow(&reset)?;
            let new = told
                .lines()
                .find_map(|line| line.strip_prefix("secret"))
                .context("the output has no secret")?
                .trim();
            let arguments = |secret| ["--service-principal", "--username", &client, "--password", secret];
            ensure!(
                log_in(stamp, "azure-old", &arguments(&secret)).is_err(),
                "the old secret holds"
            );
            log_in(stamp, "azure-new", &arguments(new))?.json(&show).map(drop)
        },
    )?;
    journal.step(
        "identity",
        "the guide adds what needs no secret, and managed identities",
        || {
            let told = follow(&federated)?;
            ensure!(told.contains("repo:shop:ref:main"), "{told}");
            let told = follow(&managed)?;
            ensure!(told.trim().ends_with("deploy"), "{told}");
            let identity = az.json(&[
                "identity",
                "show",
                "--name",
                "deploy",
                "--resource-group",
                IDENTITY,
            ])?;
            let principal = text(&identity, "/principalId")?;
            let found = az.json(&["ad", "sp", "show", "--id", principal])?;
            ensure!(
                text(&found, "/servicePrincipalType")? == "ManagedIdentity",
                "{found}"
            );
            Ok(())
        },
    )?;
    journal.step(
        "identity",
        "the guide gives a cluster the identity, and one of its own again",
        || {
            let deploy = [
                "identity",
                "show",
                "--name",
                "deploy",
                "--resource-group",
                IDENTITY,
            ];
            let deploy = az.json(&deploy)?;
            let told = follow(&assigned)?;
            let shown = format!("UserAssigned\n{}", text(&deploy, "/principalId")?);
            ensure!(told.contains(&shown), "no {shown} in {told}");
            let cluster = az.json(&["aks", "show", "--resource-group", FIRST, "--name", FIRST])?;
            ensure!(text(&cluster, "/identity/type")? == "SystemAssigned", "{cluster}");
            Ok(())
        },
    )?;
    journal.step("identity", "a cluster's identity is a principal", || {
        let cluster = az.json(&[
            "aks",
            "show",
            "--resource-group",
            "landfall",
            "--name",
            "landfall",
        ])?;
        let principal = text(&cluster, "/identity/principalId")?;
        az.json(&["ad", "sp", "show", "--id", principal]).map(drop)
    })?;
    journal.step(
        "identity",
        "the guide resets the stamp's own secrets: its commands go on",
        || {
            follow(&own)?;
            run(&mut stamp.landfall(&["identity", "user", "list"]))?;
            let password = std::fs::read_to_string(text(&stamp.summary, "/administrator/passwordFile")?)?;
            let person = ["--username", administrator, "--password", password.trim()];
            log_in(stamp, "azure-administrator", &person).map(drop)
        },
    )?;
    journal.step("identity", "the guide removes what it made", || {
        follow(&remove)?;
        let left = run(&mut stamp.landfall(&["identity", "user", "list"]))?;
        ensure!(!left.contains(ADA), "{left}");
        let told = follow(&log)?;
        for action in [
            "users/write",
            "groups/members/write",
            "applications/addPassword/action",
            "users/delete",
        ] {
            let line = format!("Landfall.Directory/{action}\tSucceeded");
            ensure!(told.contains(&line), "no {line} in: {told}");
        }
        az.json(&["group", "delete", "--name", IDENTITY, "--yes"])?;
        Ok(())
    })
}

/// An `az` that is logged in as this principal.
fn log_in(stamp: &Stamp, config: &str, who: &[&str]) -> Result<Az> {
    let mut az = stamp.fresh_az()?;
    az.config = stamp.directory.path().join(config);
    std::fs::create_dir_all(&az.config)?;
    register(stamp, &az)?;
    az.json(&[&["login", "--tenant", "adfs", "--allow-no-subscriptions"], who].concat())?;
    Ok(az)
}

/// The first JSON object of a text.
fn first_object(text: &str) -> Result<Value> {
    let begins = text.find('{').context("the output has no JSON")?;
    let mut values = serde_json::Deserializer::from_str(&text[begins..]).into_iter::<Value>();
    Ok(values.next().context("the output has no JSON")??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_the_blocks_that_are_followed() {
        let blocks = guide::exactly::<12>(GUIDE).unwrap();
        for (at, word) in [
            "user create",
            "disable",
            "enable",
            "group member",
            "create-for-rbac",
            "secret reset builds",
            "federated add",
            "identity create",
            "--assign-identity",
        ]
        .iter()
        .enumerate()
        {
            assert!(blocks[at].contains(word), "{word}");
        }
    }

    #[test]
    fn what_is_told_before_and_after_an_object_is_passed_over() {
        assert_eq!(first_object("a\n{\"b\": 1}\nc").unwrap()["b"], 1);
        assert!(first_object("nothing").is_err());
    }
}
