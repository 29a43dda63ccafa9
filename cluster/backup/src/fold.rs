//! Folds base and log into the state of a moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    ops::Bound,
};

use crate::{
    BackupError, Entry, Lease, Tally, Totals, base,
    frame::Frames,
    log::{self, Item},
};

/// Changes after a base, by key. Logs first, then the base is streamed: only changes are in memory.
pub struct Fold {
    cut: Option<i64>,
    /// Later revisions are ignored.
    limit: i64,
    base: i64,
    /// The last revision that was read completely.
    position: i64,
    overlay: BTreeMap<Vec<u8>, Option<Entry>>,
    leases: BTreeMap<i64, i64>,
    /// Whether a change after the moment was read.
    beyond: bool,
}

/// The state of a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded {
    /// The last revision in it.
    pub revision: i64,
    /// Its totals.
    pub totals: Totals,
    /// The leases of its keys. The TTL is 0 if unknown.
    pub leases: Vec<Lease>,
}

impl Fold {
    /// A fold onto the base at this revision: the state after all changes seen until `cut`, milliseconds
    /// since 1970.
    pub fn onto(base: i64, cut: Option<i64>) -> Self {
        Self {
            cut,
            limit: i64::MAX,
            base,
            position: base,
            overlay: BTreeMap::new(),
            leases: BTreeMap::new(),
            beyond: false,
        }
    }

    /// Folds to a revision instead of a moment.
    #[must_use]
    pub fn until_revision(mut self, revision: i64) -> Self {
        self.limit = revision;
        self
    }

    /// Whether the log has passed the moment: further parts change nothing.
    pub fn is_beyond(&self) -> bool {
        self.beyond
    }

    /// The last revision that was read.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Reads the next part of the log. Parts may overlap; they may not leave a gap.
    ///
    /// # Errors
    /// When it is damaged, in a wrong order, or a part before it is missing. Changes before the damage are
    /// complete.
    pub fn log(&mut self, source: impl Read) -> Result<(), BackupError> {
        for frame in Frames::new(source) {
            let frame = frame?;
            if self.beyond {
                return Ok(());
            }
            let taken = self.position;
            if frame.head.last < taken || (frame.head.last == taken && frame.head.previous < taken) {
                continue;
            }
            if frame.head.previous > taken {
                return Err(BackupError::Gap {
                    from: taken,
                    to: frame.head.previous,
                });
            }
            log::items(&frame, |item| {
                match item {
                    Item::Lease(lease) => {
                        self.leases.insert(lease.id, lease.ttl);
                    }
                    Item::Change(change) if change.revision > taken && !self.beyond => {
                        // A transaction is applied as a whole: its first change has its time.
                        let begins = change.revision > self.position;
                        let late = self.cut.is_some_and(|cut| change.seen > cut);
                        if begins && (late || change.revision > self.limit) {
                            self.beyond = true;
                            return Ok(());
                        }
                        self.position = change.revision;
                        let now = change.now.map(|(value, lease)| Entry {
                            key: change.key.clone(),
                            value,
                            revision: change.revision,
                            lease,
                        });
                        self.overlay.insert(change.key, now);
                    }
                    Item::Change(_) => {}
                }
                Ok(())
            })?;
            if !self.beyond {
                self.position = frame.head.last.max(self.position);
            }
        }
        Ok(())
    }

    /// Streams the base through the changes: every key of the moment, in order.
    ///
    /// # Errors
    /// When the base is incomplete or another one: then the entries given to `each` are invalid. Or an error
    /// of `each`.
    pub fn finish(
        mut self,
        base: impl Read,
        mut each: impl FnMut(&Entry) -> Result<(), BackupError>,
    ) -> Result<Folded, BackupError> {
        let mut tally = Tally::default();
        let mut used = BTreeSet::new();
        let mut give = |entry: &Entry| {
            tally.add(entry);
            if entry.lease != 0 {
                used.insert(entry.lease);
            }
            each(entry)
        };
        // The position up to which changes were given out.
        let mut given: Bound<Vec<u8>> = Bound::Unbounded;
        let overlay = &self.overlay;
        let end = base::read(base, |entry| {
            let before = (given.as_ref(), Bound::Excluded(&entry.key));
            for changed in overlay
                .range::<Vec<u8>, _>(before)
                .filter_map(|(_, now)| now.as_ref())
            {
                give(changed)?;
            }
            match overlay.get(&entry.key) {
                None => give(&entry)?,
                Some(Some(changed)) => give(changed)?,
                Some(None) => {}
            }
            given = Bound::Excluded(entry.key);
            Ok(())
        })?;
        for changed in overlay
            .range::<Vec<u8>, _>((given.as_ref(), Bound::Unbounded))
            .filter_map(|(_, now)| now.as_ref())
        {
            give(changed)?;
        }
        if end.revision != self.base || self.cut.is_some_and(|cut| end.at > cut) {
            return Err(BackupError::Order(end.revision));
        }
        for lease in end.leases {
            self.leases.entry(lease.id).or_insert(lease.ttl);
        }
        let leases = used
            .into_iter()
            .map(|id| Lease {
                id,
                ttl: self.leases.get(&id).copied().unwrap_or(0),
            })
            .collect();
        Ok(Folded {
            revision: self.position,
            totals: tally.totals(),
            leases,
        })
    }
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
