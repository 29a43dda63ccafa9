//! Background maintenance of backups: merge, remove, verify.

use cluster_backup::{
    ObjectName, Totals, base, chain, log,
    retention::{self, Retention},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Archive, ArchiveError};

/// Smaller parts in the object store are merged…
const SMALL: u64 = 64 * 1024;
/// …when this many follow each other.
const MANY: usize = 64;

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The time of the verification.
    pub at: Timestamp,
    /// The checks that were made, for people.
    pub checked: String,
    /// The number of keys in the newest state.
    pub keys: u64,
    /// The problem, if any.
    pub problem: Option<String>,
}

/// The result of a maintenance round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tended {
    /// Small parts that were merged into larger ones.
    pub merged: usize,
    /// Files that expired.
    pub expired: usize,
    /// Files above the cluster's budget.
    pub thinned: usize,
}

impl Archive {
    /// Restores into memory: the newest state; and, if there are two bases, the state at the newer one, from
    /// the older one and the log between. That state must match, key by key, the machine's read of etcd in
    /// the newer base.
    ///
    /// # Errors
    /// When the object store fails. A problem of a backup is in the verdict.
    pub fn verify(&self, cluster: &str, now: Timestamp) -> Result<Verdict, ArchiveError> {
        let names = self.holding(cluster)?.names();
        let mut verdict = Verdict {
            at: now,
            checked: String::new(),
            keys: 0,
            problem: None,
        };
        match self.check(cluster, &names, &mut verdict) {
            Ok(()) => Ok(verdict),
            Err(
                error @ (ArchiveError::Damaged { .. }
                | ArchiveError::NotCovered(_)
                | ArchiveError::Key { .. }),
            ) => {
                verdict.problem = Some(error.to_string());
                Ok(verdict)
            }
            Err(ArchiveError::Storage { source, name, .. })
                if source.kind() == std::io::ErrorKind::InvalidData =>
            {
                verdict.problem = Some(format!("{name} is damaged: {source}"));
                Ok(verdict)
            }
            Err(error) => Err(error),
        }
    }

    fn check(&self, cluster: &str, names: &[ObjectName], verdict: &mut Verdict) -> Result<(), ArchiveError> {
        let newest = chain::select(names, None)?;
        let folded = self.fold(cluster, &newest, None, None, |_| Ok(()))?;
        verdict.keys = folded.totals.keys;
        verdict.checked = "the newest state was restored into memory".to_owned();
        let ObjectName::Base { revision, at } = newest.base else {
            return Ok(());
        };
        // The newest base that a log reaches from an older one.
        let older: Vec<ObjectName> = names
            .iter()
            .copied()
            .filter(|name| match name {
                ObjectName::Base { at: before, .. } => *before < at,
                ObjectName::Log { .. } => true,
            })
            .collect();
        let Ok(chain) = chain::select(&older, None) else {
            return Ok(());
        };
        let leads_here = chain.last >= revision
            && matches!(chain.base, ObjectName::Base { revision: before, .. } if before <= revision);
        if !leads_here {
            return Ok(());
        }
        let said = self.totals(cluster, &newest.base)?;
        let found = self
            .fold(cluster, &chain, None, Some(revision), |_| Ok(()))?
            .totals;
        if said == found {
            verdict.checked = format!(
                "the newest state was restored into memory; base and log gave the {} keys that the cluster had at {}",
                said.keys,
                Timestamp::from_millisecond(at).unwrap_or_default()
            );
        } else {
            verdict.problem = Some(format!(
                "base and log give {} keys at revision {revision}, where the cluster had {}: restores to moments before {} may \
                 be wrong; later ones are not affected",
                found.keys,
                said.keys,
                Timestamp::from_millisecond(at).unwrap_or_default()
            ));
        }
        Ok(())
    }

    fn totals(&self, cluster: &str, name: &ObjectName) -> Result<Totals, ArchiveError> {
        base::read(self.get(cluster, name)?, |_| Ok(()))
            .map(|end| end.totals)
            .map_err(|source| ArchiveError::Damaged {
                name: format!("{cluster}/{name}"),
                source,
            })
    }

    /// Merges small parts and removes expired files.
    ///
    /// # Errors
    /// When the object store fails; completed changes stay.
    pub fn tend(&self, cluster: &str, policy: &Retention, now: Timestamp) -> Result<Tended, ArchiveError> {
        let mut tended = Tended::default();
        let holding = self.holding(cluster)?;
        for name in retention::expired(&holding.names(), policy, now.as_millisecond()) {
            self.remove(cluster, &name)?;
            tended.expired += 1;
        }
        tended.thinned = self.thin(cluster)?;
        for run in runs(&self.holding(cluster)?.objects) {
            match self.merge(cluster, &run) {
                Ok(()) => tended.merged += run.len(),
                // Left as it is: verification reports it.
                Err(ArchiveError::Damaged { name, source }) => {
                    tracing::warn!(name, %source, "parts of a backup cannot be merged");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(tended)
    }

    fn merge(&self, cluster: &str, run: &[ObjectName]) -> Result<(), ArchiveError> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Ok(());
        };
        let mut parts = Vec::with_capacity(run.len());
        for name in run {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut self.get(cluster, name)?, &mut bytes).map_err(|source| {
                ArchiveError::Storage {
                    act: "read",
                    name: format!("{cluster}/{name}"),
                    source,
                }
            })?;
            parts.push(bytes);
        }
        let merged = log::merge(parts.iter().map(Vec::as_slice)).map_err(|source| ArchiveError::Damaged {
            name: format!("{cluster}/{first} to {last}"),
            source,
        })?;
        let extent = log::extent(merged.as_slice());
        let Some((previous, end, first_seen, last_seen)) = extent.covers else {
            return Ok(());
        };
        let name = ObjectName::Log {
            previous,
            last: end,
            first_seen,
            last_seen,
        };
        // First the merged file, then the removal of its parts: overlapping parts are harmless.
        self.put(cluster, name, merged.as_slice())?;
        for part in run.iter().filter(|part| **part != name) {
            self.remove(cluster, part)?;
        }
        Ok(())
    }
}

/// Sequences of small parts without a gap.
fn runs(objects: &[(ObjectName, u64)]) -> Vec<Vec<ObjectName>> {
    let mut parts: Vec<(i64, i64, ObjectName)> = objects
        .iter()
        .filter(|(_, size)| *size < SMALL)
        .filter_map(|(name, _)| match name {
            ObjectName::Log { previous, last, .. } => Some((*previous, *last, *name)),
            ObjectName::Base { .. } => None,
        })
        .collect();
    parts.sort_unstable();
    let mut runs: Vec<Vec<ObjectName>> = Vec::new();
    let mut end = None;
    for (previous, last, name) in parts {
        match runs.last_mut() {
            Some(run) if end == Some(previous) && run.len() < MANY => run.push(name),
            _ => runs.push(vec![name]),
        }
        end = Some(last);
    }
    runs.retain(|run| run.len() == MANY);
    runs
}
