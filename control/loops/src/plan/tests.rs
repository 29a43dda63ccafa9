//! The planner alone: tables of decisions, and the property that it converges from any partial state.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use agent_protocol::{ProcessSeen, ProcessState, Report};
use cluster_api::NodeSeen;
use cluster_spec::{ClusterSpec, NetworkProfile, PodNetworking, PoolMode, PoolSpec};
use control_records::{
    Assignment, ClusterRecord, MachineRecord, ObservedRecord, OperationRecord, OperationStatus, Role,
};
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).unwrap()
}

fn pool(name: &str, count: u32) -> PoolSpec {
    PoolSpec {
        name: name.to_owned(),
        count,
        vm_size: "Standard_B2s".to_owned(),
        mode: PoolMode::System,
        kubernetes_version: "1.36.3".to_owned(),
        max_pods: 30,
        labels: BTreeMap::new(),
        taints: Vec::new(),
        os_disk_gib: 128,
        incarnation: format!("{name}-1"),
    }
}

fn cluster(plugin: PodNetworking, pools: Vec<PoolSpec>) -> ClusterRecord {
    ClusterRecord {
        v: 1,
        uid: "0123456789".to_owned(),
        subscription: "s".to_owned(),
        resource_group: "g".to_owned(),
        name: "c".to_owned(),
        generation: 1,
        pool_generations: BTreeMap::new(),
        body: serde_json::Value::Null,
        spec: ClusterSpec {
            name: "c".to_owned(),
            resource_group: "g".to_owned(),
            location: "local".to_owned(),
            node_resource_group: "mc".to_owned(),
            fqdn: "c.local".to_owned(),
            kubernetes_version: "1.36.3".to_owned(),
            network: NetworkProfile {
                plugin,
                vnet_range: "10.224.0.0/12".parse().unwrap(),
                node_range: "10.224.0.0/22".parse().unwrap(),
                control_plane_range: "10.239.255.240/28".parse().unwrap(),
                pod_range: Some("10.244.0.0/16".parse().unwrap()),
                service_range: "10.0.0.0/16".parse().unwrap(),
                dns_service_ip: "10.0.0.10".parse().unwrap(),
                outbound: true,
            },
            pools,
            disable_local_accounts: false,
        },
        sealed: BTreeMap::new(),
        deleting: false,
        operation: "op".to_owned(),
        created_at: at(0),
        created_by: String::new(),
        created_by_type: String::new(),
        modified_at: at(0),
        modified_by: String::new(),
        modified_by_type: String::new(),
    }
}

fn nothing_yet() -> Seen {
    Seen {
        observed: ObservedRecord::default(),
        pki: false,
        stamp: StampRanges {
            machines: "100.64.16.0/21".parse().unwrap(),
            vips: "100.64.24.0/21".parse().unwrap(),
        },
        taken: BTreeSet::new(),
        machines: BTreeMap::new(),
        inventory_stale: false,
        network: NetworkSeen::Unknown,
        api: ApiSeen::default(),
        operations: Vec::new(),
        busy: BTreeSet::new(),
        held: BTreeMap::new(),
    }
}

fn operation(generation: u64, deletes: bool) -> OperationRecord {
    OperationRecord {
        v: 1,
        id: format!("op{generation}"),
        name: "ManagedClusters_CreateOrUpdate".to_owned(),
        resource_id: String::new(),
        cluster: "0123456789".to_owned(),
        generation,
        deletes,
        status: OperationStatus::InProgress,
        started_at: at(0),
        ended_at: None,
        error: None,
    }
}

/// A perfect world: what is planned happens at once.
struct Ideal {
    desired: ClusterRecord,
    seen: Seen,
    policy: Policy,
    now: Timestamp,
    forgotten: bool,
    next_id: u32,
    ended: Vec<(String, OperationStatus)>,
}

impl Ideal {
    fn new(desired: ClusterRecord, seen: Seen) -> Self {
        Self {
            desired,
            seen,
            policy: Policy::default(),
            now: at(1),
            forgotten: false,
            next_id: 0,
            ended: Vec::new(),
        }
    }

    fn plan(&self) -> Plan {
        let first = plan(&self.desired, &self.seen, &self.policy, self.now);
        assert_eq!(first, plan(&self.desired, &self.seen, &self.policy, self.now));
        first
    }

