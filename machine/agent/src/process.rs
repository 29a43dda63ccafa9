//! Child processes and their logs.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::Path,
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
    fn the_tail_is_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("x.log");
        fs::write(&log, "a\nb\nc\n").unwrap();
        assert_eq!(tail(&log, 2).unwrap(), ["b", "c"]);
        assert_eq!(tail(&log, 9).unwrap(), ["a", "b", "c"]);
    }
}
