//! Backups: control plane machines upload their recording of etcd, and download it for a restore.
//!
//! Always true: a machine writes only its own cluster's backup, and reads that or the backup of the cluster
//! that its own is to be restored from. Bodies are streamed: neither side holds a whole base in memory, and a
//! machine that stalls in the middle is not waited for.

use std::{
    io::{self, Read},
    sync::{Arc, LazyLock},
    time::Duration,
};

use agent_sessions::Admitted;
use axum::{
    Extension, Json,
    body::{Body, Bytes},
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use base_blocking::{Pool, PoolError};
use cluster_archive::{Archive, ArchiveError};
use cluster_backup::ObjectName;
use control_records::{Role, directory};
use control_store::{Store, StoreError};
use futures::StreamExt as _;
use tokio::sync::mpsc;

use crate::{
    Hub,
    caller::{fault, refuse},
    streamed::streamed,
};

/// The path segment for the machine's own cluster.
const OWN: &str = "own";
/// Pieces of a body in flight between the network and the object store.
const PIECES: usize = 4;
const PIECE: usize = 64 * 1024;
/// The time-out between two pieces of a body.
const STALLED: Duration = Duration::from_secs(30);
/// The time-out of a whole body: a base of 8 GiB at 10 MiB a second, the same as in the machine's program.
const WHOLE: Duration = Duration::from_secs(15 * 60);

/// Threads for incoming bodies, one for each; further bodies wait with their first pieces.
static UPLOADS: LazyLock<Pool> = LazyLock::new(|| Pool::new(base_blocking::UPLOADS));
/// Threads for lists and downloads.
static RESTORES: LazyLock<Pool> = LazyLock::new(|| Pool::new(base_blocking::RESTORES));

/// The archive of backups, and the records that control access to it.
pub struct BackupReceiver {
    /// The archive.
    pub archive: Arc<Archive>,
    /// The records, with the cluster of each machine.
    pub store: Arc<dyn Store>,
}

impl BackupReceiver {
    /// The cluster that this machine is a control plane member of.
    async fn own(&self, machine: &str) -> Result<Option<String>, StoreError> {
        let found = directory::machine(&*self.store, machine).await?;
        Ok(found
            .and_then(|(_, found)| found.value.assignment)
            .filter(|assignment| matches!(assignment.role, Role::ControlPlane { .. }))
            .map(|assignment| assignment.cluster))
    }

    /// Whether a cluster is to be restored from another.
    async fn restores(&self, own: &str, other: &str) -> Result<bool, StoreError> {
        let cluster = directory::cluster(&*self.store, own).await?;
        Ok(cluster.is_some_and(|cluster| {
            let restore = cluster.value.spec().restore.as_ref();
            restore.is_some_and(|restore| restore.source == other)
        }))
    }
}

/// The archive, if this stamp has one, and the requested cluster.
async fn meant(
    hub: &Hub,
    machine: &Admitted,
    cluster: &str,
) -> Result<(Arc<BackupReceiver>, String, bool), Response> {
    let machine = machine.machine();
    let backups = hub
        .backups()
        .ok_or_else(|| refuse(StatusCode::NOT_FOUND, "this stamp keeps no backups"))?;
    let failed = |error| fault(machine, &error);
    let own = backups.own(machine).await.map_err(failed)?.ok_or_else(|| {
        refuse(
            StatusCode::FORBIDDEN,
            "only control plane machines have to do with backups",
        )
    })?;
    if cluster == OWN || cluster == own {
        return Ok((backups, own, true));
    }
    if backups.restores(&own, cluster).await.map_err(failed)? {
        return Ok((backups, cluster.to_owned(), false));
    }
    tracing::warn!(machine, cluster, "a machine asked for another cluster's backup");
    Err(refuse(StatusCode::FORBIDDEN, "that is another cluster's backup"))
}

fn parse(object: &str) -> Result<ObjectName, Response> {
    ObjectName::parse(object)
        .ok_or_else(|| refuse(StatusCode::BAD_REQUEST, "that is not a name of a backup's file"))
}

fn failed(error: &ArchiveError) -> Response {
    match error {
        ArchiveError::Damaged { name, source } => {
            tracing::warn!(name, %source, "a file of a backup was refused");
            (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).into_response()
        }
        ArchiveError::Storage { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            refuse(StatusCode::NOT_FOUND, "there is no such file")
        }
        // Not damaged, so not a client error: the machine may send it again.
        _ => {
            tracing::error!(%error, "backups cannot be kept");
            refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                "the backups cannot be reached; try again",
            )
        }
    }
}

