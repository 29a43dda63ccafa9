//! What is told of a cluster's continuous backup: that the service is behind the cluster, that it no longer is, and that something
//! could not be shipped. Nothing is done about it here: `landfall-agent etcd-backup` helps itself.

use agent_protocol::programs::{BACKUP, BackupStatus};
use control_records::EventKind;

use crate::{Draft, Machine};

/// Who it is told of.
const SUBJECT: &str = "the backup";
/// Where it is kept how often the shipper has given something up, beside the restarts of components.
const GIVEN_UP: &str = "etcd-backup, given up";
/// Behind by this, milliseconds, it is told…
const LATE: u64 = 60_000;
/// …until it is behind by less than this.
const WELL: u64 = 10_000;

pub(crate) fn plan(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    if draft.desired.deleting {
        return;
    }
    let mut ships = None;
    for (id, machine) in &seen.machines {
        let Some(status) = status(machine) else { continue };
        given_up(draft, id, &status);
        if status.ships && machine.heard() {
            ships = Some(status);
        }
    }
    let Some(status) = ships else { return };
    let told = draft.observed.backup_behind.is_some();
    if !told && status.lag_ms >= LATE {
        let why = status.problem.map_or_else(String::new, |why| format!(": {why}"));
        draft.observed.backup_behind = Some(draft.now);
        draft.tell(
            EventKind::ProblemBegan,
            SUBJECT,
            format!("it is {} s behind the cluster{why}", status.lag_ms / 1000),
        );
    } else if told && status.lag_ms < WELL {
        draft.observed.backup_behind = None;
        draft.tell(
            EventKind::ProblemEnded,
            SUBJECT,
            "it is no longer behind the cluster",
        );
    }
}

fn given_up(draft: &mut Draft<'_>, id: &str, status: &BackupStatus) {
    let told = draft
        .observed
        .reported
        .get(id)
        .and_then(|told| told.restarts.get(GIVEN_UP))
        .copied()
        .unwrap_or(0);
    if status.given_up == told {
        return;
    }
    let told_now = &mut draft.observed.reported.entry(id.to_owned()).or_default().restarts;
    match status.given_up {
        // Another run of the program counts anew.
        0 => told_now.remove(GIVEN_UP),
        count => told_now.insert(GIVEN_UP.to_owned(), count),
    };
    if status.given_up > 0 {
        let what = status.gave_up.as_deref().unwrap_or("a part");
        draft.tell(
            EventKind::Backup,
            SUBJECT,
            format!("{what}; a new base was begun, seconds before it may not be restorable"),
        );
    }
}

fn status(machine: &Machine) -> Option<BackupStatus> {
    machine.report.as_ref()?.status(BACKUP)
}
