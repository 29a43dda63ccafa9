//! Ten years of a cluster's certificates: renewed by their age, under two further generations of authorities.

use std::collections::BTreeMap;

use agent_protocol::MachineConfig;
use control_records::{KeyStep, machine_config::RENEWED_AFTER};
use jiff::{SignedDuration, Timestamp};
use x509_parser::pem::Pem;

use super::{
    tests::{control_plane_machine, node, now, recipes, site},
    *,
};

const DAY: SignedDuration = SignedDuration::from_hours(24);
const PKI: &str = "/etc/kubernetes/pki/";

/// A file of a configuration.
fn file<'a>(config: &'a MachineConfig, path: &str) -> Option<&'a str> {
    let found = config.files.iter().find(|file| file.path == path);
    found.map(|file| file.content.as_str())
}

/// Certificates of a text.
fn pems(text: &str) -> Vec<Pem> {
    Pem::iter_from_buffer(text.as_bytes())
        .map(|pem| pem.unwrap())
        .collect()
}

/// The file with the authorities that a leaf is verified with.
fn verified_with(leaf: &str) -> String {
    let own = leaf.strip_prefix(PKI).unwrap_or(leaf);
    let authorities = if own.starts_with("etcd/") {
        "etcd/ca.crt"
    } else if own.starts_with("front-proxy-client") {
        "front-proxy-ca.crt"
    } else {
        "ca.crt"
    };
    format!("{PKI}{authorities}")
}

/// Every leaf of every machine is good at that moment, and every machine that has to do with its kind trusts who has signed it. Gives how many there were.
fn check(configs: &BTreeMap<String, MachineConfig>, at: Timestamp, signatures: bool) -> usize {
    let mut leaves = 0;
    for (holder, config) in configs {
        for own in config.files.iter().filter(|file| file.path.ends_with(".crt")) {
            let pem = pems(&own.content).remove(0);
            let leaf = pem.parse_x509().unwrap();
            if leaf.is_ca() {
                continue;
            }
            leaves += 1;
            let (from, to) = (
                leaf.validity().not_before.timestamp(),
                leaf.validity().not_after.timestamp(),
            );
            let moment = at.as_second();
            assert!(from <= moment && moment < to, "{holder}: {} at {at}", own.path);
            // A third of its life is left at least: nobody is ever told of it.
            assert!((to - moment) * 3 > to - from, "{holder}: {} at {at}", own.path);
            for (other, trusting) in configs.iter().filter(|_| signatures) {
                let Some(bundle) = file(trusting, &verified_with(&own.path)) else {
                    continue;
                };
                let trusted = pems(bundle).iter().any(|authority| {
                    let authority = authority.parse_x509().unwrap();
                    leaf.verify_signature(Some(authority.public_key())).is_ok()
                });
                assert!(trusted, "{other} does not trust {} of {holder} at {at}", own.path);
            }
        }
    }
    leaves
}

/// Every machine has another configuration, one after the other, as loops give it: those that have it already and those that have not trust each other. Gives
/// how many certificates were issued for it.
fn configure(
    configs: &mut BTreeMap<String, MachineConfig>,
    issued: &mut BTreeMap<String, Timestamp>,
    machines: &[&MachineRecord],
    pki: &Secret,
    at: Timestamp,
) -> usize {
    let (recipes, site) = (recipes(), site());
    let due = at - SignedDuration::try_from(RENEWED_AFTER).unwrap();
    let mut fresh = 0;
    for machine in machines {
        let before = configs.get(&machine.id);
        let former = before.map(|config| Former { config, due });
        let Configured { config, issued_at } = recipes.config(&site, machine, pki, former, at, 1).unwrap();
        let certificates = config.files.iter().filter(|file| file.path.ends_with(".crt"));
        fresh += certificates
            .filter(|own| {
                let leaf = pems(&own.content).remove(0);
                let leaf = leaf.parse_x509().unwrap();
                let known = before.and_then(|before| file(before, &own.path));
                !leaf.is_ca() && known != Some(own.content.as_str())
            })
            .count();
        issued.insert(machine.id.clone(), issued_at);
        configs.insert(machine.id.clone(), config);
        check(configs, at, true);
    }
    fresh
}

#[test]
fn every_leaf_is_renewed_in_time_for_ten_years_under_two_generations_of_authorities() {
    let machines = [control_plane_machine(), node("np1")];
    let all: Vec<&MachineRecord> = machines.iter().collect();
    let mut pki = recipes().pki(None, now()).unwrap();
    let mut configs: BTreeMap<String, MachineConfig> = BTreeMap::new();
    let mut issued: BTreeMap<String, Timestamp> = BTreeMap::new();
    let (mut renewed, mut rotated, mut other) = (0, 0, 0);
    for day in (0..3_650).step_by(10) {
        let at = now() + DAY * day;
        let is_due = |issued: &Timestamp| *issued + SignedDuration::try_from(RENEWED_AFTER).unwrap() <= at;
        let due: Vec<&MachineRecord> = machines
            .iter()
            .filter(|machine| issued.get(&machine.id).is_none_or(is_due))
            .collect();
        if !due.is_empty() {
            renewed += due.len();
            let fresh = configure(&mut configs, &mut issued, &due, &pki, at);
            assert!(fresh >= 13, "{fresh} are renewed");
        }
        // Something else changes, four times a year: it puts no renewal off.
        if day % 90 == 50 {
            let fresh = configure(&mut configs, &mut issued, &all, &pki, at);
            assert_eq!(fresh, 0, "on day {day}");
            other += 1;
        }
        // In the third and in the seventh year.
        if [1_100, 2_560].contains(&day) {
            for (step, issues) in [
                (KeyStep::TrustAuthorities { asked: 1 }, false),
                (KeyStep::IssueFromNewAuthorities, true),
                (KeyStep::DropFormerAuthorities, false),
            ] {
                pki = recipes().step_pki(&pki, &step, at).unwrap();
                rotated += 1;
                let fresh = configure(&mut configs, &mut issued, &all, &pki, at);
                assert_eq!(fresh >= 13, issues, "{step:?}: {fresh}");
                assert_eq!(fresh == 0, !issues, "{step:?}: {fresh}");
            }
        }
        let leaves = check(&configs, at, false);
        assert!(leaves >= 13, "{leaves} leaves");
    }
    assert_eq!((rotated, other), (6, 40));
    // Every half a year, and once more for each rotation.
    assert!((38..=42).contains(&renewed), "{renewed}");
}
