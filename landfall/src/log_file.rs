//! The service's log in the background: bounded, so that a stamp can run for years.
//!
//! Always true: a full disk loses lines but never stops the service; at most two files of [`LIMIT`] bytes,
//! the older one with `.1` at its end; a line is in one file only.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tracing_subscriber::fmt::MakeWriter;

/// Bytes after which a new file is begun.
const LIMIT: u64 = 8 * 1024 * 1024;

/// A bounded log. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LogFile(Arc<Mutex<Current>>);

struct Current {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
    /// Lines lost since the last successful write.
    lost: u64,
}

impl LogFile {
    /// Opens the log and appends to it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::with_limit(path, LIMIT)
    }

    fn with_limit(path: &Path, limit: u64) -> io::Result<Self> {
        let file = append(path)?;
        let size = file.metadata()?.len();
        Ok(Self(Arc::new(Mutex::new(Current {
            path: path.to_owned(),
            file,
            size,
            limit,
            lost: 0,
        }))))
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
}

/// The end of a log, at most `lines` lines, across both files.
pub(crate) fn tail(path: &Path, lines: usize) -> io::Result<String> {
    let mut text = match std::fs::read(older(path)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    text.extend(std::fs::read(path)?);
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    Ok(all[all.len().saturating_sub(lines)..].join("\n"))
}

fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

impl Current {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + line.len() as u64 > self.limit {
            std::fs::rename(&self.path, older(&self.path))?;
            self.file = append(&self.path)?;
            self.size = 0;
        }
        if self.lost > 0 {
            // The last line before may be torn.
            let note = format!(
                "\n{} lines are missing here: the log could not be written\n",
                self.lost
            );
            self.file.write_all(note.as_bytes())?;
            self.size += note.len() as u64;
            self.lost = 0;
        }
        // The formatter hands over a whole line at once; a short write would tear it.
        self.file.write_all(line)?;
        self.size += line.len() as u64;
        Ok(())
    }
}

impl Write for &LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Never an error: the logging library would report it on an output on the same full disk, and panic.
        if current.line(line).is_err() {
            current.lost += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writer for one event.
pub(crate) struct Line<'a>(&'a LogFile);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        (&mut &*self.0).write(line)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Line<'a>;
    fn make_writer(&'a self) -> Self::Writer {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_costs_lines_and_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serve.log");
        let log = LogFile::open(&path).unwrap();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let good = std::mem::replace(&mut log.0.lock().unwrap().file, full);
        for _ in 0..3 {
            (&log).write_all(b"gone\n").unwrap();
        }
        log.0.lock().unwrap().file = good;
        (&log).write_all(b"again\n").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "\n3 lines are missing here: the log could not be written\nagain\n"
        );
    }

    #[test]
    fn the_log_stays_bounded_and_keeps_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serve.log");
        let log = LogFile::with_limit(&path, 100).unwrap();
        for i in 0..100 {
            (&log).write_all(format!("line {i:>3}\n").as_bytes()).unwrap();
        }
        let size = |path: &Path| std::fs::metadata(path).unwrap().len();
        assert!(size(&path) <= 100 && size(&older(&path)) <= 100);
        let end = tail(&path, 5).unwrap();
        assert_eq!(
            end.lines().collect::<Vec<_>>(),
            ["line  95", "line  96", "line  97", "line  98", "line  99"]
        );
        assert!(tail(&path, 1_000).unwrap().lines().count() <= 22);
    }
}
