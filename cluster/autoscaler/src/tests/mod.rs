mod oracle;

use std::collections::{BTreeMap, BTreeSet};

use cluster_spec::{AutoscalerProfile, Expander};
use jiff::Timestamp;

use crate::{
    Budget, Decision, Memory, Node, Outcome, Pod, Pool, Rules, State, Stays, Work, decide, events,
    quantity::Resources,
    rules::{HOSTNAME, Requirement, Spread, Taint, Term, Toleration},
    status,
};

/// Resources of a node of these tests.
const CORES: u64 = 2000;
const MEMORY: u64 = 4 << 30;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn room(cpu: u64) -> Resources {
    Resources {
        cpu,
        memory: MEMORY,
        pods: 30,
        ..Resources::default()
    }
}

fn node(name: &str, pool: &str) -> Node {
    Node {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        labels: BTreeMap::from([
            (HOSTNAME.to_owned(), name.to_owned()),
            ("agentpool".to_owned(), pool.to_owned()),
        ]),
        room: room(CORES),
        ready: true,
        since: Some(at(0)),
        ..Node::default()
    }
}

fn pod(name: &str, cpu: u64, node: Option<&str>) -> Pod {
    Pod {
        namespace: "d".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        version: "1".to_owned(),
        created_at: at(0),
        node: node.map(str::to_owned),
        unschedulable: node.is_none(),
        priority: 0,
        rules: Rules {
            namespace: "d".to_owned(),
            labels: BTreeMap::from([("app".to_owned(), name.split('-').next().unwrap().to_owned())]),
            request: Resources {
                cpu,
                memory: 1 << 20,
                pods: 1,
                ..Resources::default()
            },
            ..Rules::default()
        },
        blocked: None,
        owner: Some("rs".to_owned()),
        stays: Stays {
            replicated: true,
            ..Stays::default()
        },
        leaving: false,
    }
}

/// A cluster and the memory of its decisions.
struct Stage {
    work: Work,
    pools: Vec<Pool>,
    leaving: BTreeSet<String>,
    kept: BTreeSet<String>,
    memory: Memory,
    profile: AutoscalerProfile,
    second: i64,
}

impl Stage {
    /// Pools as (name, count, minimum, maximum), with nodes `{pool}-{number}`.
    fn new(pools: &[(&str, u32, u32, u32)]) -> Self {
        let mut stage = Self {
            work: Work::default(),
            pools: Vec::new(),
            leaving: BTreeSet::new(),
            kept: BTreeSet::new(),
            memory: Memory::default(),
            profile: AutoscalerProfile::default(),
            second: 10_000,
        };
        for (name, count, min, max) in pools {
            let names: Vec<String> = (0..*count).map(|number| format!("{name}-{number:03}")).collect();
            stage.work.nodes.extend(names.iter().map(|own| node(own, name)));
            stage.pools.push(Pool {
                name: (*name).to_owned(),
                min: *min,
                max: *max,
                count: *count,
                nodes: names.into_iter().map(|own| (own, at(0))).collect(),
                template: node("template", name),
            });
        }
        stage.work.nodes.sort_by(|one, other| one.name.cmp(&other.name));
        stage
    }

    fn state(&self) -> State<'_> {
        State {
            work: &self.work,
            pools: &self.pools,
            leaving: &self.leaving,
            kept: &self.kept,
            memory: &self.memory,
        }
    }

    fn decide(&self) -> Decision {
        let decision = decide(self.state(), &self.profile, at(self.second));
        assert_eq!(decision, decide(self.state(), &self.profile, at(self.second)));
        decision
    }

    /// Decides, and applies the decision, except that no new node joins.
    fn step(&mut self) -> Decision {
        let decision = self.decide();
        for pool in &mut self.pools {
            if let Some(size) = decision.sizes.get(&pool.name) {
                assert!((pool.min..=pool.max).contains(size), "{size} of {}", pool.name);
                pool.count = *size;
            }
            pool.nodes.retain(|name, _| !decision.remove.contains(name));
        }
        self.leaving.extend(decision.remove.iter().cloned());
        self.memory = decision.memory.clone();
        decision
    }

    /// Removes the leaving nodes and their pods.
    fn gone(&mut self) {
        for name in std::mem::take(&mut self.leaving) {
            self.work.nodes.retain(|node| node.name != name);
            self.work.pods.retain(|pod| pod.node.as_ref() != Some(&name));
        }
    }

    /// The upcoming nodes of a pool join.
    fn join(&mut self, pool: &str) {
        let now = at(self.second);
        let own = self.pools.iter_mut().find(|own| own.name == pool).unwrap();
        while own.nodes.len() < own.count as usize {
            let name = format!("{pool}-9{:02}", own.nodes.len());
            own.nodes.insert(name.clone(), now);
            self.work.nodes.push(node(&name, pool));
        }
        self.work.nodes.sort_by(|one, other| one.name.cmp(&other.name));
    }

    fn outcome<'d>(&self, decision: &'d Decision, pod: &str) -> &'d Outcome {
        let index = self.work.pods.iter().position(|own| own.name == pod).unwrap();
        let found = decision.verdicts.iter().find(|verdict| verdict.pod == index);
        &found.unwrap().outcome
    }
}