    /// One pass. Returns whether anything is left.
    fn pass(&mut self) -> bool {
        let plan = self.plan();
        let mut subjects = BTreeSet::new();
        for effect in &plan.effects {
            assert!(
                subjects.insert(effect.subject()),
                "two effects on one subject: {:?}",
                plan.effects
            );
            assert!(!self.seen.busy.contains(&effect.subject()));
        }
        for effect in &plan.effects {
            self.carry_out(effect);
        }
        self.seen.observed = plan.observed.clone();
        for write in &plan.writes {
            self.write(write);
        }
        self.world();
        self.now = match plan.look_again {
            Some(at) if plan.effects.is_empty() && plan.writes.is_empty() => at.max(self.now),
            _ => after(self.now, Duration::from_millis(100)),
        };
        !plan.settled() && !self.forgotten
    }

    fn write(&mut self, write: &Write) {
        match write {
            Write::Lease(addresses) => {
                for address in [addresses.vip, addresses.uplink, addresses.control_plane] {
                    assert!(
                        self.seen.taken.insert(address) || Addresses::of(&self.seen.observed).is_some(),
                        "{address} was taken"
                    );
                }
            }
            Write::CreatePki => {
                assert!(!self.seen.pki);
                self.seen.pki = true;
            }
            Write::RecordMachine(role) => {
                let id = format!("new{}", self.next_id);
                self.next_id += 1;
                let machine = machine(&id, role.clone());
                self.seen.machines.insert(
                    id,
                    Machine {
                        presence: Presence::Absent,
                        config: ConfigSeen::Absent,
                        ..machine
                    },
                );
            }
            Write::MarkMachine(id) => {
                let machine = self.seen.machines.get_mut(id).unwrap();
                machine.record.deleting = true;
                machine.drain = Some(Drain {
                    since: self.now,
                    left: None,
                });
            }
            Write::RemoveMachine(id) => {
                let machine = self.seen.machines.remove(id).unwrap();
                assert_eq!(machine.presence, Presence::Gone, "a record goes last");
            }
            Write::EndOperation { id, status, .. } => {
                self.seen.operations.retain(|operation| operation.id != *id);
                self.ended.push((id.clone(), *status));
            }
            Write::Forget => {
                assert!(self.seen.machines.is_empty() && self.seen.network == NetworkSeen::Gone);
                self.forgotten = true;
            }
        }
    }

    fn carry_out(&mut self, effect: &Effect) {
        let answers = self.api_answers();
        let api = &mut self.seen.api;
        match effect {
            Effect::LookAtFabric => {
                self.seen.inventory_stale = false;
                for machine in self.seen.machines.values_mut() {
                    if machine.presence == Presence::Unknown {
                        // The fabric has what its configuration tells of.
                        machine.presence = match machine.config {
                            ConfigSeen::Published { .. } => Presence::Running,
                            _ => Presence::Absent,
                        };
                    }
                }
            }
            Effect::LoadConfig(id) => self.seen.machines.get_mut(id).unwrap().config = ConfigSeen::Absent,
            Effect::Configure {
                machine,
                generation,
                inputs,
            } => {
                assert!(self.seen.pki && Addresses::of(&self.seen.observed).is_some());
                self.seen.machines.get_mut(machine).unwrap().config = ConfigSeen::Published {
                    generation: *generation,
                    inputs: inputs.clone(),
                    made_at: self.now,
                };
            }
            Effect::EnsureNetwork(routes) => self.seen.network = NetworkSeen::Made(routes.clone()),
            Effect::EnsureMachine(id) => {
                assert!(
                    matches!(self.seen.network, NetworkSeen::Made(_)),
                    "a machine needs its network"
                );
                self.seen.machines.get_mut(id).unwrap().presence = Presence::Running;
            }
            Effect::LookAtApi => {
                api.looked = api.change;
                api.reach = if answers { Reach::Ready } else { Reach::Away };
            }
            Effect::SetNode { machine, inputs, .. } => {
                api.set.insert(machine.clone(), inputs.clone());
            }
            Effect::ApproveServing => api.approved = Some(api.change),
            Effect::ApplyAddons { inputs } => {
                api.addons = Some(AddonsSeen {
                    inputs: inputs.clone(),
                    at: self.now,
                    change: api.change,
                });
            }
            Effect::Drain { machine, node } => {
                assert!(api.node(node).is_some());
                self.seen.machines.get_mut(machine).unwrap().drain = Some(Drain {
                    since: self.now,
                    left: Some((0, self.now)),
                });
            }
            Effect::DeleteNode(node) => api.nodes.retain(|seen| seen.name != *node),
            Effect::DeleteMachine(id) => self.seen.machines.get_mut(id).unwrap().presence = Presence::Gone,
            Effect::DeleteNetwork => {
                assert!(
                    self.seen.machines.is_empty(),
                    "the network goes after its machines"
                );
                self.seen.network = NetworkSeen::Gone;
            }
        }
    }

