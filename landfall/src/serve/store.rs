//! Opens the stamp's store, or fails with the problem and the command that repairs it.
//!
//! Always true: a damaged or missing store is neither repaired nor made anew here; a person has to decide
//! that.

use anyhow::{Context as _, Result};
use control_backup::Copies;
use control_store::StoreError;
use storage_redb::RedbStore;

use crate::{commands::Context, problem::Problem};

/// The stamp's store. A new one is made if there never was one.
pub(super) async fn open(context: &Context, copies: &Copies) -> Result<RedbStore> {
    let (path, flag) = (context.places.store(), context.name_flag());
    if !path.exists() && has_copies(copies).await? {
        return Err(Problem::new(
            format!(
                "the store of stamp {} is gone: there is no {}, but there are copies of it",
                context.places.name,
                path.display()
            ),
            format!(
                "put it back: landfall store restore{flag}; or, to go on with an empty one that knows no cluster: \
                 landfall store new{flag}"
            ),
        )
        .into());
    }
    match RedbStore::open(&path, &context.env) {
        Err(error @ StoreError::Damaged { .. }) => Err(Problem::new(
            format!("the store of stamp {} is damaged; nothing was changed in it", context.places.name),
            format!("put it back from its newest copy: landfall store restore{flag} (what there is: landfall store show{flag})"),
        )
        .because(error)
        .into()),
        other => other.with_context(|| format!("cannot open {}", path.display())),
    }
}

/// Whether there is a copy that this stamp's key decrypts. A copy of a deleted stamp of the same name does
/// not count.
async fn has_copies(copies: &Copies) -> Result<bool> {
    let copies = copies.clone();
    let looked = tokio::task::spawn_blocking(move || {
        for store in copies.stores()? {
            if let Some(newest) = copies.of(&store)?.last()
                && copies.open(&store, &newest.name).is_ok()
            {
                return Ok(true);
            }
        }
        Ok::<_, control_backup::CopyError>(false)
    });
    looked
        .await
        .context("the copies of the store cannot be looked for")?
        .context("whether there is a copy of the store cannot be found out")
}
