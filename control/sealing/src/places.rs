//! What is sealed with the stamp's keys outside the store.

use std::{collections::BTreeMap, error::Error, sync::Arc};

use cluster_archive::{Archive, STORES};
use control_backup::Copies;
use jiff::Timestamp;

/// Why a place could not be looked through.
pub type PlaceError = Box<dyn Error + Send + Sync>;

/// What was found in a place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// How many values are sealed with which key, by its id. What none of the stamp's keys opens is not counted.
    pub sealed: BTreeMap<String, u64>,
    /// The oldest copy of a store that is kept here.
    pub oldest_copy: Option<Timestamp>,
}

/// Something that is sealed with the stamp's keys and is not in the store.
pub trait SealedPlace: Send + Sync + 'static {
    /// What it is called, for programs: a word in lower case.
    fn name(&self) -> &'static str;
    /// Seals with the key that seals what another one has sealed, as far as that is done here, and counts. It blocks, may be cut short
    /// anywhere, and is repeated.
    ///
    /// # Errors
    /// When the place cannot be read or written.
    fn seal_anew(&self) -> Result<Found, PlaceError>;
}

/// The keys of an archive's folders: of clusters and of stores.
pub struct FolderKeys {
    name: &'static str,
    archive: Arc<Archive>,
    copies: Copies,
    /// Whether they are sealed anew here, or somebody else does that.
    seals: bool,
}

impl FolderKeys {
    /// Those of the backups.
    pub fn of_backups(archive: Arc<Archive>) -> Self {
        Self {
            name: "backups",
            copies: Copies::new(Arc::clone(&archive)),
            archive,
            seals: true,
        }
    }

    /// Those of a copy of the backups: who keeps the copy seals them anew.
    pub fn of_copy(archive: Arc<Archive>) -> Self {
        Self {
            name: "backupsCopy",
            copies: Copies::new(Arc::clone(&archive)),
            archive,
            seals: false,
        }
    }
}

impl SealedPlace for FolderKeys {
    fn name(&self) -> &'static str {
        self.name
    }

    fn seal_anew(&self) -> Result<Found, PlaceError> {
        let keys = self.archive.folder_keys(self.seals)?;
        let mut found = Found::default();
        for (folder, id) in keys {
            *found.sealed.entry(id).or_default() += 1;
            // Copies of another stamp, which are left out of the folders, are never dropped and tell nothing of this one's keys.
            if let Some(store) = folder.strip_prefix(STORES) {
                let first = self.copies.of(store)?.first().map(|kept| kept.name.time());
                found.oldest_copy = found.oldest_copy.into_iter().chain(first).min();
            }
        }
        Ok(found)
    }
}
