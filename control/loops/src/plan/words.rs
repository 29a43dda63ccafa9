//! What people read of a plan: one line of what is going on, one of what is wrong.

use super::{Draft, reach::ailing};

/// Failures in a row after which something is called a problem: the first ones are part of life.
const WORTH_TELLING: u32 = 3;
/// Longer texts are cut: a record is no log.
const MOST_CHARS: usize = 600;

/// What is going on; empty when nothing is to do.
pub(super) fn step(draft: &Draft<'_>) -> String {
    match draft.waits.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}

/// What is wrong, with whatever the machines or the effects have to say about it.
pub(super) fn problem(draft: &Draft<'_>) -> Option<String> {
    let ailing = draft.seen.machines.values().find_map(ailing);
    let failing = draft
        .seen
        .held
        .values()
        .filter(|held| held.attempts >= WORTH_TELLING)
        .max_by_key(|held| held.attempts)
        .map(|held| held.why.clone());
    let text = match (ailing, failing) {
        (Some(machine), Some(effect)) => format!("{machine}; {effect}"),
        (Some(text), None) | (None, Some(text)) => text,
        (None, None) => return None,
    };
    Some(text.chars().take(MOST_CHARS).collect())
}
