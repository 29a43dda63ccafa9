//! What the backup API asks of the backups: a seam, so that a simulated stamp can have simulated ones.

use std::sync::Arc;

use arm_wire::{ArmError, ErrorCode};
use async_trait::async_trait;
use cluster_archive::{Archive, ArchiveError, Holding, Verdict};
use cluster_backup::{chain::NotCovered, diff::Preview};
use jiff::Timestamp;

use crate::backups::{refused, time};

/// The backups of clusters, by uid.
#[async_trait]
pub trait Backups: Send + Sync + 'static {
    /// What there is of a cluster; empty where there is nothing.
    async fn holding(&self, cluster: &str) -> Result<Holding, ArmError>;
    /// What going back to the state after everything seen until `cut` would change.
    async fn preview(&self, cluster: &str, cut: i64) -> Result<Preview, ArmError>;
    /// Restores what there is and compares.
    async fn verify(&self, cluster: &str, now: Timestamp) -> Result<Verdict, ArmError>;
}

/// An archive: its work blocks, and is done on threads for that.
pub struct Archived(pub Arc<Archive>);

impl Archived {
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Archive) -> Result<T, ArchiveError> + Send + 'static,
    ) -> Result<T, ArmError> {
        let archive = Arc::clone(&self.0);
        match tokio::task::spawn_blocking(move || work(&archive)).await {
            Ok(done) => done.map_err(fault),
            Err(error) => Err(ArmError::internal(error)),
        }
    }
}

#[async_trait]
impl Backups for Archived {
    async fn holding(&self, cluster: &str) -> Result<Holding, ArmError> {
        let cluster = cluster.to_owned();
        self.blocking(move |archive| archive.holding(&cluster)).await
    }

    async fn preview(&self, cluster: &str, cut: i64) -> Result<Preview, ArmError> {
        let cluster = cluster.to_owned();
        self.blocking(move |archive| archive.preview(&cluster, Some(cut)))
            .await
    }

    async fn verify(&self, cluster: &str, now: Timestamp) -> Result<Verdict, ArmError> {
        let cluster = cluster.to_owned();
        self.blocking(move |archive| archive.verify(&cluster, now)).await
    }
}

fn fault(error: ArchiveError) -> ArmError {
    match error {
        ArchiveError::NotCovered(why) => not_covered(&why),
        other => ArmError::internal(other),
    }
}

/// A moment that cannot be restored.
pub(crate) fn not_covered(why: &NotCovered) -> ArmError {
    match why {
        NotCovered::Nothing => ArmError::new(
            ErrorCode::RESOURCE_NOT_FOUND,
            "There is no backup of this cluster yet. The first is made within seconds after its control plane runs.",
        ),
        NotCovered::Outside { before, after } => {
            let name = |at: &Option<i64>| at.map_or_else(|| "none".to_owned(), time);
            refused(format!(
                "That second cannot be restored. The nearest that can are {} before and {} after it.",
                name(before),
                name(after)
            ))
        }
    }
}