    fn api_answers(&self) -> bool {
        self.seen.machines.values().any(|machine| {
            machine.node_name().is_none()
                && machine.presence == Presence::Running
                && matches!(machine.config, ConfigSeen::Published { .. })
        })
    }

    /// What machines do by themselves: report, serve the API, join.
    fn world(&mut self) {
        let answers = self.api_answers();
        for machine in self.seen.machines.values_mut() {
            if machine.presence != Presence::Running {
                continue;
            }
            let ConfigSeen::Published { generation, .. } = machine.config else {
                continue;
            };
            let mut report = Report {
                generation,
                ..Report::default()
            };
            match machine.node_name() {
                None => {
                    report
                        .processes
                        .insert("kube-apiserver".to_owned(), process(ProcessState::Ready));
                }
                Some(name) if answers && !machine.record.deleting => {
                    let node = self.seen.api.nodes.iter_mut().find(|node| node.name == name);
                    match node {
                        Some(node) => node.ready = true,
                        None => {
                            self.seen.api.change += 1;
                            self.seen.api.nodes.push(NodeSeen {
                                name: name.to_owned(),
                                ready: true,
                                ..NodeSeen::default()
                            });
                        }
                    }
                }
                Some(_) => {}
            }
            machine.report = Some(Arc::new(report));
        }
    }

    fn run(&mut self) -> usize {
        for pass in 1..200 {
            if !self.pass() {
                return pass;
            }
        }
        panic!("it does not converge: {:#?}", self.plan());
    }
}

fn process(state: ProcessState) -> ProcessSeen {
    ProcessSeen {
        state,
        pid: None,
        restarts: 0,
        last_exit: None,
        last_lines: Vec::new(),
    }
}

fn machine(id: &str, role: Role) -> Machine {
    Machine {
        record: MachineRecord {
            v: 1,
            id: id.to_owned(),
            image: "1.36.3".to_owned(),
            token_hash: String::new(),
            token_sealed: Vec::new(),
            enrolled_key: None,
            token_used: false,
            assignment: Some(Assignment {
                cluster: "0123456789".to_owned(),
                role,
            }),
            deleting: false,
            created_at: at(0),
        },
        presence: Presence::Running,
        config: ConfigSeen::Unknown,
        report: None,
        drain: None,
    }
}

fn converged(plugin: PodNetworking, pools: Vec<PoolSpec>) -> Ideal {
    let mut ideal = Ideal::new(cluster(plugin, pools), nothing_yet());
    ideal.run();
    ideal
}

