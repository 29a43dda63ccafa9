//! What is wrong with a machine: told from what is seen, without any memory; the worst first.

use std::time::Duration;

use agent_api::SILENT_AFTER;
use agent_protocol::{LEVEL, ProcessState, Report};
use cluster_spec::PodNetworking;
use jiff::Timestamp;

use crate::{
    Ailment, ApiSeen, ConfigSeen, HealPolicy, Machine, Presence, Reach,
    view::{
        etcd::data_on_its_way,
        machines::{is_etcd_sidecar, is_full},
    },
};

/// The component behind a node object.
pub(crate) const KUBELET: &str = "kubelet";

/// What is wrong with a machine, if anything: the worst first.
pub(crate) fn diagnose(
    machine: &Machine,
    api: &ApiSeen,
    plugin: PodNetworking,
    policy: &HealPolicy,
    now: Timestamp,
) -> Option<(Ailment, String)> {
    if machine.presence == Presence::Absent && machine.record.enrolled_key.is_some() {
        return Some((Ailment::Vanished, "it is not there any more".to_owned()));
    }
    if machine.presence != Presence::Running || machine.record.deleting {
        return None;
    }
    if silent(machine, policy, now) {
        return Some((Ailment::Silent, "its agent says nothing".to_owned()));
    }
    if !machine.heard() {
        return None;
    }
    let report = machine.report.as_ref();
    if report.is_some_and(|report| data_on_its_way(report).is_some()) {
        return None;
    }
    let behind = |report: &Report| {
        let ConfigSeen::Published { generation, .. } = machine.config else {
            return false;
        };
        report.agent_level < LEVEL && report.generation < generation
    };
    if report.is_some_and(|report| behind(report)) {
        let why = "its agent is of an older release, which cannot take its configuration";
        return Some((Ailment::Outdated, why.to_owned()));
    }
    // Without an API server a node's programs have nothing to be ready for.
    let idle = machine.node_name().is_some() && api.reach != Reach::Ready;
    let mut processes: Vec<_> = report.iter().flat_map(|report| &report.processes).collect();
    // What serves comes before what stands by.
    processes.sort_by_key(|(name, _)| is_etcd_sidecar(name));
    for (name, process) in processes {
        let how = match process.state {
            ProcessState::Ready | ProcessState::Stopped => continue,
            _ if idle => continue,
            ProcessState::Starting => "does not become ready",
            ProcessState::Unready => "is not ready",
            ProcessState::BackOff => "keeps ending",
        };
        // One that ends again and again is starting in between: the same ailment.
        let how = if process.restarts > 1 { "keeps ending" } else { how };
        return Some((Ailment::Stuck(name.clone()), format!("{name} {how}")));
    }
    if let Some(name) = machine.node_name().filter(|_| api.reach == Reach::Ready) {
        match api.node(name) {
            Some(node) if !node.ready && plugin != PodNetworking::None => {
                let why = match &node.problem {
                    Some(problem) => format!("its node is not ready: {problem}"),
                    None => "its node is not ready".to_owned(),
                };
                return Some((Ailment::NotReady, why));
            }
            None if report.is_some_and(|report| report.processes.contains_key(KUBELET)) => {
                return Some((
                    Ailment::Unregistered,
                    "its kubelet has not registered its node".to_owned(),
                ));
            }
            _ => {}
        }
    }
    let full = report?.disks.iter().find(|disk| is_full(disk))?;
    let why = format!(
        "its disk is full: {} MiB of {} MiB are left in {}",
        full.free_mib, full.total_mib, full.path
    );
    Some((Ailment::DiskFull, why))
}

/// Whether a machine that runs says nothing. One that was not heard of since it runs has longer.
fn silent(machine: &Machine, policy: &HealPolicy, now: Timestamp) -> bool {
    let running = machine
        .running_since
        .map_or(Duration::ZERO, |since| now.duration_since(since).unsigned_abs());
    match machine.contact {
        Some(contact) if contact < running => contact >= SILENT_AFTER,
        _ => running >= policy.boot,
    }
}
