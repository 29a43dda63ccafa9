//! Upgrades: what goes on when, and what nobody may see meanwhile.

use cluster_spec::Tier;

use super::{healing::standing, *};

const OLD: &str = "1.36.3";
const NEW: &str = "1.37.1";

impl Ideal {
    /// Asks for another version: of the control plane, and of the pools.
    fn upgrade(&mut self, control_plane: &str, pools: &str) {
        self.desired.change_spec(|spec| {
            spec.kubernetes_version = control_plane.to_owned();
            for pool in &mut spec.pools {
                pool.kubernetes_version = pools.to_owned();
            }
        });
        self.desired.generation += 1;
    }

    /// By machine: what the control plane, or all nodes, run.
    fn running(&self, nodes: bool) -> BTreeSet<&str> {
        let machines = self.seen.machines.iter();
        machines
            .filter(|(_, machine)| {
                machine.node_name().is_some() == nodes && machine.presence == Presence::Running
            })
            .map(|(id, _)| self.runs(id))
            .collect()
    }

    /// Runs until nothing is left, and sees each state on the way.
    fn watch(&mut self, mut see: impl FnMut(&Self)) {
        for _ in 0..400 {
            let left = self.pass();
            see(self);
            let newest_node = self
                .running(true)
                .into_iter()
                .max()
                .unwrap_or_default()
                .to_owned();
            assert!(
                self.running(false)
                    .into_iter()
                    .all(|member| *member >= *newest_node),
                "a node is newer than an API server"
            );
            if !left {
                return;
            }
        }
        panic!("it does not converge: {:#?}", self.plan());
    }

    /// Nodes that do their work and are not about to go.
    fn working(&self) -> usize {
        let machines = self.seen.machines.values();
        machines
            .filter(|machine| !machine.record.deleting)
            .filter(|machine| {
                let name = machine.node_name();
                name.and_then(|name| self.seen.api.node(name))
                    .is_some_and(|node| node.ready)
            })
            .count()
    }

    fn upgrades(&self) -> Vec<&str> {
        let told = self
            .told
            .iter()
            .filter(|(_, event)| event.kind == EventKind::Upgrade);
        told.map(|(_, event)| event.message.as_str()).collect()
    }
}

#[test]
fn the_control_plane_goes_first_and_keeps_its_machine() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 2)]);
    let before: Vec<_> = ideal.seen.machines.keys().cloned().collect();
    ideal.upgrade(NEW, OLD);
    let plan = ideal.plan();
    assert_eq!(plan.observed.generation, 1);
    assert!(plan.observed.step.contains(NEW), "{}", plan.observed.step);
    assert!(plan.effects.is_empty(), "written down first: {:?}", plan.effects);
    let mut configured = false;
    ideal.watch(|ideal| {
        configured |= ideal
            .plan()
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Config(ConfigEffect::Render { .. })));
    });
    assert!(!configured, "an upgrade is one restart, and nothing of the nodes");
    assert_eq!(ideal.running(false), BTreeSet::from([NEW]));
    assert_eq!(ideal.running(true), BTreeSet::from([OLD]));
    assert_eq!(ideal.seen.machines.keys().cloned().collect::<Vec<_>>(), before);
    assert_eq!(ideal.seen.observed.kubernetes_version.as_deref(), Some(NEW));
    assert_eq!(ideal.seen.observed.generation, 2);
    assert_eq!(
        ideal.upgrades(),
        [
            "goes on from Kubernetes 1.36.3 to 1.37.1",
            "serves with Kubernetes 1.37.1"
        ]
    );
}

#[test]
fn nodes_are_replaced_one_beside_the_other_after_the_control_plane() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 3)]);
    ideal.upgrade(NEW, NEW);
    ideal.watch(|ideal| {
        assert!(ideal.working() >= 3, "{} nodes work", ideal.working());
        let nodes = ideal
            .seen
            .machines
            .values()
            .filter(|machine| machine.node_name().is_some());
        assert!(nodes.count() <= 4, "one more than there are to be");
    });
    assert_eq!(ideal.running(true), BTreeSet::from([NEW]));
    assert_eq!(ideal.nodes_of("a").len(), 3);
    assert_eq!(ideal.seen.observed.generation, 2);
}