fn effects(plan: &Plan) -> Vec<String> {
    plan.effects.iter().map(|effect| format!("{effect:?}")).collect()
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
        .filter(|write| matches!(write, Write::RecordMachine(_)));
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

    ideal.desired.spec.pools[0]
        .labels
        .insert("team".to_owned(), "blue".to_owned());
    let plan = ideal.plan();
    assert_eq!(plan.effects.len(), 1);
    assert!(
        matches!(&plan.effects[0], Effect::SetNode { .. }),
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
    ideal.desired.spec.pools[0].count = 2;
    ideal.desired.generation = 2;
    let marked: BTreeSet<_> = ideal
        .plan()
        .writes
        .iter()
        .filter_map(|write| match write {
            Write::MarkMachine(id) => ideal.seen.machines[id].node_name().map(str::to_owned),
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
    ideal.desired.spec.pools[0].count = 3;
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
    ideal.desired.spec.pools[0].count = 1;
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
        seen.machines.get_mut(&id).unwrap().drain = Some(Drain { since, left });
        let now = since
            .checked_add(Duration::from_secs(u64::try_from(seconds).unwrap()))
            .unwrap();
        let plan = plan(&ideal.desired, &seen, &ideal.policy, now);
        let of_node = plan
            .effects
            .iter()
            .filter(|effect| matches!(effect.subject(), Subject::Node(_) | Subject::Machine(_)));
        (of_node.cloned().collect::<Vec<_>>(), plan.look_again)
    };
    let drain = Effect::Drain {
        machine: id.clone(),
        node: node.clone(),
    };
    assert_eq!(with_drain(0, None, &ideal).0, std::slice::from_ref(&drain));
    let just_now = since.checked_add(Duration::from_secs(10)).unwrap();
    let (waiting, look_again) = with_drain(10, Some((3, just_now)), &ideal);
    assert!(waiting.is_empty() && look_again == Some(after(just_now, ideal.policy.drain_pause)));
    assert_eq!(with_drain(11, Some((3, just_now)), &ideal).0, [drain]);
    assert_eq!(
        with_drain(11, Some((0, just_now)), &ideal).0,
        [Effect::DeleteNode(node.clone())]
    );
    assert_eq!(
        with_drain(120, Some((3, just_now)), &ideal).0,
        [Effect::DeleteNode(node)]
    );
    assert_eq!(
        with_drain(240, Some((3, just_now)), &ideal).0,
        [Effect::DeleteMachine(id.clone())]
    );
    ideal
        .seen
        .api
        .nodes
        .retain(|seen| seen.ready && !seen.name.ends_with('1'));
    assert_eq!(
        with_drain(12, Some((0, just_now)), &ideal).0,
        [Effect::DeleteMachine(id.clone())]
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
            .all(|effect| matches!(effect, Effect::DeleteMachine(_)))
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
        plan.writes,
        [Write::EndOperation {
            id: "op1".to_owned(),
            status: OperationStatus::Succeeded,
            error: None
        }]
    );
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
        "landfall status",
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
            .any(|effect| matches!(effect, Effect::Configure { .. }))
    );
    ideal.now = at(181 * 24 * 3600);
    let renewed = ideal.plan();
    let generations: Vec<_> = renewed
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Configure { generation, .. } => Some(*generation),
            _ => None,
        })
        .collect();
    assert_eq!(generations, [2, 2]);
}

#[test]
fn a_changed_version_is_never_reported_as_reached() {
    let mut ideal = converged(PodNetworking::Kubenet, vec![pool("a", 1)]);
    ideal.desired.spec.kubernetes_version = "1.37.1".to_owned();
    ideal.desired.generation = 2;
    let plan = ideal.plan();
    assert_eq!(plan.observed.generation, 1);
    assert!(plan.observed.step.contains("1.37.1"), "{}", plan.observed.step);
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
    ideal.desired.spec.network.node_range = "10.224.0.0/24".parse().unwrap();
    // A /24 has eight blocks of 32: the first is for nodes, the last has the subnet's last address.
    let plan = ideal.plan();
    let nodes = plan
        .writes
        .iter()
        .filter(|write| matches!(write, Write::RecordMachine(Role::Node { .. })))
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

/// What may be the matter with a machine, in any combination.
fn matter() -> impl Strategy<Value = (Presence, u8, bool, bool, bool)> {
    let presence = prop_oneof![
        Just(Presence::Unknown),
        Just(Presence::Absent),
        Just(Presence::Partial),
        Just(Presence::Running),
        Just(Presence::Gone),
    ];
    // Configuration (unknown, absent, old, right), record there, to go, node object there.
    (
        presence,
        0..4_u8,
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.2),
        any::<bool>(),
    )
}

