//! The recording on the machine's own disk: bases, and growing logs.
//!
//! | file | holds |
//! |---|---|
//! | `base-…` | a finished base, under its [`ObjectName`] |
//! | `log-{revision}` | changes after that revision; grows, its end may be torn |
//! | `base.{number}.new` | a base that is being written; unusable until finished |
//! | `before/` | the earlier recording, after etcd's history turned out to be another one |

use std::{
    fs::{self, File},
    io::{BufReader, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use cluster_backup::{
    ObjectName,
    chain::{self, Chain, NotCovered},
    log,
};

/// A file with a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogFile {
    pub(crate) path: PathBuf,
    /// The revision after which it starts.
    pub(crate) after: i64,
    /// The range it covers; `None` while it has no whole frame.
    pub(crate) name: Option<ObjectName>,
    /// The number of bytes in whole frames.
    pub(crate) bytes: u64,
}

/// A base that is being made, under a unique name: an abandoned one may still be written to.
pub(crate) struct NewBase {
    file: File,
    path: PathBuf,
}

impl NewBase {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)
    }
}

impl Drop for NewBase {
    fn drop(&mut self) {
        // A finished base has another name by now.
        let _finished = fs::remove_file(&self.path);
    }
}

/// The directory.
#[derive(Debug, Clone)]
pub(crate) struct Spool {
    directory: PathBuf,
}

impl Spool {
    /// Creates it, and removes unfinished bases: their writers are gone.
    pub(crate) fn open(directory: &Path) -> std::io::Result<Self> {
        fs::create_dir_all(directory)?;
        let spool = Self {
            directory: directory.to_owned(),
        };
        for name in spool.names().iter().filter(|name| name.ends_with(".new")) {
            fs::remove_file(spool.path(name))?;
        }
        Ok(spool)
    }

    /// For reading only; the directory may not exist.
    pub(crate) fn at(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Finished bases, by revision.
    pub(crate) fn bases(&self) -> Vec<ObjectName> {
        self.names()
            .iter()
            .filter_map(|name| ObjectName::parse(name))
            .filter(|name| matches!(name, ObjectName::Base { .. }))
            .collect()
    }

    /// Logs by start revision, each up to its last whole frame. Reads the files.
    pub(crate) fn logs(&self) -> Vec<LogFile> {
        let mut logs: Vec<LogFile> = self
            .names()
            .iter()
            .filter_map(|name| {
                let after = i64::from_str_radix(name.strip_prefix("log-")?, 16).ok()?;
                let path = self.directory.join(name);
                let extent = log::extent(BufReader::new(File::open(&path).ok()?));
                Some(LogFile {
                    path,
                    after,
                    name: extent
                        .covers
                        .map(|(previous, last, first_seen, last_seen)| ObjectName::Log {
                            previous,
                            last,
                            first_seen,
                            last_seen,
                        }),
                    bytes: extent.bytes,
                })
            })
            .collect();
        logs.sort_by_key(|log| log.after);
        logs
    }

    /// The newest base and the logs after it.
    pub(crate) fn chain(&self) -> Result<Chain, NotCovered> {
        let mut names = self.bases();
        names.extend(self.logs().iter().filter_map(|log| log.name));
        chain::select(&names, None)
    }

    /// The start revisions of all logs, in order.
    pub(crate) fn log_starts(&self) -> Vec<i64> {
        self.names()
            .iter()
            .filter_map(|name| i64::from_str_radix(name.strip_prefix("log-")?, 16).ok())
            .collect()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn log_path(&self, after: i64) -> PathBuf {
        self.directory.join(format!("log-{after:016x}"))
    }

    /// The size of all files in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.names()
            .iter()
            .filter_map(|name| fs::metadata(self.directory.join(name)).ok())
            .filter(fs::Metadata::is_file)
            .map(|metadata| metadata.len())
            .sum()
    }

    /// Opens the log that starts after a revision, for changes after `last`; truncates a torn end. A log that
    /// ends at another revision is of another history and is set aside: frames after its end could never be
    /// read.
    pub(crate) fn append(&self, after: i64, last: i64) -> std::io::Result<File> {
        let path = self.log_path(after);
        let mut whole = 0;
        if let Ok(file) = File::open(&path) {
            let extent = log::extent(BufReader::new(file));
            if extent.covers.map_or(after, |(_, last, ..)| last) == last {
                whole = extent.bytes;
            } else {
                let aside = self.directory.join("before");
                fs::create_dir_all(&aside)?;
                fs::rename(&path, aside.join(format!("log-{after:016x}")))?;
            }
        }
        let file = private().append(true).create(true).open(&path)?;
        file.set_len(whole)?;
        file.sync_all()?;
        self.sync()?;
        Ok(file)
    }

    /// Starts a base.
    pub(crate) fn begin_base(&self) -> std::io::Result<NewBase> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(format!("base.{number}.new"));
        let file = private().write(true).create(true).truncate(true).open(&path)?;
        Ok(NewBase { file, path })
    }

    /// Makes a finished base durable under its name.
    pub(crate) fn finish_base(&self, mut base: NewBase, name: ObjectName) -> std::io::Result<()> {
        base.file.flush()?;
        base.file.sync_all()?;
        fs::rename(&base.path, self.path(&name.to_string()))?;
        self.sync()
    }

    /// Removes an unusable base.
    pub(crate) fn drop_base(&self, name: &ObjectName) {
        let _gone = fs::remove_file(self.path(&name.to_string()));
    }

