use jiff::Timestamp;

use super::{ask, facts, of, said, t};
use crate::{
    Advisory, Area, Change, ChangeKind, Fact, Facts, Issue, Means, Minor, Plugin, Pool, Profile, Reboot,
    Registration, State, Subscription, next_change,
};

/// The state of an area.
fn area(facts: &Facts, profile: Profile, at: &str, area: Area) -> State {
    let state = ask(facts, profile, at);
    let found = state.areas.iter().find(|(found, _)| *found == area);
    found.unwrap().1
}

#[test]
fn v1_a_minor_is_warned_of_before_its_end() {
    let of_35 = facts(35);
    // A year from its release.
    assert_eq!(
        said(&of_35, Profile::Arc, "2028-03-01"),
        (State::Supported, vec![])
    );
    let warned = ask(&of_35, Profile::Arc, "2028-03-02");
    assert_eq!(
        (warned.state, warned.until),
        (State::Warning, Some(t("2028-05-01")))
    );
    let reason = of(&warned, "V1")[0];
    assert_eq!(
        (reason.by, reason.since),
        (Some(t("2028-05-01")), Some(t("2027-10-01")))
    );
    assert!(reason.sentence.contains("2028-05-01"), "{reason:?}");
    assert!(warned.remedy.contains("az aks upgrade"));
    // Three newest that the stamp has: 1.34 goes with the release of 1.37; the stamp has no 1.38 that would end 1.35.
    let of_34 = facts(34);
    for profile in [Profile::Aks, Profile::Hci] {
        assert_eq!(said(&of_34, profile, "2027-11-01"), (State::Supported, vec![]));
        assert_eq!(said(&of_34, profile, "2027-12-31").0, State::Warning);
        assert_eq!(said(&of_34, profile, "2028-01-01").0, State::OutOfSupport);
        assert_eq!(said(&of_35, profile, "2028-04-30").0, State::Supported);
    }
    assert_eq!(
        next_change(&of_34, Profile::Aks, t("2027-10-01")),
        Some(t("2027-11-02"))
    );
    // A plan for the long term keeps it for two years.
    let long = Facts {
        long_term: true,
        ..facts(34)
    };
    assert_eq!(said(&long, Profile::Aks, "2028-06-01").0, State::Supported);
    assert_eq!(said(&long, Profile::Aks, "2029-01-01").0, State::OutOfSupport);
}

#[test]
fn v2_v3_v4_a_deprecated_minor_works_and_gets_no_updates() {
    let mut of_36 = facts(36);
    let pool = |name: &str, minor| Pool {
        name: name.to_owned(),
        version: Fact::since(Minor::one(minor), t("2027-10-01")),
        oldest_node: None,
        newest_image: None,
    };
    of_36.pools = vec![pool("np1", 36), pool("np2", 35)];
    // The pool is behind, and ends first.
    let (state, rules) = said(&of_36, Profile::Arc, "2028-05-01");
    assert_eq!((state, rules), (State::OutOfSupport, vec!["V4"]));
    let told = ask(&of_36, Profile::Arc, "2028-05-01");
    assert!(
        told.remedy.contains("nodepool upgrade --name np2"),
        "{}",
        told.remedy
    );
    let (state, mut rules) = said(&of_36, Profile::Arc, "2028-09-01");
    rules.sort_unstable();
    assert_eq!(
        (state, rules),
        (State::OutOfSupport, vec!["V2", "V3", "V4", "V4"])
    );
    let told = ask(&of_36, Profile::Arc, "2028-09-01");
    assert!(of(&told, "V4")[0].sentence.contains("asked to upgrade first"));
    // Whoever upgrades is supported again.
    assert_eq!(said(&facts(37), Profile::Arc, "2028-09-01").0, State::Supported);
}

