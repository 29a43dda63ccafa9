//! The control plane's members: which there should be, what each has to know of the others, how one leaves, and who may be
//! disturbed now.
//!
//! Always true: a cluster whose etcd was formed never loses a second member to the planner before the first is back; a new
//! member starts when the others know of it, so that none of them shows it the door.

use std::net::Ipv4Addr;

use agent_protocol::{
    ProcessState,
    programs::{KEEPER, KeeperStatus},
};
use cluster_bootstrap::{Member, member_address};
use cluster_spec::{ClusterSpec, RestoreSpec, Tier};
use control_records::{EventKind, MachineRecord, ObservedRecord, Role};

use crate::{
    Addresses, Ailment, ConfigSeen, Draft, Machine, Presence, Subject, Symptom, Write, after,
    heal::stands_by, places::Leases, restore, upgrade,
};

/// Three, and as many on their way out as there can be at the worst.
const MOST_MEMBERS: u32 = 6;

/// A cluster's control plane as each of its members has to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlane {
    /// Those that are to be, in order of their numbers.
    pub members: Vec<Member>,
    /// Whether there was an etcd before: then none begins an empty one.
    pub formed: bool,
    /// Whether they hold the VIP among themselves.
    pub roaming: bool,
    /// The tier whose limits the API servers go by.
    pub limits: Tier,
    /// The restore that etcd's data must come from.
    pub restore: Option<RestoreSpec>,
    /// The restore that it was seen to come from: nodes register again after it.
    pub restored: Option<String>,
}

impl ControlPlane {
    /// As it is in the records.
    pub fn of<'m>(
        spec: &ClusterSpec,
        observed: &ObservedRecord,
        machines: impl IntoIterator<Item = &'m MachineRecord>,
    ) -> Self {
        let mut numbered: Vec<_> = machines
            .into_iter()
            .filter(|machine| !machine.deleting)
            .filter_map(|machine| {
                let (index, member) = member(spec, observed, machine)?;
                Some((index, member))
            })
            .collect();
        numbered.sort();
        Self {
            members: numbered.into_iter().map(|(_, member)| member).collect(),
            formed: formed(observed),
            roaming: observed.roaming,
            limits: observed.limits.unwrap_or(spec.tier),
            restore: restore::wished(spec, observed),
            restored: observed.restored.clone(),
        }
    }
}

/// Whether the cluster's etcd held something before.
pub(crate) fn formed(observed: &ObservedRecord) -> bool {
    observed.milestones.contains_key("api_ready")
}

/// The number of a control plane machine, and where it is.
pub fn member(
    spec: &ClusterSpec,
    observed: &ObservedRecord,
    machine: &MachineRecord,
) -> Option<(u32, Member)> {
    let Role::ControlPlane { index, address } = machine.assignment.as_ref()?.role else {
        return None;
    };
    let stamp = if address.is_unspecified() {
        observed.control_plane_address.unwrap_or(Ipv4Addr::UNSPECIFIED)
    } else {
        address
    };
    let vnet = member_address(spec, index)?;
    Some((
        index,
        Member {
            machine: machine.id.clone(),
            stamp,
            vnet,
        },
    ))
}

fn index(machine: &Machine) -> Option<u32> {
    match machine.role()? {
        Role::ControlPlane { index, .. } => Some(*index),
        Role::Node { .. } => None,
    }
}

/// Members that are to stay, in order of their numbers.
pub(crate) fn staying<'a>(draft: &Draft<'a>) -> Vec<(&'a String, &'a Machine)> {
    let mut staying: Vec<_> = draft
        .seen
        .machines
        .iter()
        .filter(|(_, machine)| !machine.record.deleting && index(machine).is_some())
        .collect();
    staying.sort_by_key(|(_, machine)| index(machine));
    staying
}

/// Brings the members' records to the tier: writes down what is missing, marks what is too much, highest number first.
pub(crate) fn records(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    let wanted = draft.desired.spec.tier.members();
    let staying = staying(draft);
    let there = u32::try_from(staying.len()).unwrap_or(u32::MAX);
    if there < wanted {
        add(draft, wanted - there);
    } else if there > wanted
        && limits_followed(draft)
        && all_healthy(draft, None)
        && let Some(status) = keeper(draft)
    {
        // The leader stays: its keeper lets the others go, and knows that they are to.
        let leader = status.leader;
        for (id, _) in staying
            .iter()
            .rev()
            .filter(|(id, _)| Some(*id) != leader.as_ref())
            .take(usize::try_from(there - wanted).unwrap_or_default())
        {
            draft.wait("taking control plane members away");
            draft.tell(
                EventKind::Member,
                (*id).clone(),
                format!(
                    "the {:?} tier has {wanted} control plane member(s): this one goes",
                    draft.desired.spec.tier
                ),
            );
            draft.writes.push(Write::MarkMachine((*id).clone()));
        }
    } else if there > wanted {
        draft.wait("waiting for all control plane members, to take some away");
    }
    if there.max(wanted) > 1 && !seen.observed.roaming {
        draft.observed.roaming = true;
    }
    limits(draft, there >= wanted);
}

