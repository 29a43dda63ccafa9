//! Choosing addresses: always the lowest that is free, so that the same state gives the same choice.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::Ipv4Net;

/// The lowest address of `range` that is not in `used`, without the first `skip` of the range (`1` leaves out the network address, `4`
/// what Azure keeps for itself besides) and without the last. `None` when there is none.
pub fn lowest_free_address(range: Ipv4Net, skip: u32, used: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let first = u32::from(range.network()).checked_add(skip)?;
    let last = u32::from(range.broadcast()).checked_sub(1)?;
    (first..=last)
        .map(Ipv4Addr::from)
        .find(|address| !used.contains(address))
}

/// The lowest range of `prefix` bits inside `pool` that overlaps nothing in `used`. `None` when there is none, or when `prefix` is wider
/// than the pool or more than 32.
pub fn lowest_free_range(pool: Ipv4Net, prefix: u8, used: &BTreeSet<Ipv4Net>) -> Option<Ipv4Net> {
    if prefix < pool.prefix_len() || prefix > 32 {
        return None;
    }
    let mut taken: Vec<(u64, u64)> = used.iter().map(|range| (start(*range), end(*range))).collect();
    taken.sort_unstable();
    let at = lowest_gap(start(pool), end(pool), 1 << (32 - prefix), &taken)?;
    Ipv4Net::new(at, prefix).ok()
}

/// The lowest aligned block of at least `count` addresses (rounded up to a power of two) of `subnet` that holds none of `used`, none of the
/// first `skip` addresses of the subnet and not its last. `None` when there is none, or when `count` is zero.
pub fn lowest_free_block(
    subnet: Ipv4Net,
    count: u32,
    skip: u32,
    used: &BTreeSet<Ipv4Addr>,
) -> Option<Ipv4Net> {
    if count == 0 {
        return None;
    }
    let size = u64::from(count).next_power_of_two();
    if size > 1 << (32 - subnet.prefix_len()) {
        return None;
    }
    let (first, last) = (start(subnet), end(subnet));
    let mut taken: Vec<(u64, u64)> = used
        .iter()
        .map(|address| u64::from(u32::from(*address)))
        .map(|at| (at, at))
        .collect();
    taken.push((last, last));
    if skip > 0 {
        taken.push((first, first + u64::from(skip) - 1));
    }
    taken.sort_unstable();
    let at = lowest_gap(first, last, size, &taken)?;
    let prefix = 32 - u8::try_from(size.trailing_zeros()).ok()?;
    Ipv4Net::new(at, prefix).ok()
}

/// The lowest multiple of `size` in `first..=last` where `size` numbers in a row meet no interval of `taken` (sorted by start).
fn lowest_gap(first: u64, last: u64, size: u64, taken: &[(u64, u64)]) -> Option<Ipv4Addr> {
    let mut at = first.next_multiple_of(size);
    for (from, to) in taken {
        if at + size <= *from {
            break;
        }
        if *to >= at {
            at = (to + 1).next_multiple_of(size);
        }
    }
    if at + size - 1 > last {
        return None;
    }
    u32::try_from(at).ok().map(Ipv4Addr::from)
}

fn start(range: Ipv4Net) -> u64 {
    u64::from(u32::from(range.network()))
}

fn end(range: Ipv4Net) -> u64 {
    u64::from(u32::from(range.broadcast()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    /// A small world, so that exhausting it is likely: addresses of 10.0.0.0/26.
    fn addresses() -> impl Strategy<Value = BTreeSet<Ipv4Addr>> {
        proptest::collection::btree_set((0_u8..64).prop_map(|last| Ipv4Addr::new(10, 0, 0, last)), 0..64)
    }

    fn ranges() -> impl Strategy<Value = BTreeSet<Ipv4Net>> {
        proptest::collection::btree_set(
            (0_u8..16, 22_u8..=26).prop_map(|(third, prefix)| {
                Ipv4Net::new(Ipv4Addr::new(10, 1, third, 0), prefix)
                    .unwrap()
                    .trunc()
            }),
            0..12,
        )
    }

    fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
        a.contains(&b) || b.contains(&a)
    }

    proptest! {
        #[test]
        fn addresses_are_free_inside_and_lowest(used in addresses(), skip in 0_u32..8) {
            let range = net("10.0.0.0/26");
            let from = u32::from(range.network());
            let expected = (from + skip..from + 63).map(Ipv4Addr::from).find(|address| !used.contains(address));
            prop_assert_eq!(lowest_free_address(range, skip, &used), expected);
        }

        #[test]
        fn ranges_are_free_inside_and_lowest(used in ranges(), prefix in 20_u8..=26) {
            let pool = net("10.1.0.0/20");
            let expected = pool
                .subnets(prefix)
                .unwrap()
                .find(|candidate| !used.iter().any(|other| overlap(*candidate, *other)));
            prop_assert_eq!(lowest_free_range(pool, prefix, &used), expected);
        }

        #[test]
        fn blocks_are_free_inside_aligned_and_lowest(used in addresses(), count in 1_u32..40, skip in 0_u32..8) {
            let subnet = net("10.0.0.0/26");
            let prefix = 32 - count.next_power_of_two().trailing_zeros() as u8;
            let expected = subnet.subnets(prefix).unwrap().find(|block| {
                !used.iter().any(|address| block.contains(address))
                    && (0..skip).all(|index| !block.contains(&Ipv4Addr::from(u32::from(subnet.network()) + index)))
                    && !block.contains(&subnet.broadcast())
            });
            prop_assert_eq!(lowest_free_block(subnet, count, skip, &used), expected);
        }
    }

    #[test]
    fn the_edges_of_the_address_space_are_no_trap() {
        let none = BTreeSet::new();
        let half = BTreeSet::from([net("255.255.255.0/25")]);
        assert_eq!(lowest_free_range(net("255.255.255.0/24"), 24, &half), None);
        assert_eq!(
            lowest_free_range(net("0.0.0.0/0"), 0, &BTreeSet::new()),
            Some(net("0.0.0.0/0"))
        );
        assert_eq!(lowest_free_range(net("10.0.0.0/24"), 16, &BTreeSet::new()), None);
        assert_eq!(lowest_free_address(net("255.255.255.255/32"), 1, &none), None);
        assert_eq!(
            lowest_free_block(net("255.255.255.0/24"), 128, 0, &none),
            Some(net("255.255.255.0/25"))
        );
        assert_eq!(lowest_free_block(net("10.0.0.0/24"), 0, 0, &none), None);
        assert_eq!(lowest_free_block(net("10.0.0.0/24"), 257, 0, &none), None);
    }
}
