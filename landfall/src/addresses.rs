//! Address ranges of this host that other stamps or routes already use.

use std::net::SocketAddr;

use anyhow::Result;
use fabric_api::{StampNetwork, Uplink};
use ipnet::Ipv4Net;

use crate::{
    args::UplinkArg,
    places::Places,
    problem::Problem,
    stamp::{Settings, others},
};

/// Refuses an address that another stamp of this host has, running or not.
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

/// Ranges that this host has routes for.
pub(crate) fn taken_ranges() -> Vec<Ipv4Net> {
    // If the program fails, no range counts as taken; the fabric reports a clash when it makes the network.
    crate::host::run("ip", &["-4", "-j", "route", "show", "table", "all"])
        .and_then(|json| Ok(fabric_net::route_destinations(&json)?))
        .inspect_err(|error| tracing::debug!(%error, "the host's routes are not known"))
        .unwrap_or_default()
}

/// The present or future network of a stamp; `None` if this host has no free range for it.
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
