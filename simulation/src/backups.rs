//! Simulated backups for the backup API: every second since a cluster first had data.
//!
//! They replace the archive, whose files are written by programs of the machines and whose work runs on
//! threads: see `docs/architecture.md`.

use arm_wire::{ArmError, ErrorCode};
use async_trait::async_trait;
use base_env::Env;
use cluster_archive::{Holding, Verdict};
use cluster_backup::{ObjectName, diff::Preview};
use fabric_sim::SimWorld;
use jiff::Timestamp;
use providers_containerservice::BackupReader;

pub(crate) struct SimBackups {
    pub(crate) env: Env,
    pub(crate) world: SimWorld,
}

#[async_trait]
impl BackupReader for SimBackups {
    async fn holding(&self, cluster: &str) -> Result<Holding, ArmError> {
        let Some(since) = self.world.backed_up_since(cluster) else {
            return Ok(Holding { objects: Vec::new() });
        };
        let base = ObjectName::Base {
            revision: 1,
            at: since,
        };
        let log = ObjectName::Log {
            previous: 1,
            last: 2,
            first_seen: since,
            last_seen: self.env.clock.now().as_millisecond(),
        };
        Ok(Holding {
            objects: vec![(base, 1), (log, 1)],
        })
    }

    async fn preview(&self, _: &str, _: i64) -> Result<Preview, ArmError> {
        Err(not_here())
    }

    async fn verify(&self, cluster: &str, now: Timestamp) -> Result<Verdict, ArmError> {
        let there = self.world.backed_up_since(cluster).is_some();
        Ok(Verdict {
            at: now,
            checked: "what the simulation knows of it".to_owned(),
            keys: 0,
            problem: (!there).then(|| "there is no backup".to_owned()),
        })
    }
}

fn not_here() -> ArmError {
    ArmError::new(
        ErrorCode::NOT_IMPLEMENTED,
        "A simulated backup has no files to look into.",
    )
}