#[test]
fn v5_v6_the_platform_and_the_engine_have_releases_too() {
    let mut facts = facts(37);
    facts.stamp.platform_end = Some(t("2028-04-01"));
    assert_eq!(
        said(&facts, Profile::Hci, "2028-01-31"),
        (State::Supported, vec![])
    );
    assert_eq!(
        said(&facts, Profile::Hci, "2028-02-01"),
        (State::Warning, vec!["V5"])
    );
    assert_eq!(
        said(&facts, Profile::Arc, "2028-04-01"),
        (State::OutOfSupport, vec!["V5"])
    );
    assert_eq!(said(&facts, Profile::Aks, "2028-04-01").0, State::Supported);
    (facts.members, facts.nodes) = (3, 3);
    for (behind, state) in [
        (0, State::Supported),
        (1, State::Supported),
        (2, State::OutOfSupport),
    ] {
        facts.stamp.releases_behind = Some(Fact::since(behind, t("2028-01-01")));
        assert_eq!(
            said(&facts, Profile::HubEngine, "2028-02-01").0,
            state,
            "{behind}"
        );
    }
}

#[test]
fn v7_v8_alpha_and_preview_features() {
    let mut facts = facts(37);
    facts.previews = vec![Fact::since("Fast".to_owned(), t("2028-02-01"))];
    assert_eq!(
        said(&facts, Profile::Aks, "2028-02-02"),
        (State::BestEffort, vec!["V8"])
    );
    assert_eq!(
        ask(&facts, Profile::HubEngine, "2028-02-02").state,
        State::OutOfSupport
    );
    facts.alpha_gates = vec![Fact::since("NewThing".to_owned(), t("2028-02-01"))];
    assert_eq!(said(&facts, Profile::Arc, "2028-02-02").0, State::Unsupportable);
    facts.sandbox = true;
    let told = ask(&facts, Profile::Hci, "2028-02-02");
    assert_eq!(
        told.state,
        State::Unsupportable,
        "for production, it is so all the same"
    );
    assert!(of(&told, "V7")[0].sentence.contains("sandbox"));
}

#[test]
fn v9_v10_what_the_stamp_lacks_and_images_that_are_old() {
    let mut facts = facts(37);
    assert_eq!(
        said(&facts, Profile::Aks, "2028-04-30"),
        (State::Supported, vec![])
    );
    for profile in [Profile::Aks, Profile::Hub] {
        assert_eq!(
            said(&facts, profile, "2028-05-01"),
            (State::Supported, vec!["V9"])
        );
    }
    facts.pools = vec![Pool {
        name: "np1".to_owned(),
        version: Fact::now(Minor::one(37)),
        oldest_node: Some(t("2028-01-10")),
        newest_image: Some(t("2028-02-01")),
    }];
    assert_eq!(said(&facts, Profile::Aks, "2028-02-07").1, Vec::<&str>::new());
    assert_eq!(
        said(&facts, Profile::Aks, "2028-02-08"),
        (State::Supported, vec!["V10"])
    );
    assert_eq!(
        area(&facts, Profile::Aks, "2028-02-08", Area::Nodes),
        State::Warning
    );
    assert_eq!(
        area(&facts, Profile::Hci, "2028-02-08", Area::Nodes),
        State::Supported
    );
    assert_eq!(
        area(&facts, Profile::Hci, "2028-03-02", Area::Nodes),
        State::Warning
    );
    facts.pools[0].oldest_node = Some(t("2028-02-02"));
    assert_eq!(
        area(&facts, Profile::Aks, "2028-04-08", Area::Nodes),
        State::Supported
    );
}

fn change(kind: ChangeKind, means: Means) -> Change {
    Change {
        kind,
        means,
        what: "the thing".to_owned(),
        who: Some("ada".to_owned()),
        at: t("2028-02-01"),
        undone: None,
    }
}

fn with(changes: Vec<Change>) -> Facts {
    Facts { changes, ..facts(37) }
}

