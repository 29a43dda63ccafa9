//! The ways back: a control plane that emulates the minor release of before, and pools whose nodes have images of other builds.

use cluster_spec::Tier;

use super::{healing::standing, *};
use crate::disturb::Disturb;

const OLD: &str = "1.36.3";
const NEW: &str = "1.37.1";

fn ask(ideal: &mut Ideal, change: impl FnOnce(&mut ClusterSpec)) {
    ideal.desired.change_spec(change);
    ideal.desired.generation += 1;
}

/// The versions that members of the control plane run.
fn members(ideal: &Ideal) -> BTreeSet<&str> {
    let ids = ideal.seen.machines.iter();
    ids.filter(|(_, machine)| machine.node_name().is_none())
        .map(|(id, _)| ideal.runs(id))
        .collect()
}

/// The builds that nodes have, and how many have each.
fn builds(ideal: &Ideal) -> BTreeMap<Option<String>, usize> {
    let mut found = BTreeMap::new();
    for machine in ideal.seen.machines.values() {
        if machine.node_name().is_some() && !machine.record.deleting {
            *found.entry(machine.record.build.clone()).or_default() += 1;
        }
    }
    found
}

/// Runs until nothing is left; no two members are taken away at a time.
fn watch(ideal: &mut Ideal, mut see: impl FnMut(&Ideal)) {
    for _ in 0..600 {
        let left = ideal.pass();
        let machines = ideal.seen.machines.values();
        let upgrading = machines.filter(|machine| machine.record.upgrading().is_some());
        assert!(upgrading.count() <= 1, "one member at a time");
        see(ideal);
        if !left {
            return;
        }
    }
    panic!("it does not converge: {:#?}", ideal.plan());
}

/// By member: the generation of its configuration.
fn configured(ideal: &Ideal) -> BTreeMap<String, u64> {
    let machines = ideal.seen.machines.iter();
    let members = machines.filter(|(_, machine)| machine.node_name().is_none());
    members
        .filter_map(|(id, machine)| match machine.config {
            ConfigSeen::Published { generation, .. } => Some((id.clone(), generation)),
            _ => None,
        })
        .collect()
}

#[test]
fn members_know_what_to_emulate_before_any_goes_on_and_all_go_back() {
    for tier in [Tier::Free, Tier::Standard] {
        let mut ideal = standing(tier, vec![pool("a", 1)]);
        let before = configured(&ideal);
        ask(&mut ideal, |spec| {
            spec.kubernetes_version = NEW.to_owned();
            spec.emulated = Some("1.36".to_owned());
        });
        let mut begun = false;
        watch(&mut ideal, |ideal| {
            if !begun && members(ideal).contains(NEW) {
                begun = true;
            }
            let now = configured(ideal);
            for (id, machine) in &ideal.seen.machines {
                if machine.record.upgrading().is_some() {
                    assert!(now[id] > before[id], "what to emulate came before");
                }
            }
        });
        assert!(begun);
        assert_eq!(members(&ideal), BTreeSet::from([NEW]));
        assert_eq!(ideal.seen.observed.kubernetes_version.as_deref(), Some(NEW));
        assert_eq!(ideal.nodes_of("a").len(), 1);

        // Back, a member at a time, with what it is configured with.
        let emulating = configured(&ideal);
        ask(&mut ideal, |spec| spec.kubernetes_version = OLD.to_owned());
        watch(&mut ideal, |_| {});
        assert_eq!(members(&ideal), BTreeSet::from([OLD]));
        assert_eq!(configured(&ideal), emulating, "one restart each");
        assert_eq!(ideal.seen.observed.kubernetes_version.as_deref(), Some(OLD));
        assert_eq!(ideal.seen.observed.generation, 3);
    }
}

#[test]
fn what_is_finalised_does_not_go_back() {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    ask(&mut ideal, |spec| {
        spec.kubernetes_version = NEW.to_owned();
        spec.emulated = Some("1.36".to_owned());
    });
    watch(&mut ideal, |_| {});
    let before = configured(&ideal);
    ask(&mut ideal, |spec| spec.emulated = None);
    watch(&mut ideal, |_| {});
    let after = configured(&ideal);
    assert!(
        after.iter().all(|(id, now)| *now > before[id]),
        "each member is told: {before:?} {after:?}"
    );
    assert_eq!(members(&ideal), BTreeSet::from([NEW]));
    ask(&mut ideal, |spec| spec.kubernetes_version = OLD.to_owned());
    watch(&mut ideal, |_| {});
    assert_eq!(members(&ideal), BTreeSet::from([NEW]));
}

