//! Tables of decisions.

use super::*;

fn effects(plan: &Plan) -> Vec<String> {
    let text = |effect: &Effect| match effect {
        Effect::Fabric(effect) => format!("{effect:?}"),
        Effect::Config(effect) => format!("{effect:?}"),
        Effect::Api(effect) => format!("{effect:?}"),
    };
    plan.effects.iter().map(text).collect()
}

#[test]
fn everything_that_is_only_written_is_written_at_once() {
    let desired = cluster(PodNetworking::Kubenet, vec![pool("a", 2), pool("b", 1)]);
    let plan = plan(&desired, &nothing_yet(), &Policy::default(), at(1));
    assert!(
        plan.effects.is_empty(),
        "nothing is done before it is written down"
    );
    let records = plan
        .writes
        .iter()
        .filter(|write| matches!(write, Write::RecordMachine { .. }));
    assert_eq!(records.count(), 4);
    assert!(plan.writes.contains(&Write::CreatePki));
    assert!(plan.writes.iter().any(|write| matches!(write, Write::Lease(_))));
    assert!(!plan.settled());
}

#[test]
fn machines_start_side_by_side_and_configurations_do_not_wait_for_them() {
    let mut ideal = Ideal::new(cluster(PodNetworking::Kubenet, vec![pool("a", 1)]), nothing_yet());
    ideal.pass();
    let second = ideal.plan();
    assert_eq!(
        second
            .effects
            .iter()
            .map(|effect| effect.subject())
            .collect::<Vec<_>>(),
        [
            Subject::Network,
            Subject::Config("new0".to_owned()),
            Subject::Config("new1".to_owned())
        ]
    );
    ideal.pass();
    assert_eq!(
        effects(&ideal.plan()),
        [r#"EnsureMachine("new0")"#, r#"EnsureMachine("new1")"#]
    );
}

#[test]
fn what_is_as_it_should_be_is_left_alone() {
    let mut ideal = converged(PodNetworking::Kubenet, vec![pool("a", 2)]);
    assert_eq!(ideal.seen.observed.generation, 1);
    ideal.now = at(100);
    let plan = ideal.plan();
    assert!(plan.settled() && plan.effects.is_empty(), "{plan:?}");
    for milestone in ["accepted", "api_ready", "node_ready", "converged"] {
        assert!(
            ideal.seen.observed.milestones.contains_key(milestone),
            "{milestone}"
        );
    }
}

#[test]
fn a_change_that_concerns_no_machine_touches_none() {
    let mut ideal = converged(PodNetworking::Kubenet, vec![pool("a", 1)]);
    ideal.now = at(100);
    ideal.desired.generation = 2;
    let plan = ideal.plan();
    assert!(
        plan.effects.is_empty() && plan.observed.generation == 2,
        "{plan:?}"
    );

    ideal.desired.change_spec(|spec| {
        spec.pools[0].labels.insert("team".to_owned(), "blue".to_owned());
    });
    let plan = ideal.plan();
    assert_eq!(plan.effects.len(), 1);
    assert!(
        matches!(&plan.effects[0], Effect::Api(ApiEffect::SetNode { .. })),
        "labels change on the object: {plan:?}"
    );
}

#[test]
fn what_is_busy_or_held_back_is_not_planned_but_told() {
    let mut ideal = Ideal::new(cluster(PodNetworking::Kubenet, vec![pool("a", 1)]), nothing_yet());
    ideal.pass();
    ideal.seen.busy.insert(Subject::Network);
    ideal.seen.held.insert(
        Subject::Config("new0".to_owned()),
        Held {
            attempts: 3,
            until: at(9),
            why: "configuring the control plane: no".to_owned(),
        },
    );
    let plan = ideal.plan();
    assert_eq!(plan.effects.len(), 1, "{plan:?}");
    assert_eq!(plan.look_again, Some(at(9)));
    assert_eq!(plan.observed.step, "making the network (and 6 more)");
    assert_eq!(
        plan.observed.problem.as_deref(),
        Some("configuring the control plane: no")
    );
}

#[test]
fn scaling_down_takes_the_highest_numbers_and_up_the_lowest_free() {
    let mut ideal = converged(PodNetworking::Kubenet, vec![pool("a", 4)]);
    ideal.desired.change_spec(|spec| spec.pools[0].count = 2);
    ideal.desired.generation = 2;
    let marked: BTreeSet<_> = ideal
        .plan()
        .writes
        .iter()
        .filter_map(|write| match write {
            Write::MarkMachine(permit) => {
                let machine = &ideal.seen.machines[permit.machine()];
                machine.node_name().map(str::to_owned)
            }
            _ => None,
        })
        .collect();
    assert!(
        marked
            .iter()
            .all(|name| name.ends_with("vmss000002") || name.ends_with("vmss000003"))
    );
    assert_eq!(marked.len(), 2);
    ideal.run();
    ideal.desired.change_spec(|spec| spec.pools[0].count = 3);
    ideal.desired.generation = 3;
    ideal.run();
    let names: BTreeSet<_> = ideal
        .seen
        .machines
        .values()
        .filter_map(Machine::node_name)
        .collect();
    assert!(names.iter().any(|name| name.ends_with("vmss000002")), "{names:?}");
}

#[test]
fn a_node_leaves_in_order_and_not_later_than_its_bound() {
    let mut ideal = converged(PodNetworking::Kubenet, vec![pool("a", 2)]);
    ideal.desired.change_spec(|spec| spec.pools[0].count = 1);
    ideal.desired.generation = 2;
    ideal.pass();
    let since = ideal.now;
    let going = ideal
        .seen
        .machines
        .iter()
        .find(|(_, machine)| machine.record.deleting)
        .map(|(id, machine)| (id.clone(), machine.node_name().unwrap().to_owned()))
        .unwrap();
    let (id, node) = going;
    let with_drain = |seconds: i64, left: Option<(u32, Timestamp)>, ideal: &Ideal| {
        let mut seen = ideal.seen.clone();
        seen.machines.get_mut(&id).unwrap().drain = Some(Drain {
            since,
            asked: left.map(|(_, at)| at),
            left,
            held: Some("pod d/aa: two disruption budgets".to_owned()),
        });
        let now = since
            .checked_add(Duration::from_secs(u64::try_from(seconds).unwrap()))
            .unwrap();
        let plan = plan(&ideal.desired, &seen, &ideal.policy, now);
        let of_node = plan
            .effects
            .iter()
            .filter(|effect| matches!(effect.subject(), Subject::Node(_) | Subject::Machine(_)));
        // Who waits is told for which pod, and why.
        if left.is_some_and(|(left, at)| left > 0 && now < after(at, ideal.policy.drain_pause)) {
            let told = plan.waits.join("\n");
            assert!(
                told.contains("3 pods to go; pod d/aa: two disruption budgets"),
                "{told}"
            );
        }
        (of_node.cloned().collect::<Vec<_>>(), plan.look_again)
    };
    let drain = Effect::Api(ApiEffect::Drain {
        machine: Permit::assumed(&id),
        node: node.clone(),
    });
    assert_eq!(with_drain(0, None, &ideal).0, std::slice::from_ref(&drain));
    let just_now = since.checked_add(Duration::from_secs(10)).unwrap();
    let (waiting, look_again) = with_drain(10, Some((3, just_now)), &ideal);
    assert!(waiting.is_empty() && look_again == Some(after(just_now, ideal.policy.drain_pause)));
    assert_eq!(with_drain(11, Some((3, just_now)), &ideal).0, [drain]);
    assert_eq!(
        with_drain(11, Some((0, just_now)), &ideal).0,
        [Effect::Api(ApiEffect::DeleteNode(node.clone()))]
    );
    assert_eq!(
        with_drain(120, Some((3, just_now)), &ideal).0,
        [Effect::Api(ApiEffect::DeleteNode(node))]
    );
    assert_eq!(
        with_drain(240, Some((3, just_now)), &ideal).0,
        [Effect::Fabric(FabricEffect::DeleteMachine(Permit::assumed(&id)))]
    );
    ideal
        .seen
        .api
        .nodes
        .retain(|seen| seen.ready && !seen.name.ends_with('1'));
    assert_eq!(
        with_drain(12, Some((0, just_now)), &ideal).0,
        [Effect::Fabric(FabricEffect::DeleteMachine(Permit::assumed(&id)))]
    );
}

#[test]
fn a_strange_node_is_left_alone_and_a_stray_one_of_ours_removed() {
    let mut ideal = converged(PodNetworking::Kubenet, vec![pool("a", 1)]);
    for name in ["somebody-elses", "aks-old-00000000-vmss000000"] {
        ideal.seen.api.nodes.push(NodeSeen {
            name: name.to_owned(),
            ..NodeSeen::default()
        });
    }
    assert_eq!(
        effects(&ideal.plan()),
        [r#"DeleteNode("aks-old-00000000-vmss000000")"#]
    );
}

#[test]
fn a_deletion_goes_for_the_machines_at_once_and_the_records_last() {
    let mut ideal = converged(PodNetworking::Kubenet, vec![pool("a", 2)]);
    ideal.desired.deleting = true;
    ideal.desired.generation = 2;
    ideal.seen.operations = vec![operation(1, false), operation(2, true)];
    let first = ideal.plan();
    assert_eq!(first.effects.len(), 3);
    assert!(
        first
            .effects
            .iter()
            .all(|effect| matches!(effect, Effect::Fabric(FabricEffect::DeleteMachine(_))))
    );
    ideal.run();
    assert!(ideal.forgotten);
    assert_eq!(ideal.ended, [("op1".to_owned(), OperationStatus::Canceled)]);
}

#[test]
fn records_stay_while_an_effect_may_still_write_some() {
    let mut ideal = converged(PodNetworking::Kubenet, vec![pool("a", 1)]);
    ideal.desired.deleting = true;
    for machine in ideal.seen.machines.values_mut() {
        machine.presence = Presence::Gone;
    }
    let ids: Vec<_> = ideal.seen.machines.keys().cloned().collect();
    ideal.seen.busy.insert(Subject::Config(ids[0].clone()));
    assert_eq!(ideal.plan().writes, [Write::RemoveMachine(ids[1].clone())]);
    ideal.seen.machines.clear();
    ideal.seen.network = NetworkSeen::Gone;
    assert!(!ideal.plan().writes.contains(&Write::Forget));
    ideal.seen.busy.clear();
    assert_eq!(ideal.plan().writes, [Write::Forget]);
}

#[test]
fn operations_end_with_the_generation_they_asked_for() {
    let mut ideal = converged(PodNetworking::Kubenet, vec![pool("a", 1)]);
    ideal.now = at(100);
    ideal.seen.operations = vec![operation(1, false), operation(2, false)];
    let plan = ideal.plan();
    assert_eq!(
        plan.writes[0],
        Write::EndOperation {
            id: "op1".to_owned(),
            status: OperationStatus::Succeeded,
            error: None
        }
    );
    assert!(matches!(&plan.writes[1..], [Write::Progress { id, .. }] if id == "op2"));
    assert_eq!(plan.look_again, Some(at(20 * 60)), "the other has a deadline");
}

#[test]
fn an_operation_out_of_time_says_where_it_stands_and_the_loop_goes_on() {
    let mut ideal = Ideal::new(cluster(PodNetworking::Kubenet, vec![pool("a", 1)]), nothing_yet());
    ideal.pass();
    ideal.seen.operations = vec![operation(1, false)];
    let why = "making the network: cannot add a bridge: no room".to_owned();
    ideal.seen.held.insert(
        Subject::Network,
        Held {
            attempts: 40,
            until: at(1201),
            why,
        },
    );
    ideal.now = at(1200);
    let plan = ideal.plan();
    let Some(Write::EndOperation {
        status: OperationStatus::Failed,
        error: Some(error),
        ..
    }) = plan.writes.last()
    else {
        panic!("{:?}", plan.writes)
    };
    assert_eq!(error.code, OPERATION_TIMED_OUT);
    for part in [
        "20 minutes",
        "making the network",
        "cannot add a bridge: no room",
        "landfall logs",
    ] {
        assert!(error.message.contains(part), "{part}: {}", error.message);
    }
    assert!(plan.unfinished && !plan.settled());
}

#[test]
fn a_program_that_keeps_ending_is_told_with_its_last_words() {
    let mut ideal = converged(PodNetworking::Kubenet, vec![pool("a", 1)]);
    let mut report = Report {
        generation: 1,
        ..Report::default()
    };
    report.processes.insert(
        "kube-apiserver".to_owned(),
        ProcessSeen {
            restarts: 4,
            last_exit: Some("exit status 1".to_owned()),
            last_lines: vec!["first".to_owned(), "listen tcp: address in use".to_owned()],
            ..process(ProcessState::BackOff)
        },
    );
    let control_plane = ideal
        .seen
        .machines
        .values_mut()
        .find(|machine| machine.node_name().is_none());
    control_plane.unwrap().report = Some(Arc::new(report));
    let problem = ideal.plan().observed.problem.unwrap();
    assert_eq!(
        problem,
        "kube-apiserver of the control plane keeps ending (exit status 1): first | listen tcp: address in use"
    );
}

#[test]
fn configurations_are_renewed_before_their_certificates_are_old() {
    let mut ideal = converged(PodNetworking::Kubenet, vec![pool("a", 1)]);
    ideal.now = at(179 * 24 * 3600);
    assert!(
        !ideal
            .plan()
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Config(ConfigEffect::Render { .. })))
    );
    ideal.now = at(181 * 24 * 3600);
    let renewed = ideal.plan();
    let generations: Vec<_> = renewed
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Config(ConfigEffect::Render { generation, .. }) => Some(*generation),
            _ => None,
        })
        .collect();
    assert_eq!(generations, [3, 2]);
}

