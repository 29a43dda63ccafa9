//! Each rule opens and closes, and what becomes of alerts over time.

use std::time::Duration;

use control_records::alert::{AlertCluster, AlertRecord, CLOSED_KEPT_FOR, MOST_CLOSED, Severity};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).unwrap()
}

fn cluster(number: usize) -> AlertCluster {
    AlertCluster {
        uid: format!("uid{number:04}"),
        subscription: "s".to_owned(),
        resource_group: "g".to_owned(),
        name: format!("c{number:04}"),
    }
}

fn quiet(number: usize) -> ClusterFact {
    ClusterFact {
        cluster: cluster(number),
        version: Some("1.37.1".parse().unwrap()),
        rests: false,
        backup_behind: None,
        repairs_held: Vec::new(),
        release_waits: None,
    }
}

/// Facts of a stamp that nothing is wrong with.
fn healthy(clusters: usize) -> Facts {
    Facts {
        certificates: Some(Vec::new()),
        disk: Some(DiskFact {
            total: 100 << 30,
            free: 50 << 30,
        }),
        clusters: Some((0..clusters).map(quiet).collect()),
        images: Some(Vec::new()),
        oldest_offered: Some("1.36.3".parse().unwrap()),
        agents: Some(AgentFacts {
            expected: 10,
            silent: 0,
        }),
        store: Some(StoreFacts::default()),
    }
}

/// The records after a step, in the order of their names; and what changed.
fn after(before: &[AlertRecord], facts: &Facts, now: Timestamp) -> (Vec<AlertRecord>, Vec<Change>) {
    let changes = step(before, facts, now);
    let mut records: std::collections::BTreeMap<String, AlertRecord> = before
        .iter()
        .map(|record| (record.name.clone(), record.clone()))
        .collect();
    for change in &changes {
        match change {
            Change::Open(record) | Change::Tell(record) | Change::Close(record) => {
                records.insert(record.name.clone(), record.clone());
            }
            Change::Forget(name) => {
                records.remove(name);
            }
        }
    }
    (records.into_values().collect(), changes)
}

fn open(records: &[AlertRecord]) -> Vec<(&str, Severity)> {
    let open = records.iter().filter(|record| record.is_open());
    open.map(|record| (record.name.as_str(), record.severity))
        .collect()
}

/// What each rule is to open an alert for.
fn broken() -> Vec<(&'static str, Facts)> {
    let of = |change: fn(&mut Facts)| {
        let mut facts = healthy(1);
        change(&mut facts);
        facts
    };
    let first = |facts: &mut Facts, change: fn(&mut ClusterFact)| {
        change(&mut facts.clusters.as_mut().unwrap()[0]);
    };
    let with = |change: fn(&mut ClusterFact)| {
        let mut facts = healthy(1);
        first(&mut facts, change);
        facts
    };
    vec![
        (
            "certificate-life.endpoint",
            of(|facts| {
                facts.certificates = Some(vec![CertificateFact {
                    name: "endpoint".to_owned(),
                    cluster: None,
                    issued: at(0) - DAY * 300,
                    expires: at(0) + DAY * 97,
                    renews: None,
                    remedy: "renew it",
                }]);
            }),
        ),
        (
            "host-disk",
            of(|facts| facts.disk = Some(DiskFact { total: 100, free: 9 })),
        ),
        (
            "backup-lag.uid0000",
            with(|fact| fact.backup_behind = Some(at(-301))),
        ),
        (
            "store-copy",
            of(|facts| facts.store.as_mut().unwrap().copy_problem = Some("no copy".to_owned())),
        ),
        (
            "store-latency",
            of(|facts| facts.store.as_mut().unwrap().commit = Some(Duration::from_millis(500))),
        ),
        (
            "image-age.1.36.3",
            of(|facts| {
                facts.images = Some(vec![ImageFact {
                    version: "1.36.3".to_owned(),
                    built_at: at(0) - DAY * 36,
                }]);
            }),
        ),
        (
            "version-support.uid0000",
            with(|fact| fact.version = Some("1.35.9".parse().unwrap())),
        ),
        (
            "repair-held.uid0000",
            with(|fact| fact.repairs_held = vec!["node a: many are silent".to_owned(), "node b".to_owned()]),
        ),
        (
            "version-lag.uid0000",
            with(|fact| fact.release_waits = Some("it begins at night".to_owned())),
        ),
        (
            "agents-silent",
            of(|facts| {
                facts.agents = Some(AgentFacts {
                    expected: 10,
                    silent: 3,
                })
            }),
        ),
    ]
}

