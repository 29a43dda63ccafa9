//! Files that survive a crash or a power cut: with the old content or the new one, never with a part of
//! either.
//!
//! Owns the one sequence that achieves this on Linux: a temporary file in the same directory, its mode, its content, fsync of the
//! file, rename (or link), fsync of the directory. A rename without the first fsync may leave an *empty* file after a power cut.
//!
//! Always true:
//! * a function that has returned `Ok` has the content on disk, except for [`replace`], which documents it;
//! * the temporary file is called `.{name}.new`; one that is left over from a crash is overwritten by the next write;
//! * the mode is exactly the requested one, whatever the umask and a left-over file have;
//! * one writer at a time for a path: callers hold their own lock. [`create_new`] alone may be raced.
//!
//! Errors are plain [`io::Error`]s without the path: callers add the action. Called by all code that keeps
//! small files.

use std::{
    ffi::OsString,
    fs::{DirBuilder, File, OpenOptions, Permissions, hard_link, remove_file, rename},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Writes a file durably, in place of the existing one.
///
/// # Errors
/// When the directory does not exist or the disk refuses; then the old content is still there.
pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    write_with(path, mode, |file| file.write_all(content))
}

/// [`write`] with content that is produced piece by piece. When `fill` fails, the temporary file is removed and the old content stays.
///
/// # Errors
/// The error of `fill`, and as [`write`].
pub fn write_with(path: &Path, mode: u32, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let temporary = beside(path, "new")?;
    finish(&temporary, || {
        open(&temporary, mode).and_then(|mut file| {
            fill(&mut file)?;
            file.sync_all()
        })?;
        rename(&temporary, path)
    })?;
    sync(parent(path))
}

/// Replaces a file without waiting for the disk: readers see old or new content, a power cut may lose both.
/// For files that have no meaning after a restart, e.g. a status.
///
/// # Errors
/// As [`write`].
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = beside(path, "new")?;
    finish(&temporary, || {
        open(&temporary, mode)?.write_all(content)?;
        rename(&temporary, path)
    })
}

/// Writes a file durably if none of that name exists. Several processes may try at the same time: one of them
/// succeeds.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when the file exists, which is left as it is; else as [`write`].
pub fn create_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = beside(path, &format!("{}.new", std::process::id()))?;
    let linked = finish(&temporary, || {
        let mut file = open(&temporary, mode)?;
        file.write_all(content)?;
        file.sync_all()?;
        hard_link(&temporary, path)
    });
    linked?;
    remove_file(&temporary)?;
    sync(parent(path))
}

/// Creates a directory and its parents durably; existing directories stay as they are. New ones get the mode
/// less the umask.
///
/// # Errors
/// When one of the paths is not a directory, or the disk refuses.
pub fn make_directories(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    make_directories(parent(path), mode)?;
    match DirBuilder::new().mode(mode).create(path) {
        // Another process was first.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other.and_then(|()| sync(parent(path))),
    }
}

/// Makes the content of a file, or renames, links and removals in a directory, durable. After several
/// [`replace`]s, one disk access for all of them.
///
/// # Errors
/// When the disk refuses.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The directory of a path; `.` for a bare name.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if directory.as_os_str().is_empty() => Path::new("."),
        Some(directory) => directory,
        None => Path::new("/"),
    }
}

fn beside(path: &Path, suffix: &str) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(".");
    temporary.push(suffix);
    Ok(path.with_file_name(temporary))
}

fn open(temporary: &Path, mode: u32) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(temporary)?;
    // The mode at creation is masked, and a left-over of an interrupted write has its own.
    file.set_permissions(Permissions::from_mode(mode))?;
    Ok(file)
}

/// Removes the temporary file of a failed write: on a full disk its space is needed.
fn finish(temporary: &Path, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    work().inspect_err(|_| {
        // The error of the write is returned; a failed removal adds nothing to it.
        let _left = remove_file(temporary);
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_left_over_of_a_cut_write_is_no_hindrance() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        write(&path, b"one", 0o600).unwrap();
        fs::write(directory.path().join(".a.new"), "half of something longer").unwrap();
        write(&path, b"two", 0o666).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(mode(&path), 0o666);
        replace(&path, b"3", 0o640).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"3".to_vec(), 0o640));
        assert_eq!(names(directory.path()), ["a"]);
    }

    #[test]
    fn what_cannot_be_filled_leaves_the_old_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        write(&path, b"old", 0o600).unwrap();
        let error = write_with(&path, 0o600, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("no more"))
        })
        .unwrap_err();
        assert_eq!(error.to_string(), "no more");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(directory.path()), ["a"]);
        assert!(write(&directory.path().join("none/a"), b"", 0o600).is_err());
        assert!(write(Path::new("/"), b"", 0o600).is_err());
    }

    #[test]
    fn what_is_there_is_not_created_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        create_new(&path, b"first", 0o600).unwrap();
        let error = create_new(&path, b"second", 0o644).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(
            (fs::read(&path).unwrap(), mode(&path)),
            (b"first".to_vec(), 0o600)
        );
        assert_eq!(names(directory.path()), ["a"]);
    }

    /// Runs a test on a filesystem of this many bytes, visible only to its thread and removed afterwards.
    fn on_a_small_disk(bytes: usize, work: impl FnOnce(&Path) + Send) {
        use nix::{
            mount::{MsFlags, mount},
            sched::{CloneFlags, unshare},
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let inside = || {
            // From here on the mounts of this thread are private and end with it.
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            let size = format!("size={bytes}");
            mount(
                Some("none"),
                path,
                Some("tmpfs"),
                MsFlags::empty(),
                Some(size.as_str()),
            )
            .unwrap();
            work(path);
        };
        std::thread::scope(|scope| scope.spawn(inside).join().unwrap());
    }

    #[test]
    fn a_full_disk_takes_nothing_and_loses_nothing() {
        if !base_testkit::needs::root_and(&[]) {
            return;
        }
        on_a_small_disk(1 << 20, |disk| {
            let (kept, new) = (disk.join("kept"), disk.join("new"));
            let old = vec![1; 64 << 10];
            write(&kept, &old, 0o600).unwrap();
            let mut others = File::create(disk.join("others")).unwrap();
            while others.write_all(&[0; 4096]).is_ok() {}
            for attempt in [
                write(&kept, &[2; 64 << 10], 0o600),
                replace(&kept, &[2; 64 << 10], 0o600),
                create_new(&new, &[2; 64 << 10], 0o600),
            ] {
                assert_eq!(attempt.unwrap_err().kind(), io::ErrorKind::StorageFull);
                assert_eq!(fs::read(&kept).unwrap(), old);
                assert_eq!(names(disk), ["kept", "others"]);
            }
            // A failed write is repeated, and succeeds as soon as there is space.
            others.set_len(0).unwrap();
            write(&kept, b"later", 0o600).unwrap();
            create_new(&new, b"later, too", 0o600).unwrap();
            assert_eq!(fs::read(&kept).unwrap(), b"later");
            assert_eq!(fs::read(&new).unwrap(), b"later, too");
        });
    }

    #[test]
    fn directories_are_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        make_directories(&path, 0o700).unwrap();
        make_directories(&path, 0o755).unwrap();
        assert_eq!(mode(&path), 0o700);
        fs::write(directory.path().join("file"), "").unwrap();
        assert!(make_directories(&directory.path().join("file"), 0o700).is_err());
        assert!(make_directories(&directory.path().join("file/x"), 0o700).is_err());
    }
}