#[test]
fn a_name_is_given_again_when_its_node_object_is_gone() {
    let scaled = |left_over: bool| {
        let mut ideal = converged(PodNetworking::Kubenet, vec![pool("a", 2)]);
        let gone = ideal
            .seen
            .api
            .nodes
            .iter()
            .map(|node| node.name.clone())
            .max()
            .unwrap();
        ideal.desired.change_spec(|spec| spec.pools[0].count = 1);
        ideal.desired.generation += 1;
        ideal.run();
        ideal.desired.change_spec(|spec| spec.pools[0].count = 2);
        ideal.desired.generation += 1;
        if left_over {
            ideal.seen.api.nodes.push(NodeSeen {
                name: gone.clone(),
                ..NodeSeen::default()
            });
        }
        ideal.seen.api.reach = Reach::Away;
        let recorded = |plan: &Plan| {
            plan.writes
                .iter()
                .any(|write| matches!(write, Write::RecordMachine { .. }))
        };
        assert!(!recorded(&ideal.plan()), "what is free is not known");
        ideal.seen.api.reach = Reach::Ready;
        assert!(recorded(&ideal.plan()));
        ideal.run();
        assert_eq!(ideal.seen.api.nodes.len(), 2);
        ideal.seen.api.node(&gone).is_some()
    };
    assert!(scaled(false));
    assert!(!scaled(true), "it would be the drained node of before");
}

