//! Channels: upgrades that a cluster asks for once and for all (`autoUpgradeProfile`), done by the service as requests of its own.
//!
//! Each is a change of what the cluster is to be, with an operation, an event and a line in the activity log, as if somebody had asked; then all
//! that holds for upgrades holds for it. It is asked for inside the cluster's window, at a minute of its own, never beside another change, and
//! not of a cluster that is stopped, or held up by an operator. What was begun goes on after the end of its window: a cluster that is upgraded in
//! part is no better off for waiting.
//!
//! Always true: [`ContainerService::follow`] may be called at any time and as often as one likes; what it says of when to call again is no
//! promise that something is done then.
//!
//! Called by: `service`, which knows when to ask.

mod decide;

use std::time::Duration;

use arm_kernel::{Mutation, store_error};
use arm_wire::ArmError;
use cluster_maintenance::{
    AUTO_UPGRADE, Calendar, LEAST_FOR_UPGRADE, NODE_OS, Start, UpgradeChannel, Versions,
};
use cluster_spec::{PoolSpec, node_image_version};
use control_records::{
    ChildRecord, ClusterRecord, Event, EventKind, SubscriptionRecord, SubscriptionState, directory, events,
    key,
    planned::{self, Paused, Waiting, WaitingRecord},
};
use control_store::{StoreError, Txn, put_record};
use http::Method;
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    ContainerService,
    clusters::{Action, draft::refuse_deleting, hooks::refuse_change, soak},
    records::{ClusterPath, StoredCluster},
};

pub(crate) use decide::{renew, requested, upgrade};

/// How often it is looked whether there are newer node images: they come without a word.
const LOOK: Duration = Duration::from_secs(24 * 60 * 60);
/// What is refused, such as for want of room, is asked for again after this.
const AGAIN: Duration = Duration::from_secs(60 * 60);
/// Packages and components that are named in an event.
const MOST_NEWS: usize = 12;
/// The action that is written into the activity log.
const ACTION: &str = "Microsoft.ContainerService/managedClusters/write";

/// When a cluster's channels are to be looked at again. Always when what it is to be, its maintenance configurations or what an operator
/// holds up has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Not before.
    Changed,
    /// When it is what it is to be.
    Reached,
    /// At this instant.
    At(Timestamp),
}

/// An upgrade that a channel asks for.
enum Wanted {
    Versions(Versions),
    /// Of these pools.
    Images(Vec<String>),
    /// That the control plane is what its programs are, for nobody has said so while there was a way back.
    Finalize(String),
}

/// What a body says of channels.
struct Channels {
    versions: UpgradeChannel,
    /// The configuration that newer node images go by, where they are asked for.
    images: Option<&'static str>,
    /// Whether only those are asked for in which packages of the base system are other.
    patches: bool,
}

impl Channels {
    fn of(record: &ClusterRecord) -> Self {
        let profile = record.body().pointer("/properties/autoUpgradeProfile");
        let text = |name: &str| {
            let found = profile.and_then(|profile| profile.get(name));
            found.and_then(Value::as_str).unwrap_or_default()
        };
        let channel = text("upgradeChannel");
        let (images, patches) = match (channel, text("nodeOSUpgradeChannel")) {
            ("node-image", _) => (Some(AUTO_UPGRADE), false),
            (_, "NodeImage") => (Some(NODE_OS), false),
            (_, "SecurityPatch") => (Some(NODE_OS), true),
            _ => (None, false),
        };
        Self {
            versions: UpgradeChannel::of(channel),
            images,
            patches,
        }
    }
}

