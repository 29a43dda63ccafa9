//! Format 2 to 3: words that have types. Records keep their keys; those whose shape changes say so with `v` 2.
//!
//! | record | changes |
//! |---|---|
//! | desired, of deleted clusters too | `course.aborted` by part |
//! | observed | `reached` by part; `formed`, `etcdLost`, `restored`, `backupBehind` instead of milestones |
//! | operations | `part` instead of `pool` |
//! | machines | `work` and `healing` instead of `repair` and `upgrading` |

use std::collections::BTreeMap;

use control_store::Store;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    change::{self, Change},
    format::MigrateError,
};
use crate::key;

/// The format that this begins with.
const FROM: u32 = 2;
/// How the milestone began that said when all members had lost etcd's data; the restore wished for last followed.
const LOST: &str = "etcd_lost:";
/// The `v` of a record that has been changed.
const CHANGED: u64 = 2;
const CHANGE: Change = Change {
    from: FROM,
    version: CHANGED,
};

/// Changes everything. Returns how many records were changed.
pub(super) async fn run(store: &dyn Store) -> Result<usize, MigrateError> {
    let (clusters, _) = store.list(key::CLUSTERS).await?;
    let mut leaving = Leaving::default();
    for (key, record) in &clusters {
        if let Some((uid, "desired")) = key::of_cluster(key) {
            leaving.note(uid, &change::parse(key, FROM, record)?);
        }
    }
    let mut changed = CHANGE
        .each(store, &clusters, |key, value| {
            match key::of_cluster(key) {
                Some((_, "desired")) => desired(value),
                Some((uid, "observed")) => observed(value, uid, &leaving),
                Some((_, rest)) if rest.starts_with("machine/") => machine(value),
                Some((uid, rest)) if rest.starts_with("op/") => operation(value, uid, &leaving),
                _ => return Ok(false),
            }
            Ok(true)
        })
        .await?;
    let (of_groups, _) = store.list(key::OF_GROUPS).await?;
    changed += CHANGE
        .each(store, &of_groups, |key, value| {
            let is_operation = key.contains("/op/");
            if is_operation {
                operation(value, "", &leaving);
            }
            Ok(is_operation)
        })
        .await?;
    let (deleted, _) = store.list(key::DELETED).await?;
    changed += CHANGE
        .each(store, &deleted, |_, value| {
            if let Some(last) = value.get_mut("last").filter(|last| last.is_object()) {
                desired(last);
                last["v"] = json!(CHANGED);
            }
            Ok(true)
        })
        .await?;
    Ok(changed)
}

/// Pools on their way out, by the cluster's uid.
#[derive(Default)]
struct Leaving {
    /// Their names, by incarnation.
    names: BTreeMap<(String, String), String>,
    /// What they are called as parts, by the operation that deletes them.
    deletions: BTreeMap<(String, String), String>,
}

impl Leaving {
    fn note(&mut self, uid: &str, desired: &Value) {
        let leaving = desired.pointer("/course/leaving").and_then(Value::as_array);
        for pool in leaving.into_iter().flatten() {
            let text = |field: &str| pool["spec"][field].as_str().unwrap_or_default().to_owned();
            let (name, incarnation) = (text("name"), text("incarnation"));
            let operation = pool["operation"].as_str().unwrap_or_default().to_owned();
            let part = format!("leaving/{name}/{incarnation}");
            self.deletions.insert((uid.to_owned(), operation), part);
            self.names.insert((uid.to_owned(), incarnation), name);
        }
    }

    /// What a part is called that was called `before`: a pool's name, nothing for the rest of the cluster, `-{incarnation}` for
    /// a pool on its way out. Nothing for one that is not there any more.
    fn part(&self, uid: &str, before: &str) -> Option<String> {
        match before.strip_prefix('-') {
            Some(incarnation) => {
                let name = self.names.get(&(uid.to_owned(), incarnation.to_owned()))?;
                Some(format!("leaving/{name}/{incarnation}"))
            }
            None => Some(part(before)),
        }
    }
}

/// A part that is no pool on its way out.
fn part(before: &str) -> String {
    match before {
        "" => "base".to_owned(),
        pool => format!("pool/{pool}"),
    }
}

/// The same values under the present names of the parts.
fn by_part(before: &mut Value, part: impl Fn(&str) -> Option<String>) {
    let Some(map) = before.as_object_mut() else { return };
    let renamed: Map<String, Value> = std::mem::take(map)
        .into_iter()
        .filter_map(|(before, value)| Some((part(&before)?, value)))
        .collect();
    *map = renamed;
}

fn desired(value: &mut Value) {
    if let Some(aborted) = value.pointer_mut("/course/aborted") {
        by_part(aborted, |before| Some(part(before)));
    }
}

fn observed(value: &mut Value, uid: &str, leaving: &Leaving) {
    if let Some(reached) = value.get_mut("reached") {
        by_part(reached, |before| leaving.part(uid, before));
    }
    let Some(members) = value.as_object_mut() else {
        return;
    };
    let mut milestones = match members.remove("milestones") {
        Some(Value::Object(milestones)) => milestones,
        _ => Map::new(),
    };
    let formed = milestones.contains_key("api_ready");
    members.insert("formed".to_owned(), json!(formed));
    let lost = milestones.keys().find(|name| name.starts_with(LOST)).cloned();
    if let Some((name, at)) = lost.and_then(|name| milestones.remove_entry(&name)) {
        let after = Some(&name[LOST.len()..]).filter(|last| !last.is_empty());
        members.insert("etcdLost".to_owned(), json!({ "at": at, "after": after }));
    }
    // When it was restored is forgotten where the cluster was halted since: before anything that happens from now on.
    let at = milestones
        .remove("restored")
        .unwrap_or_else(|| json!(Timestamp::UNIX_EPOCH));
    if let Some(id) = members.remove("restored").filter(Value::is_string) {
        members.insert("restored".to_owned(), json!({ "id": id, "at": at }));
    }
    if let Some(since) = milestones.remove("backup_behind") {
        members.insert("backupBehind".to_owned(), since);
    }
    members.insert("milestones".to_owned(), Value::Object(milestones));
}

/// The deletion of a pool that is gone is about a pool of that name: it has ended, and nothing is decided by it any more.
fn operation(value: &mut Value, uid: &str, leaving: &Leaving) {
    let text = |field: &str| value[field].as_str().map(str::to_owned);
    let id = (uid.to_owned(), text("id").unwrap_or_default());
    let pool = text("pool").map(|pool| part(&pool));
    let part = leaving.deletions.get(&id).cloned().or(pool);
    if let Some(members) = value.as_object_mut() {
        members.remove("pool");
        members.insert("part".to_owned(), json!(part));
        members.entry("creates").or_insert(json!(false));
        members.entry("progress").or_insert(json!({}));
    }
}

/// A repair that was to be carried out had its step and its time in what healing remembers.
fn machine(value: &mut Value) {
    let Some(members) = value.as_object_mut() else {
        return;
    };
    let upgrade = members.remove("upgrading").unwrap_or_default();
    let mut healing = members.remove("repair").unwrap_or_else(|| json!({}));
    let pending = healing
        .as_object_mut()
        .and_then(|healing| healing.remove("pending"));
    let work = if pending == Some(json!(true)) {
        let (step, since) = (&healing["rung"], &healing["at"]);
        json!({ "kind": "repair", "step": step, "since": since, "upgrade": upgrade })
    } else if upgrade.is_null() {
        Value::Null
    } else {
        json!({ "kind": "upgrade", "since": upgrade })
    };
    members.insert("work".to_owned(), work);
    members.insert("healing".to_owned(), healing);
}
