//! The control plane as it is seen: who stays, whether they serve, which version they are to have.

use agent_protocol::{
    ProcessState,
    programs::{MEMBERSHIP, MembershipStatus},
};
use cluster_spec::PoolSpec;
use cluster_versions::Version;

use super::machines::{is_back, is_etcd_sidecar, member_index};
use crate::{Ailment, ConfigSeen, Draft, Machine, Presence, Symptom};

/// Members that are to stay, in order of their numbers.
pub(crate) fn staying<'a>(draft: &Draft<'a>) -> Vec<(&'a String, &'a Machine)> {
    let mut staying: Vec<_> = draft
        .seen
        .machines
        .iter()
        .filter(|(_, machine)| !machine.record.deleting && member_index(machine).is_some())
        .collect();
    staying.sort_by_key(|(_, machine)| member_index(machine));
    staying
}

/// Whether this member serves and has taken its latest configuration. What its agent has not told since the service
/// started counts as well as long as it is in contact; what it told before it was started again does not.
pub(crate) fn healthy(machine: &Machine) -> bool {
    let ConfigSeen::Published { generation, .. } = machine.config else {
        return false;
    };
    // One whose disk is nearly full serves all the same.
    let ails = |symptom: &Symptom| symptom.ailment != Ailment::DiskFull;
    machine.presence == Presence::Running
        && is_back(machine)
        && !machine.symptom.as_ref().is_some_and(ails)
        && match machine.current_report() {
            Some(report) => {
                report.generation >= generation
                    && report
                        .processes
                        .iter()
                        .all(|(name, process)| process.state == ProcessState::Ready || is_etcd_sidecar(name))
            }
            None => machine.report.is_none() && machine.heard(),
        }
}

/// Whether all members that are to stay are well, but for one that is not asked for, and belong to etcd.
pub(crate) fn all_healthy(draft: &Draft<'_>, but: Option<&str>) -> bool {
    let staying = staying(draft);
    let voters = membership(draft).map(|status| status.voters);
    staying
        .iter()
        .filter(|(id, _)| Some(id.as_str()) != but)
        .all(|(id, machine)| healthy(machine) && voters.as_ref().is_none_or(|voters| voters.contains(id)))
}

/// What the membership controller of a staying member says about etcd: of the leader's own if it is known, else of any. What those said last
/// who are lost by now counts for nothing.
pub(crate) fn membership(draft: &Draft<'_>) -> Option<MembershipStatus> {
    let said: Vec<_> = staying(draft)
        .into_iter()
        .filter(|(_, machine)| machine.presence == Presence::Running && machine.heard())
        .filter_map(|(id, machine)| {
            let status: MembershipStatus = machine.report.as_ref()?.status(MEMBERSHIP)?;
            (!status.voters.is_empty()).then_some((id, status))
        })
        .collect();
    said.iter()
        .find(|(id, status)| status.leader.as_ref() == Some(*id))
        .or_else(|| said.first())
        .map(|(_, status)| status.clone())
}

pub(crate) fn split(inputs: &str) -> (&str, &str) {
    inputs.split_once('.').unwrap_or((inputs, ""))
}

/// As numbers, to be compared.
pub(crate) fn version(image: &str) -> Option<Version> {
    image.parse().ok()
}

/// The version that the control plane is to have: what is asked for, or newer where a member has it already. What emulates the minor release
/// that is asked for has stored nothing that it cannot read: then it goes back.
pub(crate) fn target<'a>(draft: &Draft<'a>) -> &'a str {
    let spec = draft.desired.spec();
    let asked = version(&spec.kubernetes_version);
    if asked.is_some() && asked.map(Version::minor_name) == spec.emulated {
        return &spec.kubernetes_version;
    }
    let images = staying(draft)
        .into_iter()
        .map(|(_, member)| member.record.image.as_str());
    std::iter::once(draft.desired.spec().kubernetes_version.as_str())
        .chain(images)
        .max_by_key(|image| version(image))
        .unwrap_or_default()
}

/// Whether a member must not start yet: a cluster's only member has the VIP on its card, and two of them must never have it
/// at the same time.
pub(crate) fn waits_for_vip(draft: &Draft<'_>, machine: &Machine) -> bool {
    let machines = || draft.seen.machines.values();
    member_index(machine).is_some()
        && !draft.seen.observed.roaming
        && machines().any(|other| other.record.deleting && member_index(other).is_some())
}

/// Which version serves: the oldest, while members differ.
pub(crate) fn observe_version(draft: &mut Draft<'_>) {
    let members = staying(draft);
    if members
        .iter()
        .any(|(_, member)| member.record.upgrading().is_some())
    {
        return;
    }
    let oldest = members
        .iter()
        .map(|(_, member)| &member.record.image)
        .min_by_key(|image| version(image));
    draft.observed.kubernetes_version = oldest.cloned();
}

/// Whether nodes of this pool's version may be there: no API server is older.
pub(crate) fn allows_nodes_of(draft: &Draft<'_>, pool: &PoolSpec) -> bool {
    let wanted = version(&pool.kubernetes_version);
    staying(draft)
        .iter()
        .all(|(_, member)| member.record.upgrading().is_none() && version(&member.record.image) >= wanted)
}
