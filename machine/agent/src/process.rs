//! Child processes and their logs.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File},
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::{
    sys::{
        prctl,
        signal::{SigSet, Signal},
    },
    unistd::getpid,
};

use crate::Paths;

/// Above this size a log is moved aside, at the start of its process and at intervals.
const LOG_LIMIT: u64 = 10 * 1024 * 1024;

/// The PATH of a child whose configuration sets none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts a child in its own process group, its output appended to its log. Returns its process id, or an
/// error.
pub fn start(
    paths: &Paths,
    log: &str,
    argv: &[String],
    env: &BTreeMap<String, String>,
) -> Result<u32, String> {
    let (program, arguments) = argv.split_first().ok_or("there is no program")?;
    let log = paths.log(log);
    bound(&log);
    let output = open(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let errors = output.try_clone().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .envs(env)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0);
    let first = getpid().as_raw() == 1;
    #[expect(unsafe_code, reason = "nothing else reaches between fork and exec")]
    // SAFETY: between fork and exec; both calls are plain system calls that allocate nothing and take no lock.
    unsafe {
        command.pre_exec(move || {
            // The standard library passes on the agent's own mask, with SIGTERM blocked, and every container
            // would inherit it.
            SigSet::empty().thread_set_mask()?;
            if !first {
                // For a first process of a pid namespace, the kernel ensures that no process outlives it.
                prctl::set_pdeathsig(Signal::SIGKILL)?;
            }
            Ok(())
        });
    }
    // The handle is dropped on purpose: the loop reaps every child, own and inherited ones, by process id.
    command
        .spawn()
        .map(|child| child.id())
        .map_err(|error| format!("cannot start {program}: {error}"))
}

fn open(log: &Path) -> std::io::Result<File> {
    if let Some(directory) = log.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(log)
}

/// Limits the size of a log: its end is copied aside, and the file, which the process keeps open for
/// appending, is truncated.
pub fn bound(log: &Path) {
    let Ok(found) = fs::metadata(log) else { return };
    if found.len() <= LOG_LIMIT {
        return;
    }
    let aside = log.with_extension("log.1");
    // Losing a log is better than a full disk.
    if keep_end(log, found.len(), &aside).is_err() {
        let _not_there = fs::remove_file(&aside);
    }
    let _unwritable = fs::OpenOptions::new().write(true).truncate(true).open(log);
}

fn keep_end(log: &Path, length: u64, aside: &Path) -> std::io::Result<()> {
    let mut from = File::open(log)?;
    from.seek(SeekFrom::Start(length.saturating_sub(LOG_LIMIT)))?;
    let mut to = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o640)
        .open(aside)?;
    std::io::copy(&mut from.take(LOG_LIMIT), &mut to).map(drop)
}

/// Appends a line to a log.
pub(crate) fn append(log: &Path, line: &str) -> std::io::Result<()> {
    bound(log);
    open(log)?.write_all(format!("{line}\n").as_bytes())
}

/// The last lines of a log; at most the last mebibyte of it.
pub fn tail(log: &Path, lines: usize) -> std::io::Result<Vec<String>> {
    const WINDOW: u64 = 1024 * 1024;
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(WINDOW)))?;
    let mut bytes = Vec::new();
    file.take(WINDOW).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    Ok(all[all.len().saturating_sub(lines)..]
        .iter()
        .map(|line| (*line).to_owned())
        .collect())
}

/// The lines with a text in a log and in what a program has set aside of it (`audit-2026-01-31T….log` beside `audit.log`): the newest `most`, at
/// most four mebibytes of them, oldest first.
pub fn lines_with(log: &Path, text: &str, most: usize) -> std::io::Result<Vec<String>> {
    const LARGEST: usize = 4 * 1024 * 1024;
    let mut files = set_aside(log)?;
    files.push(log.to_owned());
    let (mut found, mut size) = (VecDeque::new(), 0);
    for file in files {
        let mut lines = BufReader::new(match File::open(&file) {
            // Removed since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound && file != log => continue,
            opened => opened?,
        });
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            let told = String::from_utf8_lossy(&line);
            let told = told.trim_end();
            if told.contains(text) {
                size += told.len();
                found.push_back(told.to_owned());
            }
            while found.len() > most || size > LARGEST {
                size -= found.pop_front().map_or(0, |oldest: String| oldest.len());
            }
            line.clear();
        }
    }
    Ok(found.into())
}

/// What a program has set aside of a log, by the time in its name, oldest first.
fn set_aside(log: &Path) -> std::io::Result<Vec<PathBuf>> {
    let name = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let own = format!("{}-", name(log).unwrap_or_default());
    let mut files = Vec::new();
    for entry in fs::read_dir(log.parent().unwrap_or(Path::new("/")))? {
        let path = entry?.path();
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        let stem = name(&path).unwrap_or_default();
        let time = stem.strip_prefix(own.as_str()).unwrap_or_default();
        if is_log && time.starts_with(|first: char| first.is_ascii_digit()) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_moved_aside() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("x.log");
        let mut content = vec![b'x'; usize::try_from(LOG_LIMIT).unwrap() + 7];
        content.extend(b"end");
        fs::write(&log, content).unwrap();
        bound(&log);
        assert_eq!(fs::metadata(&log).unwrap().len(), 0);
        let aside = directory.path().join("x.log.1");
        assert_eq!(fs::metadata(&aside).unwrap().len(), LOG_LIMIT);
        assert_eq!(tail(&aside, 1).unwrap()[0].len(), 1024 * 1024);
        assert!(tail(&aside, 1).unwrap()[0].ends_with("xend"));
    }

    #[test]
    fn lines_with_a_text_are_found_in_what_was_set_aside_as_well() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| fs::write(directory.path().join(name), content).unwrap();
        file("audit-2026-01-02T00-00-00.000.log", "3 support\n4 other\n");
        file("audit-2026-01-01T00-00-00.000.log", "1 support\n2 other\n");
        file("audit-tool.log", "x support\n");
        file("audit.log", "5 other\n6 support");
        let log = directory.path().join("audit.log");
        assert_eq!(
            lines_with(&log, "support", 10).unwrap(),
            ["1 support", "3 support", "6 support"]
        );
        assert_eq!(
            lines_with(&log, "support", 2).unwrap(),
            ["3 support", "6 support"]
        );
        assert!(lines_with(&log, "nobody", 2).unwrap().is_empty());
        assert!(lines_with(&directory.path().join("none.log"), "x", 2).is_err());
    }

    #[test]
    fn the_tail_is_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("x.log");
        fs::write(&log, "a\nb\nc\n").unwrap();
        assert_eq!(tail(&log, 2).unwrap(), ["b", "c"]);
        assert_eq!(tail(&log, 9).unwrap(), ["a", "b", "c"]);
    }
}