#[test]
fn a_cluster_without_a_network_plugin_does_not_wait_for_ready_nodes() {
    let mut ideal = Ideal::new(cluster(PodNetworking::None, vec![pool("a", 1)]), nothing_yet());
    for _ in 0..20 {
        ideal.pass();
        for node in &mut ideal.seen.api.nodes {
            node.ready = false;
        }
    }
    assert_eq!(ideal.seen.observed.generation, 1);
}

#[test]
fn full_ranges_are_told_with_a_way_out() {
    let mut ideal = Ideal::new(
        cluster(PodNetworking::AzureFlat, vec![pool("a", 10)]),
        nothing_yet(),
    );
    ideal
        .desired
        .change_spec(|spec| spec.network.node_range = "10.224.0.0/24".parse().unwrap());
    // A /24 has eight blocks of 32: the first is for nodes, the last has the subnet's last address.
    let plan = ideal.plan();
    let nodes = plan
        .writes
        .iter()
        .filter(|write| {
            matches!(
                write,
                Write::RecordMachine {
                    role: Role::Node { .. },
                    ..
                }
            )
        })
        .count();
    assert_eq!(nodes, 6);
    assert!(
        plan.waits.iter().any(|wait| wait.contains("scale down")),
        "{:?}",
        plan.waits
    );
    ideal.seen.taken = (0..1 << 11)
        .flat_map(|index| {
            [ideal.seen.stamp.machines, ideal.seen.stamp.vips].map(|range| nth(range, index).unwrap())
        })
        .collect();
    let plan = ideal.plan();
    assert!(plan.waits[0].contains("all are in use"), "{:?}", plan.waits);
    assert!(!plan.writes.iter().any(|write| matches!(write, Write::Lease(_))));
}

