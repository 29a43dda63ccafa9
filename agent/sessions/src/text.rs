//! Sanitises texts from machines: root in a machine writes them, and operators read them on a terminal.
//!
//! Always true of the result: no control characters except line breaks and tabs of a log, none that change
//! the writing direction, and bounded sizes.

use std::collections::BTreeMap;

use agent_protocol::{DiskSeen, ProcessSeen, Report};
use serde_json::Value;

/// Characters in names: of processes, tasks, boots, versions.
const NAME: usize = 128;
/// Characters in a reason, a path or a line.
const LINE: usize = 1024;
/// Processes, tasks, disks, lines: more than any machine has.
const MANY: usize = 256;
/// Lines of a process's log in a report, see [`ProcessSeen::last_lines`].
const LINES: usize = 20;
/// Bytes of a process's status, see [`agent_protocol::Process::status`].
const STATUS: usize = 8 * 1024;

/// Whether a terminal would interpret the character instead of showing it.
fn acts(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One line, at most `most` characters.
fn line(text: &str, most: usize) -> String {
    text.chars()
        .map(|character| {
            if character == '\n' || character == '\t' {
                ' '
            } else {
                character
            }
        })
        .filter(|character| !acts(*character))
        .take(most)
        .collect()
}

/// A log: line breaks and tabs stay.
pub(crate) fn log(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .filter(|character| matches!(character, '\n' | '\t') || !acts(*character))
        .collect()
}

/// A sanitised report.
pub(crate) fn report(report: Report) -> Report {
    Report {
        sequence: report.sequence,
        boot: line(&report.boot, NAME),
        agent_version: line(&report.agent_version, NAME),
        agent_level: report.agent_level,
        generation: report.generation,
        config_error: report.config_error.map(|why| line(&why, LINE)),
        processes: processes(report.processes),
        tasks_done: report
            .tasks_done
            .iter()
            .take(MANY)
            .map(|name| line(name, NAME))
            .collect(),
        agent_rss_kib: report.agent_rss_kib,
        disks: report
            .disks
            .into_iter()
            .take(MANY)
            .map(|disk| DiskSeen {
                path: line(&disk.path, LINE),
                ..disk
            })
            .collect(),
    }
}

fn processes(seen: BTreeMap<String, ProcessSeen>) -> BTreeMap<String, ProcessSeen> {
    let kept = seen.into_iter().take(MANY).map(|(name, seen)| {
        let seen = ProcessSeen {
            last_exit: seen.last_exit.map(|why| line(&why, LINE)),
            last_lines: seen
                .last_lines
                .iter()
                .take(LINES)
                .map(|text| line(text, LINE))
                .collect(),
            status: seen.status.filter(is_small).map(value),
            ..seen
        };
        (line(&name, NAME), seen)
    });
    kept.collect()
}

/// Statuses are written by our programs and small; larger ones are not theirs.
fn is_small(status: &Value) -> bool {
    status.to_string().len() <= STATUS
}

/// A JSON value with each text on one line.
fn value(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(line(&text, LINE)),
        Value::Array(items) => Value::Array(items.into_iter().map(self::value).collect()),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, field)| (line(&name, NAME), self::value(field)))
            .collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use agent_protocol::ProcessState;
    use serde_json::json;

    use super::*;

    /// Sets a terminal's title, clears it, moves the cursor back, changes the writing direction.
    const NASTY: &str = "a\u{1b}]0;root\u{7}\u{1b}[2J\u{9b}31m\r\u{8}\u{202e}b";
    const HARMLESS: &str = "a]0;root[2J31mb";

    #[test]
    fn nothing_that_a_machine_says_moves_a_terminal() {
        let seen = ProcessSeen {
            state: ProcessState::Ready,
            pid: None,
            restarts: 0,
            last_exit: Some(NASTY.to_owned()),
            last_lines: vec![NASTY.to_owned(); 100],
            hangs: 0,
            status: Some(json!({ NASTY: [NASTY, { "why": NASTY }], "number": 1 })),
        };
        let told = report(Report {
            boot: NASTY.to_owned(),
            agent_version: NASTY.to_owned(),
            config_error: Some(NASTY.to_owned()),
            processes: BTreeMap::from([(NASTY.to_owned(), seen)]),
            tasks_done: vec![NASTY.to_owned()],
            disks: vec![DiskSeen {
                path: NASTY.to_owned(),
                total_mib: 1,
                free_mib: 1,
            }],
            ..Report::default()
        });
        let text = serde_json::to_string(&told).unwrap();
        assert!(
            !text.contains("\\u") && !text.contains('\u{202e}') && !text.contains('\u{9b}'),
            "{text}"
        );
        assert_eq!(told.boot, HARMLESS);
        let seen = &told.processes[HARMLESS];
        assert_eq!(seen.last_lines, vec![HARMLESS.to_owned(); LINES]);
        assert_eq!(
            seen.status,
            Some(json!({ HARMLESS: [HARMLESS, { "why": HARMLESS }], "number": 1 }))
        );
    }

    #[test]
    fn lengths_are_bounded() {
        let long = "x".repeat(100_000);
        let told = report(Report {
            config_error: Some(long.clone()),
            tasks_done: vec![long.clone(); 1000],
            processes: BTreeMap::from([(
                "p".to_owned(),
                ProcessSeen {
                    state: ProcessState::Ready,
                    pid: None,
                    restarts: 0,
                    last_exit: None,
                    last_lines: Vec::new(),
                    hangs: 0,
                    status: Some(json!(long)),
                },
            )]),
            ..Report::default()
        });
        assert_eq!(told.config_error.unwrap().len(), LINE);
        assert_eq!((told.tasks_done.len(), told.tasks_done[0].len()), (MANY, NAME));
        assert_eq!(told.processes["p"].status, None);
    }

    #[test]
    fn a_log_keeps_its_lines() {
        assert_eq!(log(b"one\n\ttwo\x1b[31m\xff\r\n"), "one\n\ttwo[31m\u{fffd}\n");
    }
}
