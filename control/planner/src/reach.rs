//! The plan of a cluster that is to be there.

use std::collections::BTreeMap;

use agent_protocol::ProcessState;
use cluster_spec::PodNetworking;
use control_records::{Role, Rung};

use crate::{
    Addresses, ConfigSeen, Draft, Effect, Machine, NetworkSeen, Presence, Reach, Subject, Write,
    addons_inputs, after, heal, members, nodes,
    places::{self, Leases},
    restore, upgrade,
};

pub(crate) fn plan(draft: &mut Draft<'_>) {
    draft
        .observed
        .milestones
        .entry("accepted".to_owned())
        .or_insert(draft.desired.created_at);

    // What is only written: all of it at once, in the first transaction.
    addresses(draft);
    if !draft.seen.pki {
        draft.wait("making certificates");
        draft.writes.push(Write::CreatePki);
    }
    members::records(draft);
    nodes::records(draft);

    // What is done. Each looks for itself whether it can be.
    network(draft);
    machines(draft);
    configurations(draft);
    api(draft);
    heal::plan(draft);
    upgrade::plan(draft);
    nodes::objects(draft);
    nodes::removals(draft);
    addons(draft);
    restore::plan(draft);

    serving(draft);
    ready_nodes(draft);
    reached(draft);
}

/// With several members, the cluster is what it is to be when all of them serve.
fn serving(draft: &mut Draft<'_>) {
    let members = members::staying(draft);
    if members.len() <= 1 {
        return;
    }
    for (_, member) in members {
        let serves = match member.api_server_ready() {
            Some(ready) => ready,
            None => draft.reached_before(),
        };
        if !serves {
            let unknown = member.report.is_none();
            draft.wait_or_adopt(unknown, format!("waiting for {}", member.label()));
        }
    }
}

fn addresses(draft: &mut Draft<'_>) {
    if draft.addresses().is_some() {
        return;
    }
    match Leases::new(&draft.desired.uid, draft.seen).cluster(&draft.seen.observed) {
        Some(addresses) => {
            draft.wait("leasing addresses");
            draft.writes.push(Write::Lease(addresses));
            draft.observed.vip = Some(addresses.vip);
            draft.observed.uplink = Some(addresses.uplink);
        }
        None => draft.wait(
            "waiting for a free address of the stamp: all are in use; delete a cluster, or give the stamp a larger range",
        ),
    }
}

/// The addresses that are in the store, as opposed to those that this plan is about to lease.
fn leased(draft: &Draft<'_>) -> Option<Addresses> {
    Addresses::of(&draft.seen.observed)
}

fn network(draft: &mut Draft<'_>) {
    if leased(draft).is_none() {
        return;
    }
    let wanted = places::routes(&draft.desired.spec, draft.seen.machines.values());
    if draft.seen.network != NetworkSeen::Made(wanted.clone()) {
        let unknown = draft.seen.network == NetworkSeen::Unknown;
        draft.act_or_adopt(unknown, Effect::EnsureNetwork(wanted), "making the network");
    }
}

/// Machines that are to stay: there and running. A machine needs the network and nothing else: what it is to be reaches
/// it while it boots.
fn machines(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    // A look tells nothing of a machine that something is done to: that will tell itself.
    let unknown = |(id, machine): (&String, &Machine)| {
        machine.presence == Presence::Unknown && !seen.busy.contains(&Subject::Machine(id.clone()))
    };
    if seen.inventory_stale || seen.machines.iter().any(unknown) {
        draft.act_quietly(Effect::LookAtFabric);
    }
    for (id, machine) in staying(draft) {
        match machine.presence {
            Presence::Running | Presence::Unknown => {}
            // What is to be wiped is not started first; what has vanished needs a new token.
            _ if wiping(machine) => {}
            Presence::Absent if machine.record.enrolled_key.is_some() => {}
            _ if members::waits_for_vip(draft, machine) => {
                draft.wait(
                    "waiting for the control plane machine of before to go: the API's address is still on it",
                );
            }
            Presence::Absent | Presence::Partial | Presence::Gone => {
                let why = format!("starting {}", machine.label());
                if matches!(seen.network, NetworkSeen::Made(_)) {
                    draft.act(Effect::EnsureMachine(id.clone()), why);
                } else {
                    draft.wait(why);
                }
            }
        }
    }
}