#[test]
fn each_rule_opens_an_alert_that_says_what_to_do_and_closes_by_itself() {
    let broken = broken();
    let rules: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
    let told: Vec<&str> = broken
        .iter()
        .map(|(name, _)| name.split('.').next().unwrap())
        .collect();
    assert_eq!(told, rules, "a rule has no case here");
    assert!(step(&[], &healthy(3), at(0)).is_empty());
    for (name, facts) in broken {
        let (records, _) = after(&[], &facts, at(0));
        let [record] = &records[..] else {
            panic!("{name}: {records:?}");
        };
        assert_eq!(record.name, name);
        assert!(
            record.is_open() && record.opened_at == at(0) && record.times == 1,
            "{record:?}"
        );
        for text in [&record.message, &record.remedy, &record.closes] {
            assert!(!text.is_empty() && !text.ends_with('.'), "{name}: {text}");
        }
        // A moment later it is the same one, and nothing is written.
        assert!(step(&records, &facts, at(1)).is_empty(), "{name}");
        let (records, _) = after(&records, &healthy(1), at(60));
        assert_eq!(records[0].closed_at, Some(at(60)), "{name}");
        // And again.
        let (records, _) = after(&records, &facts, at(61));
        assert!(records[0].is_open(), "{name}");
        assert_eq!((records[0].opened_at, records[0].times), (at(61), 2), "{name}");
    }
}

#[test]
fn a_value_at_a_limit_does_not_open_and_close_in_turn() {
    let disk = |free| Facts {
        disk: Some(DiskFact { total: 100, free }),
        ..healthy(0)
    };
    let (records, _) = after(&[], &disk(12), at(0));
    assert!(records.is_empty(), "not enough to open one");
    let (records, _) = after(&records, &disk(9), at(1));
    assert_eq!(open(&records), [("host-disk", Severity::Warning)]);
    for free in [12, 14, 9] {
        let (next, _) = after(&records, &disk(free), at(2));
        assert_eq!(open(&next).len(), 1, "{free}");
    }
    let (closed, _) = after(&records, &disk(15), at(3));
    assert!(open(&closed).is_empty());
    let (still, _) = after(&closed, &disk(12), at(4));
    assert!(open(&still).is_empty());
    // It becomes worse, and is told so once; it does not become better before it closes.
    let (worse, changes) = after(&records, &disk(4), at(5));
    assert!(matches!(changes[..], [Change::Tell(_)]), "{changes:?}");
    assert_eq!(open(&worse), [("host-disk", Severity::Critical)]);
    assert_eq!(worse[0].opened_at, at(1));
    assert!(step(&worse, &disk(9), at(6)).is_empty());
}

#[test]
fn what_renews_itself_is_told_where_its_renewal_is_missed() {
    let certificate = |issued: i64, life: i64, renews: Option<i64>| Facts {
        certificates: Some(vec![CertificateFact {
            name: "x".to_owned(),
            cluster: Some(cluster(1)),
            issued: at(0) + DAY * i32::try_from(issued).unwrap(),
            expires: at(0) + DAY * i32::try_from(issued + life).unwrap(),
            renews: renews.map(|day| at(0) + DAY * i32::try_from(day).unwrap()),
            remedy: "r",
        }]),
        ..healthy(0)
    };
    let opens = |facts: &Facts, day: i32| {
        let (records, _) = after(&[], facts, at(0) + DAY * day);
        open(&records).first().map(|(_, severity)| *severity)
    };
    // Nobody renews it: a third of 300 days.
    let alone = certificate(0, 300, None);
    assert_eq!(opens(&alone, 199), None);
    assert_eq!(opens(&alone, 200), Some(Severity::Warning));
    assert_eq!(opens(&alone, 287), Some(Severity::Critical));
    assert_eq!(opens(&alone, 301), Some(Severity::Critical), "it has ended");
    // It renews itself long before: a third is late enough.
    assert_eq!(opens(&certificate(0, 730, Some(180)), 486), None);
    assert_eq!(
        opens(&certificate(0, 730, Some(180)), 487),
        Some(Severity::Warning)
    );
    // And after: a week is given.
    assert_eq!(opens(&certificate(0, 397, Some(300)), 306), None);
    assert_eq!(
        opens(&certificate(0, 397, Some(300)), 307),
        Some(Severity::Warning)
    );
    // And never later than its end.
    assert_eq!(opens(&certificate(0, 10, Some(9)), 9), None);
    assert_eq!(opens(&certificate(0, 10, Some(9)), 10), Some(Severity::Critical));
}

#[test]
fn a_cluster_that_rests_is_looked_at_for_its_version_alone() {
    let mut facts = healthy(1);
    let fact = &mut facts.clusters.as_mut().unwrap()[0];
    fact.backup_behind = Some(at(-9_999));
    fact.repairs_held = vec!["x".to_owned()];
    fact.release_waits = Some("y".to_owned());
    assert_eq!(step(&[], &facts, at(0)).len(), 3);
    let fact = &mut facts.clusters.as_mut().unwrap()[0];
    fact.rests = true;
    assert!(step(&[], &facts, at(0)).is_empty());
    facts.clusters.as_mut().unwrap()[0].version = Some("1.30.0".parse().unwrap());
    let (records, _) = after(&[], &facts, at(0));
    assert_eq!(open(&records), [("version-support.uid0000", Severity::Warning)]);
}

