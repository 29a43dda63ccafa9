//! Deadlines of the support policies: notices, and what is done when one has come (rules L1 to L4, S1).
//!
//! What is due follows from the facts of a cluster, the notices that were written down and an instant ([`policy_support::clocks`]). A notice is an
//! event of the cluster. What is done is an ordinary request of the service's: the same stop, archive and deletion that a person asks for, with
//! an operation, events and a line in the activity log; it is told before it is asked for.
//!
//! Always true: nothing is done unless the stamp's policy says so ([`AtDeadline::Act`]), before all the time of its notices has gone by since the
//! first, counted from notices that said that it would be; while an operator holds planned work up; or, of a deletion, where a lock forbids it or
//! the cluster has changed since it was looked at. [`ContainerService::keep_deadlines`] may be called at any time and as often as one likes.
//!
//! Called by: `service`, which knows when to ask; [`shown`] by the state of support.

mod words;

use std::{sync::Arc, time::Duration};

use arm_kernel::{Change, Locks, Mutation, store_error};
use arm_wire::{ArmError, ErrorCode};
use control_records::{
    ClusterRecord, Event, EventKind, ObservedRecord,
    deadlines::{self, AtDeadline, Notice, NoticesRecord, notices_key},
    events, key, planned,
};
use control_store::{Store, StoreError, Stored, Txn, get_record, put_record};
use http::Method;
use jiff::Timestamp;
use policy_support::{
    Facts, Profile,
    clocks::{Act, ClusterClock, Deed, Noticed, Standing},
};
use serde_json::{Value, json};

use crate::{
    BACKUP_NAMESPACE, BackupReader, ContainerService, Next, Support,
    clusters::{Action, Command as _, archive, power},
    records::{ClusterPath, cluster_etag},
    support::gather,
};

/// What waits for a person, or was refused, is looked at again after this.
const AGAIN: Duration = Duration::from_secs(60 * 60);
/// A control plane that runs writes every few seconds: a backup that ends so long before its stop, in milliseconds, lacks something.
const TAIL: i64 = 15_000;

/// What a look came to, before anything is done.
struct Look {
    /// What is to be written down.
    notices: Vec<Noticed>,
    told: Vec<Event>,
    waits: String,
    /// The deed whose turn it is.
    due: Option<Act>,
    /// When to look again.
    next: Option<Timestamp>,
}

/// Where a cluster stands.
fn standing(profile: Profile, observed: &ObservedRecord, facts: &Facts, now: Timestamp) -> Standing {
    let restored = observed.restored.as_ref();
    let restored = restored.filter(|restored| archive::brings_back(&restored.id));
    Standing::of(facts, profile, restored.map(|restored| restored.at), now)
}

/// Notices that count: those of a stamp that only told of its deadlines are none of what is done.
fn counted(record: Option<&NoticesRecord>, mode: AtDeadline) -> Vec<Noticed> {
    let counts = record.filter(|record| record.of == mode);
    let notices = counts.iter().flat_map(|record| &record.notices);
    let noticed = notices.map(|notice| Noticed {
        rule: notice.rule.clone(),
        deed: notice.deed.clone(),
        begun: notice.begun,
        first: notice.first,
        count: usize::try_from(notice.count).unwrap_or(usize::MAX),
        done: notice.done,
    });
    noticed.collect()
}

/// What is due of a cluster that stands there. Pure.
fn look(
    profile: Profile,
    standing: &Standing,
    before: Option<&NoticesRecord>,
    mode: AtDeadline,
    held: Option<&str>,
    now: Timestamp,
) -> Look {
    let noticed = counted(before, mode);
    let mut clock = ClusterClock::resume(profile, standing, &noticed);
    let acts = clock.pass(now);
    let (mut told, mut left, mut due) = (Vec::new(), Vec::new(), None);
    let mut waits = String::new();
    for act in &acts {
        let tell = |message| Event::new(EventKind::Deadline, "", message);
        match (act.notice, mode, held) {
            (Some(at), ..) => told.push(tell(words::notice(act, at, mode))),
            (None, ..) if !act.deed.takes() => told.push(tell(words::come(act))),
            (None, AtDeadline::Tell, _) => told.push(tell(words::only_told(act))),
            (None, AtDeadline::Act, Some(obstacle)) => {
                left.push((act.rule, act.deed));
                if waits.is_empty() {
                    waits = words::waits(act, obstacle);
                }
            }
            (None, AtDeadline::Act, None) => {
                left.push((act.rule, act.deed));
                due.get_or_insert(*act);
            }
        }
    }
    let notices = clock.noticed(&left);
    // Of what was only told, or waits, nothing has come about: what is next is asked of the cluster as it is.
    let after = ClusterClock::resume(profile, standing, &notices);
    let again = (!left.is_empty()).then(|| later(now, AGAIN));
    let dates = [after.next().filter(|at| *at > now), standing.changes, again];
    Look {
        notices,
        told,
        waits,
        due,
        next: dates.into_iter().flatten().min(),
    }
}

