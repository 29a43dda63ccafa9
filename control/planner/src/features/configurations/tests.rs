//! What machines are configured with, and what they have to be restarted for.

use cluster_maintenance::Calendar;
use cluster_spec::{ApiAccess, ClusterSpec, DirectoryAccess, IngressReach, NetworkPolicy, Tier};
use control_records::planned::Paused;

use super::{healing::standing, *};

/// The inputs of the member's configuration, and of all nodes'.
fn inputs(ideal: &Ideal) -> (String, BTreeSet<String>) {
    let configured = ideal.seen.machines.values().map(|machine| {
        let ConfigSeen::Published { inputs, .. } = &machine.config else {
            panic!("a machine without a configuration");
        };
        (machine.node_name().is_some(), inputs.clone())
    });
    let (nodes, members): (Vec<_>, Vec<_>) = configured.partition(|(node, _)| *node);
    let nodes = nodes.into_iter().map(|(_, inputs)| inputs).collect();
    (members[0].1.clone(), nodes)
}

#[test]
fn who_reaches_the_server_changes_while_it_serves_and_is_no_business_of_nodes() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 2)]);
    let (open, nodes) = inputs(&ideal);
    let mut seen = BTreeSet::from([open.clone()]);
    let accesses = [
        ApiAccess::Ranges(vec!["203.0.113.0/24".parse().unwrap()]),
        ApiAccess::Ranges(vec!["198.51.100.0/24".parse().unwrap()]),
        ApiAccess::Private,
    ];
    for access in accesses {
        ideal.desired.change_spec(|spec| spec.access = access);
        ideal.desired.generation += 1;
        ideal.run();
        let (member, now) = inputs(&ideal);
        assert_eq!(now, nodes);
        let restarts = |inputs: &str| inputs.split('.').next().map(str::to_owned);
        assert_eq!(restarts(&member), restarts(&open), "nothing restarts for it");
        assert!(seen.insert(member), "the member is told");
    }
    // As a release that knew of no such thing configured it.
    ideal.desired.change_spec(|spec| spec.access = ApiAccess::Open);
    ideal.desired.generation += 1;
    ideal.run();
    assert_eq!(inputs(&ideal).0, open);
}

#[test]
fn nodes_are_told_of_each_image_that_their_cluster_asks_for_and_members_of_none() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 2)]);
    let (member, nodes) = inputs(&ideal);
    let mut seen = BTreeSet::from([nodes.clone()]);
    let mut change = |change: &dyn Fn(&mut ClusterSpec)| {
        ideal.desired.change_spec(|spec| change(spec));
        ideal.desired.generation += 1;
        ideal.run();
        let (now, nodes) = inputs(&ideal);
        assert_eq!(now, member);
        nodes
    };
    let reached = |reach| move |spec: &mut ClusterSpec| spec.ingress.controller = reach;
    let routed = change(&reached(Some(IngressReach::External)));
    assert!(seen.insert(routed.clone()), "the image of the controller");
    let inside = change(&reached(Some(IngressReach::Internal)));
    assert_eq!(inside, routed, "where it is reached is its Service's affair");
    let filtered = change(&|spec| spec.network.policy = NetworkPolicy::Calico);
    assert!(seen.insert(filtered), "the image of the engine");
    change(&|spec| spec.network.policy = NetworkPolicy::None);
    assert_eq!(change(&reached(None)), nodes);
}

#[test]
fn whose_tokens_are_taken_changes_while_it_serves_and_whose_are_issued_does_not() {
    let restarts = |inputs: &str| inputs.split('.').next().map(str::to_owned);
    let directory = |roles, admins: &[&str]| DirectoryAccess {
        tenant: "t".to_owned(),
        admins: admins.iter().map(|admin| (*admin).to_owned()).collect(),
        roles,
    };
    let mut ideal = standing(Tier::Free, vec![pool("a", 2)]);
    let (plain, nodes) = inputs(&ideal);
    let mut change = |change: &dyn Fn(&mut ClusterSpec)| {
        ideal.desired.change_spec(|spec| change(spec));
        ideal.desired.generation += 1;
        ideal.run();
        let (member, now) = inputs(&ideal);
        assert_eq!(now, nodes, "it is no business of nodes");
        member
    };
    let known = change(&|spec| spec.directory = Some(directory(false, &[])));
    assert_eq!(
        restarts(&known),
        restarts(&plain),
        "the API server reads the file again"
    );
    assert_ne!(known, plain);
    let admins = change(&|spec| spec.directory = Some(directory(false, &["a"])));
    assert_eq!(admins, known, "a binding in the cluster");
    let roles = change(&|spec| spec.directory = Some(directory(true, &["a"])));
    assert_ne!(restarts(&roles), restarts(&known));
    let issuer = change(&|spec| spec.issuer = Some("https://h/oidc/u/".to_owned()));
    assert_ne!(restarts(&issuer), restarts(&roles));
    let workloads = change(&|spec| spec.workload_identity = true);
    assert_eq!(workloads, issuer, "a policy in the cluster");
    // As a release that knew of no such thing configured it.
    let before = change(&|spec| {
        spec.directory = None;
        spec.issuer = None;
        spec.workload_identity = false;
    });
    assert_eq!(before, plain);
}