#[test]
fn m1_m4_changes_are_reverted_or_stand() {
    let stands = with(vec![change(ChangeKind::ManagedObject, Means::Kubernetes)]);
    assert_eq!(
        area(&stands, Profile::Aks, "2028-02-02", Area::AddOns),
        State::Unsupportable
    );
    assert_eq!(said(&stands, Profile::Aks, "2028-02-02").0, State::Supported);
    let mut reverted = stands;
    reverted.changes[0].undone = Some(t("2028-02-01T00:00:20Z"));
    let told = ask(&reverted, Profile::Aks, "2028-02-02");
    assert_eq!(of(&told, "M1")[0].state, State::Supported);
    assert!(of(&told, "M1")[0].sentence.contains("ada"));
    let node = with(vec![change(ChangeKind::Node, Means::Infrastructure)]);
    let told = ask(&node, Profile::Aks, "2028-02-02");
    assert!(of(&told, "M4")[0].sentence.contains("does not survive"));
}

#[test]
fn m2_m3_m5_direct_changes_cost_support_and_daemonsets_do_not() {
    for (kind, rule, state) in [
        (ChangeKind::Node, "M2", State::Unsupportable),
        (ChangeKind::SystemMetadata, "M3", State::OutOfSupport),
        (ChangeKind::NodeGroup, "M5", State::OutOfSupport),
    ] {
        let mut facts = with(vec![change(kind, Means::Infrastructure)]);
        let told = ask(&facts, Profile::Aks, "2028-02-02");
        assert_eq!((told.state, told.reasons[0].rule), (state, rule));
        assert_eq!(told.reasons[0].since, Some(t("2028-02-01")));
        // Before it happened, and after it was undone.
        assert_eq!(said(&facts, Profile::Aks, "2028-01-31").0, State::Supported);
        facts.changes[0].undone = Some(t("2028-02-03"));
        assert_eq!(said(&facts, Profile::Aks, "2028-02-03").0, State::Supported);
        assert_eq!(
            next_change(&facts, Profile::Aks, t("2028-02-02")),
            Some(t("2028-02-03"))
        );
        facts.changes[0].means = Means::Service;
        assert_eq!(said(&facts, Profile::Aks, "2028-02-02").1, Vec::<&str>::new());
    }
    let by_daemonset = with(vec![change(ChangeKind::Node, Means::DaemonSet)]);
    assert_eq!(
        said(&by_daemonset, Profile::Arc, "2028-02-02"),
        (State::Supported, vec![])
    );
}

#[test]
fn m6_m7_m8_rules_extensions_and_broken_nodes() {
    let rules = with(vec![change(ChangeKind::ManagedRules, Means::Infrastructure)]);
    assert_eq!(
        area(&rules, Profile::Hci, "2028-02-02", Area::Network),
        State::OutOfSupport
    );
    assert_eq!(said(&rules, Profile::Hci, "2028-02-02").0, State::Supported);
    let extension = with(vec![change(ChangeKind::Extension, Means::Infrastructure)]);
    assert_eq!(
        said(&extension, Profile::Aks, "2028-02-02"),
        (State::Unsupportable, vec!["M7"])
    );
    let broken = with(vec![change(ChangeKind::BrokenByDaemonSet, Means::DaemonSet)]);
    assert_eq!(
        said(&broken, Profile::Aks, "2028-02-02"),
        (State::Supported, vec!["M8"])
    );
    assert_eq!(
        area(&broken, Profile::Aks, "2028-02-02", Area::Nodes),
        State::OutOfSupport
    );
}

#[test]
fn m9_c3_networks_of_others_are_supported_less() {
    let mut facts = facts(37);
    for (plugin, profile, rule, state) in [
        (Plugin::Own, Profile::Aks, "M9", State::OutOfSupport),
        (Plugin::Calico, Profile::Arc, "C3", State::BestEffort),
        (Plugin::Flannel, Profile::Hci, "C3", State::BestEffort),
    ] {
        facts.plugin = Fact::since(plugin, facts.created);
        assert_eq!(
            said(&facts, profile, "2028-02-02"),
            (State::Supported, vec![rule])
        );
        assert_eq!(area(&facts, profile, "2028-02-02", Area::Network), state);
        assert_eq!(area(&facts, profile, "2028-02-02", Area::Etcd), State::Supported);
    }
}