#[test]
fn a_member_of_which_it_is_not_known_what_it_emulates_is_not_taken_on() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    ask(&mut ideal, |spec| {
        spec.kubernetes_version = NEW.to_owned();
        spec.emulated = Some("1.36".to_owned());
    });
    let id = ideal.control_plane_ids().remove(0);
    let may = |ideal: &Ideal| {
        let draft = Draft::new(&ideal.desired, &ideal.seen, &ideal.policy, ideal.now, true);
        let member = &ideal.seen.machines[&id];
        draft.may(Disturb::Upgrade { id: &id, member }).map(drop)
    };
    let obstacle = may(&ideal).unwrap_err();
    assert!(obstacle.contains("what it is to emulate"), "{obstacle}");
    // It is configured, and has not said that it has taken that.
    ideal.pass();
    let told = ideal.seen.machines[&id].report.clone();
    ideal.seen.machines.get_mut(&id).unwrap().report = None;
    assert!(may(&ideal).is_err());
    ideal.seen.machines.get_mut(&id).unwrap().report = told;
    assert_eq!(may(&ideal), Ok(()));
}

#[test]
fn nodes_have_the_build_that_the_pool_is_to_have_and_go_back_to_the_one_before() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 3)]);
    assert_eq!(builds(&ideal), BTreeMap::from([(None, 3)]));
    // A build that was not known of before is no reason to replace a node.
    ask(&mut ideal, |spec| {
        spec.pools[0].image = Some("2026.11.28".to_owned());
    });
    watch(&mut ideal, |_| {});
    assert_eq!(builds(&ideal), BTreeMap::from([(None, 3)]));
    let renewed = ideal.now.as_millisecond();
    ask(&mut ideal, |spec| spec.pools[0].renewed = Some(renewed));
    watch(&mut ideal, |_| {});
    let first = Some("2026.11.28".to_owned());
    assert_eq!(builds(&ideal), BTreeMap::from([(first.clone(), 3)]));
    for build in ["2026.12.05", "2026.11.28"] {
        ask(&mut ideal, |spec| spec.pools[0].image = Some(build.to_owned()));
        let waits = ideal.plan().waits.join("\n");
        assert!(waits.contains(&format!("AKSDebian-{build}")), "{waits}");
        watch(&mut ideal, |ideal| {
            assert!(
                builds(ideal).values().sum::<usize>() <= 4,
                "one more than there are to be"
            );
        });
        assert_eq!(builds(&ideal), BTreeMap::from([(Some(build.to_owned()), 3)]));
    }
    assert_eq!(builds(&ideal), BTreeMap::from([(first, 3)]));
}

#[test]
fn a_pool_goes_back_to_its_version_and_build() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 2)]);
    ask(&mut ideal, |spec| {
        spec.kubernetes_version = NEW.to_owned();
        spec.pools[0].kubernetes_version = NEW.to_owned();
        spec.pools[0].image = Some("2026.12.05".to_owned());
    });
    watch(&mut ideal, |_| {});
    ask(&mut ideal, |spec| {
        spec.pools[0].kubernetes_version = OLD.to_owned();
        spec.pools[0].image = Some("2026.11.28".to_owned());
    });
    let waits = ideal.plan().waits.join("\n");
    assert!(
        waits.contains("taking pool a back to Kubernetes 1.36.3"),
        "{waits}"
    );
    watch(&mut ideal, |_| {});
    assert_eq!(members(&ideal), BTreeSet::from([NEW]), "the control plane stays");
    for id in ideal.nodes_of("a") {
        assert_eq!(ideal.runs(&id), OLD);
    }
    assert_eq!(
        builds(&ideal),
        BTreeMap::from([(Some("2026.11.28".to_owned()), 2)])
    );
}