#[test]
fn a_pod_that_does_not_fit_brings_a_node_once() {
    let mut stage = Stage::new(&[("a", 1, 1, 3)]);
    stage.work.pods = vec![pod("one", 1500, Some("a-000")), pod("two", 1500, None)];
    let first = stage.step();
    assert_eq!(first.sizes["a"], 2);
    assert_eq!(stage.outcome(&first, "two"), &Outcome::Comes("a".to_owned()));
    // The upcoming node is included: no further growth, whether its machine is recorded or not.
    for _ in 0..2 {
        let next = stage.step();
        assert!(next.sizes.is_empty() && next.remove.is_empty());
        let told = events(stage.state(), &next, &BTreeSet::new());
        assert_eq!(
            told[0].note.message,
            "pod triggered scale-up: [{a 1->2 (max: 3)}]"
        );
        stage.pools[0].nodes.insert("a-001".to_owned(), at(stage.second));
    }
    assert!(status(stage.state(), &stage.decide()).contains("cloudProviderTarget: 2"));
    stage.pools[0].nodes.remove("a-001");
    stage.join("a");
    let there = stage.step();
    assert_eq!(stage.outcome(&there, "two"), &Outcome::Fits);
    assert!(there.memory.growing.is_empty());
}

#[test]
fn several_pods_come_to_as_few_nodes_as_hold_them_and_no_more_than_allowed() {
    let mut stage = Stage::new(&[("a", 0, 0, 3)]);
    stage.work.pods = (0..4)
        .map(|number| pod(&format!("p-{number}"), 900, None))
        .collect();
    assert_eq!(stage.step().sizes["a"], 2, "two on each, from none");
    stage
        .work
        .pods
        .extend((4..12).map(|number| pod(&format!("p-{number}"), 900, None)));
    let more = stage.step();
    assert_eq!(more.sizes["a"], 3, "no more than its range allows");
    let full = stage.step();
    let Outcome::Nowhere(reasons) = stage.outcome(&full, "p-9") else {
        panic!("{full:?}");
    };
    assert_eq!(reasons["max node group size reached"], 1);
}

#[test]
fn what_no_node_of_any_pool_takes_brings_none_and_says_why() {
    let mut stage = Stage::new(&[("a", 1, 1, 5)]);
    let mut picky = pod("picky", 100, None);
    picky.rules.nodes = vec![vec![vec![Requirement::equals("disk", "fast")]]];
    let mut lost = pod("lost", 100, None);
    lost.blocked = Some("persistentvolumeclaim \"x\" not found".to_owned());
    let cheap = Pod {
        priority: -11,
        ..pod("cheap", 1900, None)
    };
    stage.work.pods = vec![pod("huge", 5000, None), picky, lost, cheap];
    stage.work.nodes[0].cordoned = true;
    let decision = stage.step();
    assert!(decision.sizes.is_empty(), "{decision:?}");
    for (pod, why) in [
        ("huge", "Insufficient cpu"),
        ("picky", "affinity/selector"),
        ("lost", "not found"),
    ] {
        let Outcome::Nowhere(reasons) = stage.outcome(&decision, pod) else {
            panic!("{pod}: {decision:?}");
        };
        assert!(reasons.keys().any(|reason| reason.contains(why)), "{reasons:?}");
    }
    assert_eq!(stage.outcome(&decision, "cheap"), &Outcome::NotYet);
}