#[test]
fn m10_c5_an_engines_owner_changes_what_is_overwritten() {
    let mut facts = with(vec![change(ChangeKind::Node, Means::Infrastructure)]);
    (facts.members, facts.nodes) = (3, 3);
    assert_eq!(
        said(&facts, Profile::HubEngine, "2028-02-02"),
        (State::Supported, vec!["M10"])
    );
    facts.nodes = 2;
    assert_eq!(said(&facts, Profile::HubEngine, "2028-02-02").0, State::Warning);
    facts.production = Some(true);
    assert_eq!(
        said(&facts, Profile::HubEngine, "2028-02-02").0,
        State::OutOfSupport
    );
    assert_eq!(
        said(&facts, Profile::Hub, "2028-02-02"),
        (State::Supported, vec![])
    );
}

#[test]
fn r1_r2_r3_what_the_service_repairs() {
    let mut facts = facts(37);
    facts.problem = Some(Fact::since("etcd has no leader".to_owned(), t("2028-02-01")));
    facts.repairs = vec![Fact::now("n1: its agent says nothing".to_owned())];
    facts.backup_behind = Some(t("2028-02-01"));
    let told = ask(&facts, Profile::Aks, "2028-02-01T00:29:59Z");
    assert_eq!(told.state, State::Supported);
    assert_eq!(
        area(&facts, Profile::Aks, "2028-02-02", Area::ControlPlane),
        State::Warning
    );
    assert!(of(&told, "R3")[0].sentence.contains("n1"));
    assert_eq!(of(&told, "R2"), Vec::<&crate::Reason>::new());
    assert_eq!(
        area(&facts, Profile::Aks, "2028-02-01T00:30:00Z", Area::Etcd),
        State::Warning
    );
    facts.failed = Some(Fact::since("an upgrade".to_owned(), t("2028-02-01")));
    assert_eq!(said(&facts, Profile::Aks, "2028-02-01").0, State::Warning);
}

#[test]
fn r4_r5_r6_r7_flaws_and_reboots() {
    let advisory = |managed, fixed: Option<&str>| Advisory {
        id: "CVE-2028-1".to_owned(),
        component: "runc".to_owned(),
        managed,
        fixed: fixed.map(t),
        remedy: "the node image of 2028-02-03".to_owned(),
        since: t("2028-02-01"),
    };
    let mut facts = facts(37);
    facts.advisories = vec![advisory(true, Some("2028-02-01"))];
    let young = ask(&facts, Profile::Aks, "2028-02-02");
    assert_eq!(
        (young.state, of(&young, "R6")[0].state),
        (State::Supported, State::Supported)
    );
    assert_eq!(young.until, Some(t("2028-03-02")), "30 days after the fix");
    let old = ask(&facts, Profile::Aks, "2028-03-02");
    assert_eq!((old.state, old.reasons[0].rule), (State::Warning, "R6"));
    assert!(old.remedy.contains("node image"));
    assert_eq!(ask(&facts, Profile::Arc, "2028-02-02").reasons[0].rule, "R4");
    facts.advisories = vec![advisory(false, None)];
    assert_eq!(
        said(&facts, Profile::Aks, "2028-02-02"),
        (State::Supported, vec!["R7"])
    );
    facts.advisories = vec![];
    facts.reboots = vec![Reboot {
        node: "n1".to_owned(),
        why: "a kernel".to_owned(),
        announced: t("2028-02-01"),
        at: t("2028-02-10"),
    }];
    let told = ask(&facts, Profile::HubEngine, "2028-02-05");
    assert_eq!(of(&told, "R5")[0].by, Some(t("2028-02-10")));
    assert_eq!(of(&ask(&facts, Profile::HubEngine, "2028-02-10"), "R5").len(), 0);
}

