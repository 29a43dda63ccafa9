//! What is wrong with machines, in words.

use agent_protocol::ProcessState;
use control_records::{GivenUp, RepairStep};

use super::{etcd, machines::given_up};
use crate::Machine;

/// The message about a node that could not be drained, until a later request.
pub(crate) fn undrained(machine: &Machine, given_up: &GivenUp) -> String {
    format!("node {} could not be drained: {}", machine.label(), given_up.why)
}

/// What is wrong with a machine, for people: what healing does about it, or processes that keep ending.
pub(crate) fn ailing(machine: &Machine) -> Option<String> {
    let healing = &machine.record.healing;
    if let (Some(symptom), true) = (
        &machine.symptom,
        healing.step > RepairStep::None || healing.held.is_some(),
    ) {
        let state = match &healing.held {
            Some(held) => format!("not repaired: {held}"),
            None => format!("{}; it is being repaired", symptom.why),
        };
        return Some(format!("{}: {state}", machine.label()));
    }
    if let Some(given_up) = given_up(machine).filter(|_| !machine.record.deleting) {
        return Some(undrained(machine, given_up));
    }
    let report = machine.report.as_ref()?;
    if let Some(what) = etcd::data_on_its_way(report) {
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
