//! Control planes of several members: how they grow, shrink, lose one and get another.

use cluster_spec::Tier;

use super::{healing::standing, *};

impl Ideal {
    fn members(&self) -> Vec<(u32, String)> {
        let mut found: Vec<_> = self
            .seen
            .machines
            .iter()
            .filter(|(_, machine)| !machine.record.deleting)
            .filter_map(|(id, machine)| match machine.role()? {
                Role::ControlPlane { index, .. } => Some((*index, id.clone())),
                Role::Node { .. } => None,
            })
            .collect();
        found.sort();
        found
    }

    fn run_while_healing(&mut self, minutes: u64) {
        let end = after(self.now, Duration::from_secs(60 * minutes));
        while self.now < end {
            if !self.pass() {
                self.now = after(self.now, Duration::from_secs(5));
            }
        }
    }
}

#[test]
fn three_members_start_together_and_know_each_other() {
    let ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    let members = ideal.members();
    assert_eq!(
        members.iter().map(|(index, _)| *index).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    let addresses: BTreeSet<_> = ideal
        .seen
        .machines
        .values()
        .filter_map(|machine| match machine.role()? {
            Role::ControlPlane { address, .. } => Some(*address),
            Role::Node { .. } => None,
        })
        .collect();
    assert_eq!(addresses.len(), 3);
    assert!(ideal.seen.observed.roaming);
    assert_eq!(ideal.seen.observed.limits, Some(Tier::Standard));
    assert_eq!(ideal.seen.observed.generation, 1);
}

#[test]
fn a_cluster_grows_to_three_and_shrinks_to_one_again() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    let first = ideal.members();
    ideal.desired.spec.tier = Tier::Standard;
    ideal.desired.generation = 2;
    // The member there is learns of the others before they start.
    let mut order = Vec::new();
    for _ in 0..100 {
        ideal.examine();
        for effect in ideal.plan().effects {
            if let Effect::Configure { machine, .. } = effect {
                order.push(machine);
            }
        }
        if !ideal.pass() {
            break;
        }
    }
    assert_eq!(order[0], first[0].1);
    assert_eq!(ideal.members().len(), 3);
    assert_eq!(ideal.seen.observed.generation, 2);
    assert_eq!(
        ideal.seen.observed.limits,
        Some(Tier::Standard),
        "and the limits follow"
    );
    assert!(ideal.seen.observed.roaming);

    ideal.desired.spec.tier = Tier::Free;
    ideal.desired.generation = 3;
    ideal.run();
    assert_eq!(ideal.members(), first, "the first stays");
    assert_eq!(ideal.seen.machines.len(), 2);
    assert!(
        ideal.seen.observed.roaming,
        "the VIP is held by the members for ever"
    );
    assert_eq!(ideal.seen.observed.generation, 3);
}

#[test]
fn etcd_may_have_been_formed_before_the_api_server_was_seen() {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    ideal.desired.spec.tier = Tier::Free;
    ideal.desired.generation = 2;
    for _ in 0..10 {
        ideal.seen.observed.milestones.remove("api_ready");
        ideal.seen.api = nothing_yet().api;
        ideal.pass();
    }
    ideal.run();
    assert_eq!(ideal.members().len(), 1);
    assert_eq!(ideal.seen.observed.generation, 2);
}

#[test]
fn a_lost_member_is_replaced_and_a_second_one_never_taken_away_meanwhile() {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    let before = ideal.members();
    let lost = before[1].1.clone();
    let machine = ideal.seen.machines.get_mut(&lost).unwrap();
    machine.record.enrolled_key = Some("key".to_owned());
    machine.presence = Presence::Absent;
    ideal.run_while_healing(5);
    assert_eq!(
        ideal.repairs()[0],
        "replacing the machine: it is not there any more"
    );
    let members = ideal.members();
    assert_eq!(members.len(), 3);
    assert!(!members.iter().any(|(_, id)| *id == lost));
    assert_eq!(ideal.voters, members.iter().map(|(_, id)| id.clone()).collect());
    assert_eq!(members[1].0, 2, "not the number of one that may still be known");

    // A second one falls silent while the third has not joined: it is rebooted, and kept.
    let mut ideal = standing(Tier::Standard, vec![pool("a", 9)]);
    let (one, two) = (ideal.members()[0].1.clone(), ideal.members()[1].1.clone());
    ideal.ill.insert(one.clone(), (ideal.now, Rung::Replace));
    ideal.ill.insert(two.clone(), (ideal.now, Rung::Replace));
    ideal.run_while_healing(60);
    let ids: Vec<_> = ideal.members().into_iter().map(|(_, id)| id).collect();
    assert!(ids.contains(&one) && ids.contains(&two));
    assert!(
        ideal
            .repairs()
            .iter()
            .any(|told| told.starts_with("restarting the machine"))
    );
    assert!(!ideal.repairs().iter().any(|told| told.starts_with("replacing")));
    // One of them comes back: the other is replaced.
    ideal.ill.remove(&one);
    ideal.run_while_healing(120);
    let ids: Vec<_> = ideal.members().into_iter().map(|(_, id)| id).collect();
    assert!(ids.contains(&one) && !ids.contains(&two) && ids.len() == 3);
}

#[test]
fn an_only_member_starts_when_the_one_before_has_left_the_vip() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    let old = ideal.members()[0].1.clone();
    ideal.seen.machines.get_mut(&old).unwrap().record.deleting = true;
    // A creation that was aborted: etcd holds nothing yet.
    ideal.seen.observed.milestones.remove("api_ready");
    ideal.voters.clear();
    let mut started = Vec::new();
    for _ in 0..100 {
        ideal.examine();
        for effect in ideal.plan().effects {
            if let Effect::EnsureMachine(id) = effect {
                assert!(!ideal.seen.machines.contains_key(&old), "{id} has the VIP too");
                started.push(id);
            }
        }
        if !ideal.pass() {
            break;
        }
    }
    assert_eq!(ideal.members().len(), 1);
    assert_ne!(ideal.members()[0].1, old);
    assert!(started.contains(&ideal.members()[0].1));
}

#[test]
fn members_take_what_restarts_them_one_after_the_other() {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    ideal.desired.spec.tier = Tier::Premium;
    ideal.desired.spec.fqdn = "other.local".to_owned();
    ideal.desired.generation = 2;
    let mut most = 0;
    for _ in 0..100 {
        ideal.examine();
        let members: BTreeSet<_> = ideal.members().into_iter().map(|(_, id)| id).collect();
        let configured = ideal
            .plan()
            .effects
            .iter()
            .filter(|effect| matches!(effect, Effect::Configure { machine, .. } if members.contains(machine)))
            .count();
        most = most.max(configured);
        if !ideal.pass() {
            break;
        }
    }
    assert_eq!(most, 1);
    assert_eq!(ideal.seen.observed.generation, 2);
}