#[test]
fn a_pool_may_surge_or_do_with_fewer_nodes() {
    for (surge, unavailable, most, least) in [(3, 0, 6, 3), (0, 1, 3, 2), (0, 3, 3, 0), (2, 1, 5, 2)] {
        let mut ideal = standing(Tier::Free, vec![pool("a", 3)]);
        ideal.desired.change_spec(|spec| spec.pools[0].surge = surge);
        ideal
            .desired
            .change_spec(|spec| spec.pools[0].unavailable = unavailable);
        ideal.upgrade(NEW, NEW);
        let (mut seen_most, mut seen_least) = (0, 9);
        ideal.watch(|ideal| {
            let nodes = ideal
                .seen
                .machines
                .values()
                .filter(|machine| machine.node_name().is_some());
            seen_most = seen_most.max(nodes.count());
            seen_least = seen_least.min(ideal.working());
        });
        assert!(
            seen_most <= most && seen_least >= least,
            "{surge}/{unavailable}: {seen_most}, {seen_least}"
        );
        assert_eq!(ideal.running(true), BTreeSet::from([NEW]));
        assert_eq!(ideal.nodes_of("a").len(), 3);
    }
}

#[test]
fn members_go_one_after_the_other_and_only_while_all_are_well() {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    ideal.upgrade(NEW, NEW);
    ideal.watch(|ideal| {
        let upgrading = |machine: &&Machine| machine.record.upgrading().is_some();
        assert!(ideal.seen.machines.values().filter(upgrading).count() <= 1);
    });
    assert_eq!(ideal.running(false), BTreeSet::from([NEW]));
    assert_eq!(ideal.upgrades().len(), 6);

    // One that does not serve with the new version: the others stay as they are, until it does.
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    ideal.upgrade(NEW, NEW);
    ideal.pass();
    let first = ideal
        .seen
        .machines
        .values()
        .find(|machine| machine.record.upgrading().is_some());
    let first = first.unwrap().record.id.clone();
    ideal.fall_ill(&first, RepairStep::Replace);
    for _ in 0..20 {
        ideal.pass();
        assert_eq!(ideal.upgrades(), ["goes on from Kubernetes 1.36.3 to 1.37.1"]);
    }
    ideal.live(Duration::from_secs(2 * 3600));
    assert!(!ideal.seen.machines.contains_key(&first), "healing replaces it");
    assert_eq!(ideal.running(false), BTreeSet::from([NEW]));
    assert_eq!(ideal.seen.observed.generation, 2);
}

#[test]
fn a_control_plane_that_has_gone_on_never_goes_back() {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    ideal.upgrade(NEW, NEW);
    while ideal.upgrades().is_empty() {
        ideal.pass();
    }
    ideal.upgrade(OLD, OLD);
    ideal.watch(|_| {});
    assert_eq!(
        ideal.running(false),
        BTreeSet::from([NEW]),
        "the others follow the first"
    );
    assert_eq!(ideal.running(true), BTreeSet::from([OLD]));
    assert_eq!(ideal.seen.observed.kubernetes_version.as_deref(), Some(NEW));
    assert_eq!(ideal.seen.observed.generation, 3);
}

#[test]
fn nodes_that_are_on_their_way_turn_round() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 3)]);
    ideal.upgrade(NEW, NEW);
    while ideal.running(true).len() < 2 {
        ideal.pass();
    }
    ideal.upgrade(NEW, OLD);
    ideal.watch(|ideal| assert!(ideal.working() >= 3));
    assert_eq!(ideal.running(true), BTreeSet::from([OLD]));
    assert_eq!(ideal.nodes_of("a").len(), 3);
}