fn wiping(machine: &Machine) -> bool {
    let repair = &machine.record.repair;
    repair.pending && repair.rung >= Rung::Reimage
}

fn staying<'a>(draft: &Draft<'a>) -> impl Iterator<Item = (&'a String, &'a Machine)> + use<'a> {
    draft
        .seen
        .machines
        .iter()
        .filter(|(_, machine)| !machine.record.deleting)
}

/// What machines are to be: computed as soon as it can be, published again after a restart, made anew when what it is
/// computed from has changed or its certificates grow old.
fn configurations(draft: &mut Draft<'_>) {
    let Some(frame) = draft.frame().filter(|_| draft.seen.pki) else {
        return;
    };
    for (id, machine) in staying(draft) {
        let inputs = frame.config_inputs(&machine.record);
        let why = || format!("configuring {}", machine.label());
        let next = match &machine.config {
            ConfigSeen::Unknown => {
                draft.act_quietly(Effect::LoadConfig(id.clone()));
                continue;
            }
            ConfigSeen::Absent => Some(1),
            ConfigSeen::Published {
                generation,
                inputs: before,
                made_at,
            } => (*before != inputs || after(*made_at, draft.policy.renew_after) <= draft.now)
                .then_some(generation + 1),
        };
        let member = matches!(machine.role(), Some(Role::ControlPlane { .. }));
        if next.is_some() && member && !members::may_configure(draft, id, machine, &inputs) {
            draft.wait(format!(
                "waiting for the other control plane members, to configure {}",
                machine.label()
            ));
            draft.look_again_at(after(draft.now, draft.policy.heal.after_restart));
        } else if let Some(generation) = next {
            let machine = id.clone();
            draft.act(
                Effect::Configure {
                    machine,
                    generation,
                    inputs,
                },
                why(),
            );
        } else if !in_force(draft, machine) {
            draft.wait(why());
        }
    }
}

/// Whether an agent has put its machine's present configuration into force.
pub(crate) fn in_force(draft: &Draft<'_>, machine: &Machine) -> bool {
    let ConfigSeen::Published { generation, .. } = machine.config else {
        return false;
    };
    match &machine.report {
        Some(report) => report.generation >= generation,
        // After a restart of the service, an agent that has nothing new to say keeps silent for a while. What was in
        // force before still is; and a machine that does its work and is in contact takes what is new at once.
        None => {
            let works = match machine.node_name() {
                Some(node) => joined(draft, node),
                None => draft.seen.api.reach == Reach::Ready,
            };
            machine.presence == Presence::Running
                && (draft.reached_before() || works && (generation == 1 || machine.heard()))
        }
    }
}

/// Looks at the API server when an agent says that one answers, and whenever something in it may have changed.
fn api(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    const WAITING: &str = "waiting for the API server";
    let members = members::staying(draft);
    let runs = members
        .iter()
        .any(|(_, member)| member.presence == Presence::Running);
    if members.is_empty() {
        return;
    }
    if !runs || leased(draft).is_none() || !seen.pki {
        let unknown = members
            .iter()
            .any(|(_, member)| member.presence == Presence::Unknown);
        draft.wait_or_adopt(unknown, WAITING);
        return;
    }
    match seen.api.reach {
        Reach::Ready => {
            draft.milestone("api_ready");
            upgrade::observe(draft);
            if seen.api.looked < seen.api.change {
                draft.act_quietly(Effect::LookAtApi);
            }
            if seen
                .api
                .approved
                .is_none_or(|approved| approved < seen.api.change)
            {
                draft.act_quietly(Effect::ApproveServing);
            }
        }
        Reach::Unknown | Reach::Away => {
            // An agent that has said nothing since the service started may have nothing new to say: worth a try.
            let worth_a_try = seen.api.heard
                || members
                    .iter()
                    .any(|(_, member)| member.api_server_ready().unwrap_or(true));
            let unknown = seen.api.reach == Reach::Unknown;
            if worth_a_try {
                draft.act_or_adopt(unknown, Effect::LookAtApi, WAITING);
            } else {
                draft.wait(WAITING);
            }
        }
    }
}