fn add(draft: &mut Draft<'_>, missing: u32) {
    let seen = draft.seen;
    let mut leases = Leases::new(&draft.desired.uid, seen);
    if Addresses::of(&seen.observed).is_none() {
        // These two are leased in the same transaction: not twice the same.
        leases.cluster(&seen.observed);
    }
    let taken: Vec<_> = seen.machines.values().filter_map(index).collect();
    let free = (0..MOST_MEMBERS).filter(|index| !taken.contains(index));
    for index in free.take(usize::try_from(missing).unwrap_or_default()) {
        let Some(address) = leases.member(index) else {
            draft.wait(
                "waiting for a free address of the stamp: all are in use; delete a cluster, or give the stamp a larger range",
            );
            return;
        };
        draft.wait("preparing machines");
        draft.writes.push(Write::RecordMachine {
            role: Role::ControlPlane { index, address },
            image: upgrade::target(draft).to_owned(),
        });
    }
}

/// The API servers' limits follow the tier once all members are there and well, so that restarts one at a time go unnoticed.
fn limits(draft: &mut Draft<'_>, enough: bool) {
    let tier = draft.desired.spec.tier;
    let before = draft.seen.observed.limits;
    let follow = match before {
        _ if !formed(&draft.seen.observed) => true,
        // From before there were tiers: the limits in force are the free tier's.
        None => {
            draft.observed.limits = Some(Tier::Free);
            return;
        }
        Some(_) => enough && all_healthy(draft, None),
    };
    if before == Some(tier) {
        return;
    }
    if follow {
        draft.observed.limits = Some(tier);
    }
    if before.is_some() {
        // Configurations follow what is in the store.
        let staying = staying(draft);
        let unwell = staying.iter().find(|(_, machine)| !healthy(machine));
        draft.wait(match unwell {
            Some((_, machine)) => format!(
                "waiting for {}, to bring the API servers to the tier's limits",
                machine.label()
            ),
            None => "bringing the API servers to the tier's limits".to_owned(),
        });
    }
}

/// Whether all members go by the tier's limits: whoever stays is not restarted for them when nobody stands in any more.
fn limits_followed(draft: &Draft<'_>) -> bool {
    let Some(frame) = draft.frame() else {
        return false;
    };
    let follows = |machine: &Machine| match &machine.config {
        ConfigSeen::Published { inputs, .. } => {
            let wanted = frame.config_inputs(&machine.record);
            split(inputs).0 == split(&wanted).0
        }
        _ => false,
    };
    draft.seen.observed.limits == Some(draft.desired.spec.tier)
        && staying(draft).iter().all(|(_, machine)| follows(machine))
}

/// Whether this member serves and has taken its latest configuration. What its agent has not told since the service
/// started counts as well as long as it is in contact.
pub(crate) fn healthy(machine: &Machine) -> bool {
    let ConfigSeen::Published { generation, .. } = machine.config else {
        return false;
    };
    // One whose disk is nearly full serves all the same.
    let ails = |symptom: &Symptom| symptom.ailment != Ailment::DiskFull;
    machine.presence == Presence::Running
        && upgrade::is_back(machine)
        && !machine.symptom.as_ref().is_some_and(ails)
        && match &machine.report {
            Some(report) => {
                report.generation >= generation
                    && report
                        .processes
                        .iter()
                        .all(|(name, process)| process.state == ProcessState::Ready || stands_by(name))
            }
            None => machine.heard(),
        }
}

/// Whether all members that are to stay are well, but for one that is not asked for, and belong to etcd.
pub(crate) fn all_healthy(draft: &Draft<'_>, but: Option<&str>) -> bool {
    let staying = staying(draft);
    let voters = keeper(draft).map(|status| status.voters);
    staying
        .iter()
        .filter(|(id, _)| Some(id.as_str()) != but)
        .all(|(id, machine)| healthy(machine) && voters.as_ref().is_none_or(|voters| voters.contains(id)))
}

/// What the keeper of a staying member says about etcd: of the leader's own if it is known, else of any. What those said last
/// who are lost by now counts for nothing.
pub(crate) fn keeper(draft: &Draft<'_>) -> Option<KeeperStatus> {
    let said: Vec<_> = staying(draft)
        .into_iter()
        .filter(|(_, machine)| machine.presence == Presence::Running && machine.heard())
        .filter_map(|(id, machine)| {
            let status: KeeperStatus = machine.report.as_ref()?.status(KEEPER)?;
            (!status.voters.is_empty()).then_some((id, status))
        })
        .collect();
    said.iter()
        .find(|(id, status)| status.leader.as_ref() == Some(*id))
        .or_else(|| said.first())
        .map(|(_, status)| status.clone())
}

