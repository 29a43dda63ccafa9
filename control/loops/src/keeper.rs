//! Keeps what tenants made beside their clusters: the volumes of disks and of snapshots of disks, and the addresses of public IP addresses.
//!
//! One task for the stamp. It runs after a change of one of their records, and once each resync period it compares all disks with the fabric.
//!
//! Always true: a volume that was made once is never made anew: its loss is written down, and nobody gets an empty disk in its place; an
//! address is leased in the transaction that names it; whatever fails is tried again, and told by the record once it has failed several times.
//! Deletion is not done here: the request removes the record, and the sweep what is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use control_planner::{UnknownMachines, public_address};
use control_records::{
    LeaseRecord,
    disk::{DISKS, DiskRecord},
    key,
    network::{self, NetworkRecord},
};
use control_store::{Revision, StoreError, Stored, Txn, list_records, put_record};
use fabric_api::{FabricError, VolumeId, VolumeSpec};
use futures::StreamExt as _;
use serde_json::json;
use tokio::sync::Notify;

use crate::{cluster_loop::Shared, pacing};

/// How often it is looked whether something that failed is due again.
const RETRY: Duration = Duration::from_secs(5);
/// After so many failures in a row the record tells why.
const PATIENCE: u32 = 3;
/// Volumes that are made at the same time. A copy takes as long as its source is large.
const AT_ONCE: usize = 4;

/// Wakes the keeper.
#[derive(Debug, Default)]
pub(crate) struct KeeperWakeup {
    notify: Notify,
    look: AtomicBool,
}

impl KeeperWakeup {
    /// A record has changed.
    pub(crate) fn notify(&self) {
        self.notify.notify_one();
    }

    /// All disks are to be compared with the fabric.
    pub(crate) fn notify_all(&self) {
        self.look.store(true, Ordering::SeqCst);
        self.notify();
    }
}

/// A disk that was not made.
struct Held {
    attempts: u32,
    /// When it is tried again, by the monotonic clock.
    due: Duration,
}

#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Fabric(#[from] FabricError),
}

/// Runs for ever.
pub(crate) async fn keep(shared: Arc<Shared>, wakeup: Arc<KeeperWakeup>) {
    let clock = Arc::clone(&shared.deps.env.clock);
    let mut held = BTreeMap::new();
    loop {
        let look = wakeup.look.swap(false, Ordering::SeqCst);
        let finished = match pass(&shared, look, &mut held).await {
            Ok(finished) => finished,
            Err(error) => {
                tracing::warn!("disks and public addresses are not kept for now: {error}");
                wakeup.look.fetch_or(look, Ordering::SeqCst);
                false
            }
        };
        if finished {
            wakeup.notify.notified().await;
        } else {
            tokio::select! {
                biased;
                () = wakeup.notify.notified() => {}
                () = clock.sleep(RETRY) => {}
            }
        }
    }
}

/// Whether nothing is left to do.
async fn pass(shared: &Shared, look: bool, held: &mut BTreeMap<String, Held>) -> Result<bool, KeepError> {
    let disks = disks(shared, look, held).await?;
    let addresses = addresses(shared).await?;
    Ok(disks && addresses)
}