#[test]
fn the_pool_is_one_whose_nodes_take_the_pod() {
    let mut stage = Stage::new(&[("plain", 1, 1, 5), ("fast", 1, 0, 5)]);
    let taint = Taint {
        key: "disk".to_owned(),
        value: "fast".to_owned(),
        effect: "NoSchedule".to_owned(),
    };
    stage.pools[1].template.taints = vec![taint];
    let mut own = pod("own", 1900, None);
    own.rules.tolerations = vec![Toleration {
        key: "disk".to_owned(),
        exists: true,
        value: String::new(),
        effect: String::new(),
    }];
    own.rules.nodes = vec![vec![vec![Requirement::equals("agentpool", "fast")]]];
    stage.work.pods = vec![own, pod("full", 1900, Some("fast-000"))];
    let decision = stage.step();
    assert_eq!(decision.sizes, BTreeMap::from([("fast".to_owned(), 2)]));
}

fn apart(topology: &str) -> Term {
    Term {
        topology: topology.to_owned(),
        namespaces: None,
        selector: Some(vec![Requirement::equals("app", "web")]),
    }
}

#[test]
fn neighbours_decide_as_they_do_for_the_scheduler() {
    let mut stage = Stage::new(&[("a", 1, 0, 9)]);
    let with = |change: &dyn Fn(&mut Rules)| -> Vec<Pod> {
        let pods = (0..3).map(|number| pod(&format!("web-{number}"), 10, None));
        pods.map(|mut pod| {
            change(&mut pod.rules);
            pod
        })
        .collect()
    };
    // One pod fits on the existing node.
    stage.work.pods = with(&|rules| rules.apart = vec![apart(HOSTNAME)]);
    assert_eq!(stage.decide().sizes["a"], 3);
    // At most one pod per zone: another node in the same zone does not help.
    for node in stage.work.nodes.iter_mut().chain([&mut stage.pools[0].template]) {
        node.labels.insert("zone".to_owned(), "0".to_owned());
    }
    stage.work.pods = with(&|rules| rules.apart = vec![apart("zone")]);
    assert!(stage.decide().sizes.is_empty());
    stage.work.pods = with(&|rules| {
        rules.spread = vec![Spread {
            term: apart(HOSTNAME),
            most: 1,
            places: 3,
        }];
    });
    assert_eq!(stage.decide().sizes["a"], 3);
    // All of them fit on the existing node.
    stage.work.pods = with(&|rules| rules.with = vec![apart("zone")]);
    assert!(stage.decide().sizes.is_empty());
}

#[test]
fn what_daemon_sets_take_of_a_new_node_is_not_for_others() {
    let mut stage = Stage::new(&[("a", 1, 1, 5)]);
    let mut daemon = pod("daemon", 300, Some("a-000"));
    daemon.stays.daemon = true;
    stage.work.pods = vec![daemon, pod("big", 1800, None)];
    assert!(stage.decide().sizes.is_empty(), "1800 do not fit beside 300");
    stage.work.pods[1].rules.request.cpu = 1700;
    stage.work.pods.push(pod("full", 1700, Some("a-000")));
    assert_eq!(stage.decide().sizes["a"], 2);
}

#[test]
fn expanders_choose_as_they_are_called() {
    let mut stage = Stage::new(&[("large", 0, 0, 5), ("small", 0, 0, 5)]);
    stage.pools[0].template.room = room(8000);
    stage.work.pods = vec![pod("one", 1500, None), pod("wide", 3000, None)];
    for (expander, pool) in [(Expander::MostPods, "large"), (Expander::LeastWaste, "small")] {
        stage.profile.expander = expander;
        assert!(stage.decide().sizes.contains_key(pool), "{expander:?}");
    }
    stage.profile.expander = Expander::Priority;
    stage.work.priorities = vec![(50, vec![".*small.*".to_owned()]), (10, vec![".*".to_owned()])];
    assert!(stage.decide().sizes.contains_key("small"));
    stage.work.priorities = vec![(50, vec!["^large$".to_owned()])];
    assert!(stage.decide().sizes.contains_key("large"));
    stage.profile.expander = Expander::Random;
    assert_eq!(stage.decide().sizes.len(), 1);
}

#[test]
fn pools_that_are_alike_grow_in_turn_where_that_is_asked_for() {
    let mut stage = Stage::new(&[("a", 2, 0, 9), ("b", 0, 0, 9)]);
    stage.work.pods = (0..4)
        .map(|number| pod(&format!("p-{number}"), 1900, None))
        .collect();
    stage.profile.balance_similar = true;
    let sizes = stage.decide().sizes;
    // Two pods fit on the existing nodes.
    assert_eq!(sizes, BTreeMap::from([("b".to_owned(), 2)]));
}

