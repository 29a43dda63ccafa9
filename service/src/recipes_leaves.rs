//! A machine that is configured again has the certificates that it had, as long as they hold.

use std::{collections::BTreeMap, sync::Arc};

use cluster_bootstrap::Member;
use cluster_spec::ApiAccess;
use control_planner::Addresses;
use control_records::machine_config::RENEWED_AFTER;
use jiff::SignedDuration;

use super::{
    tests::{control_plane_machine, node, now, recipes, site},
    *,
};

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Rendered again on a later day, with what there was before.
fn again(
    site: &Site,
    machine: &MachineRecord,
    pki: &Secret,
    before: &MachineConfig,
    days: i32,
) -> Configured {
    let at = now() + DAY * days;
    let due = at - SignedDuration::try_from(RENEWED_AFTER).unwrap();
    let former = Former { config: before, due };
    recipes().config(site, machine, pki, Some(former), at, 2).unwrap()
}

/// The first configuration of a machine.
fn first(site: &Site, machine: &MachineRecord, pki: &Secret) -> MachineConfig {
    let configured = recipes().config(site, machine, pki, None, now(), 1).unwrap();
    assert_eq!(configured.issued_at, now());
    configured.config
}

fn files(config: &MachineConfig) -> BTreeMap<&str, &str> {
    let files = config.files.iter();
    files
        .map(|file| (file.path.as_str(), file.content.as_str()))
        .collect()
}

/// The paths of files that are not what they were.
fn changed<'a>(before: &'a MachineConfig, after: &'a MachineConfig) -> Vec<&'a str> {
    let (before, after) = (files(before), files(after));
    let paths = before.keys().chain(after.keys()).copied();
    let mut changed: Vec<&str> = paths.filter(|path| before.get(path) != after.get(path)).collect();
    changed.sort_unstable();
    changed.dedup();
    changed
}

/// How many certificates of programs there are.
fn leaves(config: &MachineConfig) -> usize {
    let files = files(config);
    let is_leaf = |path: &&&str| {
        path.strip_suffix(".crt")
            .is_some_and(|name| files.contains_key(format!("{name}.key").as_str()) && !name.ends_with("/ca"))
    };
    files.keys().filter(is_leaf).count()
}

#[test]
fn the_same_inputs_give_the_same_configuration_to_the_last_byte() {
    let site = site();
    let pki = recipes().pki(None, now()).unwrap();
    for machine in [control_plane_machine(), node("np1")] {
        let before = first(&site, &machine, &pki);
        let after = again(&site, &machine, &pki, &before, 100);
        assert_eq!(after.issued_at, now());
        let after = MachineConfig {
            generation: before.generation,
            ..after.config
        };
        assert!(after == before, "{:?}", changed(&before, &after));
    }
}

#[test]
fn a_setting_that_is_no_certificates_business_issues_none() {
    let pki = recipes().pki(None, now()).unwrap();
    let machine = control_plane_machine();
    let before = first(&site(), &machine, &pki);
    assert_eq!(leaves(&before), 12);
    // Who reaches the API server, and another member beside it.
    let mut other = site();
    let spec = ClusterSpec {
        access: ApiAccess::Private,
        ..other.cluster.spec().clone()
    };
    other.cluster = Arc::new(ClusterRecord::of_spec("0123456789", &spec, now()));
    other.control_plane.roaming = true;
    other.control_plane.members.push(Member {
        machine: "m2".to_owned(),
        stamp: "100.64.16.10".parse().unwrap(),
        vnet: "10.239.255.245".parse().unwrap(),
    });
    let after = again(&other, &machine, &pki, &before, 100);
    let changed = changed(&before, &after.config);
    assert!(
        changed.contains(&"/etc/landfall/etcd.json") && changed.contains(&"/etc/landfall/vip.json"),
        "{changed:?}"
    );
    let of_keys = |path: &&&str| path.ends_with(".crt") || path.ends_with(".key");
    assert_eq!(changed.iter().find(of_keys), None);
    assert_eq!(after.issued_at, now());
}

#[test]
fn another_name_issues_the_one_that_has_it_and_it_is_renewed_at_its_own_time() {
    let pki = recipes().pki(None, now()).unwrap();
    let machine = control_plane_machine();
    let before = first(&site(), &machine, &pki);
    let elsewhere = Site {
        addresses: Addresses {
            vip: "100.64.24.8".parse().unwrap(),
            ..site().addresses
        },
        ..site()
    };
    let server = [
        "/etc/kubernetes/pki/apiserver.crt",
        "/etc/kubernetes/pki/apiserver.key",
    ];
    let moved = again(&elsewhere, &machine, &pki, &before, 100);
    assert_eq!(changed(&before, &moved.config), server);
    assert_eq!(moved.issued_at, now(), "the others are as old as they are");
    // The others are due, it is not.
    let renewed = again(&elsewhere, &machine, &pki, &moved.config, 180);
    let others = changed(&moved.config, &renewed.config);
    assert_eq!(others.len(), 2 * 11, "{others:?}");
    assert!(!others.iter().any(|path| server.contains(path)));
    assert_eq!(renewed.issued_at, now() + DAY * 100);
}

#[test]
fn what_is_due_and_what_other_authorities_sign_is_new() {
    let site = site();
    let pki = recipes().pki(None, now()).unwrap();
    for (machine, count) in [(control_plane_machine(), 12), (node("np1"), 2)] {
        let before = first(&site, &machine, &pki);
        assert_eq!(leaves(&before), count);
        let held = again(&site, &machine, &pki, &before, 179);
        assert_eq!(changed(&before, &held.config), Vec::<&str>::new());
        let renewed = again(&site, &machine, &pki, &before, 180);
        assert_eq!(changed(&before, &renewed.config).len(), 2 * count);
        assert_eq!(renewed.issued_at, now() + DAY * 180);

        let trusted = recipes()
            .step_pki(&pki, &KeyStep::TrustAuthorities { asked: 1 }, now())
            .unwrap();
        let known = again(&site, &machine, &trusted, &before, 1);
        let bundles = changed(&before, &known.config);
        assert!(!bundles.is_empty() && bundles.iter().all(|path| path.ends_with("ca.crt")));
        let issuing = recipes()
            .step_pki(&trusted, &KeyStep::IssueFromNewAuthorities, now())
            .unwrap();
        let issued = again(&site, &machine, &issuing, &known.config, 1);
        assert_eq!(issued.issued_at, now() + DAY, "all of them");
    }
}