fn later(now: Timestamp, wait: Duration) -> Timestamp {
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}

fn written(notice: &Noticed) -> Notice {
    Notice {
        rule: notice.rule.clone(),
        deed: notice.deed.clone(),
        begun: notice.begun,
        first: notice.first,
        count: u32::try_from(notice.count).unwrap_or(u32::MAX),
        done: notice.done,
    }
}

/// The deadlines that run for a cluster, for answers.
pub(crate) async fn shown(
    store: &dyn Store,
    profile: Profile,
    record: &ClusterRecord,
    observed: &ObservedRecord,
    facts: &Facts,
    now: Timestamp,
) -> Result<Value, ArmError> {
    let policy = deadlines::policy(store).await.map_err(store_error)?;
    let mode = policy.map(|policy| policy.deadlines).unwrap_or_default();
    let before = get_record::<NoticesRecord>(store, &notices_key(&record.uid)).await;
    let before = before.map_err(store_error)?.map(|found| found.value);
    let noticed = counted(before.as_ref(), mode);
    let clock = ClusterClock::resume(profile, &standing(profile, observed, facts, now), &noticed);
    let mut running = clock.deadlines();
    running.sort_by_key(|deadline| (clock.due(deadline), deadline.rule, deadline.deed));
    let running = running.iter().map(|deadline| {
        let given = noticed.iter().find(|notice| {
            notice.rule == deadline.rule
                && notice.deed == deadline.deed.as_str()
                && notice.begun == deadline.begun
        });
        let mut told = json!({
            "rule": deadline.rule,
            "deed": deadline.deed.as_str(),
            "begun": deadline.begun.to_string(),
            "due": clock.due(deadline).to_string(),
            "acts": deadline.deed.takes() && mode == AtDeadline::Act,
        });
        if let Some(first) = given.and_then(|given| given.first) {
            told["noticed"] = json!(first.to_string());
        }
        told
    });
    let waits = before.map(|before| before.waits).unwrap_or_default();
    let mut told = json!({ "policy": mode.as_str(), "running": running.collect::<Vec<_>>() });
    if !waits.is_empty() {
        told["waits"] = json!(waits);
    }
    if let Some(archive) = archive::pending(record) {
        told["archive"] = json!({ "state": "Pending", "rule": archive.rule });
    } else if let Some(archived) = archive::archived(record) {
        told["archive"] = json!({
            "state": "Archived",
            "since": archived.to_string(),
            "backup": backup_of(record),
        });
    }
    Ok(told)
}

/// Where the backup of a cluster is read.
pub(crate) fn backup_of(record: &ClusterRecord) -> String {
    arm_ids::resource_id(
        &record.subscription,
        &record.resource_group,
        BACKUP_NAMESPACE,
        &[("managedClusters", record.name.as_str()), ("backups", "default")],
    )
}