fn stopped(at: &str) -> Facts {
    Facts {
        stopped: Some(t(at)),
        ..facts(37)
    }
}

#[test]
fn l1_a_stopped_cluster_is_warned_of_before_its_end() {
    let facts = stopped("2028-01-15T10:30:00Z");
    let told = ask(&facts, Profile::Aks, "2028-02-01");
    assert_eq!(told.state, State::Supported);
    assert_eq!(of(&told, "L1")[0].by, Some(t("2029-01-15T10:30:00Z")));
    assert_eq!(told.until, Some(t("2028-11-16T10:30:00Z")), "60 days before");
    assert_eq!(said(&facts, Profile::Aks, "2028-11-17").0, State::Warning);
}

#[test]
fn l2_l3_l4_idle_clusters() {
    let mut facts = facts(37);
    facts.unready = Some(t("2028-02-01"));
    let told = ask(&facts, Profile::Aks, "2028-02-02");
    assert_eq!(
        (told.state, told.reasons[0].by),
        (State::Warning, Some(t("2028-03-02")))
    );
    assert!(
        told.reasons[0]
            .sentence
            .contains("of which no node's machine runs either")
    );
    facts.running = Some(2);
    assert_eq!(
        said(&facts, Profile::Aks, "2028-02-02"),
        (State::Supported, vec![])
    );
    facts.deallocated = Some(t("2028-02-01"));
    let told = ask(&facts, Profile::Aks, "2028-02-02");
    assert_eq!((told.state, told.reasons[0].rule), (State::OutOfSupport, "L2"));
    assert_eq!(told.reasons[0].by, Some(t("2028-03-02")));
    for profile in [Profile::Arc, Profile::Hci] {
        let told = ask(&facts, profile, "2028-02-02");
        assert_eq!((told.state, told.reasons[0].by), (State::OutOfSupport, None));
    }
    // Thirty days out of support.
    assert_eq!(said(&facts, Profile::Aks, "2028-03-01").1, ["L2"]);
    assert_eq!(said(&facts, Profile::Aks, "2028-03-02").1, ["L2", "L4"]);
    facts.archived = Some(t("2028-03-03"));
    let told = ask(&facts, Profile::Aks, "2028-03-04");
    assert!(of(&told, "L4")[0].remedy.contains("any PUT"));
}

#[test]
fn l5_hybrid_clusters_that_are_stopped() {
    let facts = stopped("2028-01-01");
    for (profile, at, state, rules) in [
        (Profile::Arc, "2028-01-30", State::Warning, 1),
        (Profile::Arc, "2028-01-31", State::OutOfSupport, 1),
        (Profile::Arc, "2028-03-15", State::OutOfSupport, 1),
        (Profile::Hci, "2028-03-15", State::OutOfSupport, 2),
        (Profile::Arc, "2028-03-31", State::OutOfSupport, 2),
        (Profile::Hci, "2028-03-31", State::OutOfSupport, 2),
    ] {
        let told = ask(&facts, profile, at);
        assert_eq!(
            (told.state, of(&told, "L5").len()),
            (state, rules),
            "{profile} {at}"
        );
    }
    assert_eq!(
        next_change(&facts, Profile::Arc, t("2028-01-02")),
        Some(t("2028-01-31"))
    );
}

#[test]
fn l6_l7_the_connection_of_a_stamp() {
    let mut facts = facts(37);
    facts.stamp.registration = Registration::Reached(t("2028-02-01"));
    assert_eq!(
        said(&facts, Profile::Arc, "2028-02-15"),
        (State::Supported, vec![])
    );
    assert_eq!(
        said(&facts, Profile::Arc, "2028-02-16"),
        (State::Warning, vec!["L6"])
    );
    let told = ask(&facts, Profile::Hci, "2028-03-02");
    assert!(told.reasons[0].sentence.contains("workloads go on"));
    assert_eq!(said(&facts, Profile::Aks, "2028-12-02").0, State::Supported);
    facts.stamp.registration = Registration::Exempt;
    assert_eq!(
        said(&facts, Profile::Arc, "2028-04-30"),
        (State::Supported, vec![])
    );
    facts.stamp.registration = Registration::AirGapped;
    assert_eq!(
        said(&facts, Profile::Arc, "2028-04-30"),
        (State::Supported, vec!["L7"])
    );
}