impl ContainerService {
    /// Does what a cluster's channels ask for, where it may be done now, and says when to look at them again.
    ///
    /// # Errors
    /// When the store cannot be read or written, or the upgrade is refused.
    pub async fn follow(&self, uid: &str) -> Result<Next, ArmError> {
        let Some(found) = self.read::<ClusterRecord>(&key::desired(uid)).await? else {
            return Ok(Next::Changed);
        };
        let record = &found.value;
        let channels = Channels::of(record);
        if refuse_deleting(record).is_err() || record.requests.halted {
            return Ok(Next::Changed);
        }
        let now = self.env.clock.now();
        let looks = channels
            .images
            .map(|_| now.checked_add(LOOK).unwrap_or(Timestamp::MAX));
        let ends = soak::soaking(record).and_then(|soaking| Timestamp::from_millisecond(soaking.until).ok());
        let looks = looks.into_iter().chain(ends.filter(|ends| *ends > now)).min();
        let looks_again = looks.map_or(Next::Changed, Next::At);
        // It is started first; then its channels are looked at.
        let wanted = if refuse_change(record).is_ok() {
            self.wanted(record, &channels, now).await?
        } else {
            Vec::new()
        };
        if wanted.is_empty() {
            self.wait(record, None, now).await?;
            return Ok(looks_again);
        }
        let cluster = self.around(found.clone()).await?;
        let reached = cluster
            .observed
            .as_ref()
            .is_some_and(|observed| observed.generation >= record.generation);
        if !reached || !self.running(record).await?.is_empty() {
            return Ok(Next::Reached);
        }
        let paused = planned::paused(&*self.store).await.map_err(store_error)?;
        let subscription = self
            .read::<SubscriptionRecord>(&key::subscription(&record.subscription))
            .await?;
        let disabled = subscription.is_some_and(|found| found.value.state == SubscriptionState::Disabled);
        let mut waits: Option<Waiting> = None;
        for (configuration, wanted) in wanted {
            let calendar = self.calendar(uid, configuration).await?;
            let start = begins(calendar.as_ref(), record, now);
            let what = what(&wanted, &channels);
            let obstacle = obstacle(
                start,
                calendar.is_some().then_some(configuration),
                paused.as_ref(),
                disabled,
            );
            let Some(obstacle) = obstacle else {
                return self.begin(&cluster, &wanted, what, now).await;
            };
            let until = match start {
                Start::At(at) if paused.is_none() && !disabled => Some(at),
                _ => None,
            };
            let waiting = Waiting {
                what,
                until,
                obstacle,
            };
            // The one that begins first is told of.
            let sooner = |told: &Waiting| told.until.is_some() && told.until <= waiting.until;
            if !waits.as_ref().is_some_and(sooner) && (waits.is_none() || waiting.until.is_some()) {
                waits = Some(waiting);
            }
        }
        let until = waits.as_ref().and_then(|waiting| waiting.until);
        self.wait(record, waits, now).await?;
        Ok(match until {
            Some(at) => Next::At(at),
            // What nobody tells of is looked at again now and then.
            None if disabled => Next::At(now.checked_add(AGAIN).unwrap_or(Timestamp::MAX)),
            None => looks_again,
        })
    }

    /// Asks for an upgrade; where it is refused, it is told why, and asked for again later.
    async fn begin(
        &self,
        cluster: &StoredCluster,
        wanted: &Wanted,
        what: String,
        now: Timestamp,
    ) -> Result<Next, ArmError> {
        let record = &cluster.record.value;
        let news = match wanted {
            Wanted::Images(pools) => self.news(record, pools),
            Wanted::Versions(_) | Wanted::Finalize(_) => Vec::new(),
        };
        let refused = match self.ask_for(cluster, wanted).await {
            Ok(()) => {
                self.wait(record, None, now).await?;
                self.tell(&record.uid, &news, now).await?;
                return Ok(Next::Reached);
            }
            Err(error) if error.status().is_client_error() => error,
            Err(error) => return Err(error),
        };
        let again = now.checked_add(AGAIN).unwrap_or(Timestamp::MAX);
        let waiting = Waiting {
            what,
            until: Some(again),
            obstacle: format!("it was refused: {refused}"),
        };
        self.wait(record, Some(waiting), now).await?;
        Ok(Next::At(again))
    }

