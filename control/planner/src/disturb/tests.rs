//! What disturbs a machine, and that each was asked for.

use cluster_spec::Tier;

use super::*;
use crate::disturb::Disturb;

/// What is about to be done to a machine, and by which permit; `None` where nothing of it is disturbed. An effect that is new is to be named
/// here, and decided on.
fn permit(effect: &Effect) -> Option<(&'static str, &Permit)> {
    Some(match effect {
        Effect::Fabric(effect) => match effect {
            FabricEffect::StopMachine(permit) => ("stop", permit),
            FabricEffect::RestartMachine { machine, .. } => ("restart", machine),
            FabricEffect::WipeMachine { machine, .. } => ("wipe", machine),
            FabricEffect::DeleteMachine(permit) => ("delete", permit),
            FabricEffect::Look
            | FabricEffect::EnsureNetwork(_)
            | FabricEffect::DeleteNetwork
            | FabricEffect::EnsureMachine(_)
            | FabricEffect::EnsureVolume { .. }
            | FabricEffect::AttachVolume { .. }
            | FabricEffect::DetachVolume(_)
            | FabricEffect::DeleteVolume(_)
            | FabricEffect::EnsureAddonImage(_) => return None,
        },
        Effect::Config(effect) => match effect {
            ConfigEffect::Render { machine, .. } => ("configure", machine),
            ConfigEffect::Load(_) => return None,
        },
        Effect::Api(effect) => match effect {
            ApiEffect::Drain { machine, .. } => ("drain", machine),
            ApiEffect::Look
            | ApiEffect::SetNode { .. }
            | ApiEffect::ApproveServing
            | ApiEffect::ApplyAddons { .. }
            | ApiEffect::SetCredentials(_)
            | ApiEffect::DeleteNode(_)
            | ApiEffect::Command(_)
            | ApiEffect::SetNamespace(_)
            | ApiEffect::SetService(_)
            | ApiEffect::SetVolume(_)
            | ApiEffect::LookAtWork
            | ApiEffect::TellWork(_) => return None,
        },
    })
}

/// Does all that is to be done, and keeps what disturbed a machine.
fn run(ideal: &mut Ideal, disturbed: &mut BTreeSet<&'static str>) {
    for _ in 0..400 {
        ideal.examine();
        for effect in &ideal.plan().effects {
            let Some((what, permit)) = permit(effect) else {
                continue;
            };
            disturbed.insert(what);
            // It is for the machine that the effect is on, which is one of the cluster.
            let machine = &ideal.seen.machines[permit.machine()];
            let subjects = [
                Subject::Machine(permit.machine().to_owned()),
                Subject::Config(permit.machine().to_owned()),
                Subject::Node(machine.label().to_owned()),
            ];
            assert!(subjects.contains(&effect.subject()), "{effect:?}");
        }
        if !ideal.pass() {
            return;
        }
    }
    panic!("never done: {:?}", ideal.plan());
}

#[test]
fn whatever_disturbs_a_machine_has_a_permit_for_it() {
    let mut disturbed = BTreeSet::new();
    let mut ideal = Ideal::new(cluster(PodNetworking::Kubenet, vec![pool("a", 2)]), nothing_yet());
    run(&mut ideal, &mut disturbed);
    assert_eq!(disturbed, BTreeSet::from(["configure"]));
    for change in [
        |spec: &mut ClusterSpec| spec.pools[0].count = 1,
        |spec: &mut ClusterSpec| spec.kubernetes_version = "1.37.1".to_owned(),
        |spec: &mut ClusterSpec| spec.stopped = true,
    ] {
        ideal.desired.change_spec(change);
        ideal.desired.generation += 1;
        ideal.desired.modified_at = ideal.now;
        run(&mut ideal, &mut disturbed);
    }
    let all = ["configure", "delete", "drain", "restart", "stop", "wipe"];
    assert_eq!(disturbed, BTreeSet::from(all));
}

#[test]
fn a_preserved_machine_is_not_repaired_for_the_asking_and_goes_with_its_cluster() {
    let mut ideal = super::healing::standing(Tier::Free, vec![pool("a", 1)]);
    let id = ideal.nodes_of("a")[0].clone();
    let machine = ideal.seen.machines.get_mut(&id).unwrap();
    machine.record.healing.preserve = Some("evidence".to_owned());
    let draft = Draft::new(&ideal.desired, &ideal.seen, &ideal.policy, ideal.now, true);
    let (id, machine) = (id.as_str(), &ideal.seen.machines[&id]);
    assert_eq!(
        draft.may(Disturb::Order { id, machine }),
        Err("it is preserved (evidence)".to_owned())
    );
    for disturb in [
        Disturb::Retire { id },
        Disturb::End { id },
        Disturb::Drain { id },
        Disturb::Remove { id, machine },
        Disturb::TurnOff { id },
        Disturb::Proceed { id },
        Disturb::Configure {
            id,
            machine,
            inputs: "",
        },
        Disturb::Release {
            id,
            machine,
            inputs: "",
        },
    ] {
        assert_eq!(draft.may(disturb), Ok(Permit::assumed(id)), "{disturb:?}");
    }
    // etcd has not let its only member go.
    let (id, machine) = draft
        .seen
        .machines
        .iter()
        .find(|(_, machine)| machine.node_name().is_none())
        .unwrap();
    assert!(draft.may(Disturb::Remove { id, machine }).is_err());
}
