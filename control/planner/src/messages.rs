//! What people read of a plan: one line of what is going on, one of what is wrong, and the cause of what took too long.

use agent_protocol::{ProcessSeen, ProcessState};
use control_records::Part;

use crate::{Draft, Machine, Presence, Subject, checks::Checks, view::complaints::ailing};

/// Failures in a row after which something is called a problem: the first ones are part of life.
const WORTH_TELLING: u32 = 3;
/// Longer texts are cut: a record is no log.
const MOST_CHARS: usize = 600;
/// So many of a component's last lines are told.
const LINES: usize = 3;

/// What is going on; empty when nothing is to do.
pub(crate) fn step(draft: &Draft<'_>) -> String {
    match draft.waits.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}

/// What is wrong, with whatever the machines or the effects have to say about it.
pub(crate) fn problem(draft: &Draft<'_>) -> Option<String> {
    let ailing = draft.seen.machines.values().find_map(ailing);
    let failing = draft
        .seen
        .held
        .iter()
        // What a tenant has run or made is no problem of the cluster.
        .filter(|(subject, held)| {
            let tenants = matches!(
                subject,
                Subject::Command(_)
                    | Subject::Service(_)
                    | Subject::VolumeObject(_)
                    | Subject::Namespace(_)
                    | Subject::WorkNotes
            );
            held.attempts >= WORTH_TELLING && !tenants
        })
        .map(|(_, held)| held)
        .max_by_key(|held| held.attempts)
        .map(|held| held.why.clone());
    let text = match (ailing, failing) {
        (Some(machine), Some(effect)) => format!("{machine}; {effect}"),
        (Some(text), None) | (None, Some(text)) => text,
        (None, None) => return None,
    };
    Some(cut(&text, MOST_CHARS))
}

/// What is wrong with add-ons, of those that are told of.
pub(crate) fn addons(draft: &Draft<'_>) -> Option<String> {
    let all: Vec<String> = draft
        .observed
        .addons
        .iter()
        .map(|(name, why)| format!("the add-on {name} does not work: {why}"))
        .collect();
    (!all.is_empty()).then(|| cut(&all.join("; "), MOST_CHARS))
}

/// What is wrong with volumes.
pub(crate) fn volumes(draft: &Draft<'_>) -> Option<String> {
    let all: Vec<&str> = draft.observed.lost_volumes.values().map(String::as_str).collect();
    (!all.is_empty()).then(|| cut(&all.join("; "), MOST_CHARS))
}

/// At most so many characters of a text.
pub(crate) fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

/// Why these parts are not there: which machine, which component, what it says last, and what to do next. Sentences.
pub(crate) fn cause(draft: &Draft<'_>, scope: &[Part], checks: &Checks) -> Option<String> {
    let open = || checks.open(scope);
    let machines = || {
        open().find_map(|check| {
            let id = check.machine.as_deref()?;
            of_machine(draft, id, draft.seen.machines.get(id)?)
        })
    };
    // Machines wait for what is nobody's own, so that comes first where it does not get on.
    let first = open().next().filter(|check| check.machine.is_none());
    let text = first
        .and_then(|_| of_effects(draft))
        .or_else(machines)
        .or_else(|| of_effects(draft))
        .or_else(|| problem_sentence(draft))?;
    Some(cut(&text, 2 * MOST_CHARS))
}

fn problem_sentence(draft: &Draft<'_>) -> Option<String> {
    problem(draft).map(|problem| format!("The last problem: {problem}. Next: landfall status."))
}

/// What fails of all that is not a machine's.
fn of_effects(draft: &Draft<'_>) -> Option<String> {
    let held = draft.seen.held.iter().filter_map(|(subject, held)| {
        let what = match subject {
            Subject::Network => "Making the network",
            Subject::Addons => "Installing the add-ons",
            Subject::Credentials => "Granting credentials",
            Subject::Api | Subject::Serving => "Reaching the API server",
            Subject::Fabric => "Looking at the host's machines",
            Subject::Image(_) => "Building the image of an add-on",
            Subject::Work => "Looking at the cluster's pods",
            Subject::Machine(_)
            | Subject::Config(_)
            | Subject::Node(_)
            | Subject::Command(_)
            | Subject::Service(_)
            | Subject::Volume(_)
            | Subject::VolumeObject(_)
            | Subject::Namespace(_)
            | Subject::WorkNotes => return None,
        };
        Some((what, held))
    });
    let (what, held) = held.max_by_key(|(_, held)| held.attempts)?;
    Some(format!(
        "{what} failed {} times, the last time: {}. Next: landfall logs shows what the service says.",
        held.attempts, held.why
    ))
}