#[test]
fn a_pod_is_not_looked_at_before_its_time() {
    let mut stage = Stage::new(&[("a", 0, 0, 9)]);
    stage.profile.new_pods = 60;
    stage.work.pods = vec![pod("young", 10, None)];
    stage.work.pods[0].created_at = at(stage.second - 10);
    let decision = stage.step();
    assert!(decision.sizes.is_empty());
    assert_eq!(decision.again, Some(at(stage.second + 50)));
    stage.second += 50;
    assert_eq!(stage.step().sizes["a"], 1);
}

#[test]
fn a_node_that_does_not_come_is_given_up_and_the_pool_left_alone_for_a_while() {
    let mut stage = Stage::new(&[("a", 1, 1, 5)]);
    stage.work.pods = vec![pod("one", 1500, Some("a-000")), pod("two", 1500, None)];
    stage.step();
    stage.pools[0].nodes.insert("a-001".to_owned(), at(stage.second));
    stage.second += 899;
    assert_eq!(stage.step().again, Some(at(stage.second + 1)));
    stage.second += 1;
    let late = stage.step();
    assert_eq!((late.sizes["a"], late.remove.len()), (1, 1));
    assert!(late.remove.contains("a-001"));
    stage.gone();
    let held = stage.step();
    assert!(held.sizes.is_empty());
    assert!(matches!(stage.outcome(&held, "two"), Outcome::Nowhere(_)));
    stage.second += 300;
    assert_eq!(stage.step().sizes["a"], 2);
}

#[test]
fn a_node_that_nobody_needs_goes_after_its_time_and_no_sooner() {
    let mut stage = Stage::new(&[("a", 3, 1, 3)]);
    stage.work.pods = vec![pod("busy", 1500, Some("a-000")), pod("idle", 100, Some("a-001"))];
    let first = stage.step();
    assert!(first.remove.is_empty());
    assert_eq!(first.memory.unneeded.len(), 2);
    assert_eq!(first.again, Some(at(stage.second + 600)));
    stage.second += 599;
    assert!(stage.step().remove.is_empty());
    stage.second += 1;
    // The empty node first; the other one after its removal.
    assert_eq!(stage.step().remove, BTreeSet::from(["a-002".to_owned()]));
    assert!(stage.step().remove.is_empty());
    stage.gone();
    stage.second += 10;
    assert_eq!(stage.step().remove, BTreeSet::from(["a-001".to_owned()]));
    stage.gone();
    stage.second += 10_000;
    assert!(stage.step().remove.is_empty(), "its least number of nodes stays");
}

#[test]
fn what_has_just_grown_does_not_shrink() {
    let mut stage = Stage::new(&[("a", 2, 1, 5)]);
    stage.memory.unneeded.insert("a-001".to_owned(), at(0));
    stage.memory.added_at = Some(at(stage.second - 10));
    let decision = stage.step();
    assert!(decision.remove.is_empty());
    assert_eq!(decision.again, Some(at(stage.second + 590)));
    stage.second += 590;
    assert_eq!(stage.step().remove.len(), 1);
}

/// Whether a node with such a pod is removed when it is due.
fn goes(change: impl FnOnce(&mut Stage)) -> bool {
    let mut stage = Stage::new(&[("a", 2, 1, 5)]);
    stage.work.pods = vec![pod("busy", 1000, Some("a-000")), pod("idle", 100, Some("a-001"))];
    stage.memory.unneeded.insert("a-001".to_owned(), at(0));
    change(&mut stage);
    stage.decide().remove.contains("a-001")
}