#[test]
fn names_are_those_of_aks() {
    let name = node_name("0123456789", &pool("nodepool1", 1), 35);
    let parts: Vec<_> = name.split('-').collect();
    assert_eq!((parts[0], parts[1], parts[3]), ("aks", "nodepool1", "vmss00000z"));
    assert!(parts[2].len() == 8 && parts[2].bytes().all(|byte| byte.is_ascii_digit()));
    let again = PoolSpec {
        incarnation: "2".to_owned(),
        ..pool("nodepool1", 1)
    };
    assert_ne!(name, node_name("0123456789", &again, 35));
    assert!(node_name("0123456789", &again, 36).ends_with("vmss000010"));
}

#[test]
fn a_release_that_renders_something_else_reaches_the_machines_that_it_is_about() {
    let mut ideal = converged(PodNetworking::Kubenet, vec![pool("a", 2)]);
    assert!(
        ideal.plan().effects.is_empty(),
        "nothing is rendered again without a reason"
    );
    let rendered = |ideal: &Ideal| -> BTreeSet<bool> {
        let plan = ideal.plan();
        let machines = plan.effects.iter().filter_map(|effect| match effect {
            Effect::Config(ConfigEffect::Render { machine, .. }) => Some(machine.machine()),
            _ => None,
        });
        machines
            .map(|id| ideal.seen.machines[id].node_name().is_some())
            .collect()
    };
    ideal.seen.renderers.nodes = "another".to_owned();
    assert_eq!(rendered(&ideal), BTreeSet::from([true]), "nodes, and no member");
    ideal.seen.renderers = RendererVersions {
        members: "another".to_owned(),
        ..RendererVersions::default()
    };
    assert_eq!(
        rendered(&ideal),
        BTreeSet::from([false]),
        "the member, and no node"
    );
}