impl ContainerService {
    /// Gives the notices of a cluster's deadlines that are due, does what is due where the stamp's policy says so, and says when to look again.
    ///
    /// # Errors
    /// When the store or the backup cannot be read, or the store cannot be written.
    pub async fn keep_deadlines(
        &self,
        uid: &str,
        backups: &dyn BackupReader,
        locks: &dyn Locks,
    ) -> Result<Next, ArmError> {
        let Some(found) = self.read::<ClusterRecord>(&key::desired(uid)).await? else {
            return Ok(Next::Changed);
        };
        let record = &found.value;
        if record.deleting || record.requests.halted {
            return Ok(Next::Changed);
        }
        let now = self.env.clock.now();
        let observed = self.read::<ObservedRecord>(&key::observed(uid)).await?;
        let observed = observed.map(|found| found.value).unwrap_or_default();
        let archiving = self.archive(record, &observed, backups, now).await?;
        if archiving == Some(Next::Changed) {
            return Ok(Next::Changed);
        }
        let support = Support {
            profile: self.config.support,
            offered: self.config.offered.clone(),
            images: Arc::clone(&self.images),
        };
        let facts = gather::facts(&*self.store, &support, record, &observed, now).await?;
        let standing = standing(support.profile, &observed, &facts, now);
        let policy = deadlines::policy(&*self.store).await.map_err(store_error)?;
        let mode = policy.map(|policy| policy.deadlines).unwrap_or_default();
        let paused = planned::paused(&*self.store).await.map_err(store_error)?;
        let held = paused.map(|paused| paused.obstacle());
        let before = self.read::<NoticesRecord>(&notices_key(uid)).await?;
        let noticed = before.as_ref().map(|found| &found.value);
        let mut look = look(support.profile, &standing, noticed, mode, held.as_deref(), now);
        if let Some(act) = look.due {
            let path = path_of(record);
            let locked = match act.deed {
                Deed::Delete => locks.against(Change::Delete, &path).await?,
                _ => Vec::new(),
            };
            if let Some(scope) = locked.first() {
                look.waits = words::waits(&act, &format!("a lock at {scope} forbids it"));
                look.due = None;
            } else {
                look.waits = words::begins(&act);
            }
        }
        let waited = noticed.map(|noticed| noticed.waits.clone()).unwrap_or_default();
        if !look.waits.is_empty() && look.waits != waited {
            let message = look.waits.clone();
            look.told.push(Event::new(EventKind::Deadline, "", message));
        }
        if !self.note(&found, before, mode, &look, now).await? {
            // It was changed meanwhile, and is looked at again.
            return Ok(Next::Changed);
        }
        let Some(act) = look.due else {
            return Ok(sooner(archiving, look.next));
        };
        match self.carry_out(record, &act).await {
            Ok(()) => Ok(Next::Reached),
            Err(error) if error.code == ErrorCode::PRECONDITION_FAILED => Ok(Next::Changed),
            Err(error) if error.status().is_client_error() => {
                self.tell_once(record, words::refused(&act, &error.message), now)
                    .await?;
                Ok(Next::At(later(now, AGAIN)))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes down which notices were given, with the events that give them. Returns whether that came about.
    async fn note(
        &self,
        cluster: &Stored<ClusterRecord>,
        before: Option<Stored<NoticesRecord>>,
        mode: AtDeadline,
        look: &Look,
        now: Timestamp,
    ) -> Result<bool, ArmError> {
        let uid = &cluster.value.uid;
        let record = NoticesRecord {
            v: 1,
            of: mode,
            notices: look.notices.iter().map(written).collect(),
            waits: look.waits.clone(),
        };
        let empty = record.notices.is_empty() && record.waits.is_empty();
        let same = before.as_ref().map(|found| &found.value) == Some(&record);
        if look.told.is_empty() && (same || empty && before.is_none()) {
            return Ok(true);
        }
        let (key, desired) = (notices_key(uid), key::desired(uid));
        let txn = Txn::default().at(&desired, cluster.revision);
        let txn = match &before {
            Some(found) => txn.at(&key, found.revision),
            None => txn.absent(&key),
        };
        let txn = match (empty, before.is_some()) {
            (true, true) => txn.delete(&key),
            (true, false) => txn,
            (false, _) => txn.with(put_record(&key, &record)),
        };
        let txn = events::append(&*self.store, txn, uid, &look.told, now)
            .await
            .map_err(store_error)?;
        match self.store.txn(txn).await {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(store_error(error)),
        }
    }

    /// Goes on with an archive that was asked for: once the cluster is stopped and its backup was verified, disks may go. `Some(Changed)`: that
    /// was written just now; `None`: none is pending.
    async fn archive(
        &self,
        record: &ClusterRecord,
        observed: &ObservedRecord,
        backups: &dyn BackupReader,
        now: Timestamp,
    ) -> Result<Option<Next>, ArmError> {
        let Some(pending) = archive::pending(record) else {
            return Ok(None);
        };
        if observed.generation < record.generation {
            return Ok(Some(Next::Reached));
        }
        // Where nothing ever was in it, nothing is to be kept.
        let problem = if observed.formed {
            let stopped = pending.stopped.map_or(pending.since, Timestamp::as_millisecond);
            unverified(backups, record, observed, stopped, now).await?
        } else {
            None
        };
        if let Some(problem) = problem {
            let message =
                format!("the archive waits, and the disks stay: the backup was not verified: {problem}");
            self.tell_once(record, message, now).await?;
            return Ok(Some(Next::At(later(now, AGAIN))));
        }
        let path = path_of(record);
        self.ask_as_service(
            &path,
            None,
            Method::POST,
            ARCHIVE_ACTION,
            Mutation::Act(&Action::Archived),
        )
        .await?;
        Ok(Some(Next::Changed))
    }

    /// Tells something of a cluster, unless it is the last that was told of its deadlines.
    async fn tell_once(
        &self,
        record: &ClusterRecord,
        message: String,
        now: Timestamp,
    ) -> Result<(), ArmError> {
        let history = events::history(&*self.store, &record.uid, now).await;
        let history = history.map_err(store_error)?;
        let mut own = history.iter().rev().map(|(_, event)| &event.event);
        let last = own.find(|event| event.kind == EventKind::Deadline);
        if last.is_some_and(|last| last.message == message) {
            return Ok(());
        }
        let desired = key::desired(&record.uid);
        let Some(present) = self.read::<ClusterRecord>(&desired).await? else {
            return Ok(());
        };
        let told = [Event::new(EventKind::Deadline, "", message)];
        let txn = Txn::default().at(&desired, present.revision);
        let txn = events::append(&*self.store, txn, &record.uid, &told, now).await;
        match self.store.txn(txn.map_err(store_error)?).await {
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(store_error(error)),
        }
    }

    /// Asks for what is due, as the service.
    async fn carry_out(&self, record: &ClusterRecord, act: &Act) -> Result<(), ArmError> {
        let path = path_of(record);
        match act.deed {
            Deed::Stop => {
                let stop = Action::Command(power::Stop::decide);
                let action = "Microsoft.ContainerService/managedClusters/stop/action";
                self.ask_as_service(&path, None, Method::POST, action, Mutation::Act(&stop))
                    .await
            }
            Deed::Archive => {
                let archive = Action::Archive(act.rule.to_owned());
                self.ask_as_service(&path, None, Method::POST, ARCHIVE_ACTION, Mutation::Act(&archive))
                    .await
            }
            Deed::Delete => {
                // Only as it was looked at: whoever has started it a moment ago keeps it.
                let etag = cluster_etag(record);
                let action = "Microsoft.ContainerService/managedClusters/delete";
                self.ask_as_service(&path, Some(&etag), Method::DELETE, action, Mutation::Delete)
                    .await
            }
            // These take nothing, and are what the state of support says.
            Deed::LeaveSupport
            | Deed::RefuseLatest
            | Deed::RefuseUpdates
            | Deed::Restore
            | Deed::Unregister => Ok(()),
        }
    }
}

/// Why a backup cannot take the place of a control plane that was stopped then, if it cannot.
async fn unverified(
    backups: &dyn BackupReader,
    record: &ClusterRecord,
    observed: &ObservedRecord,
    stopped: i64,
    now: Timestamp,
) -> Result<Option<String>, ArmError> {
    if let Some(since) = observed.backup_behind {
        return Ok(Some(format!("it has been behind the cluster since {since}")));
    }
    let spans = backups.holding(&record.uid).await?.spans();
    let Some(newest) = spans.iter().map(|span| span.until).max() else {
        return Ok(Some("there is none".to_owned()));
    };
    if newest.saturating_add(TAIL) < stopped {
        let at = |millisecond| Timestamp::from_millisecond(millisecond).unwrap_or(Timestamp::MIN);
        let (newest, stopped) = (at(newest), at(stopped));
        return Ok(Some(format!(
            "its newest state is of {newest}, and the cluster was stopped at {stopped}"
        )));
    }
    Ok(match backups.verify(&record.uid, now).await {
        Ok(verdict) => verdict.problem,
        Err(error) => Some(error.to_string()),
    })
}

/// The permission that an archive needs.
const ARCHIVE_ACTION: &str = "Landfall.ContainerService/managedClusters/archives/take/action";

fn path_of(record: &ClusterRecord) -> arm_ids::ResourcePath {
    ClusterPath {
        subscription: &record.subscription,
        group: &record.resource_group,
        cluster: &record.name,
        child: "",
    }
    .path()
}

/// When to look again, after a look at an archive and one at deadlines.
fn sooner(archiving: Option<Next>, next: Option<Timestamp>) -> Next {
    match (archiving, next) {
        (Some(Next::At(one)), Some(other)) => Next::At(one.min(other)),
        (Some(archiving), _) => archiving,
        (None, Some(at)) => Next::At(at),
        (None, None) => Next::Changed,
    }
}
