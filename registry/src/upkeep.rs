//! What is done about images beside requests: counting, sweeping, removing.

use base_blocking::PoolError;
use storage_images::{ImagesError, Swept};

use crate::Registries;

/// Why that was not done.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// The files.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// No thread was free.
    #[error(transparent)]
    Busy(#[from] PoolError),
}

impl Registries {
    /// The bytes that a registry holds.
    ///
    /// # Errors
    /// When they cannot be counted.
    pub async fn used(&self, uid: &str) -> Result<u64, UpkeepError> {
        let registry = self.inner.images.of(uid);
        Ok(self.inner.pool.run(move || registry.used()).await??)
    }

    /// Removes what nothing in a registry refers to any more.
    ///
    /// # Errors
    /// When the disk refuses; what is needed is never removed.
    pub async fn sweep(&self, uid: &str) -> Result<Swept, UpkeepError> {
        let registry = self.inner.images.of(uid);
        let now = self.inner.env.clock.now();
        Ok(self.inner.pool.run(move || registry.sweep(now)).await??)
    }

    /// Removes all images of a registry that was deleted. May be repeated.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn remove(&self, uid: &str) -> Result<(), UpkeepError> {
        let (images, uid) = (std::sync::Arc::clone(&self.inner.images), uid.to_owned());
        Ok(self.inner.pool.run(move || images.remove(&uid)).await??)
    }
}
