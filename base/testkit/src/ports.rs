//! Loopback ports for servers that are started with a fixed port, and may be restarted with it.

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::BuildHasher as _,
    net::{Ipv4Addr, TcpListener},
};

/// The usual start of the kernel's range for outgoing connections.
const USUAL: u16 = 32_768;
/// The number of ports below it to choose from.
const CHOICES: u16 = 12_000;

/// A free port of the loopback.
///
/// It lies below the kernel's range for outgoing connections: a server that is started later, or again, would
/// sometimes find such a port in use by a connection. Chosen at random, so that parallel tests rarely pick
/// the same.
///
/// # Panics
/// When no port is free.
pub fn port() -> u16 {
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .unwrap_or(USUAL)
        .max(CHOICES + 1_024);
    let chance = RandomState::new().hash_one(first) % u64::from(CHOICES);
    let start = u16::try_from(chance).unwrap_or_default();
    (0..CHOICES)
        .map(|step| first - 1 - (start + step) % CHOICES)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a port of the loopback is free")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_can_be_listened_at() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port())).unwrap();
        assert!(taken.local_addr().unwrap().port() >= 1_024);
    }
}
