//! Commands that are requests of tenants.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::Wish;

/// The command as a request of a tenant, if it is one.
pub(super) fn wish(words: &[&str]) -> Result<Option<Wish>> {
    let own = |text: &&str| (*text).to_owned();
    Ok(Some(match words {
        ["create", cluster, rest @ ..] => {
            let (mut pools, mut plugin, mut tier) = (Vec::new(), None, None);
            for word in rest {
                match word.split_once('=').context("a word without '='")? {
                    ("plugin", value) => plugin = Some(value.to_owned()),
                    ("tier", value) => tier = Some(value.to_owned()),
                    (pool, count) => pools.push((pool.to_owned(), count.parse()?)),
                }
            }
            Wish::Create {
                cluster: own(cluster),
                pools,
                plugin,
                tier,
            }
        }
        ["pool", cluster, pool, count] => Wish::Pool {
            cluster: own(cluster),
            pool: own(pool),
            count: count.parse()?,
        },
        ["label", cluster, pool, label] => {
            let (key, value) = label.split_once('=').context("a label without '='")?;
            Wish::Label {
                cluster: own(cluster),
                pool: own(pool),
                label: (key.to_owned(), value.to_owned()),
            }
        }
        ["taint", cluster, pool, taint] => Wish::Taint {
            cluster: own(cluster),
            pool: own(pool),
            taint: own(taint),
        },
        ["drop", cluster, pool] => Wish::Drop {
            cluster: own(cluster),
            pool: own(pool),
        },
        ["tier", cluster, tier] => Wish::Tier {
            cluster: own(cluster),
            tier: own(tier),
        },
        ["upgrade", cluster, version, only @ ..] => Wish::Upgrade {
            cluster: own(cluster),
            version: own(version),
            only: only.first().map(own),
        },
        ["soak", cluster, version] => Wish::Soak {
            cluster: own(cluster),
            version: own(version),
        },
        ["finalize", cluster] => Wish::Finalize {
            cluster: own(cluster),
        },
        ["roll-back", cluster, version] => Wish::RollBack {
            cluster: own(cluster),
            version: own(version),
        },
        ["roll-back", cluster, pool, version] => Wish::PoolBack {
            cluster: own(cluster),
            pool: own(pool),
            version: own(version),
        },
        ["renew", cluster, pool] => Wish::Renew {
            cluster: own(cluster),
            pool: own(pool),
        },
        ["delete", cluster] => Wish::Delete {
            cluster: own(cluster),
        },
        ["delete-group"] => Wish::DeleteGroup,
        ["abort", cluster] => Wish::Abort {
            cluster: own(cluster),
        },
        ["power", cluster, to @ ("off" | "on")] => Wish::Power {
            cluster: own(cluster),
            stopped: *to == "off",
        },
        ["rotate", cluster, what @ ("certificates" | "keys")] => Wish::Rotate {
            cluster: own(cluster),
            keys: *what == "keys",
        },
        ["restore", cluster, ago, new @ ..] => Wish::Restore {
            cluster: own(cluster),
            ago: ago.parse()?,
            new: new.first().map(own),
        },
        _ => return Ok(None),
    }))
}

/// `upgradeSettings` of a pool.
pub(super) fn upgrade_settings(words: &[&str]) -> Result<Value> {
    let mut settings = json!({});
    for word in words {
        let (name, value) = word.split_once('=').context("a word without '='")?;
        match name {
            "surge" => settings["maxSurge"] = json!(value),
            "unavailable" => settings["maxUnavailable"] = json!(value),
            "drain" => settings["drainTimeoutInMinutes"] = json!(value.parse::<u32>()?),
            "soak" => settings["nodeSoakDurationInMinutes"] = json!(value.parse::<u32>()?),
            "undrainable" => settings["undrainableNodeBehavior"] = json!(value),
            _ => bail!("there is no such setting of upgrades"),
        }
    }
    Ok(settings)
}