/// How many machines have another configuration than before.
fn changed(ideal: &Ideal, before: &BTreeMap<String, ConfigSeen>) -> usize {
    let machines = ideal.seen.machines.iter();
    machines
        .filter(|(id, machine)| before.get(*id).is_some_and(|before| *before != machine.config))
        .count()
}

fn configurations(ideal: &Ideal) -> BTreeMap<String, ConfigSeen> {
    let machines = ideal.seen.machines.iter();
    machines
        .map(|(id, machine)| (id.clone(), machine.config.clone()))
        .collect()
}

fn another_release() -> RendererVersions {
    RendererVersions {
        members: "another".to_owned(),
        nodes: "another".to_owned(),
    }
}

#[test]
fn a_newer_release_waits_for_its_window() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 2)]);
    // Settled, it has gone on to the next timer, the renewal of certificates. Back to the day on which they were made.
    let made_at = ideal.seen.machines.values().map(|machine| match &machine.config {
        ConfigSeen::Published { made_at, .. } => *made_at,
        other => panic!("{other:?}"),
    });
    ideal.now = after(made_at.max().unwrap(), Duration::from_secs(60));
    let (before, begun) = (configurations(&ideal), ideal.now);
    let minute = (begun.as_second() / 60 + 11 * 60).rem_euclid(24 * 60);
    ideal.seen.maintenance.releases = Some(Calendar::daily(u16::try_from(minute).unwrap(), 4));
    ideal.seen.renderers = another_release();
    ideal.told.clear();
    // A run would go on to the timer, and past it.
    ideal.pass();
    assert_eq!(changed(&ideal, &before), 0);
    let waits = ideal.seen.observed.release_waits.clone().expect("it is told");
    let until = waits.until.unwrap();
    let minutes = until.duration_since(begun).as_secs() / 60;
    assert!((11 * 60 - 1..=11 * 60 + 30).contains(&minutes), "{waits:?}");
    let told: Vec<_> = ideal.told.iter().map(|(_, event)| event.kind).collect();
    assert_eq!(told, [EventKind::Planned], "once: {:?}", ideal.told);
    assert_eq!(ideal.seen.observed.generation, ideal.desired.generation);
    // The loop's timers bring it there, and nothing happens before.
    for _ in 0..100 {
        if ideal.now >= until {
            break;
        }
        ideal.pass();
        assert_eq!(changed(&ideal, &before), 0);
    }
    assert_eq!(ideal.now, until);
    ideal.run();
    assert_eq!(changed(&ideal, &before), 3);
    assert_eq!(ideal.seen.observed.release_waits, None);
    assert_eq!(ideal.seen.observed.renderers, Some(another_release()));
}

#[test]
fn what_is_asked_for_does_not_wait_for_a_release_that_is_held_up_nor_takes_it_along() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 2)]);
    let before = configurations(&ideal);
    ideal.seen.maintenance.paused = Some(Paused {
        at: at(0),
        by: "operator".to_owned(),
        reason: "the year's end".to_owned(),
    });
    ideal.seen.renderers = another_release();
    ideal.desired.change_spec(|spec| spec.pools[0].count = 3);
    ideal.desired.generation += 1;
    ideal.run();
    assert_eq!(ideal.seen.observed.generation, ideal.desired.generation);
    assert_eq!(ideal.nodes_of("a").len(), 3);
    assert_eq!(
        changed(&ideal, &before),
        0,
        "only what is new is of the new release"
    );
    let waits = ideal.seen.observed.release_waits.clone().unwrap();
    assert_eq!(waits.until, None);
    assert!(waits.sentence().contains("the year's end"), "{waits:?}");
    ideal.seen.maintenance = Maintenance::default();
    ideal.run();
    assert_eq!(changed(&ideal, &before), 3);
    assert_eq!(ideal.seen.observed.release_waits, None);
}

#[test]
fn a_change_in_between_puts_no_renewal_off() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    let member = |ideal: &Ideal| {
        let mut machines = ideal.seen.machines.values();
        let member = machines.find(|machine| machine.node_name().is_none());
        match &member.unwrap().config {
            ConfigSeen::Published {
                made_at, issued_at, ..
            } => (*made_at, *issued_at),
            other => panic!("{other:?}"),
        }
    };
    let renders = |ideal: &Ideal| {
        let effects = ideal.plan().effects;
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Config(ConfigEffect::Render { .. })))
    };
    let (_, issued) = member(&ideal);
    ideal.now = after(issued, DAY * 100);
    ideal.desired.change_spec(|spec| spec.access = ApiAccess::Private);
    ideal.desired.generation += 1;
    ideal.run();
    let (made, kept) = member(&ideal);
    assert!(made >= after(issued, DAY * 100), "{made}");
    assert_eq!(kept, issued);
    ideal.now = after(issued, DAY * 179);
    assert!(!renders(&ideal));
    ideal.now = after(issued, DAY * 181);
    assert!(renders(&ideal));
}