/// Whether a member that is to go may be removed now.
pub(crate) fn may_leave(draft: &Draft<'_>, id: &str, machine: &Machine) -> bool {
    if machine.presence == Presence::Absent {
        return true;
    }
    // One that healing has given up is no help to the others.
    if machine.record.repair.given_up() {
        return true;
    }
    match keeper(draft) {
        Some(status) => !status
            .voters
            .iter()
            .chain(&status.learners)
            .any(|name| name == id),
        // Members form etcd before anybody has seen an API server answer: who may be one of them waits until those who
        // stay say so. Where nobody stays, nothing is kept.
        None => {
            let alone = staying(draft).is_empty() || !draft.seen.observed.roaming;
            !formed(&draft.seen.observed) && (alone || machine.config == ConfigSeen::Absent)
        }
    }
}

/// Whether a member must not start yet: a cluster's only member has the VIP on its card, and two of them must never have it
/// at the same time.
pub(crate) fn waits_for_vip(draft: &Draft<'_>, machine: &Machine) -> bool {
    let machines = || draft.seen.machines.values();
    index(machine).is_some()
        && !draft.seen.observed.roaming
        && machines().any(|other| other.record.deleting && index(other).is_some())
}

/// Whether a member may take the configuration that it should have, `inputs`: at once if it is not restarted for it, else
/// one after the other, while all others are well.
pub(crate) fn may_configure(draft: &Draft<'_>, id: &str, machine: &Machine, inputs: &str) -> bool {
    let staying = staying(draft);
    if staying.len() <= 1 || !formed(&draft.seen.observed) {
        return true;
    }
    // Nobody has anything to lose or to serve: all wait for what is to be restored, and for whoever restores it.
    if staying
        .iter()
        .all(|(_, member)| restore::empty(member) || member.config == ConfigSeen::Absent)
    {
        return true;
    }
    let others = || staying.iter().filter(|(other, _)| *other != id);
    match &machine.config {
        ConfigSeen::Published { inputs: before, .. } => {
            let (restarts, rest) = split(inputs);
            let (restarts_before, rest_before) = split(before);
            // Planned, or on its way: until it has landed nothing is seen of it.
            let rolling = others().any(|(other, _)| {
                let subject = Subject::Config((*other).clone());
                draft.seen.busy.contains(&subject) || draft.planned.contains(&subject)
            });
            if restarts == restarts_before && rest != rest_before {
                return true;
            }
            // Whoever restores goes first, however the others are: they wait for it, and serve what was there until it has.
            if let Some(restore) = restore::pending(draft)
                && let Some((first, by)) = staying.first()
            {
                return *first == id || restore::restored(by).as_ref() == Some(&restore.id);
            }
            if rolling {
                return false;
            }
            // Those who are still to come serve nobody, and wait for this one.
            let alone = others().all(|(_, other)| other.config == ConfigSeen::Absent);
            if alone || all_healthy(draft, Some(id)) {
                return true;
            }
            // Whoever is not well can hardly be disturbed; and the members' list must reach everybody in the end, while one
            // of them is missing most of all. But not beside one that is just taking its own.
            let taking = |other: &Machine| match &other.config {
                ConfigSeen::Published { made_at, .. } => {
                    !healthy(other) && after(*made_at, draft.policy.heal.after_restart) > draft.now
                }
                _ => false,
            };
            !others().any(|(_, other)| taking(other))
                && (!healthy(machine) || rest != rest_before && others().any(|(_, other)| healthy(other)))
        }
        // A new one waits until the others know of it.
        ConfigSeen::Absent => {
            let Some(frame) = draft.frame() else {
                return false;
            };
            others().all(|(_, other)| match &other.config {
                ConfigSeen::Absent => true,
                // Not read yet since the service started: what it knows is not known.
                ConfigSeen::Unknown => false,
                ConfigSeen::Published {
                    generation, inputs, ..
                } => {
                    let wanted = frame.config_inputs(&other.record);
                    split(inputs).1 == split(&wanted).1
                        && match &other.report {
                            Some(report) => report.generation >= *generation,
                            // Silent, it may know of nobody yet, and would show the new one the door when it is back.
                            None => other.heard(),
                        }
                }
            })
        }
        ConfigSeen::Unknown => true,
    }
}

fn split(inputs: &str) -> (&str, &str) {
    inputs.split_once('.').unwrap_or((inputs, ""))
}
