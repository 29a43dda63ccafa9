//! One builder at a time per store. The kernel releases the lock when the process ends in any way.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::Path,
};

use crate::{
    error::{ImageError, IoContext as _},
    progress::{Event, Progress},
};

/// Held until dropped.
#[derive(Debug)]
pub(crate) struct BuildLock {
    _file: File,
}

impl BuildLock {
    /// Waits for the lock without a time limit, and reports the wait.
    pub(crate) fn take(path: &Path, progress: &dyn Progress) -> Result<Self, ImageError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .at("open", path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                (&mut file)
                    .take(32)
                    .read_to_string(&mut holder)
                    .at("read", path)?;
                progress.event(Event::Waiting {
                    holder: holder.trim().parse().ok(),
                });
                file.lock().at("lock", path)?;
            }
            Err(TryLockError::Error(source)) => return Err(source).at("lock", path),
        }
        file.set_len(0).at("write", path)?;
        file.rewind().at("write", path)?;
        writeln!(file, "{}", std::process::id()).at("write", path)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;
    use std::sync::mpsc;

    #[test]
    fn a_second_builder_waits_and_says_for_whom() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = BuildLock::take(&path, &Silent).unwrap();
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                let tell = std::sync::Mutex::new(tell);
                let progress = move |event: Event<'_>| {
                    if let Event::Waiting { holder } = event {
                        tell.lock().unwrap().send(holder).unwrap();
                    }
                };
                BuildLock::take(&path, &progress).map(drop)
            });
            assert_eq!(told.recv().unwrap(), Some(std::process::id()));
            assert!(!second.is_finished());
            drop(first);
            second.join().unwrap().unwrap();
        });
    }
}
