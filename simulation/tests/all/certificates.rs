//! Certificates of machines over the life of a cluster, through the real edge, provider and loops: none is issued again while it holds.

use std::collections::BTreeMap;

use agent_protocol::MachineConfig;
use anyhow::{Context as _, Result, ensure};
use control_records::machine_config::StoredConfig;
use simulation::{run, script::Player};

type Configurations = BTreeMap<String, StoredConfig<MachineConfig>>;

/// The certificates of a machine's programs and their keys, by path.
fn leaves(config: &MachineConfig) -> BTreeMap<&str, &str> {
    let all: BTreeMap<&str, &str> = config
        .files
        .iter()
        .map(|file| (file.path.as_str(), file.content.as_str()))
        .collect();
    let is_leaf = |path: &str| {
        let name = path
            .strip_suffix(".crt")
            .or_else(|| path.strip_suffix(".key"))
            .filter(|name| !name.ends_with("/ca"));
        name.is_some_and(|name| {
            [".crt", ".key"]
                .iter()
                .all(|ending| all.contains_key(format!("{name}{ending}").as_str()))
        })
    };
    all.iter()
        .filter(|(path, _)| is_leaf(path))
        .map(|(path, content)| (*path, *content))
        .collect()
}

/// How many machines were configured again, and how many of the files of their certificates are others.
fn issued(before: &Configurations, after: &Configurations) -> (usize, usize) {
    let (mut again, mut others) = (0, 0);
    for (id, before) in before {
        let Some(after) = after.get(id) else { continue };
        again += usize::from(after.config.generation > before.config.generation);
        let (before, after) = (leaves(&before.config), leaves(&after.config));
        let paths = before
            .keys()
            .chain(after.keys().filter(|path| !before.contains_key(*path)));
        others += paths.filter(|path| before.get(*path) != after.get(*path)).count();
    }
    (again, others)
}

#[test]
fn machines_that_are_configured_again_have_the_certificates_that_they_had() -> Result<()> {
    run(async || {
        let mut player = Player::new(1).await?;
        for line in ["start", "create c1 np1=2", "settle"] {
            player.command(line).await?;
        }
        let uid = player.stamp.cluster("c1").await?.context("no cluster")?.uid;
        let made = player.stamp.configurations(&uid).await?;
        ensure!(made.len() == 3, "{} machines are configured", made.len());
        let all: usize = made.values().map(|stored| leaves(&stored.config).len()).sum();
        ensure!(all == 2 * (12 + 2 + 2), "{all} files of certificates");

        // Another key of service accounts: each machine is configured again, twice.
        for line in ["rotate c1 keys", "settle"] {
            player.command(line).await?;
        }
        let signed = player.stamp.configurations(&uid).await?;
        let told = issued(&made, &signed);
        ensure!(told == (3, 0), "{told:?}");

        // Two members more, by a process that has to read what there is; killed while it is at it.
        for line in [
            "kill",
            "start",
            "tier c1 Standard",
            "wait 1",
            "kill",
            "start",
            "settle",
        ] {
            player.command(line).await?;
        }
        let grown = player.stamp.configurations(&uid).await?;
        ensure!(grown.len() == 5, "{} machines are configured", grown.len());
        let told = issued(&signed, &grown);
        ensure!(told.0 >= 1 && told.1 == 0, "{told:?}");

        // Other CAs: all of them.
        for line in ["rotate c1 certificates", "settle"] {
            player.command(line).await?;
        }
        let rotated = player.stamp.configurations(&uid).await?;
        let told = issued(&grown, &rotated);
        ensure!(told == (5, 2 * (3 * 12 + 2 * 2)), "{told:?}");
        Ok(())
    })
}
