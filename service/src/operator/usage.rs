//! What subscriptions use: follows the store's changes, and writes by the hour.
//!
//! Always true: it is told of changes after they are made, so nobody waits for it; what it has written is exact up to then, and a change is written
//! within a minute ([`SOON`]).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use control_records::{
    directory, key,
    metering::{self, DAY, KEPT_DAYS, METERING, THROUGH, ThroughRecord, UsageDayRecord},
    volume::VolumeRecord,
};
use control_store::{Change, Revision, Store, StoreError, Txn, get_record, parse_record, put_record};
use futures::StreamExt as _;
use jiff::Timestamp;
use policy_metering::Ledger;

use super::{Operator, holdings::Holdings};

/// After the store failed.
const BACK_OFF: Duration = Duration::from_secs(60);
/// A change is written after this time, and what was before it right away where nothing was written for as long.
const SOON: i64 = 60;
/// Records in one transaction.
const BATCH: usize = 50;

/// The ledger of a run, and what of it is in the store.
struct Keeping {
    store: Arc<dyn Store>,
    ledger: Ledger,
    holdings: Holdings,
    /// When it was written last, seconds since 1970.
    written: i64,
    /// Whether something has changed since.
    changed: bool,
    /// The day on which old records were removed last.
    swept: i64,
}

impl Operator {
    /// Keeps records of usage, for ever.
    pub async fn keep_usage(&self) {
        loop {
            match self.follow().await {
                // The watch fell behind, or ended: everything is read anew.
                Ok(()) | Err(StoreError::Lagged) => {}
                Err(error) => {
                    tracing::error!(%error, "what is used cannot be recorded; it goes on where it was written last");
                    self.sources.env.clock.sleep(BACK_OFF).await;
                }
            }
        }
    }

    /// Until the store's watch ends.
    async fn follow(&self) -> Result<(), StoreError> {
        let clock = &*self.sources.env.clock;
        let store = Arc::clone(&self.sources.store);
        let (mut keeping, revision) = Keeping::begin(Arc::clone(&store), clock.now()).await?;
        let mut changes = store.watch("/", revision).await?;
        loop {
            let pause = clock.sleep(keeping.pause(clock.now()));
            tokio::select! {
                biased;
                change = changes.next() => match change {
                    Some(change) => keeping.follow(&change?, clock.now()).await?,
                    None => return Ok(()),
                },
                () = pause => keeping.write(clock.now()).await?,
            }
        }
    }
}

impl Keeping {
    /// Reads what clusters hold, and where the last run has stopped. Changes after the revision are to be followed.
    async fn begin(store: Arc<dyn Store>, now: Timestamp) -> Result<(Self, Revision), StoreError> {
        let mut holdings = Holdings::default();
        // What changes between the readings comes with the watch as well: twice does no harm.
        let (names, revision) = directory::cluster_names(&*store, None, None).await?;
        let mut found = Vec::new();
        for name in &names {
            let desired = key::desired(&name.uid);
            if let Some(value) = store.get(&desired).await? {
                found.push((desired, value));
            }
            found.extend(store.list(&VolumeRecord::all(&name.uid)).await?.0);
        }
        found.extend(store.list(key::LEASES).await?.0);
        for (key, found) in found {
            holdings.follow(&Change {
                revision: found.revision,
                key,
                value: Some(found.value),
            })?;
        }
        // Keys are in order: the last one of a subscription is its newest day.
        let mut newest = BTreeMap::new();
        for (key, found) in store.list(METERING).await?.0 {
            let subscription = key
                .rsplit_once('/')
                .map(|(subscription, _)| subscription.to_owned());
            newest.extend(subscription.map(|subscription| (subscription, (key, found))));
        }
        let days = newest.into_values().map(|(key, found)| {
            let record = parse_record::<UsageDayRecord>(&key, &found)?;
            Ok(record.value)
        });
        let days = days.collect::<Result<Vec<_>, StoreError>>()?;
        let through = get_record::<ThroughRecord>(&*store, THROUGH).await?;
        let through = through.map(|found| found.value.through);
        let mut ledger = Ledger::resume(through, days, now);
        for uid in holdings.uids() {
            if let Some((subscription, holding)) = holdings.of(&uid) {
                ledger.begin(&uid, subscription, holding);
            }
        }
        let keeping = Self {
            store,
            // Where the last run stopped is written at once, and the first time of all: a run that ends soon loses nothing of it.
            written: through.unwrap_or_default(),
            ledger,
            holdings,
            changed: true,
            swept: 0,
        };
        Ok((keeping, revision))
    }

    /// How long nothing is to be written.
    fn pause(&self, now: Timestamp) -> Duration {
        let mut until = Ledger::hour_ends(now);
        if self.changed {
            let soon = Timestamp::from_second(self.written.saturating_add(SOON));
            until = until.min(soon.unwrap_or(Timestamp::MAX));
        }
        Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO)
    }

    async fn follow(&mut self, change: &Change, now: Timestamp) -> Result<(), StoreError> {
        let Some(uid) = self.holdings.follow(change)? else {
            return Ok(());
        };
        // Counts what was before up to now.
        if !self.ledger.set(&uid, self.holdings.of(&uid), now) {
            return Ok(());
        }
        // That is written, so that a service that dies now counts nothing of the change for the time before it; in a crowd of changes only once a
        // minute.
        if now.as_second() - self.written >= SOON {
            self.write(now).await?;
        }
        self.changed = true;
        Ok(())
    }

    /// Writes what was counted up to now.
    async fn write(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.ledger.count(now);
        let records = self.ledger.changed();
        for some in records.chunks(BATCH) {
            let txn = some
                .iter()
                .fold(Txn::default(), |txn, record| txn.with(record.put()));
            self.store.txn(txn).await?;
        }
        let through = ThroughRecord {
            v: 1,
            through: self.ledger.through(),
        };
        let txn = Txn::default().with(put_record(THROUGH, &through));
        self.store.txn(txn).await?;
        self.ledger.written(&records);
        self.written = now.as_second();
        self.changed = false;
        let today = now.as_second().div_euclid(DAY);
        if self.swept != today {
            self.sweep(today).await?;
            self.swept = today;
        }
        Ok(())
    }

    /// Removes what is too old.
    async fn sweep(&self, today: i64) -> Result<(), StoreError> {
        let old: Vec<String> = self
            .store
            .list(METERING)
            .await?
            .0
            .into_iter()
            .map(|(key, _)| key)
            .filter(|key| metering::day_of(key).is_some_and(|day| day < today - KEPT_DAYS))
            .collect();
        for some in old.chunks(BATCH) {
            let txn = some
                .iter()
                .fold(Txn::default(), |txn, key| txn.delete(key.as_str()));
            self.store.txn(txn).await?;
        }
        Ok(())
    }
}
