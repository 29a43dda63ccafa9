//! Steps of a command: run its pod; check its progress; store its result; remove its objects.
//!
//! Always true: the result is in the store before its objects are removed, so that a command never runs twice
//! because its result was lost; a command that did not run in time ends with an error.

use std::time::Duration;

use cluster_api::{CommandEnd, CommandSeen};
use control_records::{
    SealedRecord,
    command::{CommandInput, CommandOutput, CommandRecord, Part},
};
use control_store::{StoreError, Txn, get_record, put_record};
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::{EffectError, Job};

/// Interval between two checks of a running command.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
/// A pod that does not run by then fails: there is no room, or no node.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// Longer than a pod may run in any case.
const ENDS_WITHIN: Duration = Duration::from_secs(20 * 60);

/// Carries out the next step; gives whether it was the last.
pub(super) async fn step(job: &Job, id: &str) -> Result<bool, EffectError> {
    let key = CommandRecord::key(&job.uid, id);
    let Some(stored) = get_record::<CommandRecord>(&*job.deps.store, &key).await? else {
        return Ok(true);
    };
    let record = &stored.value;
    // The write depends on the record as it was read.
    let txn = job
        .fence
        .guard(Txn::default(), &job.uid)
        .at(&key, stored.revision);
    if record.ended {
        if record.is_open() {
            job.api()?.end_command(id).await?;
            let gone = CommandRecord {
                gone: true,
                ..record.clone()
            };
            job.deps.store.txn(txn.with(put_record(key, &gone))).await?;
        }
        return Ok(true);
    }
    if let Some(output) = look(job, record).await? {
        let bytes =
            Zeroizing::new(serde_json::to_vec(&output).expect("outputs are plain data with string keys"));
        let sealed_as = CommandRecord::sealed_as(&job.uid, id, Part::Output);
        let sealed = SealedRecord {
            v: 1,
            sealed: job.deps.sealer.seal(&sealed_as, &bytes)?,
        };
        let over = CommandRecord {
            ended: true,
            ..record.clone()
        };
        let part = |part| CommandRecord::part_key(&job.uid, id, part);
        let txn = txn
            .with(put_record(key, &over))
            .with(put_record(part(Part::Output), &sealed));
        job.deps.store.txn(txn.delete(part(Part::Input))).await?;
    }
    Ok(false)
}

/// Runs it if necessary; gives the result after it has ended.
async fn look(job: &Job, record: &CommandRecord) -> Result<Option<CommandOutput>, EffectError> {
    let now = job.deps.env.clock.now();
    let waited = now.duration_since(record.accepted_at).unsigned_abs();
    if waited > ENDS_WITHIN {
        return Ok(Some(failed(now, "it could not be run to its end in time")));
    }
    let input = input(job, &record.id).await?;
    let objects = job.deps.recipes.command(&record.id, &input);
    Ok(match job.api()?.command(&record.id, &objects).await? {
        CommandSeen::Running => None,
        CommandSeen::Waiting(_) if waited <= STARTS_WITHIN => None,
        CommandSeen::Waiting(why) => {
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            Some(failed(
                now,
                format!("its pod did not start within {} s{why}", STARTS_WITHIN.as_secs()),
            ))
        }
        CommandSeen::Ended(end) => Some(ended(now, end)),
    })
}

async fn input(job: &Job, id: &str) -> Result<CommandInput, EffectError> {
    let key = CommandRecord::part_key(&job.uid, id, Part::Input);
    let found = get_record::<SealedRecord>(&*job.deps.store, &key).await?;
    let found = found.ok_or_else(|| EffectError::Missing(key.clone()))?;
    let sealed_as = CommandRecord::sealed_as(&job.uid, id, Part::Input);
    let bytes = job.deps.sealer.unseal(&sealed_as, &found.value.sealed)?;
    let input = serde_json::from_slice(&bytes).map_err(|error| StoreError::Corrupt {
        key,
        why: error.to_string(),
    })?;
    Ok(input)
}

fn failed(now: Timestamp, why: impl Into<String>) -> CommandOutput {
    CommandOutput {
        exit_code: None,
        started_at: None,
        finished_at: now,
        logs: String::new(),
        reason: Some(why.into()),
    }
}

fn ended(now: Timestamp, end: CommandEnd) -> CommandOutput {
    CommandOutput {
        exit_code: end.exit_code,
        started_at: end.started_at,
        finished_at: end.finished_at.unwrap_or(now),
        logs: end.logs,
        reason: end.reason,
    }
}