#[test]
fn keys_of_another_generation_reach_all_machines_and_those_of_the_first_none() {
    let mut ideal = converged(PodNetworking::Kubenet, vec![pool("a", 2)]);
    let before: Vec<ConfigSeen> = ideal
        .seen
        .machines
        .values()
        .map(|machine| machine.config.clone())
        .collect();
    ideal.seen.pki = Some(2);
    ideal.run();
    for (machine, before) in ideal.seen.machines.values().zip(before) {
        let (ConfigSeen::Published { inputs: now, .. }, ConfigSeen::Published { inputs: before, .. }) =
            (&machine.config, &before)
        else {
            panic!("{machine:?}")
        };
        assert_ne!(now, before, "{}", machine.label());
    }
}

#[test]
fn no_place_is_given_out_before_it_is_known_what_is_in_no_record_nor_one_that_is_kept() {
    let mut seen = nothing_yet();
    seen.unknown_machines = UnknownMachines::NotLooked;
    let new = Ideal::new(cluster(PodNetworking::Kubenet, vec![pool("np1", 1)]), seen);
    let plan = new.plan();
    let gives = |write: &Write| matches!(write, Write::Lease(_) | Write::RecordMachine { .. });
    assert!(!plan.writes.iter().any(gives), "{plan:?}");
    assert!(plan.look_again.is_some() && plan.unfinished);

    let mut more = converged(PodNetworking::Kubenet, vec![pool("np1", 1)]);
    more.desired.change_spec(|spec| spec.pools[0].count = 2);
    more.desired.generation += 1;
    let via = std::net::Ipv4Addr::new(10, 224, 0, 5);
    more.seen.unknown_machines = UnknownMachines::Some;
    more.seen.kept.addresses.insert(via);
    more.seen.kept.routes = vec![fabric_api::RouteSpec {
        to: "10.244.1.0/24".parse().unwrap(),
        via,
    }];
    let plan = more.plan();
    let route_stays = plan.effects.iter().any(|effect| {
        matches!(effect, Effect::Fabric(FabricEffect::EnsureNetwork(layout)) if layout.routes.contains(&more.seen.kept.routes[0]))
    });
    assert!(route_stays, "{plan:?}");
    let role = plan.writes.iter().find_map(|write| match write {
        Write::RecordMachine {
            role: Role::Node {
                address, pod_range, ..
            },
            ..
        } => Some((*address, *pod_range)),
        _ => None,
    });
    let next = (
        std::net::Ipv4Addr::new(10, 224, 0, 6),
        Some("10.244.2.0/24".parse().unwrap()),
    );
    assert_eq!(role, Some(next), "{plan:?}");
}