    /// What the channels ask for, each with the configuration that it goes by.
    async fn wanted(
        &self,
        record: &ClusterRecord,
        channels: &Channels,
        now: Timestamp,
    ) -> Result<Vec<(&'static str, Wanted)>, ArmError> {
        let mut wanted = Vec::new();
        let offered = &self.config.offered;
        if let Some(soaking) = soak::soaking(record) {
            // Its way back is not taken from it by another upgrade.
            if soaking.until <= now.as_millisecond() {
                wanted.push((AUTO_UPGRADE, Wanted::Finalize(soaking.to.to_string())));
            }
        } else if let Some(now) = decide::versions(record.spec())
            && let Some(next) = channels.versions.next(&now, offered)
        {
            wanted.push((AUTO_UPGRADE, Wanted::Versions(next)));
        }
        if let Some(configuration) = channels.images {
            let images = self.images_for(Some(record));
            let known = |pool: &PoolSpec| images.knows(&pool.kubernetes_version);
            if record.spec().pools.iter().any(known) {
                let machines = directory::machines(&*self.store, &record.uid)
                    .await
                    .map_err(store_error)?;
                let patched = |version: &str, from: &str, to: &str| {
                    !channels.patches || self.images.is_patched(version, from, to)
                };
                let pools = decide::outdated(&record.state.pools(), &machines, &images, &patched);
                if !pools.is_empty() {
                    wanted.push((configuration, Wanted::Images(pools)));
                }
            }
        }
        Ok(wanted)
    }

