//! Whether the host's firewall lets machines, this host and API servers communicate, tested by
//! `fabric/probe`.

use base_env::Env;
use fabric_api::StampNetwork;
use fabric_probe::{Blocked, Probe};

use super::check::Check;
use crate::{addresses, host, packages};

const NAME: &str = "network";

/// Tests every path that machines of this stamp need.
pub(super) fn checks(stamp: &str, network: StampNetwork, env: &Env) -> Vec<Check> {
    let lacking: Vec<String> = ["ip", "nft"]
        .into_iter()
        .filter(|program| host::find(program).is_none())
        .map(packages::named)
        .collect();
    if !lacking.is_empty() {
        return vec![Check::not_tried(
            NAME,
            format!("not tried: needs {}", lacking.join(", ")),
        )];
    }
    match Probe::new(stamp, network, &addresses::taken_ranges()).run(env) {
        Ok(outcome) if outcome.blocked.is_empty() => vec![Check::ok(
            NAME,
            format!(
                "the firewall lets pass what machines need, tried {} paths",
                outcome.tried.len()
            ),
        )],
        Ok(outcome) => outcome.blocked.iter().map(closed).collect(),
        Err(error) => {
            let error = anyhow::Error::from(error);
            vec![Check::warning(
                NAME,
                format!("not tried: {error:#}"),
                "nothing is wrong yet; where a cluster does not come up, look at this host's firewall first",
            )]
        }
    }
}

fn closed(blocked: &Blocked) -> Check {
    let Blocked {
        path,
        to,
        culprit,
        remedy,
    } = blocked;
    let what = format!("connections {} (tcp {to}) are dropped", path.name());
    match (culprit, remedy) {
        (Some(culprit), Some(remedy)) => Check::failed(
            NAME,
            format!("{what} by this host's firewall: {culprit}"),
            format!("let them pass: {remedy}"),
        ),
        _ => Check::failed(
            NAME,
            format!("{what}, and neither nftables nor iptables says by which rule"),
            "look at ebtables, rp_filter and security modules of this host",
        ),
    }
}
