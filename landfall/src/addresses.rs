//! A stamp's addresses: its range and the port that it listens on, on a host where other stamps, and routes, have some already.

use std::{fs, net::SocketAddr};

use anyhow::{Context as _, Result};
use fabric_api::{StampNetwork, Uplink};
use ipnet::Ipv4Net;

use crate::{args::UplinkArg, places::Places, problem::Problem, stamp::Settings};

/// The other stamps on this host.
pub(crate) fn others(places: &Places) -> Result<Vec<(String, Settings)>> {
    let Some(base) = places.state.parent() else {
        return Ok(Vec::new());
    };
    let entries = match fs::read_dir(base) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", base.display())),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry
            .with_context(|| format!("cannot read {}", base.display()))?
            .file_name();
        let Some(name) = name.to_str().filter(|name| *name != places.name) else {
            continue;
        };
        let Ok(other) = Places::of(name) else { continue };
        if let Some(settings) = Settings::load(&other)? {
            found.push((name.to_owned(), settings));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Refuses an address that another stamp of this host has, whether it runs or not.
pub(crate) fn check_listen(places: &Places, listen: SocketAddr) -> Result<()> {
    let others = others(places)?;
    let Some((other, _)) = others.iter().find(|(_, settings)| settings.listen == listen) else {
        return Ok(());
    };
    Err(Problem::new(
        format!("stamp {other} already has the address {listen}"),
        format!(
            "choose another: landfall up --name {} --listen {}",
            places.name,
            next_port(listen, &others)
        ),
    )
    .into())
}

fn next_port(listen: SocketAddr, others: &[(String, Settings)]) -> SocketAddr {
    let mut next = listen;
    while others.iter().any(|(_, settings)| settings.listen == next) && next.port() < u16::MAX {
        next.set_port(next.port() + 1);
    }
    next
}

/// Ranges that this host routes somewhere.
pub(crate) fn taken_ranges() -> Vec<Ipv4Net> {
    // Without an answer nothing is known to be taken; the fabric reports a clash when it makes the network.
    crate::host::run("ip", &["-4", "-j", "route", "show", "table", "all"])
        .and_then(|json| Ok(fabric_net::route_destinations(&json)?))
        .inspect_err(|error| tracing::debug!(%error, "the host's routes are not known"))
        .unwrap_or_default()
}

/// The network that a stamp has, or will have; `None` where this host has no range left for it.
pub(crate) fn network_of(
    places: &Places,
    settings: Option<&Settings>,
    uplink: Option<UplinkArg>,
) -> Option<StampNetwork> {
    if let Some(settings) = settings {
        return Some(settings.network());
    }
    Some(StampNetwork {
        range: fabric_net::stamp_range(&places.name, &taken_ranges())?,
        uplink: uplink.map_or(Uplink::Host, Uplink::from),
    })
}

/// A range for a stamp: always the same for its name, unless something else has it.
pub(crate) fn free_range(name: &str, taken: &[Ipv4Net]) -> Result<Ipv4Net> {
    fabric_net::stamp_range(name, taken).ok_or_else(|| {
        Problem::new(
            format!(
                "all of {} is in use on this host, and the stamp needs a /{} of it",
                fabric_net::STAMP_POOL,
                fabric_net::STAMP_PREFIX
            ),
            "remove a stamp (landfall down --purge), or a route into that range",
        )
        .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_a_free_range_says_so() {
        let first = free_range("landfall", &[]).unwrap();
        assert_ne!(first, free_range("landfall", &[first]).unwrap());
        let error = free_range("x", &["100.64.0.0/10".parse().unwrap()]).unwrap_err();
        assert!(error.to_string().contains("100.64.0.0/10"), "{error}");
    }
}