/// The disks and snapshots. Whether all are as they are to be, or as good as they get.
async fn disks(shared: &Shared, look: bool, held: &mut BTreeMap<String, Held>) -> Result<bool, KeepError> {
    let store = &*shared.deps.store;
    let (records, _) = list_records::<DiskRecord>(store, DISKS).await?;
    held.retain(|key, _| records.iter().any(|(known, _)| known == key));
    // A volume that was made has to be seen before anything is done to it. The listing begins after the records were read, so that it has the
    // volume of each that says to have one.
    let grows = |record: &DiskRecord| record.is_made() && record.there < record.bytes;
    let made = records.iter().any(|(_, found)| found.value.is_made());
    let there: Option<BTreeSet<String>> =
        if made && look || records.iter().any(|(_, found)| grows(&found.value)) {
            let inventory = shared.inventory.listed_after(shared.inventory.mark()).await?;
            let volumes = inventory.volumes.iter().filter(|volume| volume.bytes > 0);
            Some(volumes.map(|volume| volume.id.0.clone()).collect())
        } else {
            None
        };
    let now = shared.deps.env.clock.monotonic();
    let mut finished = true;
    let mut work = Vec::new();
    for (key, Stored { value, revision }) in records {
        let step = step(&value, there.as_ref());
        match step {
            Step::Nothing => {}
            Step::Write(next) => write(shared, &key, revision, &next).await?,
            Step::Make if held.get(&key).is_some_and(|held| held.due > now) => finished = false,
            Step::Make => work.push((key, value, revision)),
        }
    }
    let ended = futures::stream::iter(work)
        .map(|(key, record, revision)| async move {
            let made = make(shared, &record).await;
            (key, record, revision, made)
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    for (key, record, revision, made) in ended {
        let next = match made {
            Ok(()) => {
                held.remove(&key);
                DiskRecord {
                    there: record.bytes,
                    failure: None,
                    ..record
                }
            }
            Err(error) => {
                finished = false;
                let attempts = held.get(&key).map_or(0, |held| held.attempts) + 1;
                let seed = shared.deps.env.seed.child("disks").child(&key);
                let due = shared.deps.env.clock.monotonic() + pacing::pause(seed, attempts);
                held.insert(key.clone(), Held { attempts, due });
                let why = error.to_string();
                tracing::warn!(disk = key, attempts, "a disk is not made: {why}");
                if attempts < PATIENCE || record.failure.as_ref() == Some(&why) {
                    continue;
                }
                DiskRecord {
                    failure: Some(why),
                    ..record
                }
            }
        };
        write(shared, &key, revision, &next).await?;
    }
    Ok(finished)
}

/// What is to be done for a disk.
#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    /// Write it anew.
    Write(Box<DiskRecord>),
    /// Make its volume, or make that larger.
    Make,
}

/// The next step for a disk; `there`: the volumes in the fabric, where they were looked at after the record was read. Pure.
fn step(record: &DiskRecord, there: Option<&BTreeSet<String>>) -> Step {
    if !record.is_made() {
        return Step::Make;
    }
    let Some(there) = there else {
        return Step::Nothing;
    };
    let is_there = there.contains(&record.volume());
    let lost = "it is not there any more, and what was on it is lost: delete it";
    match (is_there, record.failure.as_deref()) {
        (false, Some(known)) if known == lost => Step::Nothing,
        (false, _) => Step::Write(Box::new(DiskRecord {
            failure: Some(lost.to_owned()),
            ..record.clone()
        })),
        (true, _) if record.there < record.bytes => Step::Make,
        (true, Some(_)) => Step::Write(Box::new(DiskRecord {
            failure: None,
            ..record.clone()
        })),
        (true, None) => Step::Nothing,
    }
}

/// Makes a volume be there, and be as large as it is to be.
async fn make(shared: &Shared, record: &DiskRecord) -> Result<(), FabricError> {
    let spec = VolumeSpec {
        id: VolumeId(record.volume()),
        bytes: record.bytes,
        source: record.source.as_deref().map(VolumeId::from),
        shared: false,
        labels: record.labels(),
    };
    let bound = shared.deps.settings.fabric_bound;
    let made = shared.deps.fabric.ensure_volume(&spec);
    let ended = shared.deps.env.clock.timeout(bound, made).await;
    ended.unwrap_or_else(|elapsed| Err(FabricError::failed("make a disk", elapsed)))
}

/// Writes a record, unless it has changed meanwhile: then the keeper is woken.
async fn write(shared: &Shared, key: &str, revision: Revision, next: &DiskRecord) -> Result<(), StoreError> {
    let txn = Txn::default().at(key, revision).with(put_record(key, next));
    match shared.deps.store.txn(txn).await {
        Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Public IP addresses without an address. Whether all have one.
async fn addresses(shared: &Shared) -> Result<bool, KeepError> {
    let store = &*shared.deps.store;
    let prefix = format!("{}{}/", network::NETWORK, network::PUBLIC_ADDRESSES);
    let (records, _) = list_records::<NetworkRecord>(store, &prefix).await?;
    let mut waiting = records
        .into_iter()
        .filter(|(_, found)| found.value.public_address().is_none())
        .peekable();
    if waiting.peek().is_none() {
        return Ok(true);
    }
    if shared.index.unknown_machines("") == UnknownMachines::NotLooked {
        // Something that is kept may have the address.
        return Ok(false);
    }
    let vips = shared.deps.fabric.stamp_network().vips();
    let mut finished = true;
    for (key, Stored { value, revision }) in waiting {
        let Some(address) = public_address(&value.uid, vips, &shared.index.taken()) else {
            tracing::warn!(key, "all addresses of the stamp are in use");
            finished = false;
            continue;
        };
        let lease = key::lease("vips", address);
        let held = LeaseRecord {
            v: 1,
            owner: value.public_holder(),
        };
        let mut next = value;
        next.properties["ipAddress"] = json!(address);
        let txn = Txn::default()
            .at(&key, revision)
            .absent(&lease)
            .with(put_record(&lease, &held))
            .with(put_record(&key, &next));
        match store.txn(txn).await {
            Ok(_) => drop(shared.index.add_lease(&lease, &held.owner)),
            // The request is repeated, or another lease is about to be known here.
            Err(StoreError::Conflict { .. }) => finished = false,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(finished)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn what_was_made_is_never_made_anew() {
        let disk = DiskRecord {
            v: 1,
            uid: "0123456789".to_owned(),
            subscription: "s".to_owned(),
            resource_group: "g".to_owned(),
            name: "data".to_owned(),
            location: "local".to_owned(),
            tags: BTreeMap::new(),
            generation: 1,
            snapshot: false,
            sku: "Premium_LRS".to_owned(),
            bytes: 2,
            properties: json!({}),
            source: None,
            there: 0,
            failure: None,
            holder: None,
            created_at: Timestamp::UNIX_EPOCH,
            modified_at: Timestamp::UNIX_EPOCH,
        };
        let (all, none) = (BTreeSet::from([disk.volume()]), BTreeSet::new());
        assert_eq!(step(&disk, None), Step::Make);
        assert_eq!(step(&disk, Some(&none)), Step::Make);
        let made = DiskRecord { there: 2, ..disk };
        assert_eq!(step(&made, None), Step::Nothing);
        assert_eq!(step(&made, Some(&all)), Step::Nothing);
        let Step::Write(lost) = step(&made, Some(&none)) else {
            panic!("it is lost")
        };
        assert_eq!(
            (lost.state(), step(&lost, Some(&none))),
            ("Failed", Step::Nothing)
        );
        assert_eq!(step(&lost, None), Step::Nothing);
        assert_eq!(step(&lost, Some(&all)), Step::Write(Box::new(made.clone())));
        let larger = DiskRecord { bytes: 3, ..made };
        assert_eq!(step(&larger, None), Step::Nothing, "not before it was seen");
        assert_eq!(step(&larger, Some(&all)), Step::Make);
        assert!(matches!(step(&larger, Some(&none)), Step::Write(_)));
    }
}
