//! etcd's data as its members report it, and the restore that it must come from.

use agent_protocol::{
    ProcessState, Report,
    programs::{ETCD, EtcdPhase, EtcdStatus, MEMBERSHIP, MembershipStatus, Standing},
};
use cluster_spec::RestoreSpec;
use jiff::Timestamp;

use super::{
    machines::member_index,
    majority::{self, Member},
    recorded::{lost, wished},
};
use crate::{Ailment, ConfigSeen, Draft, Machine, Presence, UnknownMachines};

/// Whether a member's etcd waits with nothing in its hands.
pub(crate) fn empty(member: &Machine) -> bool {
    status(member).is_some_and(|status| status.phase == EtcdPhase::Waiting && status.empty)
}

/// Whether a member's etcd waits with data of before a restore that was seen to serve: in a majority of such nobody has what counts, and
/// none of them starts with what it has.
pub(crate) fn outdated(draft: &Draft<'_>, member: &Machine) -> bool {
    let Some(restore) = wished(draft.desired.spec(), &draft.observed) else {
        return false;
    };
    draft.observed.has_restored(&restore.id)
        && status(member).is_some_and(|status| {
            status.phase == EtcdPhase::Waiting
                && !status.empty
                && status.restored.as_ref() != Some(&restore.id)
        })
}

/// Whether nothing that counts is left of a member's data: its machine has vanished, or its etcd waits with nothing in its hands, or with
/// what was before a restore.
pub(crate) fn without_data(draft: &Draft<'_>, member: &Machine) -> bool {
    let symptom = member.symptom.as_ref();
    symptom.is_some_and(|symptom| symptom.ailment == Ailment::Vanished)
        || empty(member)
        || outdated(draft, member)
}

/// Whether a machine was never told to be a member: nothing is written down for it, and its agent has nothing in force.
pub(crate) fn is_untold(member: &Machine) -> bool {
    let told = member.report.as_ref().map(|report| report.generation);
    member.config == ConfigSeen::Absent && told == Some(0)
}

/// Whether so many of the voters have nothing left that etcd never has a majority again. `without_data`: of whom nothing is left.
pub(crate) fn majority_without_data(draft: &Draft<'_>, without_data: impl Fn(&Machine) -> bool) -> bool {
    let members: Vec<Member<'_>> = members(draft)
        .map(|(id, machine)| Member {
            name: id,
            stays: !machine.record.deleting,
            without_data: without_data(machine),
            standing: standing(machine),
        })
        .collect();
    majority::is_lost(&members, draft.seen.unknown_machines != UnknownMachines::None)
}

/// Control plane machines, but for those that are to go and are gone.
pub(crate) fn members<'a>(draft: &Draft<'a>) -> impl Iterator<Item = (&'a String, &'a Machine)> + use<'a> {
    let gone = |machine: &Machine| matches!(machine.presence, Presence::Absent | Presence::Gone);
    let machines = draft.seen.machines.iter();
    machines.filter(move |(_, machine)| {
        member_index(machine).is_some() && !(machine.record.deleting && gone(machine))
    })
}

/// How a member stands in its etcd, as it says now: the machine runs and is heard, and nobody has started it again since.
fn standing(member: &Machine) -> Option<Standing> {
    let report = member.current_report().filter(|report| {
        member.presence == Presence::Running
            && member.heard()
            && report
                .processes
                .get(MEMBERSHIP)
                .is_some_and(|controller| controller.state == ProcessState::Ready)
    })?;
    report.status::<MembershipStatus>(MEMBERSHIP)?.standing
}

/// Since when it is written down that the newest state of the backup takes the place of what members still have, as long as nobody
/// serves it.
pub(crate) fn superseded(draft: &Draft<'_>) -> Option<Timestamp> {
    pending(draft)?;
    Some(lost(draft.desired.spec(), &draft.seen.observed)?.at)
}

pub(crate) fn status(member: &Machine) -> Option<EtcdStatus> {
    member.report.as_ref()?.status(ETCD)
}

/// The restore that was wished for and that nobody has seen serve yet.
pub(crate) fn pending(draft: &Draft<'_>) -> Option<RestoreSpec> {
    let observed = &draft.seen.observed;
    wished(draft.desired.spec(), observed).filter(|restore| !observed.has_restored(&restore.id))
}

/// Where a member's etcd says that its data comes from.
pub(crate) fn restored(member: &Machine) -> Option<String> {
    status(member)?.restored
}

/// What a member's etcd waits for or does before it can start, in words: a matter of its data, which no restart mends.
pub(crate) fn data_on_its_way(report: &Report) -> Option<String> {
    let status: EtcdStatus = report.status(ETCD)?;
    let what = match status.phase {
        EtcdPhase::Started => return None,
        EtcdPhase::Waiting => "etcd has no data and waits",
        EtcdPhase::Joining => "etcd joins the other members",
        EtcdPhase::Restoring => "etcd is restored from its backup",
    };
    Some(match status.why {
        Some(why) => format!("{what}: {why}"),
        None => what.to_owned(),
    })
}
