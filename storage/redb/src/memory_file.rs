//! A file in memory, for a store that runs in virtual time: it outlives the stores that use it, as a file
//! outlives processes.
//!
//! Always true: one handle at a time writes. A handle that was replaced fails, so that writes of a store
//! during its drop do not reach the file, as if its process were dead.

use std::{
    io,
    sync::{
        Arc, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use redb::StorageBackend;

#[derive(Debug, Default)]
struct Shared {
    bytes: RwLock<Vec<u8>>,
    /// The number of the current handle.
    owner: AtomicU64,
}

/// See the module. Cheap to clone: all clones are one file.
#[derive(Debug, Clone, Default)]
pub struct MemoryFile(Arc<Shared>);

impl MemoryFile {
    /// Disables the current handle, like the death of a process: its further writes fail.
    pub fn cut_off(&self) {
        self.0.owner.fetch_add(1, Ordering::SeqCst);
    }

    /// Creates the handle that is current from now on.
    pub(crate) fn take_over(&self) -> Handle {
        let owner = self.0.owner.fetch_add(1, Ordering::SeqCst) + 1;
        Handle {
            file: Arc::clone(&self.0),
            owner,
        }
    }
}

/// A store's handle of the file.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    file: Arc<Shared>,
    owner: u64,
}

impl Handle {
    /// The length of the file in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.read_lock().map_or(0, |bytes| bytes.len() as u64)
    }

    fn present(&self) -> io::Result<()> {
        if self.file.owner.load(Ordering::SeqCst) == self.owner {
            return Ok(());
        }
        Err(io::Error::other("the process that had this file open is dead"))
    }

    fn read_lock(&self) -> io::Result<RwLockReadGuard<'_, Vec<u8>>> {
        self.present()?;
        self.file.bytes.read().map_err(|_poisoned| panicked())
    }

    fn write_lock(&self) -> io::Result<RwLockWriteGuard<'_, Vec<u8>>> {
        self.present()?;
        self.file.bytes.write().map_err(|_poisoned| panicked())
    }
}

fn panicked() -> io::Error {
    io::Error::other("a panic left the file in memory half-written")
}

fn range(offset: u64, length: usize, there: usize) -> io::Result<std::ops::Range<usize>> {
    let range = usize::try_from(offset)
        .ok()
        .and_then(|start| Some(start..start.checked_add(length)?));
    range
        .filter(|range| range.end <= there)
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.read_lock()?.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.read_lock()?;
        out.copy_from_slice(&bytes[range(offset, out.len(), bytes.len())?]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        self.write_lock()?.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.present()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.write_lock()?;
        let range = range(offset, data.len(), bytes.len())?;
        bytes[range].copy_from_slice(data);
        Ok(())
    }
}
