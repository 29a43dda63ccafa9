//! Work on machines' disks, on threads of its own.

use std::sync::LazyLock;

use base_blocking::Pool;
use fabric_api::FabricError;

/// Threads for machines' disks and for what lies beside them.
pub(crate) static DISKS: LazyLock<Pool> = LazyLock::new(|| Pool::new(base_blocking::DISKS));

/// Work on disks, away from the threads that everything else runs on.
pub(crate) async fn blocking(
    act: &str,
    work: impl FnOnce() -> Result<(), FabricError> + Send + 'static,
) -> Result<(), FabricError> {
    DISKS
        .run(work)
        .await
        .map_err(|error| FabricError::failed(act, error))?
}