    /// What is other in the node images that these pools are about to get, for people: a line for each pool where that is known.
    fn news(&self, record: &ClusterRecord, pools: &[String]) -> Vec<Event> {
        let images = self.images_for(Some(record));
        let own = record.spec().pools.iter();
        let own = own.filter(|pool| pools.contains(&pool.name));
        let lines = own.filter_map(|pool| {
            let version = &pool.kubernetes_version;
            let (from, to) = (pool.image.as_deref()?, images.newest(version)?);
            let changes = self.images.changes(version, from, to);
            if changes.is_empty() {
                return None;
            }
            let more = changes.len().saturating_sub(MOST_NEWS);
            let rest = match more {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let told: Vec<String> = changes.into_iter().take(MOST_NEWS).collect();
            let message = format!(
                "{} has other packages than {}: {}{rest}",
                node_image_version(version, Some(to)),
                node_image_version(version, Some(from)),
                told.join(", ")
            );
            Some(Event::new(EventKind::Planned, pool.name.as_str(), message))
        });
        lines.collect()
    }

    /// Tells what happened to a cluster. One that changes meanwhile is not told of: it is about to be looked at again.
    async fn tell(&self, uid: &str, told: &[Event], now: Timestamp) -> Result<(), ArmError> {
        let desired = key::desired(uid);
        let Some(present) = self.read::<ClusterRecord>(&desired).await? else {
            return Ok(());
        };
        if told.is_empty() {
            return Ok(());
        }
        let txn = Txn::default().at(&desired, present.revision);
        let txn = events::append(&*self.store, txn, uid, told, now)
            .await
            .map_err(store_error)?;
        match self.store.txn(txn).await {
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(store_error(error)),
        }
    }

    /// A cluster's maintenance configuration, where it has one. One that cannot be understood is a window that never opens.
    async fn calendar(&self, uid: &str, configuration: &str) -> Result<Option<Calendar>, ArmError> {
        let key = planned::configuration_key(uid, configuration);
        let Some(found) = self.read::<ChildRecord>(&key).await? else {
            return Ok(None);
        };
        let ChildRecord {
            properties,
            system_data,
            ..
        } = &found.value;
        let calendar = Calendar::parse(properties, system_data.created_at);
        calendar.map(Some).map_err(ArmError::internal)
    }

    /// Notes what upgrades of a cluster wait for, and tells it where it is another thing than before.
    async fn wait(
        &self,
        record: &ClusterRecord,
        waits: Option<Waiting>,
        now: Timestamp,
    ) -> Result<(), ArmError> {
        let key = planned::waiting_key(&record.uid);
        let before = self.read::<WaitingRecord>(&key).await?;
        let (txn, told) = match (before, waits) {
            (None, None) => return Ok(()),
            (Some(before), Some(waiting)) if before.value.waiting == waiting => return Ok(()),
            (Some(before), None) => (Txn::default().at(&key, before.revision).delete(&key), None),
            (before, Some(waiting)) => {
                // What goes on as it was, and only later, is not told again.
                let known = before.as_ref().is_some_and(|before| {
                    let told = &before.value.waiting;
                    let same = told.what == waiting.what && told.obstacle == waiting.obstacle;
                    same && told.until.is_some_and(|until| until <= now)
                });
                let told = Event::new(EventKind::Planned, "", waiting.sentence());
                let told = (!known).then_some(told);
                let txn = match before {
                    Some(before) => Txn::default().at(&key, before.revision),
                    None => Txn::default().absent(&key),
                };
                let kept = WaitingRecord { v: 1, waiting };
                (txn.with(put_record(&key, &kept)), told)
            }
        };
        // A cluster that is gone by now has nothing below it any more.
        let desired = key::desired(&record.uid);
        let Some(present) = self.read::<ClusterRecord>(&desired).await? else {
            return Ok(());
        };
        let txn = txn.at(&desired, present.revision);
        let told: Vec<Event> = told.into_iter().collect();
        let txn = events::append(&*self.store, txn, &record.uid, &told, now)
            .await
            .map_err(store_error)?;
        match self.store.txn(txn).await {
            // It is looked at again because of what changed.
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(store_error(error)),
        }
    }

    /// Asks for an upgrade, as the service.
    async fn ask_for(&self, cluster: &StoredCluster, wanted: &Wanted) -> Result<(), ArmError> {
        let record = &cluster.record.value;
        let path = ClusterPath {
            subscription: &record.subscription,
            group: &record.resource_group,
            cluster: &record.name,
            child: "",
        }
        .path();
        let action = match wanted {
            Wanted::Versions(_) => Action::Upgrade,
            Wanted::Images(pools) => Action::Renew(pools.clone()),
            Wanted::Finalize(_) => Action::Finalize,
        };
        self.ask_as_service(&path, None, Method::PUT, ACTION, Mutation::Act(&action))
            .await
    }
}

/// When an upgrade of a cluster may begin. What was aborted is not asked for again in the same window, nor on the same day.
fn begins(calendar: Option<&Calendar>, record: &ClusterRecord, now: Timestamp) -> Start {
    let aborted = (!record.requests.aborted.is_empty()).then_some(record.modified_at);
    let free = aborted.and_then(|at| {
        let day = at.checked_add(LOOK).ok()?;
        match calendar {
            Some(calendar) => calendar.open(at).map(|window| window.end.min(day)),
            None => Some(day),
        }
    });
    let from = free.map_or(now, |free| free.max(now));
    let start = match calendar {
        Some(calendar) => Start::of(calendar, &record.uid, LEAST_FOR_UPGRADE, from),
        None => Start::without_window(&record.uid, from),
    };
    match start {
        Start::Now if from > now => Start::At(from),
        other => other,
    }
}

/// What is to be done, for people.
fn what(wanted: &Wanted, channels: &Channels) -> String {
    match wanted {
        Wanted::Versions(versions) => format!(
            "the upgrade to Kubernetes {} (channel {})",
            versions.control_plane,
            channels.versions.as_str()
        ),
        Wanted::Images(pools) => format!("the newest node image for {}", pools.join(", ")),
        Wanted::Finalize(version) => format!("finalising Kubernetes {version}"),
    }
}

/// Why an upgrade does not begin now, if so.
fn obstacle(
    start: Start,
    configuration: Option<&str>,
    paused: Option<&Paused>,
    disabled: bool,
) -> Option<String> {
    if let Some(paused) = paused {
        return Some(paused.obstacle());
    }
    if disabled {
        return Some("the subscription is disabled".to_owned());
    }
    let window = match configuration {
        Some(configuration) => format!("the maintenance configuration '{configuration}'"),
        None => "the cluster's own minute of the day, for it has no maintenance configuration".to_owned(),
    };
    match start {
        Start::Now => None,
        Start::At(_) => Some(window),
        Start::Never => Some(format!("{window} has no window within five years")),
    }
}