fn addons(draft: &mut Draft<'_>) {
    let api = &draft.seen.api;
    if api.reach != Reach::Ready {
        return;
    }
    let inputs = addons_inputs(&draft.desired.spec);
    match &api.addons {
        Some(applied) if applied.inputs == inputs => {
            if applied.change < api.change {
                let due = after(applied.at, draft.policy.addons_pause);
                if due <= draft.now {
                    draft.act_quietly(Effect::ApplyAddons { inputs });
                } else {
                    // Nothing is amiss as far as known: no reason to call the cluster unfinished.
                    draft.look_again_at(due);
                }
            }
        }
        before => draft.act_or_adopt(
            before.is_none(),
            Effect::ApplyAddons { inputs },
            "installing add-ons",
        ),
    }
}

/// Counts ready nodes by pool. A pool is not named before its first node was ready: until then it is being made.
fn ready_nodes(draft: &mut Draft<'_>) {
    let api = &draft.seen.api;
    // Before the first look, what was seen before is the best guess.
    let looked = api.reach == Reach::Ready || !api.nodes.is_empty();
    let mut ready = BTreeMap::new();
    for pool in &draft.desired.spec.pools {
        let before = draft.seen.observed.ready_nodes.get(&pool.name);
        let now = draft.seen.machines.values().filter(|machine| {
            matches!(machine.role(), Some(Role::Node { pool: name, node_name, .. })
                if *name == pool.name && api.node(node_name).is_some_and(|node| node.ready))
        });
        let count = match before {
            Some(before) if !looked => *before,
            _ => u32::try_from(now.count()).unwrap_or(u32::MAX),
        };
        if count > 0 || before.is_some() {
            ready.insert(pool.name.clone(), count);
        }
    }
    if ready.values().any(|count| *count > 0) {
        draft.milestone("node_ready");
    }
    draft.observed.ready_nodes = ready;
}

/// Whether a node has joined as far as Landfall can bring it: without a CNI plugin it stays NotReady, and that is what
/// was asked for.
pub(crate) fn joined(draft: &Draft<'_>, node: &str) -> bool {
    draft
        .seen
        .api
        .node(node)
        .is_some_and(|node| node.ready || draft.desired.spec.network.plugin == PodNetworking::None)
}

/// The generation is reached when nothing is left to write, to do or to wait for.
fn reached(draft: &mut Draft<'_>) {
    if !draft.unfinished && draft.writes.is_empty() && !draft.reached_before() {
        draft.observed.generation = draft.desired.generation;
        draft
            .observed
            .milestones
            .insert("converged".to_owned(), draft.now);
        for pool in &draft.desired.spec.pools {
            draft.observed.ready_nodes.entry(pool.name.clone()).or_insert(0);
        }
    }
}

/// What is wrong with a machine, for people: what healing does about it, or processes that keep ending.
pub(crate) fn ailing(machine: &Machine) -> Option<String> {
    let repair = &machine.record.repair;
    if let (Some(symptom), true) = (
        &machine.symptom,
        repair.rung > Rung::None || repair.held.is_some(),
    ) {
        let state = match &repair.held {
            Some(held) => format!("not repaired: {held}"),
            None => format!("{}; it is being repaired", symptom.why),
        };
        return Some(format!("{}: {state}", machine.label()));
    }
    let report = machine.report.as_ref()?;
    if let Some(what) = heal::data_on_its_way(report) {
        return Some(format!("{}: {what}", machine.label()));
    }
    if let Some(error) = &report.config_error {
        return Some(format!(
            "{} cannot take its configuration: {error}",
            machine.label()
        ));
    }
    let (name, process) = report
        .processes
        .iter()
        .find(|(_, process)| process.state == ProcessState::BackOff && process.restarts > 1)?;
    let last = process.last_exit.as_deref().unwrap_or("it ended");
    let lines = process
        .last_lines
        .iter()
        .rev()
        .take(3)
        .rev()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(" | ");
    Some(format!(
        "{name} of {} keeps ending ({last}){}{lines}",
        machine.label(),
        if lines.is_empty() { "" } else { ": " }
    ))
}
