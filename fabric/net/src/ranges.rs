//! Selects the range of a stamp's network.

use ipnet::Ipv4Net;
use serde_json::Value;

use crate::{ReadError, short_hash};

/// The pool of stamps' networks, the shared address space (RFC 6598): not routed on the internet, and unusual
/// in homes and offices.
pub const STAMP_POOL: &str = "100.64.0.0/10";

/// Size of a stamp's network: half for machines and uplinks, half for VIPs, 2,047 each.
pub const STAMP_PREFIX: u8 = 20;

/// A range for the stamp of this name: always the same, unless a range in `taken` (routes of the host, other
/// stamps) overlaps it; then the next free one. Default routes in `taken` do not count. `None` when all are
/// taken.
pub fn stamp_range(stamp: &str, taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    let pool: Ipv4Net = STAMP_POOL.parse().expect("a constant that parses");
    let all: Vec<Ipv4Net> = pool
        .subnets(STAMP_PREFIX)
        .expect("20 bits are narrower than 10")
        .collect();
    let start = short_hash(&["range", stamp], 6)
        .bytes()
        .fold(0_usize, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(usize::from(byte))
        });
    (0..all.len())
        .map(|step| all[(start + step) % all.len()])
        .find(|range| {
            !taken
                .iter()
                .any(|other| other.prefix_len() > 0 && (other.contains(range) || range.contains(other)))
        })
}

/// The destinations in the output of `ip -j route show table all`, for [`stamp_range`]. Default routes are
/// skipped.
///
/// # Errors
/// When it is not output of `ip`.
pub fn route_destinations(json: &str) -> Result<Vec<Ipv4Net>, ReadError> {
    let routes: Vec<Value> = serde_json::from_str(json)?;
    Ok(routes
        .iter()
        .filter_map(|route| route.get("dst")?.as_str())
        .filter_map(crate::link::parse_destination)
        .filter(|range| range.prefix_len() > 0)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn routes_of_the_host_are_avoided() {
        let json = r#"[{"dst":"default","gateway":"192.0.2.1"},{"dst":"192.0.2.0/24"},{"type":"local","dst":"127.0.0.1"},{"dst":"fe80::/64"}]"#;
        let taken = route_destinations(json).unwrap();
        assert_eq!(
            taken,
            ["192.0.2.0/24".parse().unwrap(), "127.0.0.1/32".parse().unwrap()]
        );
        let first = stamp_range("landfall", &taken).unwrap();
        assert_eq!(
            stamp_range("landfall", &["0.0.0.0/0".parse().unwrap()]),
            Some(first)
        );
        assert!(stamp_range("landfall", &["100.64.0.0/10".parse().unwrap()]).is_none());
        assert!(route_destinations("{").is_err());
    }

    proptest! {
        #[test]
        fn the_range_is_stable_free_and_in_the_pool(stamp in "[a-z][a-z0-9-]{0,20}", taken in proptest::collection::vec((64_u8..128, any::<u8>(), 9_u8..=32), 0..40)) {
            let taken: Vec<Ipv4Net> = taken.into_iter().map(|(second, third, prefix)| {
                Ipv4Net::new(std::net::Ipv4Addr::new(100, second, third, 7), prefix).unwrap().trunc()
            }).collect();
            let choice = stamp_range(&stamp, &taken);
            prop_assert_eq!(choice, stamp_range(&stamp, &taken));
            if let Some(range) = choice {
                prop_assert!(STAMP_POOL.parse::<Ipv4Net>().unwrap().contains(&range));
                prop_assert_eq!(range.prefix_len(), STAMP_PREFIX);
                prop_assert!(taken.iter().all(|other| !other.contains(&range) && !range.contains(other)));
                let free = stamp_range(&stamp, &[]).unwrap();
                prop_assert!(free == range || taken.iter().any(|other| other.contains(&free) || free.contains(other)));
            }
        }
    }
}