prop_compose! {
    fn partial()(
        plugin in prop_oneof![
            Just(PodNetworking::Kubenet), Just(PodNetworking::AzureFlat), Just(PodNetworking::AzureOverlay), Just(PodNetworking::None),
        ],
        before in prop::collection::vec(0..4_u32, 1..4),
        wanted in prop::collection::vec(0..4_u32, 1..4),
        matters in prop::collection::vec(matter(), 16),
        network in 0..4_u8,
        reach in prop_oneof![Just(Reach::Unknown), Just(Reach::Away), Just(Reach::Ready)],
        stale in any::<bool>(),
        reached in any::<bool>(),
        deleting in prop::bool::weighted(0.25),
        strays in 0..3_u8,
        held in any::<bool>(),
        lost_pools in any::<bool>(),
    ) -> Ideal {
        let pools = |counts: &[u32]| -> Vec<_> {
            counts.iter().enumerate().map(|(index, count)| pool(&format!("p{index}"), *count)).collect()
        };
        // A cluster as it was, then cut to pieces, then asked to be something else.
        let mut ideal = converged(plugin, pools(&before));
        let ids: Vec<_> = ideal.seen.machines.keys().cloned().collect();
        for (id, (presence, config, there, going, node)) in ids.iter().zip(&matters) {
            let machine = ideal.seen.machines.get_mut(id).unwrap();
            let is_node = machine.node_name().is_some();
            if !node {
                let name = machine.node_name().map(str::to_owned);
                ideal.seen.api.nodes.retain(|seen| Some(&seen.name) != name.as_ref());
            }
            machine.presence = *presence;
            machine.report = None;
            match config {
                0 => machine.config = ConfigSeen::Unknown,
                1 => machine.config = ConfigSeen::Absent,
                2 => machine.config = ConfigSeen::Published { generation: 3, inputs: "old".to_owned(), made_at: at(0) },
                _ => {}
            }
            if *going && is_node {
                machine.record.deleting = true;
                machine.drain = Some(Drain { since: at(0), left: None });
            }
            if !there {
                ideal.seen.machines.remove(id);
            }
        }
        match network {
            0 => ideal.seen.network = NetworkSeen::Unknown,
            1 => ideal.seen.network = NetworkSeen::Gone,
            2 => ideal.seen.network = NetworkSeen::Made(Vec::new()),
            _ => {}
        }
        for index in 0..strays {
            ideal.seen.api.nodes.push(NodeSeen { name: format!("aks-gone-{index}"), ..NodeSeen::default() });
        }
        if held {
            ideal.seen.held.insert(Subject::Network, Held { attempts: 2, until: at(60), why: "no".to_owned() });
        }
        ideal.seen.api.reach = reach;
        ideal.seen.api.looked = 0;
        ideal.seen.api.change += 1;
        ideal.seen.inventory_stale = stale;
        ideal.desired.deleting = deleting;
        ideal.desired.spec.pools = pools(&wanted);
        if lost_pools {
            ideal.desired.spec.pools[0].incarnation.push('x');
        }
        if !reached {
            ideal.desired.generation = 2;
        }
        ideal.seen.operations = vec![operation(ideal.desired.generation, deleting)];
        ideal.next_id = 100;
        ideal
    }
}

impl std::fmt::Debug for Ideal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#?}\n{:#?}", self.desired.spec.pools, self.seen)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn from_any_partial_state_it_converges(mut ideal in partial()) {
        let passes = ideal.run();
        prop_assert!(passes < 60, "{passes} passes");
        if ideal.desired.deleting {
            prop_assert!(ideal.forgotten && ideal.seen.machines.is_empty());
            return Ok(());
        }
        prop_assert_eq!(ideal.seen.observed.generation, ideal.desired.generation);
        prop_assert_eq!(&ideal.ended, &[(format!("op{}", ideal.desired.generation), OperationStatus::Succeeded)]);
        let nodes: Vec<_> = ideal.seen.machines.values().filter_map(|machine| match machine.role() {
            Some(Role::Node { address, pod_range, .. }) => Some((machine, *address, *pod_range)),
            _ => None,
        }).collect();
        let wanted: u32 = ideal.desired.spec.pools.iter().map(|pool| pool.count).sum();
        prop_assert_eq!(nodes.len(), wanted as usize);
        prop_assert_eq!(ideal.seen.machines.len(), wanted as usize + 1);
        let addresses: BTreeSet<_> = nodes.iter().map(|(_, address, _)| *address).collect();
        prop_assert_eq!(addresses.len(), nodes.len(), "an address twice");
        let ranges: Vec<_> = nodes.iter().filter_map(|(_, _, range)| *range).collect();
        for (index, range) in ranges.iter().enumerate() {
            prop_assert!(!ranges[..index].iter().any(|other| other.contains(range) || range.contains(other)));
            prop_assert!(!addresses.iter().any(|address| range.contains(address)), "a node among the pods");
        }
        let names: BTreeSet<_> = ideal.seen.api.nodes.iter().map(|node| node.name.as_str()).collect();
        let own: BTreeSet<_> = nodes.iter().filter_map(|(machine, ..)| machine.node_name()).collect();
        prop_assert_eq!(names, own);
    }
}