#[test]
fn upstreams_rules_of_safety_keep_a_node() {
    assert!(goes(|_| {}));
    let budget = |allowed| Budget {
        namespace: "d".to_owned(),
        selector: vec![Requirement::equals("app", "idle")],
        allowed,
    };
    assert!(!goes(|stage| stage.work.pods[1].stays.replicated = false));
    assert!(!goes(|stage| stage.work.pods[1].stays.local_storage = true));
    assert!(!goes(|stage| stage.work.pods[1].stays.safe = Some(false)));
    assert!(!goes(|stage| stage.work.budgets = vec![budget(0)]));
    assert!(goes(|stage| stage.work.budgets = vec![budget(1)]));
    assert!(!goes(
        |stage| stage.work.pods[1].namespace = "kube-system".to_owned()
    ));
    assert!(!goes(|stage| stage.work.nodes[1].kept = true));
    assert!(!goes(|stage| {
        stage.kept.insert("a-001".to_owned());
    }));
    assert!(!goes(|stage| stage.pools[0].min = 2));
    assert!(
        !goes(|stage| stage.work.pods[0].rules.request.cpu = 1950),
        "no place"
    );
    // The annotation overrides the other rules; rules that are off in the profile do not apply.
    assert!(goes(|stage| {
        stage.work.pods[1].stays.local_storage = true;
        stage.work.pods[1].stays.replicated = false;
        stage.work.pods[1].stays.safe = Some(true);
    }));
    assert!(goes(|stage| {
        stage.work.pods[1].stays.local_storage = true;
        stage.profile.skip_local_storage = false;
    }));
    assert!(goes(|stage| {
        stage.work.pods[1].namespace = "kube-system".to_owned();
        stage.profile.skip_system_pods = false;
    }));
    assert!(goes(|stage| stage.work.pods[1].stays.mirror = true));
    assert!(goes(|stage| {
        stage.work.pods[1].stays.daemon = true;
        stage.work.pods[1].rules.request.cpu = 1500;
        stage.profile.ignore_daemons = true;
    }));
    assert!(
        !goes(|stage| stage.work.pods[1].rules.request.cpu = 1000),
        "half of it is used"
    );
}

#[test]
fn of_empty_nodes_no_more_go_at_once_than_the_profile_says() {
    let mut stage = Stage::new(&[("a", 9, 1, 9)]);
    stage.profile.empty_at_once = 3;
    stage.step();
    stage.second += 600;
    assert_eq!(stage.step().remove.len(), 3);
}

#[test]
fn nothing_is_done_while_many_nodes_are_not_ready() {
    let mut stage = Stage::new(&[("a", 8, 1, 20)]);
    stage.work.pods = vec![pod("huge", 1900, None)];
    for node in &mut stage.work.nodes[..4] {
        node.ready = false;
    }
    let decision = stage.step();
    assert!(decision.unhealthy && decision.sizes.is_empty() && decision.remove.is_empty());
    stage.profile.unready_share = 50;
    assert!(!stage.step().unhealthy);
}

#[test]
fn a_node_that_is_not_ready_for_long_goes() {
    let mut stage = Stage::new(&[("a", 2, 1, 5)]);
    stage.work.pods = vec![pod("busy", 1000, Some("a-000"))];
    stage.work.nodes[1].ready = false;
    stage.work.nodes[1].since = Some(at(stage.second - 1199));
    let decision = stage.step();
    assert!(decision.remove.is_empty());
    assert_eq!(decision.again, Some(at(stage.second + 1)));
    stage.second += 1;
    assert_eq!(stage.step().remove, BTreeSet::from(["a-001".to_owned()]));
}

#[test]
fn a_size_below_the_range_is_brought_into_it() {
    let mut stage = Stage::new(&[("a", 1, 1, 5)]);
    stage.pools[0].min = 3;
    assert_eq!(stage.step().sizes["a"], 3);
}

#[test]
fn hundreds_of_nodes_and_thousands_of_pods_are_decided_without_asking_each_about_each() {
    let mut stage = Stage::new(&[("a", 500, 1, 1000)]);
    let names: Vec<String> = stage.work.nodes.iter().map(|node| node.name.clone()).collect();
    // Twenty kinds of pods, ten on each node: 500 nodes with a low utilization.
    for (number, name) in names.iter().cycle().take(5000).enumerate() {
        stage.work.pods.push(pod(
            &format!("k{}-{number}", number % 20),
            50 + 5 * (number as u64 % 20),
            Some(name.as_str()),
        ));
    }
    let idle = stage.decide();
    assert!(!idle.memory.unneeded.is_empty());
    // Each pod is checked against a few nodes, not against 500 (2,500,000 checks).
    assert!(idle.checks < 200_000, "{}", idle.checks);
    // All nodes are full, and as many pods are unschedulable.
    for pod in &mut stage.work.pods {
        pod.rules.request.cpu = 200;
    }
    let waiting = (0..5000).map(|number| pod(&format!("w{}-{number}", number % 20), 200, None));
    stage.work.pods.extend(waiting);
    let full = stage.decide();
    assert_eq!(full.sizes["a"], 1000);
    assert!(full.checks < 200_000, "{}", full.checks);
}