    fn sync(&self) -> std::io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    /// Removes bases before the newest, and logs that end at or before it, if `may_go` permits it for the
    /// range they cover.
    pub(crate) fn tidy(&self, current_log: i64, may_go: impl Fn(&ObjectName) -> bool) {
        let bases = self.bases();
        let newest = bases.iter().max_by_key(|base| base.until()).copied();
        let Some(ObjectName::Base { revision, .. }) = newest else {
            return;
        };
        for base in bases.iter().filter(|base| Some(**base) != newest && may_go(base)) {
            // A file that cannot be removed is removed the next time.
            let _stays = fs::remove_file(self.path(&base.to_string()));
        }
        for log in self.logs().iter().filter(|log| log.after != current_log) {
            let gone = match log.name {
                None => true,
                Some(name @ ObjectName::Log { last, .. }) => last <= revision && may_go(&name),
                Some(ObjectName::Base { .. }) => false,
            };
            if gone {
                let _stays = fs::remove_file(&log.path);
            }
        }
    }

    /// etcd has another history than the recorded one: the recording is set aside, in case it is still
    /// needed.
    pub(crate) fn set_aside(&self) -> std::io::Result<()> {
        let aside = self.directory.join("before");
        if aside.exists() {
            fs::remove_dir_all(&aside)?;
        }
        fs::create_dir(&aside)?;
        for name in self.names() {
            let path = self.directory.join(&name);
            if path.is_file() {
                fs::rename(path, aside.join(name))?;
            }
        }
        self.sync()
    }
}

/// The files contain secrets of clusters: only root may read them.
fn private() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_backup::{Change, base::BaseWriter, log::LogWriter};

    fn frame(after: i64, last: i64) -> Vec<u8> {
        let mut writer = LogWriter::after(after, 1000);
        writer
            .add(&Change {
                revision: last,
                seen: 2000 + last,
                key: b"k".to_vec(),
                now: None,
            })
            .unwrap();
        writer.flush().unwrap().1
    }

    fn base(spool: &Spool, revision: i64, at: i64) -> ObjectName {
        let mut file = spool.begin_base().unwrap();
        file.write(&BaseWriter::new(revision, at).finish(&[]).unwrap().0)
            .unwrap();
        let name = ObjectName::Base { revision, at };
        spool.finish_base(file, name).unwrap();
        name
    }

    #[test]
    fn a_torn_end_is_cut_before_more_is_appended() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(directory.path()).unwrap();
        let torn = [frame(5, 6), frame(6, 7)[..20].to_vec()].concat();
        fs::write(spool.log_path(5), torn).unwrap();
        spool.append(5, 6).unwrap().write_all(&frame(6, 9)).unwrap();
        let logs = spool.logs();
        assert!(matches!(
            logs[0].name,
            Some(ObjectName::Log {
                previous: 5,
                last: 9,
                ..
            })
        ));
    }

    #[test]
    fn only_what_a_newer_base_holds_goes_and_only_when_it_may() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(directory.path()).unwrap();
        let (old, new) = (base(&spool, 5, 100), base(&spool, 9, 2009));
        fs::write(spool.log_path(5), frame(5, 9)).unwrap();
        fs::write(spool.log_path(9), frame(9, 10)).unwrap();
        spool.tidy(9, |_| false);
        assert_eq!((spool.bases(), spool.logs().len()), (vec![old, new], 2));
        spool.tidy(9, |_| true);
        assert_eq!((spool.bases(), spool.logs().len()), (vec![new], 1));
        assert_eq!(spool.chain().unwrap().last, 10);
    }

    #[test]
    fn another_history_is_set_aside_not_thrown_away() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(directory.path()).unwrap();
        let name = base(&spool, 5, 100);
        spool.set_aside().unwrap();
        assert!(spool.bases().is_empty());
        assert_eq!(Spool::at(&directory.path().join("before")).bases(), [name]);
        spool.set_aside().unwrap();
        assert!(Spool::at(&directory.path().join("before")).bases().is_empty());
    }

    #[test]
    fn behind_the_end_of_another_history_nothing_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(directory.path()).unwrap();
        fs::write(spool.log_path(5), frame(5, 9)).unwrap();
        spool.append(5, 5).unwrap().write_all(&frame(5, 7)).unwrap();
        assert!(matches!(
            spool.logs()[0].name,
            Some(ObjectName::Log {
                previous: 5,
                last: 7,
                ..
            })
        ));
        assert_eq!(Spool::at(&directory.path().join("before")).logs().len(), 1);
    }

    #[test]
    fn two_bases_that_are_made_at_once_do_not_write_into_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(directory.path()).unwrap();
        let whole = |revision| BaseWriter::new(revision, 100).finish(&[]).unwrap().0;
        let mut given_up = spool.begin_base().unwrap();
        given_up.write(&whole(5)[..10]).unwrap();
        base(&spool, 9, 100);
        given_up.write(&whole(5)[10..]).unwrap();
        let path = spool.path(&spool.bases()[0].to_string());
        assert_eq!(fs::read(path).unwrap(), whole(9));
        drop(given_up);
        assert_eq!(spool.names().len(), 1);
        // A base that a process left half-written is removed at the next start.
        fs::write(spool.path("base.7.new"), "half").unwrap();
        assert_eq!(Spool::open(directory.path()).unwrap().names().len(), 1);
    }

    #[test]
    fn what_is_not_there_is_empty() {
        let spool = Spool::at(Path::new("/nonexistent"));
        assert!(spool.bases().is_empty() && spool.logs().is_empty() && spool.chain().is_err());
    }
}
