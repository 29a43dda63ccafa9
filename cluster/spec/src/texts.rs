//! Parses texts of an ARM body with several values. Pure.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// `5` or `33%` as (number, whether a percentage): at most 1000, or 100 %.
pub fn count_or_percent(text: &str) -> Option<(u32, bool)> {
    let (digits, percent) = text
        .strip_suffix('%')
        .map_or((text, false), |digits| (digits, true));
    let plain = (1..=4).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let number = plain.then(|| digits.parse().ok()).flatten()?;
    (number <= if percent { 100 } else { 1000 }).then_some((number, percent))
}

/// A range of addresses, or a single one.
pub fn ip_range(text: &str) -> Option<Ipv4Net> {
    let address = || text.parse::<Ipv4Addr>().ok().map(Ipv4Net::from);
    text.parse::<Ipv4Net>()
        .ok()
        .or_else(address)
        .map(|range| range.trunc())
}

/// Key, value and effect of a taint `key=value:Effect` or `key:Effect`. Kubernetes may still refuse them.
pub fn taint(text: &str) -> Option<(&str, &str, &str)> {
    let (rest, effect) = text.rsplit_once(':')?;
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    Some((key, value, effect))
}
