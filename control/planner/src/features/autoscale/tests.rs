//! Pools with an autoscaler, in a world where plans take effect at once.

use cluster_autoscaler::{Node, Pod, Rules, Stays, Work};
use cluster_spec::{PoolRange, Tier, Undrainable};

use super::{healing::standing, *};

/// Allocatable thousandths of a core of each node.
const CORES: u64 = 1900;

impl Ideal {
    /// Writes the autoscaler's counts.
    pub(super) fn scale(&mut self, sizes: &BTreeMap<String, PoolSize>) {
        let generation = self.desired.generation;
        let there: BTreeSet<String> = self.seen.machines.keys().cloned().collect();
        self.desired.change_spec(|spec| {
            for (name, size) in sizes {
                let pool = spec.pools.iter_mut().find(|pool| pool.name == *name).unwrap();
                let range = pool.autoscale.unwrap();
                assert!((range.min..=range.max).contains(&size.count), "{size:?}");
                assert!(size.removed.is_subset(&there), "{size:?}");
                pool.count = size.count;
                pool.removed.clone_from(&size.removed);
            }
        });
        assert_eq!(self.desired.generation, generation);
    }

    /// Schedules pods on nodes with room, and observes them.
    pub(super) fn look_at_work(&mut self) {
        let (api, pods) = (&self.seen.api, &mut self.pods);
        let ready: Vec<&NodeSeen> = api.nodes.iter().filter(|node| node.ready).collect();
        let is_there = |name: &String| ready.iter().any(|node| node.name == *name);
        for index in 0..pods.len() {
            if pods[index].node.as_ref().is_some_and(is_there) {
                continue;
            }
            let asked = pods[index].rules.request.cpu;
            let used = |name: &str| -> u64 {
                let there = pods.iter().filter(|pod| pod.node.as_deref() == Some(name));
                there.map(|pod| pod.rules.request.cpu).sum()
            };
            let place = ready.iter().find(|node| used(&node.name) + asked <= CORES);
            let place = place.map(|node| node.name.clone());
            pods[index].unschedulable = place.is_none();
            pods[index].node = place;
        }
        let nodes = api.nodes.iter().map(|seen| {
            let mut node = Node {
                name: seen.name.clone(),
                uid: seen.name.clone(),
                ready: seen.ready,
                since: Some(at(0)),
                ..Node::default()
            };
            node.labels
                .insert("kubernetes.azure.com/cluster".to_owned(), "mc".to_owned());
            node.room.cpu = CORES;
            node.room.memory = 4 << 30;
            node.room.pods = 30;
            node
        });
        let mut nodes: Vec<Node> = nodes.collect();
        nodes.sort_by(|one, other| one.name.cmp(&other.name));
        let work = Work {
            nodes,
            pods: pods.clone(),
            ..Work::default()
        };
        self.seen.api.work = Some(WorkSeen {
            at: self.now,
            change: self.seen.api.change,
            work: Arc::new(work),
        });
    }

    /// Runs the world for this number of seconds.
    fn go_on(&mut self, seconds: u64) {
        let end = after(self.now, Duration::from_secs(seconds));
        while self.now < end {
            self.pass();
        }
    }

    fn add_pod(&mut self, name: &str, cpu: u64) {
        let mut rules = Rules {
            namespace: "d".to_owned(),
            ..Rules::default()
        };
        rules.request.cpu = cpu;
        rules.request.pods = 1;
        self.pods.push(Pod {
            namespace: "d".to_owned(),
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            version: "1".to_owned(),
            created_at: at(0),
            node: None,
            unschedulable: true,
            priority: 0,
            rules,
            blocked: None,
            owner: Some("set".to_owned()),
            stays: Stays {
                replicated: true,
                ..Stays::default()
            },
            leaving: false,
        });
    }

    fn names_of(&self, pool: &str) -> Vec<String> {
        self.nodes_of(pool)
    }
}

/// A cluster with a pool of one node that may have three, and one without an autoscaler.
fn scaled() -> Ideal {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1), pool("b", 1)]);
    ideal.desired.change_spec(|spec| {
        spec.pools[0].autoscale = Some(PoolRange { min: 1, max: 3 });
        spec.autoscaler.unneeded = 60;
    });
    ideal.desired.generation += 1;
    ideal.go_on(30);
    ideal
}

#[test]
fn a_cluster_without_an_autoscaler_is_never_asked_for_its_pods() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    for _ in 0..50 {
        assert!(!ideal.plan().effects.contains(&ApiEffect::LookAtWork.into()));
        ideal.pass();
    }
    assert!(ideal.seen.observed.autoscaler.is_empty());
}