#[test]
fn a_pool_is_scaled_while_it_is_upgraded() {
    for count in [1, 6] {
        let mut ideal = standing(Tier::Free, vec![pool("a", 3)]);
        ideal.desired.change_spec(|spec| spec.pools[0].count = count);
        ideal.upgrade(NEW, NEW);
        ideal.watch(|ideal| assert!(ideal.working() >= 3.min(count as usize)));
        assert_eq!(ideal.running(true), BTreeSet::from([NEW]));
        assert_eq!(ideal.nodes_of("a").len(), count as usize);
    }
}

#[test]
fn a_preserved_node_stays_as_evidence_and_another_does_its_work() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 2)]);
    let kept = ideal.nodes_of("a")[0].clone();
    let name = ideal.seen.machines[&kept].node_name().unwrap().to_owned();
    let preserve = |ideal: &mut Ideal, reason: Option<&str>| {
        let node = ideal.seen.api.nodes.iter_mut().find(|node| node.name == name);
        node.unwrap().preserve = reason.map(str::to_owned);
        ideal.watch(|_| {});
    };
    preserve(&mut ideal, Some("ticket 12"));
    ideal.upgrade(NEW, NEW);
    ideal.watch(|_| {});
    assert_eq!(ideal.seen.observed.generation, 2);
    assert_eq!(ideal.runs(&kept), OLD);
    assert_eq!(ideal.nodes_of("a").len(), 3);
    preserve(&mut ideal, None);
    assert!(
        !ideal.seen.machines.contains_key(&kept),
        "it has served its purpose"
    );
    assert_eq!(ideal.running(true), BTreeSet::from([NEW]));
}

#[test]
fn only_the_other_image_ends_an_upgrade() {
    // The service has lost its memory after the machine was started: it is started once more, and that is all.
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    ideal.upgrade(NEW, NEW);
    let member = ideal.control_plane_ids().remove(0);
    while ideal.boots[&member].0 < 2 {
        ideal.pass();
    }
    ideal.health = Default::default();
    ideal.watch(|_| {});
    assert_eq!(ideal.boots[&member].0, 3);
    assert_eq!(ideal.running(false), BTreeSet::from([NEW]));

    // A machine of which nothing was heard yet, and whose start may or may not have worked: what it says first is said by the
    // image of before.
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    let machine = ideal.seen.machines.get_mut(&member).unwrap();
    machine.report = None;
    machine.presence = Presence::Partial;
    ideal.upgrade(NEW, NEW);
    let held = Held {
        attempts: 1,
        until: after(ideal.now, Duration::from_secs(5)),
        why: "its answer was lost".to_owned(),
    };
    ideal.seen.held.insert(Subject::Machine(member.clone()), held);
    ideal.pass();
    ideal.seen.machines.get_mut(&member).unwrap().presence = Presence::Running;
    ideal.watch(|_| {});
    assert_eq!(ideal.running(false), BTreeSet::from([NEW]));
}

#[test]
fn what_has_begun_is_known_from_the_transaction_that_begins_it() {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    ideal.upgrade(NEW, OLD);
    let (mut begun, mut ended) = (false, false);
    ideal.watch(|ideal| {
        let observed = &ideal.seen.observed;
        let changing = ideal
            .seen
            .machines
            .values()
            .any(|machine| machine.record.upgrading().is_some());
        let gone_on = ideal
            .seen
            .machines
            .values()
            .any(|machine| machine.record.image == NEW);
        if gone_on && observed.kubernetes_version.as_deref() != Some(NEW) {
            begun = true;
            assert_eq!(observed.upgrading_to.as_deref(), Some(NEW));
        }
        ended = !changing && observed.upgrading_to.is_none();
    });
    assert!(begun && ended);
    assert_eq!(ideal.seen.observed.kubernetes_version.as_deref(), Some(NEW));
}
