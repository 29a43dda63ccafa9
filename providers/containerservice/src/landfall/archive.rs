//! The interface to the backups, so that a simulated stamp can have simulated ones.

use std::sync::{Arc, LazyLock};

use arm_wire::ArmError;
use async_trait::async_trait;
use base_blocking::Pool;
use cluster_archive::{Archive, ArchiveError, Holding, Verdict};
use cluster_backup::diff::Preview;
use jiff::Timestamp;

use super::restore_points::not_covered;

/// Threads for reading the archive.
static QUESTIONS: LazyLock<Pool> = LazyLock::new(|| Pool::new(base_blocking::QUESTIONS));

/// The backups of clusters, by uid.
#[async_trait]
pub trait BackupReader: Send + Sync + 'static {
    /// The backups of a cluster; empty where there are none.
    async fn holding(&self, cluster: &str) -> Result<Holding, ArmError>;
    /// The changes that a restore to the state at `cut` would make.
    async fn preview(&self, cluster: &str, cut: i64) -> Result<Preview, ArmError>;
    /// Restores the backups into memory and compares.
    async fn verify(&self, cluster: &str, now: Timestamp) -> Result<Verdict, ArmError>;
}

/// An archive: its calls block, and run on separate threads.
pub struct ArchiveReader(pub Arc<Archive>);

impl ArchiveReader {
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Archive) -> Result<T, ArchiveError> + Send + 'static,
    ) -> Result<T, ArmError> {
        let archive = Arc::clone(&self.0);
        match QUESTIONS.run(move || work(&archive)).await {
            Ok(done) => done.map_err(fault),
            Err(error) => Err(ArmError::internal(error)),
        }
    }
}

#[async_trait]
impl BackupReader for ArchiveReader {
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