/// Why a machine does not do its work.
fn of_machine(draft: &Draft<'_>, id: &str, machine: &Machine) -> Option<String> {
    let label = machine.label();
    let held = |subject: &Subject| draft.seen.held.get(subject);
    // A node goes by its name, a control plane machine has none of its own.
    let named = machine.node_name().unwrap_or(id);
    if let Some(held) = held(&Subject::Machine(id.to_owned())) {
        return Some(format!(
            "Machine {id} ({label}) cannot be brought to what it is to be; {} attempts, the last one: {}. Next: landfall \
             doctor, and landfall logs for what the service says.",
            held.attempts, held.why
        ));
    }
    if let Some(held) = held(&Subject::Config(id.to_owned())) {
        return Some(format!(
            "Machine {id} ({label}) cannot be configured; {} attempts, the last one: {}. Next: landfall logs.",
            held.attempts, held.why
        ));
    }
    if machine.presence != Presence::Running {
        return Some(format!(
            "Machine {id} ({label}) does not run. Next: landfall status, and landfall logs for what the service says."
        ));
    }
    let Some(report) = &machine.report else {
        return Some(format!(
            "Machine {id} ({label}) runs, but its agent has not called since the service started. Next: landfall doctor."
        ));
    };
    if let Some(error) = &report.config_error {
        return Some(format!(
            "Machine {id} ({label}) cannot take its configuration: {error}. Next: landfall logs {named} agent."
        ));
    }
    let worst = report
        .processes
        .iter()
        .filter(|(_, process)| process.state != ProcessState::Ready)
        .min_by_key(|(_, process)| {
            (
                process.state != ProcessState::BackOff,
                u32::MAX - process.restarts,
            )
        });
    if let Some((name, process)) = worst {
        return Some(of_process(id, label, named, name, process));
    }
    if let Some(held) = machine
        .node_name()
        .and_then(|node| held(&Subject::Node(node.to_owned())))
    {
        return Some(format!(
            "Node {named} cannot be brought to what it is to be; {} attempts, the last one: {}. Next: kubectl describe node \
             {named}.",
            held.attempts, held.why
        ));
    }
    machine.node_name().map(|node| {
        if machine.record.deleting || machine.record.emptying.is_some() {
            format!("Node {node} is not gone yet: its pods may hold it up. Next: kubectl get pods -A -o wide, and look for disruption budgets.")
        } else {
            format!(
                "All components of node {node} (machine {id}) run, but the node is not ready. Next: kubectl describe node \
                 {node}, and landfall logs {node} kubelet."
            )
        }
    })
}

fn of_process(id: &str, label: &str, named: &str, name: &str, process: &ProcessSeen) -> String {
    let state = match process.state {
        ProcessState::BackOff => "keeps ending",
        _ => "is not ready",
    };
    let restarts = match process.restarts {
        0 => String::new(),
        1 => ", started again once".to_owned(),
        times => format!(", started again {times} times"),
    };
    let exit = process
        .last_exit
        .as_deref()
        .map_or_else(String::new, |exit| format!(", last ended with {exit}"));
    let from = process.last_lines.len().saturating_sub(LINES);
    let lines: Vec<_> = process.last_lines[from..]
        .iter()
        .map(|line| cut(line, 200))
        .collect();
    let lines = if lines.is_empty() {
        " It has said nothing.".to_owned()
    } else {
        format!(" Its last lines: {}.", lines.join(" | ").trim_end_matches('.'))
    };
    format!(
        "{name} on machine {id} ({label}) {state}{restarts}{exit}.{lines} Next: landfall logs {named} {name}."
    )
}