#[test]
fn what_is_not_known_leaves_alerts_as_they_are() {
    for (name, facts) in broken() {
        let (records, _) = after(&[], &facts, at(0));
        assert!(step(&records, &Facts::default(), at(9)).is_empty(), "{name}");
    }
    let mut strange = after(&[], &broken().remove(1).1, at(0)).0;
    strange[0].rule = "of-another-release".to_owned();
    strange[0].name = "of-another-release".to_owned();
    assert!(step(&strange, &healthy(1), at(1)).is_empty());
}

#[test]
fn many_clusters_are_one_alert() {
    let behind = |count: usize| {
        let mut facts = healthy(1_000);
        for fact in facts.clusters.as_mut().unwrap().iter_mut().take(count) {
            fact.version = Some("1.30.0".parse().unwrap());
        }
        facts
    };
    let (few, _) = after(&[], &behind(ALONE), at(0));
    assert_eq!(open(&few).len(), ALONE);
    let (many, _) = after(&few, &behind(ALONE + 1), at(1));
    assert_eq!(
        open(&many),
        [("version-support.many-clusters", Severity::Warning)]
    );
    let record = many.iter().find(|record| record.is_open()).unwrap();
    assert!(
        record.message.starts_with("26 clusters run a version"),
        "{}",
        record.message
    );
    let (all, _) = after(&many, &behind(1_000), at(2));
    assert_eq!(open(&all).len(), 1);
    let (none, _) = after(&all, &healthy(1_000), at(3));
    assert!(open(&none).is_empty());
}

#[test]
fn closed_ones_are_forgotten_in_time_and_when_there_are_too_many() {
    let closed = |number: usize, when: Timestamp| AlertRecord {
        closed_at: Some(when),
        name: format!("version-support.u{number:04}"),
        ..after(&[], &broken().remove(6).1, at(0)).0.remove(0)
    };
    let now = at(1) + SignedDuration::try_from(CLOSED_KEPT_FOR).unwrap();
    let changes = step(&[closed(1, at(0)), closed(2, at(2))], &healthy(0), now);
    assert_eq!(changes, [Change::Forget("version-support.u0001".to_owned())]);
    let many: Vec<AlertRecord> = (0..MOST_CLOSED + 2)
        .map(|number| closed(number, at(i64::try_from(number).unwrap())))
        .collect();
    let changes = step(&many, &healthy(0), at(1_000));
    assert_eq!(
        changes,
        [
            Change::Forget("version-support.u0000".to_owned()),
            Change::Forget("version-support.u0001".to_owned())
        ]
    );
}

proptest! {
    /// Whatever comes and goes: what is open follows from the facts alone, a step that is repeated changes nothing, and names are keys.
    #[test]
    fn a_step_is_done_after_one(
        broken_ones in proptest::collection::vec((0_usize..60, 0_u8..5), 0..80),
        disk in 0_u64..100,
        silent in 0_u64..10,
        later in proptest::collection::vec((0_usize..60, 0_u8..5), 0..80),
    ) {
        let facts = |broken: &[(usize, u8)], disk: u64, silent: u64| {
            let mut facts = healthy(60);
            facts.disk = Some(DiskFact { total: 100, free: disk });
            facts.agents = Some(AgentFacts { expected: 10, silent });
            let clusters = facts.clusters.as_mut().unwrap();
            for (number, what) in broken {
                let fact = &mut clusters[*number];
                match what {
                    0 => fact.backup_behind = Some(at(-10_000)),
                    1 => fact.version = Some("1.2.3".parse().unwrap()),
                    2 => fact.repairs_held = vec!["x".to_owned()],
                    3 => fact.release_waits = Some("y".to_owned()),
                    _ => fact.rests = true,
                }
            }
            facts
        };
        let (first, second) = (facts(&broken_ones, disk, silent), facts(&later, 50, 0));
        let (records, _) = after(&[], &first, at(0));
        prop_assert!(step(&records, &first, at(1)).is_empty());
        for record in &records {
            prop_assert!(record.name.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c)));
        }
        let (records, _) = after(&records, &second, at(2));
        let fresh = after(&[], &second, at(2)).0;
        let (now_open, would_open) = (open(&records), open(&fresh));
        let names = |open: &[(&str, Severity)]| open.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>();
        prop_assert_eq!(names(&now_open), names(&would_open));
    }
}
