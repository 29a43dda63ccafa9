//! A thread pool for work on machines' disks.

use std::sync::LazyLock;

use base_blocking::Pool;
use fabric_api::FabricError;

/// Threads for machines' disks and the files beside them.
pub(crate) static DISKS: LazyLock<Pool> = LazyLock::new(|| Pool::new(base_blocking::DISKS));

/// Runs disk work on the pool's threads.
pub(crate) async fn blocking(
    act: &str,
    work: impl FnOnce() -> Result<(), FabricError> + Send + 'static,
) -> Result<(), FabricError> {
    DISKS
        .run(work)
        .await
        .map_err(|error| FabricError::failed(act, error))?
}