#[test]
fn pods_that_find_no_place_bring_a_node_and_take_it_along_when_they_go() {
    let mut ideal = scaled();
    assert_eq!(ideal.names_of("a").len(), 1);
    let generation = ideal.seen.observed.generation;
    for name in ["one", "two", "three"] {
        ideal.add_pod(name, 1500);
    }
    // Each of the two existing nodes has room for one pod.
    ideal.go_on(40);
    assert_eq!(ideal.names_of("a").len(), 2);
    assert_eq!(ideal.desired.spec().pools[0].count, 2);
    assert!(ideal.pods.iter().all(|pod| pod.node.is_some()));
    assert_eq!(
        ideal.seen.observed.generation, generation,
        "nobody has asked for anything"
    );
    assert!(
        ideal
            .seen
            .api
            .work_status
            .as_ref()
            .unwrap()
            .contains("cloudProviderTarget: 2")
    );
    assert!(ideal.seen.observed.autoscaler.growing.is_empty());
    let told = |ideal: &Ideal, word: &str| {
        let mut told = ideal.told.iter();
        told.any(|(_, event)| event.kind == EventKind::Autoscaled && event.message.contains(word))
    };
    assert!(told(&ideal, "unschedulable"));
    ideal.pods.clear();
    // There is no removal for ten minutes after growth.
    ideal.go_on(300);
    assert_eq!(ideal.names_of("a").len(), 2);
    ideal.go_on(400);
    assert_eq!(ideal.names_of("a").len(), 1);
    assert_eq!(ideal.desired.spec().pools[0].count, 1);
    assert!(told(&ideal, "need fewer"));
    assert_eq!(ideal.nodes_of("b").len(), 1, "no other pool is touched");
}

#[test]
fn a_pool_that_something_is_asked_of_is_left_alone_until_it_is_there() {
    let mut ideal = scaled();
    ideal.add_pod("large", 1900);
    ideal.add_pod("larger", 1900);
    ideal.add_pod("largest", 1900);
    // Requested at the same time.
    ideal
        .desired
        .change_spec(|spec| spec.pools[0].renewed = Some(i64::MAX));
    ideal.desired.generation += 1;
    ideal
        .desired
        .pool_generations
        .insert("a".to_owned(), ideal.desired.generation);
    ideal.look_at_work();
    let plan = ideal.plan();
    assert!(
        !plan.writes.iter().any(|write| matches!(write, Write::Scale(_))),
        "{:?}",
        plan.writes
    );
}

#[test]
fn a_pool_is_scaled_again_after_its_upgrade_has_ended_at_a_node_that_cannot_be_drained() {
    for (undrainable, pods) in [(Undrainable::Schedule, 3), (Undrainable::Cordon, 4)] {
        let mut ideal = scaled();
        let held = ideal.names_of("a")[0].clone();
        ideal.stubborn.insert(held.clone());
        ideal.desired.change_spec(|spec| {
            spec.kubernetes_version = "1.37.1".to_owned();
            spec.pools[0].kubernetes_version = "1.37.1".to_owned();
            spec.pools[0].undrainable = undrainable;
        });
        ideal.desired.generation += 1;
        let generation = ideal.desired.generation;
        ideal.desired.requests.generation = generation;
        ideal.desired.pool_generations.insert("a".to_owned(), generation);
        ideal.go_on(40 * 60);
        let emptying = ideal.seen.machines[&held].record.emptying.as_ref().unwrap();
        assert!(emptying.given_up.is_some(), "{undrainable:?}");
        assert!(ideal.seen.observed.generation < generation);
        assert_eq!(ideal.desired.spec().pools[0].count, 1);
        // All existing nodes have room for one pod less than there are.
        for number in 0..pods {
            ideal.add_pod(&format!("pod{number}"), 1500);
        }
        ideal.go_on(60);
        assert_eq!(ideal.desired.spec().pools[0].count, 2, "{undrainable:?}");
        assert!(ideal.pods.iter().all(|pod| pod.node.is_some()));
    }
}

#[test]
fn a_stopped_pool_is_not_scaled_and_pods_are_not_read_for_it() {
    let mut ideal = scaled();
    for name in ["one", "two", "three"] {
        ideal.add_pod(name, 1500);
    }
    ideal.look_at_work();
    ideal.desired.change_spec(|spec| spec.pools[0].stopped = true);
    let plan = ideal.plan();
    assert!(
        !plan.writes.iter().any(|write| matches!(write, Write::Scale(_))),
        "{:?}",
        plan.writes
    );
    assert!(!plan.effects.contains(&ApiEffect::LookAtWork.into()));
    ideal.run();
    assert!(ideal.names_of("a").is_empty());
    assert_eq!(ideal.desired.spec().pools[0].count, 1, "it starts with its count");
    ideal.desired.change_spec(|spec| spec.pools[0].stopped = false);
    ideal.go_on(90);
    assert_eq!(ideal.desired.spec().pools[0].count, 2, "it is scaled again");
}

#[test]
fn what_was_seen_long_ago_decides_nothing() {
    let mut ideal = scaled();
    for name in ["one", "two", "three"] {
        ideal.add_pod(name, 1900);
    }
    ideal.look_at_work();
    let scales = |ideal: &Ideal| {
        let writes = ideal.plan().writes;
        writes.iter().any(|write| matches!(write, Write::Scale(_)))
    };
    assert!(scales(&ideal));
    ideal.now = after(ideal.now, Duration::from_secs(61));
    assert!(!scales(&ideal));
}