#[test]
fn s1_s2_s3_subscriptions() {
    let mut facts = facts(37);
    facts.subscription = Fact::since(Subscription::Suspended, t("2028-02-01"));
    let told = ask(&facts, Profile::Aks, "2028-02-01");
    assert_eq!((told.state, told.reasons[0].rule), (State::OutOfSupport, "S1"));
    assert_eq!(told.reasons[0].by, Some(t("2028-05-01")), "90 days");
    let told = ask(&facts, Profile::Arc, "2028-03-31");
    assert_eq!((told.state, told.until), (State::Warning, Some(t("2028-04-01"))));
    assert_eq!(
        said(&facts, Profile::Hci, "2028-04-01"),
        (State::OutOfSupport, vec!["S3"])
    );
    facts.subscription = Fact::since(Subscription::Deleted, t("2028-02-01"));
    assert_eq!(said(&facts, Profile::Aks, "2028-02-02").1, ["S2"]);
    let told = ask(&facts, Profile::Hci, "2028-02-02");
    assert!(told.remedy.contains("deploy anew"));
    // Nobody wrote down since when.
    facts.subscription = Fact::now(Subscription::Suspended);
    let told = ask(&facts, Profile::Aks, "2028-02-02");
    assert_eq!((told.state, told.reasons[0].by), (State::OutOfSupport, None));
}

#[test]
fn c7_known_issues_are_told_with_their_workaround() {
    let mut facts = facts(37);
    facts.issues = vec![Fact::since(
        Issue {
            id: "K1".to_owned(),
            title: "it leaks".to_owned(),
            workaround: "restart it".to_owned(),
            fixed_in: "1.37.9".to_owned(),
        },
        t("2028-02-01"),
    )];
    let told = ask(&facts, Profile::Aks, "2028-02-02");
    assert_eq!((told.state, told.reasons[0].rule), (State::Warning, "C7"));
    assert!(told.remedy.contains("restart it") && told.remedy.contains("1.37.9"));
}

#[test]
fn x1_x5_options_of_a_definition() {
    let mut facts = facts(37);
    (facts.members, facts.nodes) = (3, 3);
    let option = |text: &str| Fact::since(text.to_owned(), t("2028-01-01"));
    facts.options = vec![
        option("properties.masterProfile.availabilityZones"),
        option("marketplace item"),
        option("properties.masterProfile.count"),
    ];
    let (state, rules) = said(&facts, Profile::HubEngine, "2028-02-02");
    assert_eq!((state, rules), (State::OutOfSupport, vec!["X3", "X5"]));
    assert_eq!(said(&facts, Profile::Aks, "2028-02-02").1, Vec::<&str>::new());
}

#[test]
fn facts_of_an_earlier_time_are_those_that_had_begun() {
    let mut facts = stopped("2028-02-10");
    facts.previews = vec![Fact::since("Fast".to_owned(), t("2028-02-01"))];
    facts.control_plane.since = Some(t("2028-01-20"));
    let (then, unknown) = facts.at(t("2028-02-05"));
    assert_eq!((then.stopped, then.previews.len()), (None, 1));
    assert_eq!(unknown, Vec::<String>::new());
    let (then, unknown) = facts.at(t("2028-01-10"));
    assert_eq!(
        (then.previews.len(), unknown),
        (0, vec!["controlPlane.version".to_owned()])
    );
    let later: Timestamp = t("2030-01-01");
    assert_eq!(facts.at(later).0, facts);
}