/// Runs blocking work on a pool thread, when one is free.
async fn blocking<T: Send + 'static>(
    pool: &Pool,
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, Response> {
    match pool.run(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(failed(&error)),
        Err(PoolError::Full(_)) => Err(refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many machines hand over or read backups; try again",
        )),
        Err(PoolError::CutShort(_)) => Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "the service is ending")),
    }
}

pub(crate) async fn list(
    State(hub): State<Hub>,
    Extension(machine): Extension<Admitted>,
    Path(cluster): Path<String>,
) -> Result<Json<Vec<String>>, Response> {
    let (backups, cluster, _) = meant(&hub, &machine, &cluster).await?;
    let holding = blocking(&RESTORES, move || backups.archive.holding(&cluster)).await?;
    let names = holding.objects.iter().map(|(name, _)| name.to_string());
    Ok(Json(names.collect()))
}

pub(crate) async fn put(
    State(hub): State<Hub>,
    Extension(machine): Extension<Admitted>,
    Path((cluster, object)): Path<(String, String)>,
    body: Body,
) -> Result<StatusCode, Response> {
    let (backups, cluster, own) = meant(&hub, &machine, &cluster).await?;
    if !own {
        return Err(refuse(StatusCode::FORBIDDEN, "that is another cluster's backup"));
    }
    let name = parse(&object)?;
    let (sender, pieces) = mpsc::channel(PIECES);
    let mut stream = body.into_data_stream();
    let clock = &hub.inner.env.clock;
    let carry = async {
        // Moved in: dropping the sender ends the body for the archive's thread.
        let sender = sender;
        while let Ok(next) = clock.timeout(STALLED, stream.next()).await {
            let Some(piece) = next else {
                let _enough = sender.send(Ok(None)).await;
                return;
            };
            let piece = piece.map(Some).map_err(io::Error::other);
            let broken = piece.is_err();
            // The reader may have stopped.
            if sender.send(piece).await.is_err() || broken {
                return;
            }
        }
    };
    let carry = async {
        let _in_time = clock.timeout(WHOLE, carry).await;
    };
    let keep = blocking(&UPLOADS, move || {
        backups.archive.put(&cluster, name, Incoming::new(pieces))
    });
    let ((), kept) = tokio::join!(carry, keep);
    kept.map(|()| StatusCode::NO_CONTENT)
}

pub(crate) async fn get(
    State(hub): State<Hub>,
    Extension(machine): Extension<Admitted>,
    Path((cluster, object)): Path<(String, String)>,
) -> Result<Response, Response> {
    let (backups, cluster, _) = meant(&hub, &machine, &cluster).await?;
    let name = parse(&object)?;
    let file = blocking(&RESTORES, move || backups.archive.get(&cluster, &name)).await?;
    Ok(streamed(&RESTORES, PIECE, file).into_response())
}

/// An incoming body, read by a thread. A machine that disconnects in the middle has sent nothing, rather than
/// a truncated body: the end is marked (`None`).
struct Incoming {
    pieces: mpsc::Receiver<io::Result<Option<Bytes>>>,
    piece: Bytes,
    ended: bool,
}

impl Incoming {
    fn new(pieces: mpsc::Receiver<io::Result<Option<Bytes>>>) -> Self {
        Self {
            pieces,
            piece: Bytes::new(),
            ended: false,
        }
    }
}

impl Read for Incoming {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            if self.ended {
                return Ok(0);
            }
            match self.pieces.blocking_recv() {
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::ConnectionAborted,
                        "the machine broke off",
                    ));
                }
                Some(piece) => match piece? {
                    Some(piece) => self.piece = piece,
                    None => self.ended = true,
                },
            }
        }
        let taken = out.len().min(self.piece.len());
        out[..taken].copy_from_slice(&self.piece.split_to(taken));
        Ok(taken)
    }
}

#[cfg(test)]
#[path = "backup_tests.rs"]
mod tests;
